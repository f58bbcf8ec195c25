//! Each field of a filter, on records of the fixture's world.

use std::{net::IpAddr, sync::Arc};

use datapath_abi::event::FlowEvent;
use proptest::prelude::*;
use proto::flow::{
    DropReason, EventTypeFilter, HttpHeader, IpVersion, NetworkInterface, TcpFlags, TrafficDirection, Workload,
    flow_filter::Experimental,
};

use super::*;
use crate::{
    fixture::{self, record, record_in, world},
    record::ServiceInfo,
};

fn texts(values: &[&str]) -> Vec<String> {
    values.iter().map(|&value| value.to_owned()).collect()
}

/// The records that a filter is tried on, by name.
fn records() -> Vec<(&'static str, FlowRecord)> {
    let mut known = world();
    let outside: IpAddr = "2001:db8::1".parse().unwrap();
    known.dns_names.insert(outside, ["www.example.com.".to_owned()].into());
    let service = ServiceInfo { namespace: "shop".to_owned(), name: "db".to_owned() };
    known.services.insert((fixture::address(fixture::DB), 5432), Arc::new(service));
    [
        ("opened", fixture::opened()),
        ("denied", fixture::denied()),
        ("closed", fixture::closed()),
        ("bad", fixture::bad_packet()),
        ("outside", fixture::from_outside()),
        ("ping", fixture::ping()),
    ]
    .into_iter()
    .map(|(name, event)| (name, record_in(&event, &known)))
    .collect()
}

/// Names of the records that match.
fn matching(filter: FlowFilter) -> Vec<&'static str> {
    let set = FilterSet::compile(std::slice::from_ref(&filter), &[]).unwrap_or_else(|error| panic!("{error}"));
    records().iter().filter(|(_, record)| set.matches(record)).map(|(name, _)| *name).collect()
}

/// The error that a filter is refused with.
fn refused(filter: FlowFilter) -> String {
    FilterSet::compile(&[], &[filter]).expect_err("refused").to_string()
}

macro_rules! check {
    ($($field:ident: $values:expr => $expected:expr;)*) => {
        $(assert_eq!(
            matching(FlowFilter { $field: $values, ..FlowFilter::default() }),
            $expected as &[&str],
            "{} {:?}", stringify!($field), $values,
        );)*
    };
}

const ALL: &[&str] = &["opened", "denied", "closed", "bad", "outside", "ping"];
const NONE: &[&str] = &[];

#[test]
fn no_filter_and_an_empty_filter_match_everything() {
    assert_eq!(matching(FlowFilter::default()), ALL);
    let none = FilterSet::default();
    assert!(records().iter().all(|(_, record)| none.matches(record)));
}

#[test]
fn addresses() {
    check! {
        source_ip: texts(&["10.1.0.66"]) => &["denied"];
        source_ip: texts(&["10.1.0.66", "2001:db8::/32"]) => &["denied", "outside"];
        destination_ip: texts(&["10.1.0.0/24"]) => &["opened", "denied", "closed", "bad", "ping"];
        destination_ip: texts(&["fd00::5"]) => &["outside"];
        source_ip: texts(&["10.1.0.0/28"]) => &["opened", "closed", "bad", "ping"];
        source_ip: texts(&["0.0.0.0/0"]) => &["opened", "denied", "closed", "bad", "ping"];
        ip_version: vec![IpVersion::IPv6 as i32] => &["outside"];
        ip_version: vec![IpVersion::IPv4 as i32, IpVersion::IPv6 as i32] => ALL;
        ip_version: vec![0] => NONE;
    }
}

