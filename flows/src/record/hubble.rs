//! A record in the terms of the Hubble API: its verdicts, event numbers and label sources. Both
//! the filters and the conversion ask here, so that a filter finds what the output shows.

use std::net::IpAddr;

use datapath_abi::{event::EventKind, identity, policy::Direction};
use proto::flow::{IpVersion, TcpFlags, TraceObservationPoint, TrafficDirection, Verdict};

use super::{End, FlowRecord, Node, protocol};

/// The label under which the API's clients expect a pod's namespace.
pub const NAMESPACE_LABEL: &str = "io.kubernetes.pod.namespace";

/// `event_type.type` of a drop (Cilium, `pkg/monitor/api`).
const DROP: i32 = 1;
/// `event_type.type` of a trace.
const TRACE: i32 = 4;
/// `event_type.type` of a policy verdict.
const POLICY_VERDICT: i32 = 5;

/// `event_type.type` of what an application has said.
const ACCESS_LOG: i32 = 129;

/// `event_type.sub_type` of a trace to a pod; unlike [`TraceObservationPoint`] it is 0.
const TO_ENDPOINT: i32 = 0;

impl FlowRecord {
    /// Verdict.
    pub fn verdict(&self) -> Verdict {
        match self.kind {
            EventKind::Dropped => Verdict::Dropped,
            EventKind::Opened | EventKind::Closed | EventKind::Active | EventKind::Dns => Verdict::Forwarded,
        }
    }

    /// `event_type`: type and sub type.
    pub fn event_number(&self) -> (i32, i32) {
        match self.kind {
            EventKind::Opened => (POLICY_VERDICT, 0),
            EventKind::Dropped if self.is_policy_verdict() => (POLICY_VERDICT, 0),
            EventKind::Dropped => (DROP, self.drop_code() as i32),
            EventKind::Dns => (ACCESS_LOG, 0),
            EventKind::Closed | EventKind::Active => (
                TRACE,
                match self.observation_point() {
                    TraceObservationPoint::ToEndpoint => TO_ENDPOINT,
                    other => other as i32,
                },
            ),
        }
    }

    /// Type and sub type of the drop event that the reference sends beside the policy verdict.
    pub fn drop_number(&self) -> Option<(i32, i32)> {
        (self.kind == EventKind::Dropped).then(|| (DROP, self.drop_code() as i32))
    }

    /// Number of the drop reason, 0 if it was not dropped.
    pub fn drop_code(&self) -> u32 {
        self.drop_reason.map_or(0, |reason| reason.hubble())
    }

    /// Where a connection's packets go: to a pod of this node or to the host's stack.
    pub fn observation_point(&self) -> TraceObservationPoint {
        if self.destination.is_local() { TraceObservationPoint::ToEndpoint } else { TraceObservationPoint::ToStack }
    }

    /// [`FlowRecord::direction`] as the API's number.
    pub fn hubble_direction(&self) -> TrafficDirection {
        match self.direction() {
            None => TrafficDirection::Unknown,
            Some(Direction::Egress) => TrafficDirection::Egress,
            Some(Direction::Ingress) => TrafficDirection::Ingress,
        }
    }

    /// Family of the addresses.
    pub fn ip_version(&self) -> IpVersion {
        match self.source.ip {
            IpAddr::V4(_) => IpVersion::IPv4,
            IpAddr::V6(_) => IpVersion::IPv6,
        }
    }

    /// Whether the protocol has ports.
    pub fn has_ports(&self) -> bool {
        matches!(self.protocol, protocol::TCP | protocol::UDP | protocol::SCTP)
    }
}

impl End {
    /// Name of a reserved identity.
    pub fn reserved(&self) -> Option<&'static str> {
        Some(match self.identity {
            identity::UNKNOWN => "unknown",
            identity::HOST => "host",
            identity::WORLD => "world",
            identity::UNMANAGED => "unmanaged",
            identity::REMOTE_NODE => "remote-node",
            identity::KUBE_APISERVER => "kube-apiserver",
            _ => return None,
        })
    }

    /// Value of a label of source `k8s`.
    pub fn k8s_label(&self, key: &str) -> Option<&str> {
        if key == NAMESPACE_LABEL {
            return Some(self.namespace()).filter(|namespace| !namespace.is_empty());
        }
        self.labels()?.get(key).map(String::as_str)
    }

    /// Every label, as `source:key=value`, sorted.
    pub fn hubble_labels(&self) -> Vec<String> {
        let mut labels = Vec::new();
        if let Some(known) = self.labels() {
            labels.reserve(known.len() + 1);
            labels.extend(known.iter().map(|(key, value)| format!("k8s:{key}={value}")));
        }
        if !self.namespace().is_empty() {
            labels.push(format!("k8s:{NAMESPACE_LABEL}={}", self.namespace()));
            labels.sort();
        }
        labels.extend(self.reserved().map(|name| format!("reserved:{name}")));
        labels
    }

    /// Cluster it belongs to, empty if it is not of a cluster.
    pub fn cluster<'a>(&self, node: &'a Node) -> &'a str {
        let inside = !self.namespace().is_empty()
            || matches!(
                self.identity,
                identity::HOST | identity::UNMANAGED | identity::REMOTE_NODE | identity::KUBE_APISERVER
            )
            || self.identity >= identity::FIRST_POD;
        if inside { &node.cluster } else { "" }
    }
}

/// Bits of byte 13 of the TCP header (RFC 9293, section 3.1).
pub fn tcp_flag_bits(flags: &TcpFlags) -> u8 {
    let TcpFlags { fin, syn, rst, psh, ack, urg, ece, cwr, ns: _ } = *flags;
    [fin, syn, rst, psh, ack, urg, ece, cwr]
        .into_iter()
        .enumerate()
        .fold(0, |bits, (bit, set)| bits | u8::from(set) << bit)
}

/// The flags in byte 13 of the TCP header.
pub fn tcp_flags(bits: u8) -> TcpFlags {
    let set = |bit: u32| bits & 1 << bit != 0;
    TcpFlags {
        fin: set(0),
        syn: set(1),
        rst: set(2),
        psh: set(3),
        ack: set(4),
        urg: set(5),
        ece: set(6),
        cwr: set(7),
        ns: false,
    }
}
