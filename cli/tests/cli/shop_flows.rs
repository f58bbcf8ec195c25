//! Canned flows of the shop: each kind of event, both families, with and without our extension.

use prost::Message;
use prost_types::{Any, Timestamp};
use proto::{
    bulkhead::flow::v1::{self as ext, EndReason, EventKind, FlowExtension, Outcome, Ruling, Traffic},
    flow::{
        CiliumEventType, DropReason, Endpoint, Flow, FlowType, IcmPv6, Ip, IpVersion, Layer4, LostEvent,
        LostEventSource, Policy, Tcp, TcpFlags, TrafficDirection, Udp, Verdict, Workload, layer4::Protocol,
    },
    observer::{GetFlowsResponse, get_flows_response::ResponseTypes},
    relay::{NodeState, NodeStatusEvent},
};

/// 2026-11-22T05:19:21.843399753Z, and so many milliseconds later.
fn at(milliseconds: i32) -> Option<Timestamp> {
    Some(Timestamp { seconds: 1_795_324_761, nanos: 843_399_753 + milliseconds * 1_000_000 })
}

fn response(response_types: ResponseTypes, milliseconds: i32) -> GetFlowsResponse {
    GetFlowsResponse { node_name: "node-a".into(), time: at(milliseconds), response_types: Some(response_types) }
}

fn end(pod: &str, id: u32, identity: u32, app: &str) -> Option<Endpoint> {
    Some(Endpoint {
        id,
        identity,
        namespace: "shop".into(),
        labels: vec![format!("k8s:app={app}"), "k8s:io.kubernetes.pod.namespace=shop".into()],
        pod_name: pod.into(),
        workloads: vec![Workload { name: app.into(), kind: "StatefulSet".into() }],
        ..Endpoint::default()
    })
}

fn reserved(identity: u32, name: &str) -> Option<Endpoint> {
    Some(Endpoint { identity, labels: vec![format!("reserved:{name}")], ..Endpoint::default() })
}

fn tcp(destination_port: u32) -> Option<Layer4> {
    let flags = Some(TcpFlags { syn: true, ..TcpFlags::default() });
    Some(Layer4 { protocol: Some(Protocol::Tcp(Tcp { source_port: 40_000, destination_port, flags })) })
}

fn ip(source: &str, destination: &str) -> Option<Ip> {
    let version = if source.contains(':') { IpVersion::IPv6 } else { IpVersion::IPv4 };
    Some(Ip { source: source.into(), destination: destination.into(), ip_version: version as i32, ..Ip::default() })
}

fn policy(name: &str) -> ext::Policy {
    ext::Policy { kind: "NetworkPolicy".into(), namespace: "shop".into(), name: name.into(), uid: String::new() }
}

fn by_rule(name: &str) -> Option<Ruling> {
    let rule = Some(ext::Rule { policy: Some(policy(name)), index: 0, cookie: 40 });
    Some(Ruling { outcome: Outcome::RuleAllows as i32, rule, isolated_by: Vec::new() })
}

fn open() -> Option<Ruling> {
    Some(Ruling { outcome: Outcome::Open as i32, ..Ruling::default() })
}

fn packed(extension: &FlowExtension) -> Option<Any> {
    let type_url = "type.googleapis.com/bulkhead.flow.v1.FlowExtension".to_owned();
    Some(Any { type_url, value: extension.encode_to_vec() })
}