#[test]
fn pods_namespaces_workloads_and_services() {
    check! {
        source_pod: texts(&["shop/web"]) => &["opened", "closed", "bad", "ping"];
        source_pod: texts(&["shop/web-0"]) => &["opened", "closed", "bad", "ping"];
        source_pod: texts(&["shop/web-01"]) => NONE;
        source_pod: texts(&["web"]) => NONE;
        source_pod: texts(&["/web"]) => &["opened", "closed", "bad", "ping"];
        source_pod: texts(&["other/"]) => &["denied"];
        destination_pod: texts(&["shop/"]) => ALL;
        destination_pod: texts(&["nowhere/", "shop/db"]) => &["opened", "denied", "closed", "bad", "ping"];
        destination_service: texts(&["shop/d"]) => &["opened", "denied", "closed", "bad"];
        destination_service: texts(&["db"]) => NONE;
        source_service: texts(&["shop/"]) => NONE;
        destination_workload: vec![Workload { name: "db".to_owned(), kind: String::new() }] =>
            &["opened", "denied", "closed", "bad", "ping"];
        destination_workload: vec![Workload { name: String::new(), kind: "StatefulSet".to_owned() }] =>
            &["opened", "denied", "closed", "bad", "ping"];
        destination_workload: vec![Workload { name: "db".to_owned(), kind: "Deployment".to_owned() }] => NONE;
        source_workload: vec![Workload { name: "eve".to_owned(), kind: String::new() }] => NONE;
        source_cluster_name: texts(&["default"]) => &["opened", "denied", "closed", "bad", "ping"];
        destination_cluster_name: texts(&["default"]) => ALL;
        destination_cluster_name: texts(&["elsewhere"]) => NONE;
    }
}

#[test]
fn labels_and_identities() {
    check! {
        source_label: texts(&["app=web"]) => &["opened", "closed", "bad", "ping"];
        source_label: texts(&["k8s:app=web,tier=web-tier"]) => &["opened", "closed", "bad", "ping"];
        source_label: texts(&["app=web,tier=other"]) => NONE;
        source_label: texts(&["app in (eve, web)", "reserved:world"]) => ALL;
        source_label: texts(&["reserved:world"]) => &["outside"];
        source_label: texts(&["world"]) => &["outside"];
        source_label: texts(&["k8s:world"]) => NONE;
        source_label: texts(&["!app"]) => &["outside"];
        source_label: texts(&["reserved:app"]) => NONE;
        source_label: texts(&["io.kubernetes.pod.namespace=other"]) => &["denied"];
        source_label: texts(&["k8s:io.kubernetes.pod.namespace"]) => &["opened", "denied", "closed", "bad", "ping"];
        destination_label: texts(&["app notin (db)"]) => &["outside"];
        source_identity: vec![258, 2] => &["denied", "outside"];
        destination_identity: vec![1] => NONE;
    }
}

#[test]
fn ports_protocols_and_flags() {
    let syn = TcpFlags { syn: true, ..TcpFlags::default() };
    let fin_ack = TcpFlags { fin: true, ack: true, ..TcpFlags::default() };
    let ns = TcpFlags { ns: true, ..TcpFlags::default() };
    check! {
        source_port: texts(&["41000"]) => &["opened", "denied", "closed", "bad", "outside"];
        destination_port: texts(&["53", "1"]) => &["outside"];
        destination_port: texts(&["0"]) => NONE;
        protocol: texts(&["tcp"]) => &["opened", "denied", "closed", "bad"];
        protocol: texts(&["UDP", "icmpv4"]) => &["outside", "ping"];
        protocol: texts(&["icmp"]) => &["ping"];
        protocol: texts(&["icmpv6", "sctp", "igmp", "vrrp"]) => NONE;
        tcp_flags: vec![syn] => &["opened", "denied", "closed", "bad"];
        tcp_flags: vec![fin_ack] => &["closed"];
        tcp_flags: vec![fin_ack, syn] => &["opened", "denied", "closed", "bad"];
        tcp_flags: vec![ns] => NONE;
        tcp_flags: vec![TcpFlags::default()] => &["opened", "denied", "closed", "bad"];
    }
}

