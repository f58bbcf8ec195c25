//! The canonical flow record: what one event says, joined with what the cluster knew when it
//! happened. Every output (API, exporters, history) is made from it. Units are in the names.
//!
//! Strings are shared by `Arc`: making a record copies none. What an output derives from a
//! record (direction, event type) is a method here, so that filters and outputs agree.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    sync::Arc,
};

use datapath_abi::{
    endpoint::NO_SLOT,
    event::{EndReason, EventKind, Hook},
    policy::Direction,
    reason::DropReason,
};
use dns::Lookup;

use crate::uuid::Uuid;

mod hubble;

pub use hubble::{NAMESPACE_LABEL, tcp_flag_bits, tcp_flags};

/// IANA protocol numbers that have a form of their own.
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// Internet Group Management Protocol.
    pub const IGMP: u8 = 2;
    /// Transmission Control Protocol.
    pub const TCP: u8 = 6;
    /// User Datagram Protocol.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// Virtual Router Redundancy Protocol.
    pub const VRRP: u8 = 112;
    /// Stream Control Transmission Protocol.
    pub const SCTP: u8 = 132;
}

/// The node that made a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// Name of the node.
    pub name: String,
    /// Name of its cluster; `default` if there is no other.
    pub cluster: String,
    /// Labels of the node.
    pub labels: BTreeMap<String, String>,
    /// Tells this start of the daemon on this node from every other; part of each record's name.
    /// Start time in nanoseconds xor a hash of the node's name will do.
    pub epoch: u64,
}

/// Name of the cluster when nobody has given it one (the Hubble API leaves it out of node names).
pub const DEFAULT_CLUSTER: &str = "default";

/// What owns a pod.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Workload {
    /// Kind of the object: `Deployment`, `StatefulSet`.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// A pod as it was when the event happened.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PodInfo {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `metadata.uid`, empty if it has none.
    pub uid: String,
    /// Every label of the pod.
    pub labels: Arc<BTreeMap<String, String>>,
    /// Service account.
    pub service_account: String,
    /// The object that owns it, resolved as far as known.
    pub workload: Option<Workload>,
    /// Identity it has now.
    pub identity: u32,
}

/// What an identity number stands for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct IdentityInfo {
    /// Namespace.
    pub namespace: String,
    /// The labels that make the identity.
    pub labels: Arc<BTreeMap<String, String>>,
    /// Service account.
    pub service_account: String,
}

/// A Kubernetes service that an address was reached through.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceInfo {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// A policy object.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct PolicyInfo {
    /// Kind of the object: `NetworkPolicy`.
    pub kind: String,
    /// Namespace, empty for a cluster-wide object.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `metadata.uid`, empty if it has none.
    pub uid: String,
    /// Which version of it, 0 unknown.
    pub revision: u64,
}

/// What a rule constrains; the API calls it the match type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RuleScope {
    /// Neither peers nor ports: everything.
    All,
    /// Peers.
    Peers,
    /// Ports.
    Ports,
    /// Peers and ports.
    PeersAndPorts,
}

/// One rule of a policy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RuleInfo {
    /// The policy it stands in.
    pub policy: Arc<PolicyInfo>,
    /// Which of the policy's two lists.
    pub direction: Direction,
    /// Position in that list, from 0.
    pub index: u32,
    /// What it constrains.
    pub scope: RuleScope,
}

/// A deciding rule: the datapath's number, and what it stands for if that is still known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RuleRef {
    /// The datapath's number.
    pub cookie: u32,
    /// The rule; `None` if its policy is gone for longer than the daemon remembers.
    pub info: Option<Arc<RuleInfo>>,
}

/// What the policies of one end said in one direction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ruling {
    /// Nobody was asked: not on this node, or the packet had been dropped before.
    NotAsked,
    /// No policy selects the pod in this direction.
    Open,
    /// A rule allows it.
    Allowed(RuleRef),
    /// A rule denies it.
    Denied(RuleRef),
    /// These policies isolate the pod, and no rule of theirs allows it; or it is what no rule can be asked about, and
    /// they have rules for the pod. Empty if they are gone for longer than the daemon remembers.
    Isolated(Arc<[Arc<PolicyInfo>]>),
    /// The pod is isolated and it passed without a rule: traffic of its own node.
    Exempt,
}

