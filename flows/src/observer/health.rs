//! `grpc.health.v1.Health`. `hubble status` asks it first, for `hubble.server.Observer`.

use futures::stream;
use proto::grpc::health::v1::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_server::Health,
};
use tonic::{Request, Response, Status};

use super::{Answers, Observer};

/// Names that the health service knows; the empty one is the server as a whole. The second is
/// what clients of the Hubble API ask for, the others are the real names.
pub const SERVICES: [&str; 4] = ["", "hubble.server.Observer", "observer.Observer", "peer.Peer"];

fn status(service: &str) -> Option<ServingStatus> {
    SERVICES.contains(&service).then_some(ServingStatus::Serving)
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status as i32 }
}

#[tonic::async_trait]
impl Health for Observer {
    type WatchStream = Answers<HealthCheckResponse>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let HealthCheckRequest { service } = request.into_inner();
        match status(&service) {
            Some(status) => Ok(Response::new(answer(status))),
            None => Err(Status::not_found("unknown service")),
        }
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let HealthCheckRequest { service } = request.into_inner();
        let status = status(&service).unwrap_or(ServingStatus::ServiceUnknown);
        Ok(Response::new(self.then_silence(stream::iter([Ok(answer(status))]))))
    }
}