#[test]
fn verdicts_reasons_and_types() {
    let kind = |r#type| vec![EventTypeFilter { r#type, match_sub_type: false, sub_type: 0 }];
    let sub = |r#type, sub_type| vec![EventTypeFilter { r#type, match_sub_type: true, sub_type }];
    check! {
        verdict: vec![Verdict::Dropped as i32] => &["denied", "bad"];
        verdict: vec![Verdict::Forwarded as i32] => &["opened", "closed", "outside", "ping"];
        verdict: vec![Verdict::Audit as i32, 77] => NONE;
        drop_reason_desc: vec![DropReason::PolicyDenied as i32] => &["denied"];
        drop_reason_desc: vec![DropReason::CtTruncatedOrInvalidHeader as i32] => &["bad"];
        drop_reason_desc: vec![0] => NONE;
        event_type: kind(5) => &["opened", "denied", "outside", "ping"];
        event_type: kind(1) => &["denied", "bad"];
        event_type: kind(4) => &["closed"];
        event_type: kind(0) => ALL;
        event_type: kind(129) => NONE;
        event_type: sub(1, 133) => &["denied"];
        event_type: sub(1, 135) => &["bad"];
        event_type: sub(4, 0) => &["closed"];
        event_type: sub(4, 3) => NONE;
        reply: vec![true] => NONE;
        reply: vec![false] => ALL;
        encrypted: vec![true] => NONE;
        encrypted: vec![false] => ALL;
        interface: vec![NetworkInterface { index: 7, name: String::new() }] => ALL;
        interface: vec![NetworkInterface { index: 8, name: String::new() }] => NONE;
    }
}

#[test]
fn a_connection_between_two_local_pods_is_found_in_both_directions() {
    check! {
        traffic_direction: vec![TrafficDirection::Ingress as i32] => &["opened", "denied", "outside", "ping"];
        traffic_direction: vec![TrafficDirection::Egress as i32] => &["opened", "closed", "bad", "ping"];
        traffic_direction: vec![TrafficDirection::Unknown as i32] => NONE;
    }
    let filter = FlowFilter { traffic_direction: vec![9], ..FlowFilter::default() };
    assert_eq!(refused(filter), "blacklist[0].traffic_direction[0]: unknown number 9");
}

#[test]
fn names_of_records_nodes_and_hosts() {
    let uuid = records()[0].1.uuid().to_string();
    // All records of the fixture have number 1; only their times differ.
    check! {
        uuid: vec![uuid.clone()] => &["opened", "denied", "bad", "outside", "ping"];
        uuid: vec!["00000000-0000-7000-8000-000000000000".to_owned()] => NONE;
        node_name: texts(&["node-a"]) => ALL;
        node_name: texts(&["default/node-*"]) => ALL;
        node_name: texts(&["other/"]) => NONE;
        node_labels: texts(&["zone in (a,b)"]) => ALL;
        node_labels: texts(&["zone=b"]) => NONE;
        source_fqdn: texts(&["*.example.com"]) => &["outside"];
        source_fqdn: texts(&["www.example.com."]) => &["outside"];
        source_fqdn: texts(&["example.com"]) => NONE;
        destination_fqdn: texts(&["*"]) => NONE;
    }
}

#[test]
fn fields_are_joined_by_and_filters_by_or_and_the_blacklist_takes_away() {
    let from_web = FlowFilter { source_pod: texts(&["shop/web"]), ..FlowFilter::default() };
    let tcp = FlowFilter { protocol: texts(&["tcp"]), ..FlowFilter::default() };
    let both = FlowFilter { protocol: texts(&["tcp"]), ..from_web.clone() };
    let names = |white: &[FlowFilter], black: &[FlowFilter]| -> Vec<&str> {
        let set = FilterSet::compile(white, black).unwrap();
        records().iter().filter(|(_, record)| set.matches(record)).map(|(name, _)| *name).collect()
    };
    assert_eq!(names(&[both], &[]), ["opened", "closed", "bad"]);
    assert_eq!(names(&[from_web.clone(), tcp.clone()], &[]), ["opened", "denied", "closed", "bad", "ping"]);
    assert_eq!(names(std::slice::from_ref(&tcp), std::slice::from_ref(&from_web)), ["denied"]);
    assert_eq!(names(&[], &[from_web, tcp]), ["outside"]);
}

