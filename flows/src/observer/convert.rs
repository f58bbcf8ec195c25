//! From a record to `flow.Flow`. Runs only when a client wants the record. What the API has no
//! field for goes into `extensions`: as `bulkhead.flow.v1.FlowExtension` for clients that say they
//! can read it, else as a `google.protobuf.Struct` with the same content. Clients written in Go
//! print a message as JSON only if they know every type in it, and all of them know that one.

use std::{fmt, sync::Arc};

use datapath_abi::{
    event::{EndReason, EventKind},
    policy::Direction,
};
use prost::Message;
use prost_types::{Any, Timestamp};
use proto::{
    bulkhead::flow::v1::{self as ext, FlowExtension},
    flow::{self, Flow, layer4::Protocol},
    observer::{GetFlowsResponse, get_flows_response::ResponseTypes},
};

use crate::record::{
    DEFAULT_CLUSTER, End, FlowRecord, Node, PolicyInfo, RuleRef, RuleScope, Ruling, ServiceInfo, Traffic, protocol,
    tcp_flags,
};

use super::mask::Mask;

mod lookup;
mod readable;
mod summary;

/// Name of the component in `flow.emitter`.
pub const EMITTER: &str = "Bulkhead";

/// Type URL of what is in `flow.extensions`.
pub const EXTENSION_TYPE_URL: &str = "type.googleapis.com/bulkhead.flow.v1.FlowExtension";

/// Type URL of what is in `flow.extensions` for clients that have not asked for ours.
pub const READABLE_TYPE_URL: &str = "type.googleapis.com/google.protobuf.Struct";

/// Type URL of what is in `flow.extensions` for clients that want rows.
const ROW_TYPE_URL: &str = "type.googleapis.com/bulkhead.flow.v1.HistoryRow";

/// Makes rows of records.
pub trait Rows: Send + Sync + fmt::Debug {
    /// The cells of the columns that were asked for.
    fn cells(&self, record: &FlowRecord) -> Vec<u8>;
}

/// Makes them for who asks for these columns.
pub type Former = fn(&[String]) -> Arc<dyn Rows>;

/// In which form `flow.extensions` goes out.
#[derive(Clone, Debug, Default)]
pub enum ExtensionForm {
    /// For clients that know nothing of us.
    #[default]
    Readable,
    /// For clients that have said so.
    Typed,
    /// For clients that want rows and nothing else.
    Row(Arc<dyn Rows>),
}

/// What a client puts into `GetFlowsRequest.extensions` to get rows of these columns.
pub fn reads_rows(columns: Vec<String>) -> Any {
    let row = ext::HistoryRow { columns, cells: Vec::new() };
    Any { type_url: ROW_TYPE_URL.to_owned(), value: row.encode_to_vec() }
}

/// The columns that a client asks for, if it does.
pub(super) fn wanted_columns(extensions: &Any) -> Option<Result<Vec<String>, prost::DecodeError>> {
    let is_it = extensions.type_url == ROW_TYPE_URL;
    is_it.then(|| ext::HistoryRow::decode(extensions.value.as_slice()).map(|row| row.columns))
}

/// The cells of the columns that were asked for, if the server knows of them.
pub fn cells(flow: &Flow) -> Option<Vec<u8>> {
    let any = flow.extensions.as_ref().filter(|any| any.type_url == ROW_TYPE_URL)?;
    ext::HistoryRow::decode(any.value.as_slice()).ok().map(|row| row.cells)
}

/// What a client puts into `GetFlowsRequest.extensions` to say that it can read
/// `bulkhead.flow.v1.FlowExtension`.
pub fn reads_extension() -> Any {
    Any { type_url: EXTENSION_TYPE_URL.to_owned(), value: Vec::new() }
}

/// The flow that a record becomes, with every field and the extension in our own type.
pub fn flow(record: &FlowRecord) -> Flow {
    masked_flow(record, &Mask::default(), &ExtensionForm::Typed)
}

/// What a client gets of a record: the fields of `mask`, and ours in `form`.
pub fn response(record: &FlowRecord, mask: &Mask, form: &ExtensionForm) -> GetFlowsResponse {
    GetFlowsResponse {
        node_name: node_name(&record.node),
        time: Some(timestamp(record.time_unix_ns)),
        response_types: Some(ResponseTypes::Flow(masked_flow(record, mask, form))),
    }
}

