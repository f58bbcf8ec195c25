//! The one thread that owns what should be in the kernel and the maps that say what is: what it is told and asked.
//! What it does is in [`worker`].

mod services;
mod worker;

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{
        Arc,
        mpsc::{Sender, channel},
    },
    time::{Duration, Instant},
};

use policy::{
    IdentityKey,
    model::{Object, ObjectKey},
};
use tokio::sync::{oneshot, watch};

pub use self::services::Services;
use self::worker::{Sharing, Worker};
use super::knowledge::Knowledge;
use crate::{
    datapath::maps::Tables,
    reconcile::{Capacity, EndpointKey, Identities, LocalEndpoint, Mirror, Planner, Refusal, Unshared},
};

/// What cannot be done.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError {
    /// The daemon shuts down.
    #[error("the daemon is shutting down")]
    Stopped,
    /// No slot is free.
    #[error("all {0} endpoints are in use: raise the capacity of ENDPOINTS (--map-capacity ENDPOINTS=N)")]
    EndpointsFull(usize),
    /// No entry for the address is free.
    #[error("map ADDRESSES is full with {0} entries: raise its capacity (--map-capacity ADDRESSES=N)")]
    AddressesFull(usize),
    /// The kernel refused a write.
    #[error("{0}")]
    Kernel(String),
    /// Every identity number is taken.
    #[error("{0}")]
    Identities(String),
}

type Question = Box<dyn FnOnce(&State) + Send>;

/// What the engine is told.
enum Command {
    /// Objects have changed.
    Objects { apply: Vec<Object>, delete: Vec<ObjectKey> },
    /// The cluster says what numbers stand for.
    Numbers(Vec<(u32, Option<Arc<IdentityKey>>)>),
    /// The cluster has numbers that all nodes share.
    NumbersShared,
    /// The source has told all it had.
    Synced,
    /// The node's own addresses.
    HostAddresses(BTreeSet<IpAddr>),
    /// A pod's interface is there. Answered when its rules are in the kernel.
    Add { endpoint: Box<LocalEndpoint>, reply: oneshot::Sender<Result<u32, EngineError>> },
    /// A pod's interface is gone, or about to go.
    Remove { key: EndpointKey, reply: oneshot::Sender<Result<(), EngineError>> },
    /// Which numbers of identities nobody has had for so long, by a clock that never goes back?
    IdleIdentities { now: Duration, grace: Duration, reply: oneshot::Sender<BTreeSet<u32>> },
    /// No connection has these either: they may stand for somebody else.
    ReleaseIdentities { numbers: BTreeSet<u32>, now: Duration, grace: Duration },
    /// Conntrack was swept after the writes of this round of Services.
    Swept(u64),
    /// Somebody wants to look.
    Ask(Question),
    /// The end.
    Stop,
}

/// What there is to look at.
#[derive(Debug)]
pub struct State {
    /// What should be.
    pub planner: Planner,
    /// What is.
    pub mirror: Mirror,
    /// What could not be put in force.
    pub refusals: Vec<Refusal>,
    /// The last write that the kernel refused, if nothing has succeeded since.
    pub trouble: Option<String>,
    /// Whether the source has told all it had.
    pub synced: bool,
    /// When objects last changed.
    pub last_change: Option<Instant>,
    /// How many plans were carried out.
    pub plans: u64,
    /// How long the last plan took, from the first command to the last write.
    pub last_plan: Duration,
    /// Services, and what the programs know of them.
    pub services: Services,
}

/// What the kernel holds, and the way to write it.
#[expect(missing_debug_implementations, reason = "aya's maps have none")]
pub struct Kernel {
    /// The maps.
    pub tables: Tables,
    /// What they hold.
    pub mirror: Mirror,
    /// The same of the maps of Services.
    pub services: Services,
}

/// Talks to the engine. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Engine {
    commands: Sender<Command>,
    unshared: watch::Receiver<BTreeSet<Unshared>>,
    shared: watch::Receiver<bool>,
    lost_backends: watch::Receiver<u64>,
}

/// Writes down identities before their numbers reach the kernel.
pub type KeepIdentities = Box<dyn FnMut(&Identities) -> Result<(), String> + Send>;

