//! The columns: their names, kinds and meaning, a record as a row of them, and a row as a record again.
//!
//! To add a column: one line in a table below, one in the function that fills it, one in the function that reads it,
//! in the same place of each (`columns/write.rs`, `columns/read.rs`). Files without it read as if it were empty, so no version changes. A test makes a
//! record into a row and back; another wants every column in docs/history.md.

use std::sync::LazyLock;

use datapath_abi::{
    event::{EndReason, EventKind, Hook},
    policy::Direction,
};
use flows::record::RuleScope;

use crate::cell::{
    Kind::{self, Many, One},
    Leaf::{Bool, Text, Time, Uint},
    Shape,
};

mod read;
mod write;

pub use read::{NotARecord, record};
pub use write::row;

pub use crate::{cell::Cell, pool::Pools};

/// One column.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Column {
    /// Name in the file.
    pub name: String,
    /// Kind.
    pub kind: Kind,
    /// What it means, for the documentation.
    pub about: &'static str,
}

type Line = (&'static str, Kind, &'static str);

const LABELS: Kind = Many(Shape::Map, &[("key", Text), ("value", Text)]);
const NAMES: Kind = Many(Shape::List, &[("element", Text)]);
const POLICIES: Kind =
    Many(Shape::Structs, &[("kind", Text), ("namespace", Text), ("name", Text), ("uid", Text), ("revision", Uint(64))]);

const RECORDS: Kind =
    Many(Shape::Structs, &[("type", Uint(16)), ("class", Uint(16)), ("ttl_s", Uint(32)), ("data", Text)]);

const HEAD: &[Line] = &[
    ("time", One(Time), "when the packet was seen or the connection was reported, by the node's clock"),
    ("uid", One(Text), "version 7 UUID, the same wherever the record is sent"),
    ("node_epoch", One(Uint(64)), "tells the daemon's starts apart"),
    ("sequence", One(Uint(64)), "number since that start, from 1 without gaps: a gap is a loss"),
    ("node_name", One(Text), "the node that saw it"),
    ("cluster", One(Text), "the node's cluster"),
    ("node_labels", LABELS, "the node's labels"),
    ("kind", One(Text), "`opened`, `dropped`, `closed`, `active`, `dns`"),
    ("verdict", One(Text), "`forwarded` or `dropped`"),
    ("direction", One(Text), "`egress` or `ingress` of the pod of this node that it is about"),
    ("drop_reason", One(Text), "why it was dropped: a name of docs/abi.md"),
    ("denied_in", One(Text), "the direction in which policy denied it"),
    ("end_reason", One(Text), "`fin`, `rst`, `idle`, `policy_change`, `endpoint_gone`, `replaced`"),
    ("opened_time", One(Time), "when the connection began"),
    ("reply", One(Bool), "a packet from responder to initiator"),
    ("protocol", One(Uint(8)), "IANA number"),
    ("icmp_type", One(Uint(8)), "ICMP"),
    ("icmp_code", One(Uint(8)), "ICMP"),
    ("service_ip", One(Text), "the Service's address that was spoken to, if the destination is its backend"),
    ("service_port", One(Uint(16)), "and its port"),
    ("hook", One(Text), "`from_pod`, `to_pod`, `from_uplink`: which program saw it"),
    ("ifindex", One(Uint(32)), "interface it was seen at"),
    ("forward_packets", One(Uint(64)), "source to destination, total so far"),
    ("forward_bytes", One(Uint(64)), "from the network header on, total so far"),
    ("forward_tcp_flags", One(Uint(8)), "of the packet, or all that were seen"),
    ("reverse_packets", One(Uint(64)), "destination to source"),
    ("reverse_bytes", One(Uint(64)), "destination to source"),
    ("reverse_tcp_flags", One(Uint(8)), "destination to source"),
    ("rtt_us", One(Uint(32)), "microseconds from the first packet to the first answer"),
];

/// Of each end, behind `src_` and `dst_`.
const END: &[Line] = &[
    ("ip", One(Text), "address"),
    ("port", One(Uint(16)), "port, 0 for protocols without"),
    ("identity", One(Uint(32)), "identity that the verdict was reached with"),
    ("slot", One(Uint(32)), "endpoint number, 0 if not on this node"),
    ("namespace", One(Text), "of the pod, or of the identity if the pod is not known"),
    ("pod_name", One(Text), "pod"),
    ("pod_uid", One(Text), "pod"),
    ("service_account", One(Text), "of the pod, or of the identity"),
    ("workload_kind", One(Text), "`Deployment`, ..."),
    ("workload_name", One(Text), "its name"),
    ("pod_identity", One(Uint(32)), "the pod's own identity"),
    ("labels", LABELS, "the pod's, every one"),
    ("identity_namespace", One(Text), "what the identity stands for; empty for reserved ones"),
    ("identity_service_account", One(Text), "of the identity"),
    ("identity_labels", LABELS, "of the identity"),
    ("service_namespace", One(Text), "the Service that was addressed"),
    ("service_name", One(Text), "the Service that was addressed"),
    ("dns_names", NAMES, "names under which pods have resolved the address"),
];