/// What is in `flow.extensions`, if it is ours.
pub fn extension(flow: &Flow) -> Option<FlowExtension> {
    let any = flow.extensions.as_ref().filter(|any| any.type_url == EXTENSION_TYPE_URL)?;
    FlowExtension::decode(any.value.as_slice()).ok()
}

/// The flow that a record becomes, with the fields of `mask`.
#[allow(deprecated)] // Old clients read drop_reason, reply and Summary.
pub(super) fn masked_flow(record: &FlowRecord, mask: &Mask, form: &ExtensionForm) -> Flow {
    if let ExtensionForm::Row(_) = form {
        return Flow { extensions: Some(packed(record, form)), ..Flow::default() };
    }
    let (kind, sub_type) = record.event_number();
    let trace = matches!(record.kind, EventKind::Closed | EventKind::Active);
    let is_reply = record.is_reply();
    let mut flow = Flow {
        time: Some(timestamp(record.time_unix_ns)),
        uuid: record.uuid().to_string(),
        emitter: Some(flow::Emitter { name: EMITTER.to_owned(), version: String::new() }),
        verdict: record.verdict() as i32,
        drop_reason: record.drop_code(),
        ip: Some(flow::Ip {
            source: record.source.ip.to_string(),
            destination: record.destination.ip.to_string(),
            ip_version: record.ip_version() as i32,
            encrypted: false,
            source_xlated: String::new(),
        }),
        l4: layer4(record),
        source: Some(endpoint(&record.source, &record.node, mask.wants_labels())),
        destination: Some(endpoint(&record.destination, &record.node, mask.wants_labels())),
        r#type: if record.dns.is_some() { flow::FlowType::L7 } else { flow::FlowType::L3L4 } as i32,
        node_name: node_name(&record.node),
        node_labels: record.node.labels.iter().map(|(key, value)| format!("{key}={value}")).collect(),
        source_names: names(&record.source),
        destination_names: names(&record.destination),
        l7: record.dns.as_deref().map(lookup::layer7),
        reply: is_reply.unwrap_or_default(),
        event_type: Some(flow::CiliumEventType { r#type: kind, sub_type }),
        source_service: record.source.service.as_deref().map(service),
        destination_service: record.destination.service.as_deref().map(service),
        traffic_direction: record.hubble_direction() as i32,
        policy_match_type: match_type(record),
        trace_observation_point: if trace { record.observation_point() as i32 } else { 0 },
        trace_reason: if trace { flow::TraceReason::Established as i32 } else { 0 },
        drop_reason_desc: record.drop_code() as i32,
        is_reply,
        interface: (record.ifindex != 0).then(|| flow::NetworkInterface { index: record.ifindex, name: String::new() }),
        summary: summary::text(record),
        extensions: mask.wants_extensions().then(|| packed(record, form)),
        egress_allowed_by: allowed_by(&record.egress),
        ingress_allowed_by: allowed_by(&record.ingress),
        egress_denied_by: denied_by(&record.egress),
        ingress_denied_by: denied_by(&record.ingress),
        ..Flow::default()
    };
    mask.apply(&mut flow);
    flow
}

fn packed(record: &FlowRecord, form: &ExtensionForm) -> Any {
    let (type_url, value) = match form {
        ExtensionForm::Typed => (EXTENSION_TYPE_URL, flow_extension(record).encode_to_vec()),
        ExtensionForm::Readable => (READABLE_TYPE_URL, readable::object(flow_extension(record)).encode_to_vec()),
        ExtensionForm::Row(rows) => {
            let row = ext::HistoryRow { columns: Vec::new(), cells: rows.cells(record) };
            (ROW_TYPE_URL, row.encode_to_vec())
        }
    };
    Any { type_url: type_url.to_owned(), value }
}

/// A time of day.
pub fn timestamp(unix_ns: u64) -> Timestamp {
    const NS_PER_S: u64 = 1_000_000_000;
    // At most 2^64 / 10^9 seconds and less than 10^9 nanoseconds: both fit.
    Timestamp { seconds: (unix_ns / NS_PER_S) as i64, nanos: (unix_ns % NS_PER_S) as i32 }
}

/// `node`, or `cluster/node` if the cluster has a name.
pub fn node_name(node: &Node) -> String {
    name_in_cluster(&node.cluster, &node.name)
}

/// The same of any node.
pub(super) fn name_in_cluster(cluster: &str, name: &str) -> String {
    if cluster.is_empty() || cluster == DEFAULT_CLUSTER { name.to_owned() } else { format!("{cluster}/{name}") }
}

fn layer4(record: &FlowRecord) -> Option<flow::Layer4> {
    let (source_port, destination_port) = (u32::from(record.source.port), u32::from(record.destination.port));
    let (kind, code) = record.icmp.map_or((0, 0), |icmp| (u32::from(icmp.kind), u32::from(icmp.code)));
    let protocol = match record.protocol {
        protocol::TCP => {
            let flags = Some(tcp_flags(record.forward.tcp_flags));
            Protocol::Tcp(flow::Tcp { source_port, destination_port, flags })
        }
        protocol::UDP => Protocol::Udp(flow::Udp { source_port, destination_port }),
        protocol::SCTP => Protocol::Sctp(flow::Sctp { source_port, destination_port }),
        protocol::ICMP => Protocol::IcmPv4(flow::IcmPv4 { r#type: kind, code }),
        protocol::ICMPV6 => Protocol::IcmPv6(flow::IcmPv6 { r#type: kind, code }),
        protocol::VRRP => Protocol::Vrrp(flow::Vrrp::default()),
        protocol::IGMP => Protocol::Igmp(flow::Igmp::default()),
        _ => return None,
    };
    Some(flow::Layer4 { protocol: Some(protocol) })
}

fn endpoint(end: &End, node: &Node, labels: bool) -> flow::Endpoint {
    let workload = end.pod.as_ref().and_then(|pod| pod.workload.as_ref());
    flow::Endpoint {
        id: end.slot,
        identity: end.identity,
        namespace: end.namespace().to_owned(),
        labels: if labels { end.hubble_labels() } else { Vec::new() },
        pod_name: end.pod_name().to_owned(),
        workloads: workload
            .map(|workload| flow::Workload { name: workload.name.clone(), kind: workload.kind.clone() })
            .into_iter()
            .collect(),
        cluster_name: end.cluster(node).to_owned(),
    }
}

fn names(end: &End) -> Vec<String> {
    end.dns_names.as_deref().unwrap_or_default().to_vec()
}

fn service(service: &ServiceInfo) -> flow::Service {
    flow::Service { name: service.name.clone(), namespace: service.namespace.clone() }
}

/// What the deciding rule constrains; 0 if there is none, as for a default deny.
fn match_type(record: &FlowRecord) -> u32 {
    const L3_ONLY: u32 = 1;
    const L3_L4: u32 = 2;
    const L4_ONLY: u32 = 3;
    const ALL: u32 = 4;
    if !record.is_policy_verdict() {
        return 0;
    }
    match record.direction().map(|direction| record.ruling(direction)) {
        Some(Ruling::Allowed(rule) | Ruling::Denied(rule)) => match rule.info.as_ref().map(|info| info.scope) {
            Some(RuleScope::All) => ALL,
            Some(RuleScope::Peers) => L3_ONLY,
            Some(RuleScope::Ports) => L4_ONLY,
            Some(RuleScope::PeersAndPorts) => L3_L4,
            None => 0,
        },
        Some(Ruling::Open | Ruling::Exempt) => ALL,
        Some(Ruling::Isolated(_) | Ruling::NotAsked) | None => 0,
    }
}

fn allowed_by(ruling: &Ruling) -> Vec<flow::Policy> {
    match ruling {
        Ruling::Allowed(RuleRef { cookie: _, info: Some(rule) }) => vec![policy(&rule.policy)],
        _ => Vec::new(),
    }
}

fn denied_by(ruling: &Ruling) -> Vec<flow::Policy> {
    match ruling {
        Ruling::Denied(RuleRef { cookie: _, info: Some(rule) }) => vec![policy(&rule.policy)],
        Ruling::Isolated(policies) => policies.iter().map(|info| policy(info)).collect(),
        _ => Vec::new(),
    }
}

fn policy(info: &PolicyInfo) -> flow::Policy {
    let PolicyInfo { kind, namespace, name, uid, revision } = info;
    // The labels by which readers of the API find the object.
    let mut labels =
        vec![format!("k8s:io.cilium.k8s.policy.derived-from={kind}"), format!("k8s:io.cilium.k8s.policy.name={name}")];
    for (key, value) in [("namespace", namespace), ("uid", uid)] {
        if !value.is_empty() {
            labels.push(format!("k8s:io.cilium.k8s.policy.{key}={value}"));
        }
    }
    flow::Policy { name: name.clone(), namespace: namespace.clone(), labels, revision: *revision, kind: kind.clone() }
}

fn flow_extension(record: &FlowRecord) -> FlowExtension {
    FlowExtension {
        kind: match record.kind {
            EventKind::Opened => ext::EventKind::Opened,
            EventKind::Dropped => ext::EventKind::Dropped,
            EventKind::Closed => ext::EventKind::Closed,
            EventKind::Active => ext::EventKind::Active,
            EventKind::Dns => ext::EventKind::Dns,
        } as i32,
        sequence: record.sequence,
        opened: record.opened_unix_ns.map(timestamp),
        end_reason: match record.end_reason {
            None => ext::EndReason::Unspecified,
            Some(EndReason::Fin) => ext::EndReason::Fin,
            Some(EndReason::Rst) => ext::EndReason::Rst,
            Some(EndReason::Idle) => ext::EndReason::Idle,
            Some(EndReason::PolicyChange) => ext::EndReason::PolicyChange,
            Some(EndReason::EndpointGone) => ext::EndReason::EndpointGone,
            Some(EndReason::Replaced) => ext::EndReason::Replaced,
        } as i32,
        drop_reason: record.drop_reason.map_or_else(String::new, |reason| reason.name().to_owned()),
        drop_text: record.drop_reason.map_or_else(String::new, |reason| reason.text().to_owned()),
        forward: Some(traffic(record.forward)),
        reverse: Some(traffic(record.reverse)),
        rtt_us: record.rtt_us.map_or(0, Into::into),
        egress: ruling(record.ruling(Direction::Egress)),
        ingress: ruling(record.ruling(Direction::Ingress)),
        source: extended_end(&record.source),
        destination: extended_end(&record.destination),
        protocol: u32::from(record.protocol),
        staged_egress: record.staged_egress.as_ref().and_then(ruling),
        staged_ingress: record.staged_ingress.as_ref().and_then(ruling),
        addressed: record.addressed.map_or_else(String::new, |addressed| addressed.to_string()),
        lookup: record.dns.as_deref().map(lookup::extended),
    }
}

fn traffic(traffic: Traffic) -> ext::Traffic {
    let Traffic { packets, bytes, tcp_flags } = traffic;
    ext::Traffic { packets, bytes, tcp_flags: u32::from(tcp_flags) }
}

fn ruling(ruling: &Ruling) -> Option<ext::Ruling> {
    let (outcome, rule, isolated_by) = match ruling {
        Ruling::NotAsked => return None,
        Ruling::Open => (ext::Outcome::Open, None, Vec::new()),
        Ruling::Allowed(rule) => (ext::Outcome::RuleAllows, Some(extended_rule(rule)), Vec::new()),
        Ruling::Denied(rule) => (ext::Outcome::RuleDenies, Some(extended_rule(rule)), Vec::new()),
        Ruling::Isolated(policies) => {
            (ext::Outcome::Isolated, None, policies.iter().map(|info| extended_policy(info)).collect())
        }
        Ruling::Exempt => (ext::Outcome::Exempt, None, Vec::new()),
    };
    Some(ext::Ruling { outcome: outcome as i32, rule, isolated_by })
}

fn extended_rule(rule: &RuleRef) -> ext::Rule {
    let info = rule.info.as_ref();
    ext::Rule {
        policy: info.map(|info| extended_policy(&info.policy)),
        index: info.map_or(0, |info| info.index),
        cookie: rule.cookie,
    }
}

fn extended_policy(info: &PolicyInfo) -> ext::Policy {
    let PolicyInfo { kind, namespace, name, uid, revision: _ } = info.clone();
    ext::Policy { kind, namespace, name, uid }
}

fn extended_end(end: &End) -> Option<ext::End> {
    let service_account = end.service_account().to_owned();
    let pod_uid = end.pod.as_ref().map_or_else(String::new, |pod| pod.uid.clone());
    (!service_account.is_empty() || !pod_uid.is_empty()).then_some(ext::End { service_account, pod_uid })
}

#[cfg(test)]
mod tests;
