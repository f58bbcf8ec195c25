//! How the daemon is.

use proto::bulkhead::admin::v1 as pb;
use serde::Serialize;

use super::{Direction, Object, Origin, all};

/// The whole answer. `healthy`: no condition is worse than info.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Status {
    pub(crate) healthy: bool,
    pub(crate) node: String,
    pub(crate) uptime_seconds: u64,
    pub(crate) build: Build,
    pub(crate) datapath: Datapath,
    pub(crate) counts: Counts,
    pub(crate) source: Source,
    pub(crate) refusals: Vec<Refusal>,
    pub(crate) maps: Vec<MapFill>,
    pub(crate) conntrack: Conntrack,
    pub(crate) pools: Vec<Pool>,
    pub(crate) events: Events,
    pub(crate) conditions: Vec<Condition>,
}

impl From<pb::StatusResponse> for Status {
    fn from(wire: pb::StatusResponse) -> Self {
        let pb::StatusResponse {
            build,
            node,
            uptime_seconds,
            datapath,
            counts,
            source,
            refusals,
            maps,
            conntrack,
            pools,
            events,
            conditions,
        } = wire;
        let conditions: Vec<Condition> = all(conditions);
        Self {
            healthy: conditions.iter().all(|condition| condition.severity == Severity::Info),
            node,
            uptime_seconds,
            build: build.unwrap_or_default().into(),
            datapath: datapath.unwrap_or_default().into(),
            counts: counts.unwrap_or_default().into(),
            source: source.unwrap_or_default().into(),
            refusals: all(refusals),
            maps: all(maps),
            conntrack: conntrack.unwrap_or_default().into(),
            pools: all(pools),
            events: events.unwrap_or_default().into(),
            conditions,
        }
    }
}

/// What the daemon was built from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Build {
    pub(crate) version: String,
    pub(crate) commit: String,
    pub(crate) abi_version: u32,
}

impl From<pb::Build> for Build {
    fn from(pb::Build { version, commit, abi_version }: pb::Build) -> Self {
        Self { version, commit, abi_version }
    }
}

/// How the programs sit in the kernel.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Datapath {
    pub(crate) kernel: String,
    pub(crate) attach_mode: String,
    pub(crate) device: String,
    pub(crate) pin_path: String,
    pub(crate) uplink: String,
    pub(crate) mtu: u32,
    pub(crate) routing: String,
    pub(crate) gate: Option<Gate>,
}

impl From<pb::Datapath> for Datapath {
    fn from(found: pb::Datapath) -> Self {
        let pb::Datapath { kernel, attach_mode, device, pin_path, uplink, mtu, routing, gate } = found;
        Self { kernel, attach_mode, device, pin_path, uplink, mtu, routing, gate: gate.map(Gate::from) }
    }
}

/// What is kept out of the node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Gate {
    pub(crate) interfaces: Vec<GateInterface>,
    pub(crate) denied_ranges: u32,
}

/// An interface at which packets from outside are looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct GateInterface {
    pub(crate) name: String,
    pub(crate) way: String,
}

impl From<pb::Gate> for Gate {
    fn from(pb::Gate { interfaces, denied_ranges }: pb::Gate) -> Self {
        let told = |pb::GateInterface { name, way }| GateInterface { name, way };
        Self { interfaces: interfaces.into_iter().map(told).collect(), denied_ranges }
    }
}

/// How many of what.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Counts {
    pub(crate) endpoints: u32,
    pub(crate) endpoints_isolated: u32,
    pub(crate) identities: u32,
    pub(crate) namespaces: u32,
    pub(crate) pods: u32,
    pub(crate) policies: u32,
    pub(crate) rule_sets: u32,
}

impl From<pb::Counts> for Counts {
    fn from(wire: pb::Counts) -> Self {
        let pb::Counts { endpoints, endpoints_isolated, identities, namespaces, pods, policies, rule_sets } = wire;
        Self { endpoints, endpoints_isolated, identities, namespaces, pods, policies, rule_sets }
    }
}