impl Engine {
    /// Starts the thread. `planner` knows the endpoints that a predecessor has left; nothing is
    /// written before [`Engine::synced`], for without its policies a pod would be open. `carries`: packets between nodes
    /// carry numbers of identities.
    pub fn start(
        planner: Planner,
        kernel: Kernel,
        capacity: Capacity,
        knowledge: Arc<Knowledge>,
        keep: KeepIdentities,
        carries: bool,
    ) -> std::io::Result<(Self, std::thread::JoinHandle<()>)> {
        let Kernel { tables, mirror, services } = kernel;
        let (commands, inbox) = channel();
        let state = State {
            planner,
            mirror,
            refusals: Vec::new(),
            trouble: None,
            synced: false,
            last_change: None,
            plans: 0,
            last_plan: Duration::ZERO,
            services,
        };
        let (unshared_sender, unshared) = watch::channel(BTreeSet::new());
        let (shared_sender, shared) = watch::channel(false);
        let sharing = Sharing { on: false, unshared: unshared_sender, shared: shared_sender };
        let lost_backends = state.services.lost_backends();
        let mut worker = Worker::new(state, tables, capacity, knowledge, keep, sharing, carries);
        let thread = std::thread::Builder::new().name("engine".to_owned()).spawn(move || worker.run(&inbox))?;
        Ok((Self { commands, unshared, shared, lost_backends }, thread))
    }

    fn send(&self, command: Command) -> Result<(), EngineError> {
        self.commands.send(command).map_err(|_| EngineError::Stopped)
    }

    /// Objects have changed.
    pub fn objects(&self, apply: Vec<Object>, delete: Vec<ObjectKey>) -> Result<(), EngineError> {
        self.send(Command::Objects { apply, delete })
    }

    /// The cluster says what numbers stand for; `None`: for nobody.
    pub fn numbers(&self, told: Vec<(u32, Option<Arc<IdentityKey>>)>) -> Result<(), EngineError> {
        self.send(Command::Numbers(told))
    }

    /// The cluster has numbers that all nodes share, and all there were have been told.
    pub fn numbers_shared(&self) -> Result<(), EngineError> {
        self.send(Command::NumbersShared)
    }

    /// Identities of pods that the cluster has no number for, once it has numbers at all.
    pub fn unshared(&self) -> watch::Receiver<BTreeSet<Unshared>> {
        self.unshared.clone()
    }

    /// Whether numbers from [`datapath_abi::identity::FIRST_SHARED`] on mean here what they mean on every other node,
    /// so that a packet that carries one can be believed. Those below never do.
    pub fn shared(&self) -> watch::Receiver<bool> {
        self.shared.clone()
    }

    /// The source has told all it had: from now on the kernel is brought up to date.
    pub fn synced(&self) -> Result<(), EngineError> {
        self.send(Command::Synced)
    }

    /// The round of the last change of Services that a sweep has something to end for; 0: none has. To be asked before the
    /// sweep, and told by [`Engine::swept`] after it.
    pub fn lost_backends(&self) -> u64 {
        *self.lost_backends.borrow()
    }

    /// Conntrack was swept after the writes of a round of [`Engine::lost_backends`].
    pub fn swept(&self, round: u64) -> Result<(), EngineError> {
        self.send(Command::Swept(round))
    }

    /// The node's own addresses.
    pub fn host_addresses(&self, addresses: BTreeSet<IpAddr>) -> Result<(), EngineError> {
        self.send(Command::HostAddresses(addresses))
    }

    /// Takes an endpoint in. Returns its slot when identity and rules are in the kernel, its own
    /// and those of everybody whom it concerns.
    pub async fn add(&self, endpoint: LocalEndpoint) -> Result<u32, EngineError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Add { endpoint: Box::new(endpoint), reply })?;
        answer.await.map_err(|_| EngineError::Stopped)?
    }

    /// Lets an endpoint go. Succeeds if there is none.
    pub async fn remove(&self, key: EndpointKey) -> Result<(), EngineError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Remove { key, reply })?;
        answer.await.map_err(|_| EngineError::Stopped)?
    }

    /// The numbers of identities that no pod and no entry has had for as long as `grace`. `now` is of a clock that
    /// never goes back.
    pub async fn idle_identities(&self, now: Duration, grace: Duration) -> Result<BTreeSet<u32>, EngineError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::IdleIdentities { now, grace, reply })?;
        answer.await.map_err(|_| EngineError::Stopped)
    }

    /// Gives numbers of identities back that no connection has either, if that is still so.
    pub fn release_identities(
        &self,
        numbers: BTreeSet<u32>,
        now: Duration,
        grace: Duration,
    ) -> Result<(), EngineError> {
        self.send(Command::ReleaseIdentities { numbers, now, grace })
    }

    /// Looks at the state and brings back what `look` makes of it.
    pub async fn ask<T: Send + 'static>(
        &self,
        look: impl FnOnce(&State) -> T + Send + 'static,
    ) -> Result<T, EngineError> {
        let (reply, answer) = oneshot::channel();
        let question = move |state: &State| {
            let _ = reply.send(look(state));
        };
        self.send(Command::Ask(Box::new(question)))?;
        answer.await.map_err(|_| EngineError::Stopped)
    }

    /// Ends the thread. What is in the kernel stays.
    pub fn stop(&self) {
        let _ = self.send(Command::Stop);
    }
}