#[allow(deprecated)] // old clients read the summary
fn base(number: i32, verdict: Verdict) -> Flow {
    Flow {
        time: at(number),
        uuid: format!("00000000-0000-4000-8000-{number:012}"),
        verdict: verdict as i32,
        ip: ip("10.88.0.3", "10.88.0.2"),
        l4: tcp(5432),
        source: end("web-0", 2, 302, "web"),
        destination: end("db-0", 1, 301, "db"),
        r#type: FlowType::L3L4 as i32,
        node_name: "node-a".into(),
        event_type: Some(CiliumEventType { r#type: 5, sub_type: 0 }),
        traffic_direction: TrafficDirection::Ingress as i32,
        is_reply: Some(false),
        summary: "TCP Flags: SYN".into(),
        ..Flow::default()
    }
}

fn traffic(packets: u64, bytes: u64) -> Option<Traffic> {
    Some(Traffic { packets, bytes, tcp_flags: 0x1b })
}

/// What the database accepts.
pub(crate) fn allowed() -> GetFlowsResponse {
    let extension = FlowExtension {
        kind: EventKind::Opened as i32,
        sequence: 1,
        opened: at(1),
        forward: traffic(1, 60),
        egress: open(),
        ingress: by_rule("db-ingress"),
        source: Some(ext::End { service_account: "default".into(), pod_uid: "u-1".into() }),
        protocol: 6,
        ..FlowExtension::default()
    };
    let by = Policy {
        name: "db-ingress".into(),
        namespace: "shop".into(),
        kind: "NetworkPolicy".into(),
        ..Policy::default()
    };
    let flow = Flow { extensions: packed(&extension), ingress_allowed_by: vec![by], ..base(1, Verdict::Forwarded) };
    response(ResponseTypes::Flow(flow), 1)
}

/// What it does not.
#[allow(deprecated)] // old clients read the number
fn denied() -> GetFlowsResponse {
    let ruling = Ruling {
        outcome: Outcome::Isolated as i32,
        rule: None,
        isolated_by: vec![policy("db-ingress"), policy("deny-all")],
    };
    let extension = FlowExtension {
        kind: EventKind::Dropped as i32,
        sequence: 2,
        drop_reason: "default_deny".into(),
        drop_text: "isolated by policy and no rule allows it".into(),
        forward: traffic(1, 60),
        ingress: Some(ruling),
        egress: open(),
        protocol: 6,
        ..FlowExtension::default()
    };
    let flow = Flow {
        extensions: packed(&extension),
        source: end("cache-0", 4, 305, "cache"),
        drop_reason: 133,
        drop_reason_desc: DropReason::PolicyDenied as i32,
        is_reply: None,
        ..base(2, Verdict::Dropped)
    };
    response(ResponseTypes::Flow(flow), 2)
}

/// A connection that a policy change ended, and one that ended by itself.
fn ended(number: i32, reason: EndReason) -> GetFlowsResponse {
    let extension = FlowExtension {
        kind: EventKind::Closed as i32,
        sequence: u64::try_from(number).unwrap(),
        opened: at(1),
        end_reason: reason as i32,
        forward: traffic(12, 3_482),
        reverse: traffic(1, 52),
        rtt_us: 180,
        ingress: by_rule("db-ingress"),
        protocol: 6,
        ..FlowExtension::default()
    };
    let flow = Flow { extensions: packed(&extension), ..base(number, Verdict::Forwarded) };
    response(ResponseTypes::Flow(flow), number)
}

/// To the world, by UDP over IPv6, from a source with a DNS name.
fn outside() -> GetFlowsResponse {
    let extension = FlowExtension {
        kind: EventKind::Opened as i32,
        sequence: 5,
        egress: open(),
        protocol: 17,
        ..Default::default()
    };
    let flow = Flow {
        extensions: packed(&extension),
        ip: ip("fd88::3", "2001:db8::7"),
        l4: Some(Layer4 { protocol: Some(Protocol::Udp(Udp { source_port: 5353, destination_port: 53 })) }),
        destination: reserved(2, "world"),
        destination_names: vec!["dns.example.org".into()],
        ..base(5, Verdict::Forwarded)
    };
    response(ResponseTypes::Flow(flow), 5)
}

/// From the node, by ICMPv6, as a server without our extension would tell it.
fn plain() -> GetFlowsResponse {
    let by =
        Policy { name: "ping".into(), namespace: "shop".into(), kind: "NetworkPolicy".into(), ..Policy::default() };
    let flow = Flow {
        ip: ip("fd88::1", "fd88::2"),
        l4: Some(Layer4 { protocol: Some(Protocol::IcmPv6(IcmPv6 { r#type: 128, code: 0 })) }),
        source: reserved(1, "host"),
        ingress_allowed_by: vec![by],
        ..base(6, Verdict::Forwarded)
    };
    response(ResponseTypes::Flow(flow), 6)
}

/// An extension that we cannot read, a verdict and an enum that we do not know.
fn foreign() -> GetFlowsResponse {
    let flow = Flow {
        extensions: Some(Any { type_url: "type.googleapis.com/acme.Flow".into(), value: vec![1, 2, 3] }),
        verdict: 77,
        l4: None,
        ip: ip("10.88.0.3", "198.51.100.9"),
        destination: None,
        trace_reason: 99,
        ..base(7, Verdict::Unknown)
    };
    response(ResponseTypes::Flow(flow), 7)
}

/// A source that lies about its address, with escape sequences in its name.
fn spoofed() -> GetFlowsResponse {
    let extension = FlowExtension {
        kind: EventKind::Dropped as i32,
        sequence: 8,
        drop_reason: "invalid_source_ip".into(),
        drop_text: "source address does not belong to the sender".into(),
        protocol: 6,
        ..FlowExtension::default()
    };
    let flow = Flow {
        extensions: packed(&extension),
        source: end("evil\u{1b}[31m", 9, 309, "x"),
        drop_reason_desc: DropReason::InvalidSourceIp as i32,
        ..base(8, Verdict::Dropped)
    };
    response(ResponseTypes::Flow(flow), 8)
}

fn lost() -> GetFlowsResponse {
    let lost = LostEvent {
        source: LostEventSource::PerfEventRingBuffer as i32,
        num_events_lost: 17,
        cpu: Some(0),
        first: None,
        last: at(9),
    };
    response(ResponseTypes::LostEvents(lost), 9)
}

fn node_gone() -> GetFlowsResponse {
    let status = NodeStatusEvent {
        state_change: NodeState::NodeGone as i32,
        node_names: vec!["node-b".into()],
        message: "drained".into(),
    };
    response(ResponseTypes::NodeStatus(status), 10)
}

/// One of each.
pub(crate) fn all() -> Vec<GetFlowsResponse> {
    vec![
        allowed(),
        denied(),
        ended(3, EndReason::PolicyChange),
        ended(4, EndReason::Fin),
        outside(),
        plain(),
        foreign(),
        spoofed(),
        lost(),
        node_gone(),
    ]
}
