//! Records as flows: whole messages for the cases that differ, single fields for the rest.

use std::collections::BTreeMap;

use datapath_abi::{event::FlowEvent, identity, reason::DropReason};
use proto::flow::{CiliumEventType, TcpFlags, TraceObservationPoint, TraceReason, TrafficDirection, Verdict};

use super::*;
use crate::{
    fixture::{self, record, record_in, world},
    record::FlowRecord,
};

fn flow_of(event: FlowEvent) -> Flow {
    flow(&record(&event))
}

fn extension_of(event: FlowEvent) -> FlowExtension {
    extension(&flow_of(event)).expect("ours")
}

fn labels(end: &str, namespace: &str) -> Vec<String> {
    vec![
        format!("k8s:app={end}"),
        format!("k8s:io.kubernetes.pod.namespace={namespace}"),
        format!("k8s:tier={end}-tier"),
    ]
}

fn policy_named(name: &str) -> flow::Policy {
    flow::Policy {
        name: name.to_owned(),
        namespace: "shop".to_owned(),
        labels: vec![
            "k8s:io.cilium.k8s.policy.derived-from=NetworkPolicy".to_owned(),
            format!("k8s:io.cilium.k8s.policy.name={name}"),
            "k8s:io.cilium.k8s.policy.namespace=shop".to_owned(),
            format!("k8s:io.cilium.k8s.policy.uid=uid-{name}"),
        ],
        revision: 3,
        kind: "NetworkPolicy".to_owned(),
    }
}

fn end(slot: u32, identity: u32, namespace: &str, name: &str, workload: Option<&str>) -> flow::Endpoint {
    flow::Endpoint {
        id: slot,
        identity,
        namespace: namespace.to_owned(),
        labels: labels(name, namespace),
        pod_name: format!("{name}-0"),
        workloads: workload
            .map(|kind| flow::Workload { name: name.to_owned(), kind: kind.to_owned() })
            .into_iter()
            .collect(),
        cluster_name: "default".to_owned(),
    }
}

/// What every flow between two pods of the fixture over TCP has in common.
#[allow(deprecated)]
fn common(event: &FlowEvent, source: flow::Endpoint, source_ip: &str) -> Flow {
    let FlowRecord { time_unix_ns, .. } = record(event);
    Flow {
        time: Some(timestamp(time_unix_ns)),
        uuid: record(event).uuid().to_string(),
        emitter: Some(flow::Emitter { name: "Bulkhead".to_owned(), version: String::new() }),
        ip: Some(flow::Ip {
            source: source_ip.to_owned(),
            destination: "10.1.0.9".to_owned(),
            ip_version: flow::IpVersion::IPv4 as i32,
            ..flow::Ip::default()
        }),
        l4: Some(flow::Layer4 {
            protocol: Some(Protocol::Tcp(flow::Tcp {
                source_port: 41_000,
                destination_port: 5432,
                flags: Some(TcpFlags { syn: true, ..TcpFlags::default() }),
            })),
        }),
        source: Some(source),
        destination: Some(end(2, 257, "shop", "db", Some("StatefulSet"))),
        r#type: flow::FlowType::L3L4 as i32,
        node_name: "node-a".to_owned(),
        node_labels: vec!["zone=a".to_owned()],
        interface: Some(flow::NetworkInterface { index: 7, name: String::new() }),
        summary: "TCP Flags: SYN".to_owned(),
        ..Flow::default()
    }
}

