//! One gRPC call over the daemon's unix socket, with a deadline.
//!
//! A current-thread runtime per call: a plugin process makes one. Nothing is retried here; the
//! runtime retries the whole operation and knows for how long.

use std::{
    error::Error,
    future::Future,
    time::{Duration, Instant},
};

use proto::bulkhead::cni::v1::{
    AddReply, AddRequest, CheckReply, CheckRequest, DelReply, DelRequest, GcReply, GcRequest, StatusReply,
    StatusRequest, cni_client::CniClient,
};
use tonic::{
    Code, Request, Response, Status,
    transport::{Channel, Endpoint},
};

/// Where the daemon is, and how long it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) socket: String,
    pub(crate) timeout: Duration,
}

/// The daemon, as the plugin sees it.
pub(crate) trait Daemon {
    fn add(&self, to: &Target, request: AddRequest) -> Result<AddReply, CallError>;
    fn del(&self, to: &Target, request: DelRequest) -> Result<DelReply, CallError>;
    fn check(&self, to: &Target, request: CheckRequest) -> Result<CheckReply, CallError>;
    fn gc(&self, to: &Target, request: GcRequest) -> Result<GcReply, CallError>;
    fn status(&self, to: &Target, request: StatusRequest) -> Result<StatusReply, CallError>;
}

/// A call that brought no outcome.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("bulkhead-daemon cannot be reached on {socket}: {cause}")]
    Unreachable { socket: String, cause: String },
    #[error("bulkhead-daemon went away during the call on {socket}: {cause}")]
    Broken { socket: String, cause: String },
    #[error("bulkhead-daemon did not answer on {socket} within {} s", .after.as_secs())]
    Timeout { socket: String, after: Duration },
    #[error("bulkhead-daemon on {socket} does not know this call")]
    Unimplemented { socket: String },
    #[error("bulkhead-daemon on {socket} failed: {code:?}: {message}")]
    Status { socket: String, code: Code, message: String },
    #[error("bulkhead-daemon on {socket} answered without an outcome")]
    Empty { socket: String },
    #[error("cannot start the runtime for the call: {0}")]
    Runtime(std::io::Error),
}

impl CallError {
    /// Whether the daemon was not there to take the request to its end.
    pub(crate) const fn is_absence(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } | Self::Timeout { .. } => true,
            Self::Unimplemented { .. } | Self::Status { .. } | Self::Empty { .. } | Self::Runtime(_) => false,
        }
    }

    /// What to do about it.
    pub(crate) fn fix(&self) -> String {
        match self {
            Self::Unreachable { .. } => {
                "start bulkhead-daemon, or set \"socket\" in the network configuration to where it listens".to_owned()
            }
            Self::Broken { .. } | Self::Status { .. } | Self::Empty { .. } => {
                "see the log of bulkhead-daemon".to_owned()
            }
            Self::Timeout { .. } => {
                "see the log of bulkhead-daemon, or raise \"timeoutSeconds\" in the network configuration".to_owned()
            }
            Self::Unimplemented { .. } => "upgrade bulkhead-daemon: it is older than bulkhead-cni".to_owned(),
            Self::Runtime(_) => String::new(),
        }
    }
}

/// The real one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grpc;

impl Daemon for Grpc {
    fn add(&self, to: &Target, request: AddRequest) -> Result<AddReply, CallError> {
        call(to, request, async |mut client, request| client.add(request).await)
    }

    fn del(&self, to: &Target, request: DelRequest) -> Result<DelReply, CallError> {
        call(to, request, async |mut client, request| client.del(request).await)
    }

    fn check(&self, to: &Target, request: CheckRequest) -> Result<CheckReply, CallError> {
        call(to, request, async |mut client, request| client.check(request).await)
    }

    fn gc(&self, to: &Target, request: GcRequest) -> Result<GcReply, CallError> {
        call(to, request, async |mut client, request| client.gc(request).await)
    }

    fn status(&self, to: &Target, request: StatusRequest) -> Result<StatusReply, CallError> {
        call(to, request, async |mut client, request| client.status(request).await)
    }
}

/// Connects, sends, waits.
fn call<Q, A, F>(
    to: &Target,
    request: Q,
    send: impl FnOnce(CniClient<Channel>, Request<Q>) -> F,
) -> Result<A, CallError>
where
    F: Future<Output = Result<Response<A>, Status>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CallError::Runtime)?;
    let timed = async {
        let work = async {
            let channel = connect(to).await?;
            let mut request = Request::new(request);
            // Tells the daemon, too: it need not finish what nobody waits for.
            request.set_timeout(to.timeout);
            let reply = send(CniClient::new(channel), request).await;
            reply.map(Response::into_inner).map_err(|status| from_status(to, &status))
        };
        tokio::time::timeout(to.timeout, work).await
    };
    let start = Instant::now();
    match runtime.block_on(timed) {
        // The same deadline also runs in tonic, on both sides; whose alarm goes off first is chance.
        Err(_) => Err(timeout(to)),
        Ok(Err(error)) if error.is_absence() && start.elapsed() >= to.timeout => Err(timeout(to)),
        Ok(outcome) => outcome,
    }
}

async fn connect(to: &Target) -> Result<Channel, CallError> {
    let unreachable = |cause| CallError::Unreachable { socket: to.socket.clone(), cause };
    let endpoint = Endpoint::from_shared(format!("unix:{}", to.socket)).map_err(|e| unreachable(root_cause(&e)))?;
    endpoint.connect().await.map_err(|e| unreachable(root_cause(&e)))
}

/// A status with a source was made on this side, from a connection that broke; one without came
/// from the daemon.
fn from_status(to: &Target, status: &Status) -> CallError {
    let socket = to.socket.clone();
    if status.source().is_some() {
        return CallError::Broken { socket, cause: root_cause(status) };
    }
    match status.code() {
        Code::DeadlineExceeded => timeout(to),
        Code::Unavailable | Code::Cancelled => CallError::Broken { socket, cause: status.message().to_owned() },
        Code::Unimplemented => CallError::Unimplemented { socket },
        code => CallError::Status { socket, code, message: status.message().to_owned() },
    }
}

fn timeout(to: &Target) -> CallError {
    CallError::Timeout { socket: to.socket.clone(), after: to.timeout }
}

/// The end of the chain: "No such file or directory", not "transport error".
fn root_cause(error: &dyn Error) -> String {
    let mut last = error;
    while let Some(next) = last.source() {
        last = next;
    }
    last.to_string()
}
