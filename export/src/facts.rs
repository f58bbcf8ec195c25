//! What all outputs say of a record in the same words: its verdict, who decided, how the ends lie to each other, one
//! line for people. Pure.

use std::{fmt::Write as _, net::IpAddr};

use datapath_abi::{
    event::{EndReason, EventKind},
    identity,
    policy::Direction,
};
use dns::{
    Lookup, Outcome,
    lookup::{rcode_name, type_name},
};
use flows::{
    FlowRecord,
    record::{End, PolicyInfo, Ruling, protocol},
};

use crate::community::community_id;

/// What became of the packet or connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// It may pass, or did.
    Allowed,
    /// Policies forbid it: the packet was dropped, or the connection cut.
    Denied,
    /// Dropped, and not by policy.
    Error,
}

impl Verdict {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Error => "error",
        }
    }
}

pub(crate) fn verdict(record: &FlowRecord) -> Verdict {
    match (record.kind, record.end_reason) {
        (EventKind::Dropped, _) if record.is_policy_verdict() => Verdict::Denied,
        (EventKind::Dropped, _) => Verdict::Error,
        (EventKind::Closed, Some(EndReason::PolicyChange)) => Verdict::Denied,
        (EventKind::Opened | EventKind::Active | EventKind::Closed | EventKind::Dns, _) => Verdict::Allowed,
    }
}

/// Name of the event, as the stream says what happened.
pub(crate) fn kind(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Opened => "opened",
        EventKind::Dropped => "dropped",
        EventKind::Closed => "closed",
        EventKind::Active => "active",
        EventKind::Dns => "dns",
    }
}

pub(crate) fn end_reason(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Fin => "fin",
        EndReason::Rst => "rst",
        EndReason::Idle => "idle",
        EndReason::PolicyChange => "policy_change",
        EndReason::EndpointGone => "endpoint_gone",
        EndReason::Replaced => "replaced",
    }
}

pub(crate) fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Egress => "egress",
        Direction::Ingress => "ingress",
    }
}

/// Why, in a word of ours: the reason for the drop or for the end.
pub(crate) fn reason(record: &FlowRecord) -> &'static str {
    match (record.drop_reason, record.end_reason) {
        (Some(reason), _) => reason.name(),
        (None, Some(reason)) => end_reason(reason),
        (None, None) => "",
    }
}

/// IANA's name for a protocol in lower case, or its number.
pub(crate) fn protocol_name(number: u8) -> String {
    match number {
        protocol::ICMP => "icmp",
        protocol::IGMP => "igmp",
        protocol::TCP => "tcp",
        protocol::UDP => "udp",
        protocol::ICMPV6 => "ipv6-icmp",
        protocol::VRRP => "vrrp",
        protocol::SCTP => "sctp",
        other => return other.to_string(),
    }
    .to_owned()
}

/// The ruling that decided: the one that stands against the packet, else the one of a rule, else that of the
/// record's direction.
pub(crate) fn deciding(record: &FlowRecord) -> Option<(Direction, &Ruling)> {
    let both = [Direction::Egress, Direction::Ingress].map(|it| (it, record.ruling(it)));
    if verdict(record) != Verdict::Allowed {
        let denied = record.denied_in.map(|it| (it, record.ruling(it)));
        return denied.or_else(|| both.into_iter().find(|(_, ruling)| ruling.blocks()));
    }
    let own = record.direction().map(|it| (it, record.ruling(it)));
    let ruled = |it: &(Direction, &Ruling)| matches!(it.1, Ruling::Allowed(_));
    own.filter(ruled).or_else(|| both.into_iter().find(ruled)).or(own)
}

/// In a word, what policies said.
pub(crate) fn outcome(ruling: &Ruling) -> &'static str {
    match ruling {
        Ruling::NotAsked => "not-asked",
        Ruling::Open => "open",
        Ruling::Allowed(_) => "rule",
        Ruling::Denied(_) => "rule",
        Ruling::Isolated(_) => "implicit-deny",
        Ruling::Exempt => "own-node",
    }
}

/// `namespace/name`, or the name of a cluster-wide object.
pub(crate) fn policy_name(policy: &PolicyInfo) -> String {
    if policy.namespace.is_empty() { policy.name.clone() } else { format!("{}/{}", policy.namespace, policy.name) }
}

/// Whether an end belongs to the cluster.
pub(crate) fn is_inside(end: &End) -> bool {
    !end.namespace().is_empty()
        || end.identity >= identity::FIRST_POD
        || matches!(
            end.identity,
            identity::HOST | identity::REMOTE_NODE | identity::UNMANAGED | identity::KUBE_APISERVER
        )
}

/// What an end is: `pod`, or the name of a reserved identity.
pub(crate) fn end_kind(end: &End) -> &'static str {
    match end.reserved() {
        Some(name) => name,
        None => "pod",
    }
}

/// Address of an end; `None` where a record stands for many with different ones.
pub(crate) fn address(record: &FlowRecord, end: &End) -> Option<IpAddr> {
    (record.aggregate.is_none() || !end.ip.is_unspecified()).then_some(end.ip)
}