/// Where objects come from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Source {
    pub(crate) spec: String,
    pub(crate) synced: bool,
    pub(crate) last_change_seconds: Option<u64>,
    pub(crate) errors: Vec<SourceError>,
}

impl From<pb::Source> for Source {
    fn from(pb::Source { spec, synced, last_change_seconds, errors }: pb::Source) -> Self {
        Self { spec, synced, last_change_seconds, errors: all(errors) }
    }
}

/// One thing in the source that is refused.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct SourceError {
    pub(crate) origin: Option<Origin>,
    pub(crate) object: Option<Object>,
    pub(crate) field: String,
    pub(crate) message: String,
    pub(crate) fix: String,
    pub(crate) last_good_in_force: bool,
    pub(crate) denied_meanwhile: bool,
}

impl From<pb::SourceError> for SourceError {
    fn from(wire: pb::SourceError) -> Self {
        let pb::SourceError { origin, object, field, message, fix, last_good_in_force, denied_meanwhile } = wire;
        let (origin, object) = (Origin::of(origin), object.map(Object::from));
        Self { origin, object, field, message, fix, last_good_in_force, denied_meanwhile }
    }
}

/// Something that could not be put in force.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Refusal {
    pub(crate) object: Object,
    pub(crate) direction: Option<Direction>,
    pub(crate) reason: String,
    pub(crate) fix: String,
    pub(crate) meanwhile: String,
}

impl From<pb::Refusal> for Refusal {
    fn from(pb::Refusal { object, direction, reason, fix, meanwhile }: pb::Refusal) -> Self {
        let direction = Some(Direction::of(direction)).filter(|direction| *direction != Direction::Unknown);
        Self { object: object.unwrap_or_default().into(), direction, reason, fix, meanwhile }
    }
}

/// How full a map is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct MapFill {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) entries: u64,
    pub(crate) capacity: u64,
    pub(crate) purpose: String,
}

impl From<pb::MapFill> for MapFill {
    fn from(pb::MapFill { name, kind, entries, capacity, purpose }: pb::MapFill) -> Self {
        Self { name, kind, entries, capacity, purpose }
    }
}

/// Connections.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Conntrack {
    pub(crate) established: u64,
    pub(crate) pending: u64,
    pub(crate) redecided: u64,
    pub(crate) full: u64,
}

impl From<pb::Conntrack> for Conntrack {
    fn from(pb::Conntrack { established, pending, redecided, full }: pb::Conntrack) -> Self {
        Self { established, pending, redecided, full }
    }
}

/// Addresses to give out. `free` is none where it is beyond counting.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Pool {
    pub(crate) range: String,
    pub(crate) used: u64,
    pub(crate) free: Option<u64>,
}

impl From<pb::Pool> for Pool {
    fn from(pb::Pool { range, used, free }: pb::Pool) -> Self {
        Self { range, used, free: Some(free).filter(|free| *free != u64::MAX) }
    }
}

/// The way of events to us.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Events {
    pub(crate) written: u64,
    pub(crate) lost: u64,
    pub(crate) records: u64,
    pub(crate) record_capacity: u64,
}

impl From<pb::Events> for Events {
    fn from(pb::Events { written, lost, records, record_capacity }: pb::Events) -> Self {
        Self { written, lost, records, record_capacity }
    }
}

/// How bad something is. What we do not know is taken as a warning.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    Info,
    Warning,
    Error,
}

/// Something that is not as it should be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Condition {
    pub(crate) severity: Severity,
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) fix: String,
}

impl From<pb::Condition> for Condition {
    fn from(pb::Condition { severity, code, message, fix }: pb::Condition) -> Self {
        let severity = match pb::Severity::try_from(severity) {
            Ok(pb::Severity::Info) => Severity::Info,
            Ok(pb::Severity::Error) => Severity::Error,
            Ok(pb::Severity::Warning | pb::Severity::Unspecified) | Err(_) => Severity::Warning,
        };
        Self { severity, code, message, fix }
    }
}