/// One end of a flow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct End {
    /// Address.
    pub ip: IpAddr,
    /// Port, 0 for protocols without.
    pub port: u16,
    /// Identity the verdict was reached with.
    pub identity: u32,
    /// Endpoint number, 0 if it is not on this node.
    pub slot: u32,
    /// The pod behind the address.
    pub pod: Option<Arc<PodInfo>>,
    /// What `identity` stands for, `None` for reserved identities.
    pub known_as: Option<Arc<IdentityInfo>>,
    /// The service that was addressed.
    pub service: Option<Arc<ServiceInfo>>,
    /// DNS names under which the pod at the other end has resolved the address, the last one first.
    pub dns_names: Option<Arc<[String]>>,
}

/// Packets of one direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes from the network header on.
    pub bytes: u64,
    /// Bits of the TCP header's byte 13: of the packet, or all that were seen.
    pub tcp_flags: u8,
}

/// Type and code of an ICMP message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Icmp {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
}

/// That a record stands for many; see [`crate::aggregate`]. What differs among them is left out of the record: a port is 0,
/// an address the unspecified one, a pod without a name. Counters are sums, the round trip time is a mean.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Aggregate {
    /// How many, at least one.
    pub count: u64,
    /// When the first was seen; `time_unix_ns` is that of the last.
    pub first_unix_ns: u64,
    /// Sequence of the first; `sequence` is that of the last.
    pub first_sequence: u64,
}

/// One flow event, complete.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FlowRecord {
    /// Number on this node since the daemon's start, from 1 without gaps.
    pub sequence: u64,
    /// When the packet was seen or the connection was reported, by the node's clock.
    pub time_unix_ns: u64,
    /// When the connection began, `None` if there is none.
    pub opened_unix_ns: Option<u64>,
    /// The node that saw it.
    pub node: Arc<Node>,
    /// What happened.
    pub kind: EventKind,
    /// A packet from the responder of a connection to its initiator. `egress` and `ingress` are
    /// still those of initiator and responder.
    pub reply: bool,
    /// Who sent the packet; of a connection, who opened it.
    pub source: End,
    /// Whom it was meant for.
    pub destination: End,
    /// IANA protocol number.
    pub protocol: u8,
    /// ICMP type and code.
    pub icmp: Option<Icmp>,
    /// Why it was dropped.
    pub drop_reason: Option<DropReason>,
    /// In which direction policy denied it.
    pub denied_in: Option<Direction>,
    /// How the connection ended.
    pub end_reason: Option<EndReason>,
    /// Which program saw it.
    pub hook: Hook,
    /// Interface it was seen at.
    pub ifindex: u32,
    /// Source to destination.
    pub forward: Traffic,
    /// Destination to source.
    pub reverse: Traffic,
    /// From the first packet to the first answer.
    pub rtt_us: Option<NonZeroU32>,
    /// What the initiator has spoken to, if that is a Service's address: the responder is the backend it was translated to.
    pub addressed: Option<SocketAddr>,
    /// The source's egress policies.
    pub egress: Ruling,
    /// The destination's ingress policies.
    pub ingress: Ruling,
    /// What the source's egress policies would say if the staged ones were in force, `None` if no
    /// staged policy concerns it.
    pub staged_egress: Option<Ruling>,
    /// The same of the destination's ingress policies.
    pub staged_ingress: Option<Ruling>,
    /// Of a lookup: what was asked, and what came of it.
    pub dns: Option<Arc<Lookup>>,
    /// It stands for many.
    pub aggregate: Option<Box<Aggregate>>,
}

impl Ruling {
    /// Whether policies decided, rather than nobody or the lack of any.
    pub fn is_enforced(&self) -> bool {
        match self {
            Ruling::Allowed(_) | Ruling::Denied(_) | Ruling::Isolated(_) | Ruling::Exempt => true,
            Ruling::NotAsked | Ruling::Open => false,
        }
    }

    /// Whether policies stand against the packet.
    pub fn blocks(&self) -> bool {
        match self {
            Ruling::Denied(_) | Ruling::Isolated(_) => true,
            Ruling::NotAsked | Ruling::Open | Ruling::Allowed(_) | Ruling::Exempt => false,
        }
    }
}

