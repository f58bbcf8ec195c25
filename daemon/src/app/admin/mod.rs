//! What operators and scrapers may ask the daemon, answered from what the engine, the source, the
//! programs' counters and the flow pipeline say. Changes nothing. One file for each noun of
//! `bulkhead.admin.v1`; `convert` has the words they share, `figures` is what metrics are made of.
//!
//! ```text
//!   request -- check --> Engine::ask(copy out what is needed) --> work it out here --> answer
//! ```
//!
//! The engine's thread is the one that puts rules in force, so a question only copies; whatever
//! takes time happens on the asker's side, and only so many askers are served at once.

mod conditions;
mod convert;
mod counters;
mod dump;
mod endpoints;
mod explain;
mod figures;
mod found;
mod identities;
mod ledger;
mod policies;
mod services;
mod status;
mod words;

use std::{
    collections::BTreeMap,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use datapath_abi::{
    control::SweepReport,
    maps::{Counter, Scalar},
};
use flows::pipeline::Pipeline;
use futures::future::BoxFuture;
use ipnetwork::IpNetwork;
use proto::bulkhead::admin::v1 as pb;
use proto::bulkhead::admin::v1::admin_server::{Admin, AdminServer};
use tokio::sync::{Semaphore, SemaphorePermit, oneshot, watch};
use tonic::{Request, Response, Status};

use super::{
    attachments::guard::PutBackFigures,
    engine::{Engine, EngineError, State},
    gate::GateState,
};
use crate::{
    datapath::{
        connections::{Dumped, Table},
        maps::Counts,
    },
    reconcile::EndpointKey,
    source::{SourceStatus, kubernetes::registry::RegistryFigures},
};

/// Largest request that is read: a few names.
const MAX_REQUEST_BYTES: usize = 64 << 10;
/// Requests that are worked on at the same time; more wait.
const MAX_AT_ONCE: usize = 4;
/// How long the engine may take to answer. It is longer only when it is in the middle of a very
/// large plan.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same for probes and scrapes, whose clients do not wait for long.
const PROBE_PATIENCE: Duration = Duration::from_secs(3);

/// What does not change while the daemon runs.
#[derive(Clone, PartialEq, Debug)]
pub struct Facts {
    /// Version of the release.
    pub version: String,
    /// Commit it was built from, empty if unknown.
    pub commit: String,
    /// datapath-abi's version.
    pub abi_version: u32,
    /// Name of this node.
    pub node: String,
    /// Kernel release, as `uname -r` says it.
    pub kernel: String,
    /// How programs are attached: tcx or clsact.
    pub attach_mode: String,
    /// Kind of new pods' interfaces: veth or netkit.
    pub device: String,
    /// Folder of the pins.
    pub pin_path: PathBuf,
    /// MTU given to pods.
    pub mtu: u32,
    /// How packets get to pods of other nodes, in words.
    pub routing: String,
    /// What was given to `--source`.
    pub source: String,
    /// When the daemon started.
    pub started: Instant,
    /// Capacity of each map by its name in datapath-abi.
    pub capacities: BTreeMap<String, u32>,
}

/// How far an attachment is, as its store knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// ADD is under way.
    Creating,
    /// ADD has succeeded.
    Attached,
    /// DEL is under way.
    Deleting,
    /// Its interface is gone and nobody has called DEL.
    Lost,
}

/// What only the store of attachments knows of an endpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EndpointExtra {
    /// Path of the container's network namespace.
    pub netns: String,
    /// Name of the interface on the host.
    pub host_ifname: String,
    /// When it became an endpoint.
    pub created: SystemTime,
    /// How far it is.
    pub stage: Stage,
}

/// A question to the engine.
pub type Question = Box<dyn FnOnce(&State) + Send>;

/// Who lets us look at the state: the engine, or a state of their own in tests.
pub trait Look: Send + Sync + 'static {
    /// Has `question` answered.
    fn look(&self, question: Question) -> BoxFuture<'_, Result<(), EngineError>>;
}

impl Look for Engine {
    fn look(&self, question: Question) -> BoxFuture<'_, Result<(), EngineError>> {
        Box::pin(self.ask(question))
    }
}

/// Who reads the programs' counters. Errors are words.
pub trait Tally: Send + Sync + 'static {
    /// Packets and bytes by hook and reason number, 0 for what passed.
    fn by_reason(&self) -> Result<Vec<(u32, u32, Counter)>, String>;
    /// One scalar, summed over CPUs.
    fn scalar(&self, scalar: Scalar) -> Result<u64, String>;
}

impl Tally for Mutex<Counts> {
    fn by_reason(&self) -> Result<Vec<(u32, u32, Counter)>, String> {
        let counts = self.lock().unwrap_or_else(PoisonError::into_inner);
        counts.by_reason().map_err(|error| error.to_string())
    }