#[test]
fn a_value_that_means_nothing_is_refused_by_name() {
    let f = FlowFilter::default;
    for (filter, error) in [
        (
            FlowFilter { source_ip: texts(&["10.0.0.1", "web"]), ..f() },
            "source_ip[1]: `web` is neither an IP address nor a CIDR such as 10.0.0.0/8",
        ),
        (
            FlowFilter { destination_port: texts(&["65536"]), ..f() },
            "destination_port[0]: `65536` is not a port, want 0 to 65535",
        ),
        (FlowFilter { source_port: texts(&["http"]), ..f() }, "source_port[0]: `http` is not a port, want 0 to 65535"),
        (
            FlowFilter { protocol: texts(&["quic"]), ..f() },
            "protocol[0]: unknown protocol `quic`, want tcp, udp, sctp, icmp, icmpv4, icmpv6, igmp, vrrp or dns",
        ),
        (
            FlowFilter { dns_query: texts(&["a("]), ..f() },
            "dns_query[0]: `a(` is not a regular expression, or too large a one",
        ),
        (
            FlowFilter { dns_query: texts(&["(a{1000}){1000}"]), ..f() },
            "dns_query[0]: `(a{1000}){1000}` is not a regular expression, or too large a one",
        ),
        (FlowFilter { uuid: texts(&["42"]), ..f() }, "uuid[0]: `42` is not a UUID"),
        (FlowFilter { uuid: texts(&["\u{1b}[2J\u{202e}"]), ..f() }, r"uuid[0]: `\u{1b}[2J\u{202e}` is not a UUID"),
        (FlowFilter { source_pod: texts(&[""]), ..f() }, "source_pod[0]: is empty, want a name"),
        (
            FlowFilter { source_label: texts(&["app is web"]), ..f() },
            "source_label[0]: label selector, byte 4: one of =, ==, !=, <, >, in, notin",
        ),
        (FlowFilter { source_workload: vec![Workload::default()], ..f() }, "source_workload[0]: is empty, want a name"),
        (FlowFilter { node_name: texts(&[""]), ..f() }, "node_name[0]: is empty, want a name"),
        (
            FlowFilter { interface: vec![NetworkInterface { index: 0, name: "eth0".to_owned() }], ..f() },
            "interface[0]: cannot be filtered by: flows carry the number of the interface, not its name; give its index",
        ),
    ] {
        assert_eq!(refused(filter), format!("blacklist[0].{error}"));
    }
}

#[test]
fn lookups_are_found_by_what_was_asked() {
    let found = |filter: FlowFilter| {
        let set = FilterSet::compile(&[filter], &[]).unwrap();
        fixture::lookups(&world()).iter().filter(|record| set.matches(record)).count()
    };
    let asks = |pattern: &str| FlowFilter { dns_query: texts(&[pattern]), ..FlowFilter::default() };
    for (pattern, count) in
        [("^www", 4), (r"EXAMPLE\.com$", 4), (r"example\.com\.$", 4), ("example$", 0), (r"^www\..*\.net", 0)]
    {
        assert_eq!(found(asks(pattern)), count, "{pattern}");
        assert_eq!(matching(asks(pattern)), NONE, "{pattern}");
    }
    let of = |protocol: &str| FlowFilter { protocol: texts(&[protocol]), ..FlowFilter::default() };
    assert_eq!(["dns", "udp", "tcp"].map(|name| found(of(name))), [4, 4, 0]);
    assert_eq!(matching(of("DNS")), NONE);
}

