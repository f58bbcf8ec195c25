//! What the daemon tells about itself without being asked by an operator: log lines, metrics,
//! health. Holds no state of the daemon's: whoever serves gives a [`Source`], which is looked at
//! whenever somebody scrapes or probes.
//!
//! ```text
//!   Source --snapshot--> metrics --text--> http /metrics
//!      +-----health----------------------> http /healthz /readyz /livez
//!   CniMetrics <--observe-- the CNI service
//! ```

use std::time::Duration;

use datapath_abi::maps::Scalar;
use flows::ledger::{Balance, ExporterBalance};
use futures::future::BoxFuture;

use crate::app::attachments::guard::PutBackFigures;
use crate::source::kubernetes::registry::RegistryFigures;

mod cni;
pub mod http;
pub mod logging;
pub mod metrics;

pub use cni::{CniMetrics, CniVerb};

/// What metrics and health are made of.
pub trait Source: Send + Sync + 'static {
    /// All figures at this moment.
    fn snapshot(&self) -> BoxFuture<'_, Snapshot>;

    /// How the daemon is at this moment.
    fn health(&self) -> BoxFuture<'_, Health>;
}

/// How the daemon is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Health {
    /// The engine answers.
    pub alive: bool,
    /// Why the daemon does not do its work in full, one sentence each. None: it does.
    pub problems: Vec<String>,
}

impl Health {
    /// Whether pods may rely on the daemon: it answers and nothing is wrong.
    pub fn is_ready(&self) -> bool {
        self.alive && self.problems.is_empty()
    }
}

/// All figures at one moment. What could not be read is `None`, and its metrics are absent then
/// rather than zero.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Snapshot {
    /// What runs.
    pub build: Build,
    /// Since the daemon started.
    pub uptime: Duration,
    /// Of the engine; `None` if it does not answer.
    pub engine: Option<EngineFigures>,
    /// Of the programs; `None` if their maps cannot be read.
    pub datapath: Option<DatapathFigures>,
    /// Maps whose fill is known.
    pub maps: Vec<MapFigures>,
    /// Of the source.
    pub source: SourceFigures,
    /// Connections as the last sweep found them; `None` before the first.
    pub conntrack: Option<ConntrackFigures>,
    /// Ranges of pod addresses.
    pub pools: Vec<PoolFigures>,
    /// Of the flow pipeline.
    pub flows: FlowFigures,
    /// Of each exporter of flows.
    pub exporters: Vec<ExporterBalance>,
    /// Lines that are wrong in the exporters' settings.
    pub export_problems: u64,
    /// Programs that somebody had removed from pods' interfaces.
    pub put_back: PutBackFigures,
    /// Of the numbers that nodes share; `None` without a cluster.
    pub shared: Option<RegistryFigures>,
}

/// What runs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Build {
    /// Version of the release.
    pub version: String,
    /// Commit it was built from.
    pub commit: String,
    /// datapath-abi's version.
    pub abi_version: u32,
    /// Kernel release it runs on.
    pub kernel: String,
    /// How programs are attached.
    pub attach_mode: String,
}

/// Figures of the engine.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct EngineFigures {
    /// Endpoints of this node.
    pub endpoints: u64,
    /// Those isolated in at least one direction.
    pub endpoints_isolated: u64,
    /// Identities that have pods.
    pub identities: u64,
    /// Namespaces in force.
    pub namespaces: u64,
    /// Pods in force.
    pub pods: u64,
    /// Policies in force.
    pub policies: u64,
    /// Rule sets.
    pub rule_sets: u64,
    /// Directions of endpoints that are not under the rules they should be under.
    pub refusals: u64,
    /// The kernel has refused the last write.
    pub in_trouble: bool,
    /// Plans carried out.
    pub plans: u64,
    /// How long the last one took.
    pub last_plan: Duration,
}

/// Counters of the programs, summed over CPUs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DatapathFigures {
    /// Every hook and reason.
    pub counters: Vec<PacketFigures>,
    /// Every scalar.
    pub scalars: Vec<(Scalar, u64)>,
}

/// Packets at one hook with one outcome.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PacketFigures {
    /// A [`datapath_abi::event::Hook`] by its number.
    pub hook: u32,
    /// A [`datapath_abi::reason::DropReason`] by its number; 0: passed.
    pub reason: u32,
    /// Packets.
    pub packets: u64,
    /// Bytes, from the network header on.
    pub bytes: u64,
}

/// How full a map is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MapFigures {
    /// Name as in datapath-abi.
    pub name: &'static str,
    /// Entries in use.
    pub entries: u64,
    /// Entries it can hold.
    pub capacity: u64,
}

/// Figures of the source.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SourceFigures {
    /// It has told all it had.
    pub synced: bool,
    /// Things that stand wrong in it.
    pub errors: u64,
}

/// Connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ConntrackFigures {
    /// With packets in both directions.
    pub established: u64,
    /// Without an answer yet.
    pub pending: u64,
}

/// A range of pod addresses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PoolFigures {
    /// In CIDR form.
    pub range: String,
    /// Addresses that pods have.
    pub used: u64,
    /// Addresses that can still be given out; [`u64::MAX`] stands for more than that.
    pub free: u64,
}

/// Figures of the flow pipeline.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FlowFigures {
    /// What became of events and records.
    pub ledger: Balance,
    /// Records that the ring holds.
    pub records: u64,
    /// Records that the ring can hold.
    pub record_capacity: u64,
}