#[test]
fn an_allowed_connection_is_a_policy_verdict_with_the_policy_that_allowed_it() {
    let mut flow = flow_of(fixture::opened());
    assert!(flow.extensions.take().is_some());
    let expected = Flow {
        verdict: Verdict::Forwarded as i32,
        event_type: Some(CiliumEventType { r#type: 5, sub_type: 0 }),
        // web's egress is open, so it is db's ingress policy that had something to say.
        traffic_direction: TrafficDirection::Ingress as i32,
        policy_match_type: 2,
        is_reply: Some(false),
        ingress_allowed_by: vec![policy_named("db-clients")],
        ..common(&fixture::opened(), end(1, 256, "shop", "web", Some("Deployment")), "10.1.0.5")
    };
    assert_eq!(flow, expected);
}

#[test]
#[allow(deprecated)]
fn a_default_deny_lists_the_policies_that_isolate() {
    let mut flow = flow_of(fixture::denied());
    assert!(flow.extensions.take().is_some());
    let expected = Flow {
        verdict: Verdict::Dropped as i32,
        drop_reason: 133,
        drop_reason_desc: flow::DropReason::PolicyDenied as i32,
        event_type: Some(CiliumEventType { r#type: 5, sub_type: 0 }),
        traffic_direction: TrafficDirection::Ingress as i32,
        policy_match_type: 0,
        is_reply: None,
        ingress_denied_by: vec![policy_named("db-clients"), policy_named("default-deny")],
        ..common(&fixture::denied(), end(3, 258, "other", "eve", None), "10.1.0.66")
    };
    assert_eq!(flow, expected);
}

#[test]
fn a_drop_for_another_reason_is_a_drop_event() {
    let flow = flow_of(fixture::bad_packet());
    assert_eq!(flow.event_type, Some(CiliumEventType { r#type: 1, sub_type: 135 }));
    assert_eq!(flow.verdict(), Verdict::Dropped);
    assert_eq!(flow.traffic_direction(), TrafficDirection::Egress);
    assert_eq!((flow.ingress_denied_by, flow.egress_denied_by), (vec![], vec![]));
}

#[test]
fn closed_and_active_are_trace_events() {
    for kind in [EventKind::Closed, EventKind::Active] {
        let flow = flow_of(FlowEvent { kind: kind as u8, ..fixture::closed() });
        assert_eq!(flow.verdict(), Verdict::Forwarded);
        assert_eq!(flow.event_type, Some(CiliumEventType { r#type: 4, sub_type: 0 }));
        assert_eq!(flow.trace_observation_point(), TraceObservationPoint::ToEndpoint);
        assert_eq!(flow.trace_reason(), TraceReason::Established);
        assert_eq!(flow.traffic_direction(), TrafficDirection::Egress);
        assert_eq!(flow.policy_match_type, 0);
        assert_eq!(flow.summary_text(), "TCP Flags: SYN, ACK, FIN, PSH");
    }
    let out = FlowEvent { slot: [1, 0], ..fixture::closed() };
    assert_eq!(flow_of(out).event_type, Some(CiliumEventType { r#type: 4, sub_type: 3 }));
    assert_eq!(flow_of(out).trace_observation_point(), TraceObservationPoint::ToStack);
}

#[test]
fn both_directions_of_a_local_connection_are_in_one_flow() {
    let event = FlowEvent {
        rules: [fixture::WEB_EGRESS_RULES.0, fixture::DB_INGRESS_RULES.0],
        cookie: [fixture::WEB_EGRESS_COOKIE, fixture::DB_INGRESS_COOKIE],
        ..fixture::opened()
    };
    let flow = flow_of(event);
    assert_eq!(flow.egress_allowed_by, [policy_named("web-out")]);
    assert_eq!(flow.ingress_allowed_by, [policy_named("db-clients")]);
    assert_eq!(flow.traffic_direction(), TrafficDirection::Egress);
    assert_eq!(flow.policy_match_type, 1, "web-out's rule names peers only");
}

#[test]
fn the_extension_has_what_the_api_has_no_field_for() {
    let extension = extension_of(fixture::closed());
    assert_eq!(extension.kind(), ext::EventKind::Closed);
    assert_eq!(extension.end_reason(), ext::EndReason::Fin);
    assert_eq!(extension.sequence, 1);
    assert_eq!(extension.opened, Some(timestamp(fixture::START_UNIX_NS)));
    assert_eq!(extension.forward, Some(ext::Traffic { packets: 10, bytes: 1200, tcp_flags: 0x1b }));
    assert_eq!(extension.reverse, Some(ext::Traffic { packets: 8, bytes: 9000, tcp_flags: 0x1b }));
    assert_eq!(extension.rtt_us, 150);
    assert_eq!(extension.protocol, 6);
    assert_eq!(extension.source.unwrap().service_account, "web-sa");
    assert_eq!(extension.destination.unwrap().pod_uid, "uid-db-0");
    assert_eq!(extension.egress.unwrap().outcome(), ext::Outcome::Open);
    let ingress = extension.ingress.unwrap();
    assert_eq!(ingress.outcome(), ext::Outcome::RuleAllows);
    let rule = ingress.rule.unwrap();
    assert_eq!((rule.index, rule.cookie), (1, fixture::DB_INGRESS_COOKIE));
    assert_eq!(rule.policy.unwrap().name, "db-clients");
}

#[test]
fn the_extension_of_a_default_deny_says_isolated_by_whom() {
    let extension = extension_of(fixture::denied());
    assert_eq!((extension.drop_reason.as_str(), extension.opened), ("default_deny", None));
    assert_eq!(extension.drop_text, DropReason::DefaultDeny.text());
    let ingress = extension.ingress.unwrap();
    assert_eq!(ingress.outcome(), ext::Outcome::Isolated);
    let names: Vec<&str> = ingress.isolated_by.iter().map(|policy| policy.name.as_str()).collect();
    assert_eq!(names, ["db-clients", "default-deny"]);
    assert_eq!(ingress.rule, None);
}

#[test]
fn a_denying_rule_is_listed_and_marked() {
    let event =
        FlowEvent { reason: DropReason::DenyRule as u8, cookie: [0, fixture::DB_INGRESS_COOKIE], ..fixture::denied() };
    let flow = flow_of(event);
    assert_eq!(flow.ingress_denied_by, [policy_named("db-clients")]);
    assert_eq!(flow.drop_reason_desc(), flow::DropReason::PolicyDeny);
    assert_eq!(flow.policy_match_type, 2);
    let outcome = extension(&flow).unwrap().ingress.unwrap().outcome();
    assert_eq!(outcome, ext::Outcome::RuleDenies);
}

#[test]
fn ends_that_are_no_pods_have_a_reserved_label() {
    let flow = flow_of(fixture::from_outside());
    let source = flow.source.unwrap();
    assert_eq!((source.identity, source.labels.as_slice()), (2, &["reserved:world".to_owned()][..]));
    assert_eq!((source.cluster_name.as_str(), source.namespace.as_str()), ("", ""));
    assert_eq!(flow.ip.unwrap().ip_version(), flow::IpVersion::IPv6);
    assert_eq!(flow.l4.unwrap().protocol, Some(Protocol::Udp(flow::Udp { source_port: 41_000, destination_port: 53 })));
    for (number, label) in [
        (identity::UNKNOWN, "reserved:unknown"),
        (identity::HOST, "reserved:host"),
        (identity::UNMANAGED, "reserved:unmanaged"),
        (identity::REMOTE_NODE, "reserved:remote-node"),
        (identity::KUBE_APISERVER, "reserved:kube-apiserver"),
    ] {
        let event = FlowEvent { identity: [number, 256], ..fixture::from_outside() };
        assert_eq!(flow_of(event).source.unwrap().labels, [label.to_owned()]);
    }
}

#[test]
fn every_protocol_has_its_form_and_its_summary() {
    let of = |proto, port, v6| {
        let base = if v6 { fixture::from_outside() } else { fixture::opened() };
        let flow = flow_of(FlowEvent { proto, port, ..base });
        let summary = flow.summary_text().to_owned();
        (flow.l4.and_then(|l4| l4.protocol), summary)
    };
    let icmp = |kind, code| of(protocol::ICMP, [kind, code], false).1;
    let icmpv6 = |kind, code| of(protocol::ICMPV6, [kind, code], true).1;
    assert_eq!(icmp(8, 0), "ICMPv4 EchoRequest");
    assert_eq!(icmp(3, 4), "ICMPv4 DestinationUnreachable(4)");
    assert_eq!(icmp(250, 1), "ICMPv4 250(1)");
    assert_eq!(icmpv6(129, 0), "ICMPv6 EchoReply");
    assert_eq!(of(protocol::SCTP, [1, 2], false).1, "SCTP");
    assert_eq!(of(protocol::UDP, [1, 2], false).1, "UDP");
    assert_eq!(of(50, [0, 0], false), (None, "IP protocol 50".to_owned()));
    assert_eq!(of(protocol::ICMP, [3, 4], false).0, Some(Protocol::IcmPv4(flow::IcmPv4 { r#type: 3, code: 4 })));
    assert_eq!(
        of(protocol::SCTP, [1, 2], false).0,
        Some(Protocol::Sctp(flow::Sctp { source_port: 1, destination_port: 2 }))
    );
}

#[test]
fn services_names_and_clusters_are_shown() {
    let mut world = world();
    let service = ServiceInfo { namespace: "shop".to_owned(), name: "db".to_owned() };
    world.services.insert((fixture::address(fixture::DB), 5432), service.clone().into());
    let mut record = record_in(&fixture::opened(), &world);
    record.node = Node { cluster: "prod".to_owned(), labels: BTreeMap::new(), ..Node::clone(&record.node) }.into();
    record.source.dns_names = Some(["web.example".to_owned()].into());
    let flow = flow(&record);
    assert_eq!(flow.destination_service, Some(super::service(&service)));
    assert_eq!(flow.source_names, ["web.example"]);
    assert_eq!((flow.node_name.as_str(), flow.source.unwrap().cluster_name.as_str()), ("prod/node-a", "prod"));
}

#[test]
fn a_lookup_is_an_answer_of_layer_7_from_the_one_who_asked() {
    let mut world = world();
    let service = ServiceInfo { namespace: "infra".to_owned(), name: "dns".to_owned() };
    world.services.insert(("10.96.0.10".parse().unwrap(), 53), service.clone().into());
    let flows: Vec<Flow> = fixture::lookups(&world).iter().map(flow).collect();
    let [answered, missing, unanswered, unfollowed] = &flows[..] else { panic!() };
    let dns = flow::Dns {
        query: "www.example.com.".to_owned(),
        ips: vec!["192.0.2.7".to_owned()],
        ttl: 30,
        cnames: vec!["edge.example.net.".to_owned()],
        observation_source: "Query".to_owned(),
        rcode: 0,
        qtypes: vec!["A".to_owned()],
        rrtypes: vec!["CNAME".to_owned(), "A".to_owned()],
    };
    let layer7 = flow::Layer7 {
        r#type: flow::L7FlowType::Response as i32,
        latency_ns: 1_250_000,
        record: Some(flow::layer7::Record::Dns(dns)),
    };
    assert_eq!(answered.l7, Some(layer7));
    assert_eq!((answered.r#type(), answered.verdict()), (flow::FlowType::L7, Verdict::Forwarded));
    assert_eq!(answered.event_type, Some(CiliumEventType { r#type: 129, sub_type: 0 }));
    assert_eq!((answered.is_reply, answered.traffic_direction()), (Some(false), TrafficDirection::Egress));
    assert_eq!(answered.source.as_ref().unwrap().pod_name, "web-0");
    assert_eq!(answered.destination_service, Some(super::service(&service)));
    assert_eq!(answered.egress_allowed_by, []);
    for (flow, text) in [
        (answered, r#"DNS Answer "192.0.2.7" TTL: 30 CNAMEs: "edge.example.net." (Query www.example.com. A)"#),
        (missing, "DNS Answer RCode: NXDOMAIN (Query www.example.com. A)"),
        (unanswered, "DNS Query www.example.com. A, no answer"),
        (unfollowed, "DNS Query www.example.com. A, not followed"),
    ] {
        assert_eq!(flow.summary_text(), text);
    }
    assert_eq!(unanswered.l7.as_ref().unwrap().r#type(), flow::L7FlowType::Request);
    let extension = extension(answered).unwrap();
    assert_eq!((extension.kind(), extension.addressed.as_str()), (ext::EventKind::Dns, "10.96.0.10:53"));
    let lookup = extension.lookup.unwrap();
    assert_eq!((lookup.outcome(), lookup.rcode.as_str(), lookup.id), (ext::LookupOutcome::Answered, "NOERROR", 4711));
    assert_eq!(lookup.records[0].data, "edge.example.net");
    assert_eq!((extension.egress, extension.ingress), (None, None), "the connection's record has them");
}

#[test]
fn foreign_extensions_are_not_ours() {
    let foreign = Any { type_url: "type.googleapis.com/other".to_owned(), value: vec![] };
    assert_eq!(extension(&Flow { extensions: Some(foreign), ..Flow::default() }), None);
    let broken = Any { type_url: EXTENSION_TYPE_URL.to_owned(), value: vec![0xff] };
    assert_eq!(extension(&Flow { extensions: Some(broken), ..Flow::default() }), None);
}

/// The field is deprecated in the API and yet what its clients print.
trait SummaryText {
    fn summary_text(&self) -> &str;
}

impl SummaryText for Flow {
    #[allow(deprecated)]
    fn summary_text(&self) -> &str {
        &self.summary
    }
}