impl End {
    /// Whether it is on this node.
    pub fn is_local(&self) -> bool {
        self.slot != NO_SLOT
    }

    /// Namespace, empty if it is not a pod.
    pub fn namespace(&self) -> &str {
        match (&self.pod, &self.known_as) {
            (Some(pod), _) => &pod.namespace,
            (None, Some(known)) => &known.namespace,
            (None, None) => "",
        }
    }

    /// Name of the pod, empty if unknown.
    pub fn pod_name(&self) -> &str {
        self.pod.as_ref().map_or("", |pod| &pod.name)
    }

    /// Service account, empty if unknown.
    pub fn service_account(&self) -> &str {
        match (&self.pod, &self.known_as) {
            (Some(pod), _) => &pod.service_account,
            (None, Some(known)) => &known.service_account,
            (None, None) => "",
        }
    }

    /// Labels: all of the pod's while they still make the identity that the verdict was reached
    /// with, else those of the identity.
    pub fn labels(&self) -> Option<&BTreeMap<String, String>> {
        match (&self.pod, &self.known_as) {
            (Some(pod), Some(known)) if pod.identity != self.identity => Some(&known.labels),
            (Some(pod), _) => Some(&pod.labels),
            (None, Some(known)) => Some(&known.labels),
            (None, None) => None,
        }
    }
}

impl FlowRecord {
    /// Stable name.
    pub fn uuid(&self) -> Uuid {
        // Also the last of those that it stands for has a name.
        let salt = self.aggregate.as_ref().map_or(0, |it| it.first_sequence << 1 | 1);
        Uuid::new(self.time_unix_ns, self.node.epoch ^ salt, self.sequence)
    }

    /// Whether policy decided about this packet, rather than the packet being bad in itself.
    pub fn is_policy_verdict(&self) -> bool {
        match self.kind {
            EventKind::Opened => true,
            EventKind::Dropped => matches!(
                self.drop_reason,
                Some(DropReason::DefaultDeny | DropReason::DenyRule | DropReason::PolicyChange)
            ),
            EventKind::Closed | EventKind::Active | EventKind::Dns => false,
        }
    }

    /// Policy direction: the one that denied, or the one of the pod whose isolation is the reason
    /// for the drop, or the one that the packet was on its way in; else egress if the source is on this node, else
    /// ingress. A new connection that only the ingress policy of a pod on this node had anything
    /// to say about is ingress. `None` if neither end is a pod of this node.
    pub fn direction(&self) -> Option<Direction> {
        if self.kind == EventKind::Dropped {
            let by_policies = match (self.egress.blocks(), self.ingress.blocks()) {
                (true, false) => Some(Direction::Egress),
                (false, true) => Some(Direction::Ingress),
                (true, true) | (false, false) => None,
            };
            return Some(self.denied_in.or(by_policies).unwrap_or(match self.hook {
                Hook::FromPod => Direction::Egress,
                Hook::ToPod | Hook::FromUplink => Direction::Ingress,
            }));
        }
        let only_ingress_decided = self.kind == EventKind::Opened
            && !self.egress.is_enforced()
            && self.ingress.is_enforced()
            && self.destination.is_local();
        match (self.source.is_local(), self.destination.is_local()) {
            (true, _) if !only_ingress_decided => Some(Direction::Egress),
            (_, true) => Some(Direction::Ingress),
            (true, false) => Some(Direction::Egress),
            (false, false) => None,
        }
    }

    /// Whether this record tells something about `direction`. A new connection between two pods
    /// of this node is one record for both directions, where the reference sends two events.
    pub fn concerns(&self, direction: Direction) -> bool {
        let asked = self.kind == EventKind::Opened && *self.ruling(direction) != Ruling::NotAsked;
        asked || self.direction() == Some(direction)
    }

    /// What the policies said in `direction`.
    pub fn ruling(&self, direction: Direction) -> &Ruling {
        match direction {
            Direction::Egress => &self.egress,
            Direction::Ingress => &self.ingress,
        }
    }

    /// Whether the packet went from responder to initiator. `None`: unknown, as for drops outside any connection.
    pub fn is_reply(&self) -> Option<bool> {
        (self.reply || self.kind != EventKind::Dropped).then_some(self.reply)
    }
}
