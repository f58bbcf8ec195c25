//! Endpoints, and their rules as they lie in the kernel's maps.

use prost_types::Timestamp;
use proto::bulkhead::admin::v1 as pb;
use serde::Serialize;

use super::{Direction, Labels, Object, Rule, Verdict, Workload, all, labels};

/// How far an endpoint is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    Creating,
    Ready,
    Stale,
    Deleting,
    Lost,
    Unknown,
}

impl State {
    /// From the wire.
    fn of(number: i32) -> Self {
        match pb::EndpointState::try_from(number) {
            Ok(pb::EndpointState::Creating) => Self::Creating,
            Ok(pb::EndpointState::Ready) => Self::Ready,
            Ok(pb::EndpointState::Stale) => Self::Stale,
            Ok(pb::EndpointState::Deleting) => Self::Deleting,
            Ok(pb::EndpointState::Lost) => Self::Lost,
            Ok(pb::EndpointState::Unspecified) | Err(_) => Self::Unknown,
        }
    }

    /// One word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Ready => "ready",
            Self::Stale => "stale",
            Self::Deleting => "deleting",
            Self::Lost => "lost",
            Self::Unknown => "unknown",
        }
    }
}

/// A pod's interface.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Endpoint {
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) container_id: String,
    pub(crate) ifname: String,
    pub(crate) host_ifname: String,
    pub(crate) ifindex: u32,
    pub(crate) ips: Vec<String>,
    pub(crate) mac: String,
    pub(crate) identity: u32,
    pub(crate) labels: Labels,
    pub(crate) service_account: String,
    pub(crate) workload: Option<Workload>,
    pub(crate) slot: u32,
    pub(crate) directions: Vec<Rules>,
    pub(crate) state: State,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) state_reason: String,
    pub(crate) has_object: bool,
    pub(crate) netns: String,
    /// RFC 3339; empty if the daemon does not know.
    pub(crate) created: String,
}

impl From<pb::Endpoint> for Endpoint {
    fn from(wire: pb::Endpoint) -> Self {
        let pb::Endpoint {
            namespace,
            pod,
            container_id,
            ifname,
            host_ifname,
            ifindex,
            ips,
            mac,
            identity,
            labels: wire_labels,
            service_account,
            workload,
            slot,
            directions,
            state,
            state_reason,
            has_object,
            netns,
            created_unix_seconds,
        } = wire;
        let created = match i64::try_from(created_unix_seconds) {
            Ok(seconds @ 1..) => Timestamp { seconds, nanos: 0 }.to_string(),
            Ok(_) | Err(_) => String::new(),
        };
        Self {
            namespace,
            pod,
            container_id,
            ifname,
            host_ifname,
            ifindex,
            ips,
            mac,
            identity,
            labels: labels(wire_labels),
            service_account,
            workload: workload.map(Workload::from),
            slot,
            directions: all(directions),
            state: State::of(state),
            state_reason,
            has_object,
            netns,
            created,
        }
    }
}

impl Endpoint {
    /// Its rules in one direction.
    pub(crate) fn rules(&self, direction: Direction) -> Option<&Rules> {
        self.directions.iter().find(|rules| rules.direction == direction)
    }
}

/// An endpoint's rules in one direction.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Rules {
    pub(crate) direction: Direction,
    pub(crate) isolated: bool,
    pub(crate) rule_set: u32,
    pub(crate) generation: u32,
    pub(crate) policies: Vec<Object>,
}

impl From<pb::EndpointDirection> for Rules {
    fn from(wire: pb::EndpointDirection) -> Self {
        let pb::EndpointDirection { direction, isolated, rule_set, generation, policies } = wire;
        Self { direction: Direction::of(direction), isolated, rule_set, generation, policies: all(policies) }
    }
}

/// An endpoint with its entries in the maps.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Detail {
    #[serde(flatten)]
    pub(crate) endpoint: Endpoint,
    pub(crate) entries: Vec<Entry>,
}

impl From<pb::EndpointDetail> for Detail {
    fn from(pb::EndpointDetail { endpoint, entries }: pb::EndpointDetail) -> Self {
        Self { endpoint: endpoint.unwrap_or_default().into(), entries: all(entries) }
    }
}

/// Whom an entry is about.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Peer {
    Identity(u32),
    Class(String),
    Cidr(String),
}

/// One verdict as it lies in the maps.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Entry {
    pub(crate) direction: Direction,
    pub(crate) peer: Option<Peer>,
    pub(crate) peer_text: String,
    /// Empty: every protocol.
    pub(crate) protocol: String,
    /// First and last; none: every port.
    pub(crate) ports: Option<(u32, u32)>,
    pub(crate) verdict: Verdict,
    pub(crate) precedence: u32,
    pub(crate) rule: Option<Rule>,
}

impl From<pb::LoweredEntry> for Entry {
    fn from(wire: pb::LoweredEntry) -> Self {
        let pb::LoweredEntry { direction, peer, peer_text, protocol, port_first, port_last, verdict, precedence, rule } =
            wire;
        Self {
            direction: Direction::of(direction),
            peer: peer.map(|peer| match peer {
                pb::lowered_entry::Peer::Identity(number) => Peer::Identity(number),
                pb::lowered_entry::Peer::Class(name) => Peer::Class(name),
                pb::lowered_entry::Peer::Cidr(cidr) => Peer::Cidr(cidr),
            }),
            peer_text,
            protocol,
            ports: Some((port_first, port_last)).filter(|ports| *ports != (0, 0)),
            verdict: Verdict::of(verdict),
            precedence,
            rule: rule.map(Rule::from),
        }
    }
}

impl Entry {
    /// Protocol and ports as text: `tcp 80`, `udp 1-100`, `any`.
    pub(crate) fn ports_text(&self) -> String {
        let protocol = if self.protocol.is_empty() { "any" } else { &self.protocol };
        match self.ports {
            None => protocol.to_owned(),
            Some((first, last)) if first == last => format!("{protocol} {first}"),
            Some((first, last)) => format!("{protocol} {first}-{last}"),
        }
    }

    /// The peer as text.
    pub(crate) fn peer_label(&self) -> String {
        let name = match &self.peer {
            Some(Peer::Identity(number)) => number.to_string(),
            Some(Peer::Class(text) | Peer::Cidr(text)) => text.clone(),
            None => "?".to_owned(),
        };
        if self.peer_text.is_empty() { name } else { format!("{name} ({})", self.peer_text) }
    }
}
