//! A daemon that gives the answers it was given, and a way to run the binary against it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use proto::{
    bulkhead::admin::v1::{
        CountersRequest, CountersResponse, DumpMapsRequest, ExplainRequest, ExplainResponse, FlowStatsRequest,
        FlowStatsResponse, GetEndpointRequest, GetEndpointResponse, GetPolicyRequest, GetPolicyResponse,
        ListEndpointsRequest, ListEndpointsResponse, ListIdentitiesRequest, ListIdentitiesResponse,
        ListPoliciesRequest, ListPoliciesResponse, ListServicesRequest, ListServicesResponse, MapEntry, StatusRequest,
        StatusResponse,
        admin_server::{Admin, AdminServer},
    },
    observer::{
        GetAgentEventsRequest, GetAgentEventsResponse, GetDebugEventsRequest, GetDebugEventsResponse, GetFlowsRequest,
        GetFlowsResponse, GetNamespacesRequest, GetNamespacesResponse, GetNodesRequest, GetNodesResponse,
        ServerStatusRequest, ServerStatusResponse,
        observer_server::{Observer, ObserverServer},
    },
};
use tempfile::TempDir;
use tokio::{net::UnixListener, runtime::Runtime};
use tokio_stream::{StreamExt, wrappers::UnixListenerStream};
use tonic::{Request, Response, Status, codegen::BoxStream, transport::Server};

/// What the daemon answers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answers {
    pub(crate) status: StatusResponse,
    pub(crate) endpoints: ListEndpointsResponse,
    pub(crate) endpoint: GetEndpointResponse,
    pub(crate) identities: ListIdentitiesResponse,
    pub(crate) policies: ListPoliciesResponse,
    pub(crate) policy: GetPolicyResponse,
    pub(crate) services: ListServicesResponse,
    pub(crate) explain: ExplainResponse,
    pub(crate) counters: CountersResponse,
    pub(crate) flow_stats: FlowStatsResponse,
    pub(crate) maps: Vec<MapEntry>,
    pub(crate) flows: Vec<GetFlowsResponse>,
    /// Between one flow and the next.
    pub(crate) pace: Duration,
    /// Comes behind the flows, as an error in the stream.
    pub(crate) flows_end: Option<Status>,
    /// Instead of any answer.
    pub(crate) refuse: Option<Status>,
}

/// What was asked, in words that a test can compare.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) admin: Arc<Mutex<Vec<String>>>,
    pub(crate) flows: Arc<Mutex<Vec<GetFlowsRequest>>>,
}

#[derive(Clone, Debug)]
struct Service {
    answers: Arc<Answers>,
    asked: Asked,
}

impl Service {
    fn answer<T, A>(&self, request: &Request<T>, answer: A) -> Result<Response<A>, Status>
    where
        T: std::fmt::Debug,
    {
        self.asked.admin.lock().unwrap().push(format!("{:?}", request.get_ref()));
        match &self.answers.refuse {
            Some(status) => Err(status.clone()),
            None => Ok(Response::new(answer)),
        }
    }
}

#[tonic::async_trait]
impl Admin for Service {
    type DumpMapsStream = BoxStream<MapEntry>;

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        self.answer(&request, self.answers.status.clone())
    }
    async fn list_endpoints(
        &self,
        request: Request<ListEndpointsRequest>,
    ) -> Result<Response<ListEndpointsResponse>, Status> {
        self.answer(&request, self.answers.endpoints.clone())
    }
    async fn get_endpoint(
        &self,
        request: Request<GetEndpointRequest>,
    ) -> Result<Response<GetEndpointResponse>, Status> {
        self.answer(&request, self.answers.endpoint.clone())
    }
    async fn list_identities(
        &self,
        request: Request<ListIdentitiesRequest>,
    ) -> Result<Response<ListIdentitiesResponse>, Status> {
        self.answer(&request, self.answers.identities.clone())
    }
    async fn list_policies(
        &self,
        request: Request<ListPoliciesRequest>,
    ) -> Result<Response<ListPoliciesResponse>, Status> {
        self.answer(&request, self.answers.policies.clone())
    }
    async fn list_services(
        &self,
        request: Request<ListServicesRequest>,
    ) -> Result<Response<ListServicesResponse>, Status> {
        self.answer(&request, self.answers.services.clone())
    }
    async fn get_policy(&self, request: Request<GetPolicyRequest>) -> Result<Response<GetPolicyResponse>, Status> {
        self.answer(&request, self.answers.policy.clone())
    }
    async fn explain(&self, request: Request<ExplainRequest>) -> Result<Response<ExplainResponse>, Status> {
        self.answer(&request, self.answers.explain.clone())
    }
    async fn counters(&self, request: Request<CountersRequest>) -> Result<Response<CountersResponse>, Status> {
        self.answer(&request, self.answers.counters.clone())
    }
    async fn flow_stats(&self, request: Request<FlowStatsRequest>) -> Result<Response<FlowStatsResponse>, Status> {
        self.answer(&request, self.answers.flow_stats.clone())
    }
    async fn dump_maps(&self, request: Request<DumpMapsRequest>) -> Result<Response<Self::DumpMapsStream>, Status> {
        let entries = self.answers.maps.clone().into_iter().map(Ok);
        self.answer(&request, Box::pin(tokio_stream::iter(entries)))
    }
}

