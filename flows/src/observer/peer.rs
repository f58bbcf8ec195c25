//! `peer.Peer`: tells a relay which nodes there are. This node knows of itself.

use futures::stream;
use proto::peer::{ChangeNotification, ChangeNotificationType, NotifyRequest, peer_server::Peer};
use tonic::{Request, Response, Status};

use super::{Answers, Observer, convert};

#[tonic::async_trait]
impl Peer for Observer {
    type NotifyStream = Answers<ChangeNotification>;

    async fn notify(&self, request: Request<NotifyRequest>) -> Result<Response<Self::NotifyStream>, Status> {
        let NotifyRequest {} = request.into_inner();
        let myself = ChangeNotification {
            name: convert::node_name(self.pipeline.node()),
            address: self.config.address.clone(),
            r#type: ChangeNotificationType::PeerAdded as i32,
            tls: None,
        };
        Ok(Response::new(self.then_silence(stream::iter([Ok(myself)]))))
    }
}