/// What each side's policies said, behind `egress_`, `ingress_`, `staged_egress_`, `staged_ingress_`.
const RULING: &[Line] = &[
    ("ruling", One(Text), "`not_asked`, `open`, `allowed`, `denied`, `isolated`, `exempt`"),
    ("rule_cookie", One(Uint(32)), "the datapath's number of the rule"),
    ("rule_direction", One(Text), "which list of the policy the rule stands in"),
    ("rule_index", One(Uint(32)), "its position there, from 0"),
    ("rule_scope", One(Text), "`all`, `peers`, `ports`, `peers_and_ports`"),
    ("policies", POLICIES, "the rule's policy, or all that isolate the pod"),
];

/// What a pod has asked a DNS server, behind `dns_`.
const DNS: &[Line] = &[
    ("question", One(Text), "the name that was asked for, in small letters, without its last dot"),
    ("type", One(Uint(16)), "type that was asked for: 1 is A, 28 AAAA"),
    ("class", One(Uint(16)), "1 is IN"),
    ("id", One(Uint(16)), "the message's number"),
    ("tries", One(Uint(16)), "how often it was asked"),
    ("outcome", One(Text), "`answered`, `unanswered`, `unfollowed`"),
    ("latency_ns", One(Uint(64)), "from the first question to the answer"),
    ("rcode", One(Uint(16)), "response code: 0 is NOERROR, 3 NXDOMAIN"),
    ("flags", One(Uint(16)), "second word of the answer's header"),
    ("announced", One(Uint(16)), "how many records the answer has"),
    ("cut", One(Bool), "the answer could not be read to its end"),
    ("records", RECORDS, "the answer's records, as many as are kept"),
];

/// All columns, in the order of the cells of a row.
pub fn all() -> &'static [Column] {
    static ALL: LazyLock<Vec<Column>> = LazyLock::new(|| {
        let tables: [(&str, &[Line]); 8] = [
            ("", HEAD),
            ("src_", END),
            ("dst_", END),
            ("egress_", RULING),
            ("ingress_", RULING),
            ("staged_egress_", RULING),
            ("staged_ingress_", RULING),
            ("dns_", DNS),
        ];
        let column = |front: &str, &(name, kind, about): &Line| Column { name: format!("{front}{name}"), kind, about };
        tables.iter().flat_map(|(front, lines)| lines.iter().map(|line| column(front, line))).collect()
    });
    &ALL
}

/// Position of a column. `time` stands in front, for readers that look no further.
pub const TIME: usize = 0;

const KINDS: &[(EventKind, &str)] = &[
    (EventKind::Opened, "opened"),
    (EventKind::Dropped, "dropped"),
    (EventKind::Closed, "closed"),
    (EventKind::Active, "active"),
    (EventKind::Dns, "dns"),
];
const ENDS: &[(EndReason, &str)] = &[
    (EndReason::Fin, "fin"),
    (EndReason::Rst, "rst"),
    (EndReason::Idle, "idle"),
    (EndReason::PolicyChange, "policy_change"),
    (EndReason::EndpointGone, "endpoint_gone"),
    (EndReason::Replaced, "replaced"),
];
const HOOKS: &[(Hook, &str)] =
    &[(Hook::FromPod, "from_pod"), (Hook::ToPod, "to_pod"), (Hook::FromUplink, "from_uplink")];
const DIRECTIONS: &[(Direction, &str)] = &[(Direction::Egress, "egress"), (Direction::Ingress, "ingress")];
const SCOPES: &[(RuleScope, &str)] = &[
    (RuleScope::All, "all"),
    (RuleScope::Peers, "peers"),
    (RuleScope::Ports, "ports"),
    (RuleScope::PeersAndPorts, "peers_and_ports"),
];

fn name<T: PartialEq>(names: &[(T, &'static str)], value: &T) -> Cell<'static> {
    // A value that has no name yet is found by the test that makes all of them.
    names.iter().find(|(known, _)| known == value).map_or(Cell::Null, |(_, name)| Cell::text(name))
}

#[cfg(test)]
mod document;
#[cfg(test)]
mod tests;
