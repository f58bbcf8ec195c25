use prost_types::Timestamp;

use super::*;

/// A flow in which no field has its zero value.
#[allow(deprecated)] // old clients read the deprecated fields
fn full() -> flow::Flow {
    let time = Some(Timestamp { seconds: 1, nanos: 0 });
    let text = || "x".to_owned();
    flow::Flow {
        time,
        uuid: text(),
        emitter: Some(flow::Emitter::default()),
        verdict: 1,
        drop_reason: 1,
        auth_type: 1,
        ethernet: Some(flow::Ethernet::default()),
        ip: Some(flow::Ip::default()),
        l4: Some(flow::Layer4::default()),
        tunnel: Some(flow::Tunnel::default()),
        source: Some(flow::Endpoint::default()),
        destination: Some(flow::Endpoint::default()),
        r#type: 1,
        node_name: text(),
        node_labels: vec![text()],
        source_names: vec![text()],
        destination_names: vec![text()],
        l7: Some(flow::Layer7::default()),
        reply: true,
        event_type: Some(flow::CiliumEventType::default()),
        source_service: Some(flow::Service::default()),
        destination_service: Some(flow::Service::default()),
        traffic_direction: 1,
        policy_match_type: 1,
        trace_observation_point: 1,
        trace_reason: 1,
        file: Some(flow::FileInfo::default()),
        ip_trace_id: Some(flow::IpTraceId::default()),
        drop_reason_desc: 133,
        is_reply: Some(false),
        debug_capture_point: 1,
        interface: Some(flow::NetworkInterface::default()),
        proxy_port: 1,
        trace_context: Some(flow::TraceContext::default()),
        sock_xlate_point: 1,
        socket_cookie: 1,
        cgroup_id: 1,
        summary: text(),
        extensions: Some(Any::default()),
        egress_allowed_by: vec![flow::Policy::default()],
        ingress_allowed_by: vec![flow::Policy::default()],
        egress_denied_by: vec![flow::Policy::default()],
        ingress_denied_by: vec![flow::Policy::default()],
        policy_log: vec![text()],
        aggregate: Some(flow::Aggregate::default()),
    }
}

#[test]
fn every_field_is_asked_for_and_printed_once_in_order() {
    let text = serde_json::to_string(&flow(&full())).unwrap();
    let mut from = 0;
    for field in FIELDS {
        let key = format!("\"{field}\":");
        let found = text[from..].find(&key).unwrap_or_else(|| panic!("{field} is missing or out of order in {text}"));
        from += found + key.len();
    }
    let printed = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text).unwrap();
    assert_eq!(printed.len(), FIELDS.len(), "a field is printed that is not asked for: {text}");
}

#[test]
fn what_the_table_reads_are_fields() {
    for field in crate::render::flow_table::FIELDS {
        assert!(FIELDS.contains(field), "{field}");
    }
}

#[test]
fn an_extension_that_is_not_ours_or_broken_is_left_alone() {
    let ours = format!("type.googleapis.com/{EXTENSION_TYPE}");
    assert_eq!(extension(None), None);
    assert_eq!(extension(Some(&Any { type_url: "x/acme.Flow".into(), value: Vec::new() })), None);
    assert_eq!(extension(Some(&Any { type_url: ours.clone(), value: vec![0xff; 3] })), None);
    let empty = ext::FlowExtension::default();
    assert_eq!(extension(Some(&Any { type_url: ours, value: Vec::new() })), Some(empty));
}