    fn scalar(&self, scalar: Scalar) -> Result<u64, String> {
        let counts = self.lock().unwrap_or_else(PoisonError::into_inner);
        counts.scalar(scalar).map_err(|error| error.to_string())
    }
}

/// Reads up to so many entries of a table of connections or of FRAGMENTS; errors are words. May block for as long
/// as that takes.
pub type Connections = dyn Fn(Table, usize) -> Result<Dumped, String> + Send + Sync;
/// Tells the ranges of pod addresses, with how many are used and free ([`u64::MAX`]: more than
/// that).
pub type PoolUsage = dyn Fn() -> Vec<(IpNetwork, u64, u64)> + Send + Sync;
/// Tells the interface that leads out of the node now; `None`: there is none.
pub type UplinkName = dyn Fn() -> BoxFuture<'static, Option<String>> + Send + Sync;
/// Tells what only the store of attachments knows.
pub type Extras = dyn Fn(&EndpointKey) -> Option<EndpointExtra> + Send + Sync;

/// Tells how often programs were put back on pods' interfaces.
pub type PutBack = dyn Fn() -> PutBackFigures + Send + Sync;

/// Tells of the numbers that the nodes of a cluster share; `None` without a cluster.
pub type Shared = dyn Fn() -> Option<RegistryFigures> + Send + Sync;

/// Everything the service looks at.
#[derive(Clone)]
pub struct AdminParts {
    /// What does not change.
    pub facts: Facts,
    /// The engine.
    pub engine: Arc<dyn Look>,
    /// The source, as it is now.
    pub source: watch::Receiver<Arc<SourceStatus>>,
    /// The programs' counters; an `Arc<Mutex<Counts>>` fits.
    pub counts: Arc<dyn Tally>,
    /// What the last sweep of connections found; `None` before the first.
    pub sweep: Arc<Mutex<Option<SweepReport>>>,
    /// The tables of connections; without it they cannot be dumped.
    pub connections: Option<Arc<Connections>>,
    /// The way out of the node.
    pub uplink: Arc<UplinkName>,
    /// Ranges of pod addresses.
    pub pools: Arc<PoolUsage>,
    /// Flow records.
    pub pipeline: Arc<Pipeline>,
    /// The store of attachments.
    pub extras: Arc<Extras>,
    /// The same store, of programs that somebody has removed.
    pub put_back: Arc<PutBack>,
    /// Numbers that the nodes of a cluster share.
    pub shared: Arc<Shared>,
    /// What keeps packets from pods of other nodes, in words.
    pub obstacles: watch::Receiver<Vec<String>>,
    /// What is kept out of the node, and where.
    pub gate: watch::Receiver<GateState>,
    /// What is wrong with the certificates of the flow API.
    pub flow_trouble: watch::Receiver<Option<String>>,
}

impl fmt::Debug for AdminParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminParts").field("facts", &self.facts).finish_non_exhaustive()
    }
}

/// Answers questions. Cheap to clone. Also the [`crate::telemetry::Source`] of metrics and health.
#[derive(Clone, Debug)]
pub struct AdminService {
    parts: Arc<AdminParts>,
    at_once: Arc<Semaphore>,
}

/// Why the engine gives no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
enum NoAnswer {
    /// It has ended.
    #[error("the daemon is shutting down: ask again when it runs")]
    Stopped,
    /// It is in the middle of something.
    #[error("the engine has not answered for {}s: it is busy, try again", .0.as_secs())]
    Busy(Duration),
    /// What was asked made the asking code panic.
    #[error("the question failed inside the daemon: this is a defect, see its log")]
    Defect,
}

impl From<NoAnswer> for Status {
    fn from(why: NoAnswer) -> Self {
        match why {
            NoAnswer::Stopped => Self::unavailable(why.to_string()),
            NoAnswer::Busy(_) => Self::deadline_exceeded(why.to_string()),
            NoAnswer::Defect => Self::internal(why.to_string()),
        }
    }
}

impl AdminService {
    /// A service that looks at these parts.
    pub fn new(parts: AdminParts) -> Self {
        Self { parts: Arc::new(parts), at_once: Arc::new(Semaphore::new(MAX_AT_ONCE)) }
    }

    /// `bulkhead.admin.v1.Admin`, to be mounted on the API socket.
    pub fn into_service(self) -> AdminServer<Self> {
        AdminServer::new(self).max_decoding_message_size(MAX_REQUEST_BYTES)
    }

    /// What `Status` answers, for who is in the same process.
    pub(super) async fn status_now(&self) -> Result<pb::StatusResponse, Status> {
        let _turn = self.turn().await;
        status::answer(self).await
    }

