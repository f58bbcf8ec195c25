//! `observer.Observer`: what each method answers.

use futures::stream;
use proto::{
    observer::{
        GetAgentEventsRequest, GetAgentEventsResponse, GetDebugEventsRequest, GetDebugEventsResponse, GetFlowsRequest,
        GetFlowsResponse, GetNamespacesRequest, GetNamespacesResponse, GetNodesRequest, GetNodesResponse, Namespace,
        Node, ServerStatusRequest, ServerStatusResponse, observer_server,
    },
    relay::NodeState,
};
use tonic::{Request, Response, Status};

use crate::{
    clock::unix_ns,
    pipeline::NAMESPACE_SEEN_NS,
    ring::{Entry, Found, Ring},
};

use super::{
    Answers, Caller, Observer, audit,
    convert::{self, ExtensionForm},
    reader::{Pass, Reader},
    request::{Query, Range, RequestError},
};

/// Columns that a client may ask for.
const MOST_COLUMNS: usize = 1024;

impl From<RequestError> for Status {
    fn from(error: RequestError) -> Self {
        Status::invalid_argument(error.to_string())
    }
}

#[tonic::async_trait]
impl observer_server::Observer for Observer {
    type GetFlowsStream = Answers<GetFlowsResponse>;
    type GetAgentEventsStream = Answers<GetAgentEventsResponse>;
    type GetDebugEventsStream = Answers<GetDebugEventsResponse>;

    async fn get_flows(&self, request: Request<GetFlowsRequest>) -> Result<Response<Self::GetFlowsStream>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        let asked = request.into_inner();
        let mut query = Query::try_from(asked.clone())?;
        if let Some(columns) = asked.extensions.as_ref().and_then(convert::wanted_columns) {
            let columns = columns.map_err(|error| Status::invalid_argument(format!("extensions: {error}")))?;
            query.form = self.rows(&columns)?;
        }
        let most = self.config.max_readers;
        let Some(pass) = Pass::take(self.pipeline.ledger(), most) else {
            let why = format!("{most} clients read flows already; end one of them");
            audit::refused(caller.as_ref(), &why);
            return Err(Status::resource_exhausted(why));
        };
        let past = self.past.clone().map(|past| (past, self.walks.clone()));
        let reader = Reader::start(self.pipeline.ring(), self.pipeline.node().clone(), query, pass, past).await?;
        audit::begins(caller.as_ref(), &asked);
        let answers = stream::unfold(reader, |mut reader| async move {
            let answer = reader.next().await?;
            Some((Ok(answer), reader))
        });
        Ok(Response::new(self.until_closed(answers)))
    }

    async fn get_agent_events(
        &self,
        request: Request<GetAgentEventsRequest>,
    ) -> Result<Response<Self::GetAgentEventsStream>, Status> {
        let range = Range::try_from(request.into_inner())?;
        Ok(Response::new(self.no_events(range)))
    }

    async fn get_debug_events(
        &self,
        request: Request<GetDebugEventsRequest>,
    ) -> Result<Response<Self::GetDebugEventsStream>, Status> {
        let range = Range::try_from(request.into_inner())?;
        Ok(Response::new(self.no_events(range)))
    }

    async fn get_nodes(&self, request: Request<GetNodesRequest>) -> Result<Response<GetNodesResponse>, Status> {
        let GetNodesRequest {} = request.into_inner();
        let ring = self.pipeline.ring();
        let myself = Node {
            name: convert::node_name(self.pipeline.node()),
            version: self.config.version.clone(),
            address: self.config.address.clone(),
            state: NodeState::NodeConnected as i32,
            tls: None,
            uptime_ns: self.uptime_ns(),
            num_flows: ring.len(),
            max_flows: ring.capacity(),
            seen_flows: self.pipeline.recorded(),
        };
        Ok(Response::new(GetNodesResponse { nodes: vec![myself] }))
    }

    async fn get_namespaces(
        &self,
        request: Request<GetNamespacesRequest>,
    ) -> Result<Response<GetNamespacesResponse>, Status> {
        let GetNamespacesRequest {} = request.into_inner();
        let cluster = &self.pipeline.node().cluster;
        let names = self.pipeline.namespaces(unix_ns().saturating_sub(NAMESPACE_SEEN_NS));
        let namespaces = names.into_iter().map(|namespace| Namespace { cluster: cluster.clone(), namespace }).collect();
        Ok(Response::new(GetNamespacesResponse { namespaces }))
    }

    async fn server_status(
        &self,
        request: Request<ServerStatusRequest>,
    ) -> Result<Response<ServerStatusResponse>, Status> {
        let ServerStatusRequest {} = request.into_inner();
        let ring = self.pipeline.ring();
        Ok(Response::new(ServerStatusResponse {
            num_flows: ring.len(),
            max_flows: ring.capacity(),
            seen_flows: self.pipeline.recorded(),
            uptime_ns: self.uptime_ns(),
            num_connected_nodes: Some(1),
            num_unavailable_nodes: Some(0),
            unavailable_nodes: Vec::new(),
            version: self.config.version.clone(),
            flows_rate: rate(ring, unix_ns()).await,
        }))
    }
}

impl Observer {
    /// The form of rows of these columns.
    fn rows(&self, columns: &[String]) -> Result<ExtensionForm, Status> {
        let former = self.former.ok_or_else(|| Status::unimplemented("extensions: there are no rows here"))?;
        if columns.len() > MOST_COLUMNS {
            return Err(Status::invalid_argument(format!("extensions: {MOST_COLUMNS} columns are the most")));
        }
        Ok(ExtensionForm::Row(former(columns)))
    }

    /// The stream of a kind of event that we do not record: ends at once, or stays silent.
    fn no_events<T: Send + 'static>(&self, range: Range) -> Answers<T> {
        if range.follow { self.then_silence(stream::empty()) } else { self.until_closed(stream::empty()) }
    }
}

/// Records per second over the last minute, or over what the ring holds of it.
async fn rate(ring: &Ring, now_unix_ns: u64) -> f64 {
    const WINDOW_NS: u64 = 60 * 1_000_000_000;
    const TURN: u64 = 512;
    let since = now_unix_ns.saturating_sub(WINDOW_NS);
    let (mut count, mut oldest) = (0u32, now_unix_ns);
    let mut position = ring.head();
    let mut window = WINDOW_NS;
    while position > 0 {
        position -= 1;
        if position.is_multiple_of(TURN) {
            tokio::task::yield_now().await;
        }
        match ring.get(position) {
            Found::Entry(Entry::Flow(record)) if record.time_unix_ns < since => break,
            Found::Entry(Entry::Flow(record)) => {
                count = count.saturating_add(1);
                oldest = record.time_unix_ns;
            }
            Found::Entry(Entry::Lost(_)) | Found::NotYet => {}
            Found::Gone => {
                window = now_unix_ns.saturating_sub(oldest).max(1);
                break;
            }
        }
    }
    f64::from(count) * 1e9 / window as f64
}