#[tonic::async_trait]
impl Observer for Service {
    type GetFlowsStream = BoxStream<GetFlowsResponse>;
    type GetAgentEventsStream = BoxStream<GetAgentEventsResponse>;
    type GetDebugEventsStream = BoxStream<GetDebugEventsResponse>;

    async fn get_flows(&self, request: Request<GetFlowsRequest>) -> Result<Response<Self::GetFlowsStream>, Status> {
        let request = request.into_inner();
        let follow = request.follow;
        self.asked.flows.lock().unwrap().push(request);
        if let Some(status) = &self.answers.refuse {
            return Err(status.clone());
        }
        let end = self.answers.flows_end.clone().map(Err);
        let flows = tokio_stream::iter(self.answers.flows.clone().into_iter().map(Ok).chain(end));
        let pace = self.answers.pace;
        let flows = flows.then(move |flow| async move {
            tokio::time::sleep(pace).await;
            flow
        });
        Ok(Response::new(if follow { Box::pin(flows.chain(tokio_stream::pending())) } else { Box::pin(flows) }))
    }
    async fn get_agent_events(
        &self,
        _: Request<GetAgentEventsRequest>,
    ) -> Result<Response<Self::GetAgentEventsStream>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn get_debug_events(
        &self,
        _: Request<GetDebugEventsRequest>,
    ) -> Result<Response<Self::GetDebugEventsStream>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn get_nodes(&self, _: Request<GetNodesRequest>) -> Result<Response<GetNodesResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn get_namespaces(
        &self,
        _: Request<GetNamespacesRequest>,
    ) -> Result<Response<GetNamespacesResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn server_status(&self, _: Request<ServerStatusRequest>) -> Result<Response<ServerStatusResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// How a run of the binary ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The binary with these arguments, in an environment that is the same everywhere.
pub(crate) fn bulkhead(socket: &Path, args: &[&str]) -> Command {
    bulkhead_at(Path::new(env!("CARGO_BIN_EXE_bulkhead")), socket, args)
}

/// The same with another copy of the binary.
pub(crate) fn bulkhead_at(binary: &Path, socket: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(binary);
    command.env_clear().env("COLUMNS", "100").env("BULKHEAD_SERVER", format!("unix://{}", socket.display()));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs to the end. The socket's path is replaced by SOCKET, which is the same everywhere.
pub(crate) fn run(socket: &Path, args: &[&str]) -> Ended {
    finish(bulkhead(socket, args), socket)
}

/// Runs a command of [`bulkhead`] to the end.
pub(crate) fn finish(mut command: Command, socket: &Path) -> Ended {
    let output = command.output().expect("the binary starts");
    let text = |bytes: Vec<u8>| {
        String::from_utf8(bytes).expect("output is UTF-8").replace(&socket.display().to_string(), "SOCKET")
    };
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// A running daemon. Dropping it closes every connection and removes its socket.
#[derive(Debug)]
pub(crate) struct Fake {
    runtime: Option<Runtime>,
    dir: TempDir,
    pub(crate) asked: Asked,
}

impl Fake {
    /// Starts one that answers so.
    pub(crate) fn start(answers: Answers) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let asked = Asked::default();
        let service = Service { answers: Arc::new(answers), asked: asked.clone() };
        let listener = {
            let _inside = runtime.enter();
            UnixListener::bind(dir.path().join("api.sock")).expect("a socket")
        };
        runtime.spawn(
            Server::builder()
                .add_service(AdminServer::new(service.clone()))
                .add_service(ObserverServer::new(service))
                .serve_with_incoming(UnixListenerStream::new(listener)),
        );
        Self { runtime: Some(runtime), dir, asked }
    }

    /// Its socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("api.sock")
    }

    /// Runs the binary against it.
    pub(crate) fn run(&self, args: &[&str]) -> Ended {
        run(&self.socket(), args)
    }

    /// Stops answering, as a killed process would: connections break, the socket stays.
    pub(crate) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Compares with a file in `testdata/`, or writes it with UPDATE_GOLDEN=1.
pub(crate) fn assert_golden(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        fs::create_dir_all(path.parent().expect("testdata/ is above")).unwrap();
        fs::write(&path, actual).unwrap();
        return;
    }
    let expected = fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; UPDATE_GOLDEN=1 writes it", path.display()));
    assert!(
        expected == actual,
        "{} differs (UPDATE_GOLDEN=1 rewrites it)\n--- expected\n{expected}\n--- actual\n{actual}",
        path.display()
    );
}