#[test]
fn fields_that_no_record_can_answer_are_refused_by_name() {
    let f = FlowFilter::default;
    let header = HttpHeader { key: "a".to_owned(), value: "b".to_owned() };
    let cel = Experimental { cel_expression: texts(&["true"]) };
    for (filter, field) in [
        (FlowFilter { http_status_code: texts(&["500"]), ..f() }, "http_status_code"),
        (FlowFilter { http_method: texts(&["GET"]), ..f() }, "http_method"),
        (FlowFilter { http_path: texts(&["/"]), ..f() }, "http_path"),
        (FlowFilter { http_url: texts(&["/"]), ..f() }, "http_url"),
        (FlowFilter { http_header: vec![header], ..f() }, "http_header"),
        (FlowFilter { trace_id: texts(&["a"]), ..f() }, "trace_id"),
        (FlowFilter { ip_trace_id: vec![1], ..f() }, "ip_trace_id"),
        (FlowFilter { source_ip_xlated: texts(&["10.0.0.1"]), ..f() }, "source_ip_xlated"),
        (FlowFilter { experimental: Some(cel), ..f() }, "experimental.cel_expression"),
        (FlowFilter { protocol: texts(&["http"]), ..f() }, "protocol[0]"),
    ] {
        let error = refused(filter);
        assert!(error.starts_with(&format!("blacklist[0].{field}: cannot be filtered by: ")), "{error}");
    }
    assert_eq!(matching(FlowFilter { experimental: Some(Experimental::default()), ..f() }), ALL);
}

#[test]
fn sizes_are_bounded() {
    let many = vec![FlowFilter::default(); MAX_FILTERS + 1];
    assert_eq!(
        FilterSet::compile(&many, &[]).unwrap_err().to_string(),
        "whitelist: 257 filters, at most 256 are taken"
    );
    assert!(FilterSet::compile(&many[1..], &many[1..]).is_ok());

    let wide = FlowFilter { source_identity: vec![1; MAX_VALUES], ..FlowFilter::default() };
    let lists = std::slice::from_ref(&wide);
    assert!(FilterSet::compile(lists, lists).is_ok(), "each list has its own bound");
    let one_more = FlowFilter { source_port: texts(&["1"]), ..FlowFilter::default() };
    assert_eq!(
        FilterSet::compile(&[wide, one_more], &[]).unwrap_err(),
        FilterError { field: "whitelist[1].source_port".to_owned(), problem: Problem::TooManyValues }
    );

    let patterns = |count: usize| FlowFilter { dns_query: vec!["a".to_owned(); count], ..FlowFilter::default() };
    assert!(FilterSet::compile(&[patterns(64)], &[]).is_ok());
    assert_eq!(FilterSet::compile(&[patterns(65)], &[]).unwrap_err().problem, Problem::TooManyValues);

    let long = "a".repeat(MAX_TEXT_BYTES + 1);
    for filter in [
        FlowFilter { source_pod: vec![long.clone()], ..FlowFilter::default() },
        FlowFilter { source_label: vec![long.clone()], ..FlowFilter::default() },
        FlowFilter {
            source_workload: vec![Workload { name: long.clone(), kind: String::new() }],
            ..FlowFilter::default()
        },
    ] {
        assert!(refused(filter).ends_with("1025 bytes long, at most 1024 are taken"));
    }
}

proptest! {
    /// Whatever the text, compiling and matching end without panic.
    #[test]
    fn no_text_breaks_it(text in "\\PC{0,80}", selector in "[a-z!=<>(), :]{0,40}", from in 0u8..3) {
        let values = vec![text, selector];
        for filter in [
            FlowFilter { source_label: values.clone(), ..FlowFilter::default() },
            FlowFilter { source_pod: values.clone(), ..FlowFilter::default() },
            FlowFilter { source_ip: values.clone(), ..FlowFilter::default() },
            FlowFilter { source_fqdn: values.clone(), ..FlowFilter::default() },
            FlowFilter { node_name: values.clone(), ..FlowFilter::default() },
            FlowFilter { dns_query: values.clone(), ..FlowFilter::default() },
            FlowFilter { node_labels: values, ..FlowFilter::default() },
        ] {
            if let Ok(filter) = Filter::compile(&filter, "filter") {
                let event = FlowEvent { hook: from % 2, ..fixture::opened() };
                filter.matches(&record(&event));
            }
        }
    }
}