    /// Waits until it is this request's turn.
    async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.at_once.acquire().await.ok()
    }

    /// Has the engine copy something out.
    async fn ask<T: Send + 'static>(&self, look: impl FnOnce(&State) -> T + Send + 'static) -> Result<T, NoAnswer> {
        self.ask_within(PATIENCE, look).await
    }

    /// The same for those in a hurry. A panic in `look` must not take the engine along.
    async fn ask_within<T: Send + 'static>(
        &self,
        patience: Duration,
        look: impl FnOnce(&State) -> T + Send + 'static,
    ) -> Result<T, NoAnswer> {
        let (reply, answer) = oneshot::channel();
        let question: Question = Box::new(move |state| {
            let _ = reply.send(catch_unwind(AssertUnwindSafe(|| look(state))));
        });
        let asked = tokio::time::timeout(patience, async {
            self.parts.engine.look(question).await.map_err(|_| NoAnswer::Stopped)?;
            answer.await.map_err(|_| NoAnswer::Stopped)?.map_err(|_| NoAnswer::Defect)
        });
        asked.await.unwrap_or(Err(NoAnswer::Busy(patience)))
    }

    /// What the source says now.
    fn source(&self) -> Arc<SourceStatus> {
        self.parts.source.borrow().clone()
    }
}

/// Works something out on a thread that may take its time.
async fn work_out<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, NoAnswer> {
    tokio::task::spawn_blocking(work).await.map_err(|_| NoAnswer::Defect)
}

/// What objects are needed for is refused until all of them are known.
fn unless_synced(synced: bool) -> Result<(), Status> {
    if synced {
        return Ok(());
    }
    Err(Status::unavailable("the source has not been read completely yet: try again, or see `bulkhead status`"))
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn status(&self, request: Request<pb::StatusRequest>) -> Result<Response<pb::StatusResponse>, Status> {
        let pb::StatusRequest {} = request.into_inner();
        self.status_now().await.map(Response::new)
    }

    async fn list_endpoints(
        &self,
        request: Request<pb::ListEndpointsRequest>,
    ) -> Result<Response<pb::ListEndpointsResponse>, Status> {
        let _turn = self.turn().await;
        endpoints::list(self, request.into_inner()).await.map(Response::new)
    }

    async fn get_endpoint(
        &self,
        request: Request<pb::GetEndpointRequest>,
    ) -> Result<Response<pb::GetEndpointResponse>, Status> {
        let _turn = self.turn().await;
        endpoints::get(self, request.into_inner()).await.map(Response::new)
    }

    async fn list_identities(
        &self,
        request: Request<pb::ListIdentitiesRequest>,
    ) -> Result<Response<pb::ListIdentitiesResponse>, Status> {
        let _turn = self.turn().await;
        identities::list(self, request.into_inner()).await.map(Response::new)
    }

    async fn list_services(
        &self,
        request: Request<pb::ListServicesRequest>,
    ) -> Result<Response<pb::ListServicesResponse>, Status> {
        let _turn = self.turn().await;
        services::list(self, request.into_inner()).await.map(Response::new)
    }

    async fn list_policies(
        &self,
        request: Request<pb::ListPoliciesRequest>,
    ) -> Result<Response<pb::ListPoliciesResponse>, Status> {
        let _turn = self.turn().await;
        policies::list(self, request.into_inner()).await.map(Response::new)
    }

    async fn get_policy(
        &self,
        request: Request<pb::GetPolicyRequest>,
    ) -> Result<Response<pb::GetPolicyResponse>, Status> {
        let _turn = self.turn().await;
        policies::get(self, request.into_inner()).await.map(Response::new)
    }

    async fn explain(&self, request: Request<pb::ExplainRequest>) -> Result<Response<pb::ExplainResponse>, Status> {
        let _turn = self.turn().await;
        explain::answer(self, request.into_inner()).await.map(Response::new)
    }

    async fn flow_stats(
        &self,
        request: Request<pb::FlowStatsRequest>,
    ) -> Result<Response<pb::FlowStatsResponse>, Status> {
        let pb::FlowStatsRequest {} = request.into_inner();
        Ok(Response::new(ledger::answer(self)))
    }

    async fn counters(&self, request: Request<pb::CountersRequest>) -> Result<Response<pb::CountersResponse>, Status> {
        let pb::CountersRequest {} = request.into_inner();
        let _turn = self.turn().await;
        counters::answer(self).map(Response::new)
    }

    type DumpMapsStream = dump::Entries;

    async fn dump_maps(&self, request: Request<pb::DumpMapsRequest>) -> Result<Response<Self::DumpMapsStream>, Status> {
        let _turn = self.turn().await;
        dump::answer(self, request.into_inner()).await.map(Response::new)
    }
}

#[cfg(test)]
mod tests;