/// Port of an end; `None` where there are none, or many.
pub(crate) fn port(record: &FlowRecord, end: &End) -> Option<u16> {
    (record.has_ports() && (record.aggregate.is_none() || end.port != 0)).then_some(end.port)
}

/// The connection's Community ID, where it is of one connection.
pub(crate) fn community(record: &FlowRecord) -> Option<String> {
    let (source, destination) = (&record.source, &record.destination);
    let icmp = record.icmp.map(|icmp| (icmp.kind, icmp.code));
    let many = record.aggregate.as_ref().is_some_and(|it| it.count > 1);
    let ends = ((source.ip, source.port), (destination.ip, destination.port));
    if many { None } else { community_id(ends.0, ends.1, record.protocol, icmp) }
}

/// Whom the summary calls an end.
fn end_name(record: &FlowRecord, end: &End) -> String {
    let pod = end.pod_name();
    let workload = end.pod.as_ref().and_then(|pod| pod.workload.as_ref());
    let mut name = match (pod.is_empty(), end.namespace(), workload) {
        (false, namespace, _) => format!("{namespace}/{pod} "),
        (true, "", _) => String::new(),
        (true, namespace, Some(workload)) => format!("{namespace}/{} ", workload.name),
        (true, namespace, None) => format!("{namespace}/ "),
    };
    let _ = match (address(record, end), port(record, end)) {
        (Some(IpAddr::V6(ip)), Some(port)) => write!(name, "[{ip}]:{port}"),
        (Some(ip), Some(port)) => write!(name, "{ip}:{port}"),
        (Some(ip), None) => write!(name, "{ip}"),
        (None, Some(port)) => write!(name, "*:{port}"),
        (None, None) => name.write_char('*'),
    };
    name
}

/// A word for what came of a lookup: the response code, or that there is none.
pub(crate) fn lookup_outcome(lookup: &Lookup) -> String {
    match &lookup.outcome {
        Outcome::Answered(answer) => rcode_name(answer.rcode),
        Outcome::Unanswered => "no_answer".to_owned(),
        Outcome::Unfollowed => "not_followed".to_owned(),
    }
}

/// `dns www.example.com A: 192.0.2.1 in 1.2 ms`
fn lookup(lookup: &Lookup) -> String {
    let mut text = format!("dns {} {}: ", lookup.question.name, type_name(lookup.question.rtype));
    let answer = match &lookup.outcome {
        Outcome::Answered(answer) => answer,
        Outcome::Unanswered => return text + "no answer",
        Outcome::Unfollowed => return text + "not followed",
    };
    let said: Vec<String> =
        answer.records.iter().map(|record| record.data.to_string()).filter(|data| !data.is_empty()).collect();
    if answer.rcode != 0 || said.is_empty() {
        text.push_str(&rcode_name(answer.rcode));
    }
    text.push_str(&said.join(", "));
    let _ = write!(text, " in {}.{} ms", answer.latency_ns / 1_000_000, answer.latency_ns / 100_000 % 10);
    text
}

/// One line for people.
pub(crate) fn summary(record: &FlowRecord) -> String {
    let (source, destination) = (end_name(record, &record.source), end_name(record, &record.destination));
    let mut text = format!("{source} -> {destination} {} ", protocol_name(record.protocol));
    match (record.kind, verdict(record)) {
        (EventKind::Opened, _) => text.push_str("allowed"),
        (EventKind::Active, _) => text.push_str("active"),
        (EventKind::Dns, _) => text.push_str(&record.dns.as_deref().map_or_else(String::new, lookup)),
        (EventKind::Closed, Verdict::Denied) => text.push_str("cut"),
        (EventKind::Closed, _) => text.push_str("closed"),
        (EventKind::Dropped, Verdict::Denied) => text.push_str("denied"),
        (EventKind::Dropped, _) => text.push_str("dropped"),
    }
    if let Some(reason) = record.drop_reason {
        let _ = write!(text, ": {}", reason.text());
    } else if let Some(reason) = record.end_reason {
        let _ = write!(text, ": {}", end_reason(reason));
    }
    if let Some((_, ruling)) = deciding(record) {
        let policies: Vec<String> = match ruling {
            Ruling::Allowed(rule) | Ruling::Denied(rule) => rule
                .info
                .iter()
                .map(|it| format!("{} {} rule {}", policy_name(&it.policy), direction(it.direction), it.index))
                .collect(),
            Ruling::Isolated(policies) => policies.iter().map(|it| policy_name(it)).collect(),
            Ruling::NotAsked | Ruling::Open | Ruling::Exempt => Vec::new(),
        };
        if !policies.is_empty() {
            let _ = write!(text, " ({})", policies.join(", "));
        }
    }
    if let Some(aggregate) = &record.aggregate {
        let span_ms = record.time_unix_ns.saturating_sub(aggregate.first_unix_ns) / 1_000_000;
        let _ = write!(text, ", {} times in {}.{} s", aggregate.count, span_ms / 1000, span_ms / 100 % 10);
    }
    text
}
