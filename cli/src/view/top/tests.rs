//! Summaries of flows that stand here.

use prost::Message as _;
use proto::{
    bulkhead::flow::v1::EndReason,
    flow::{Ip, Layer4, Tcp, Workload},
};

use super::*;
use crate::render::flow_json::reads_extension;

fn end(namespace: &str, pod: &str, workload: &str) -> Option<Endpoint> {
    let workloads = match workload {
        "" => Vec::new(),
        name => vec![Workload { name: name.to_owned(), kind: "Deployment".to_owned() }],
    };
    Some(Endpoint { namespace: namespace.to_owned(), pod_name: pod.to_owned(), workloads, ..Endpoint::default() })
}

fn world() -> Option<Endpoint> {
    Some(Endpoint { labels: vec!["reserved:world".to_owned()], ..Endpoint::default() })
}

/// The `second`th flow of a connection from web-1 to the database, `port` its own.
fn flow(second: i64, port: u32, kind: EventKind, bytes: u64) -> Flow {
    let opened = Some(Timestamp { seconds: i64::from(port), nanos: 0 });
    let forward = Some(Traffic { packets: bytes / 100, bytes, tcp_flags: 0 });
    let end_reason = if kind == EventKind::Closed { EndReason::Fin } else { EndReason::Unspecified } as i32;
    let drop_reason = if kind == EventKind::Dropped { "default_deny" } else { "" }.to_owned();
    let extension = FlowExtension {
        kind: kind as i32,
        opened,
        forward,
        end_reason,
        drop_reason,
        protocol: 6,
        ..Default::default()
    };
    let verdict = if kind == EventKind::Dropped { Verdict::Dropped } else { Verdict::Forwarded };
    let tcp = Tcp { source_port: port, destination_port: 5432, flags: None };
    let ip = Ip { source: "10.0.0.2".to_owned(), destination: "10.0.0.3".to_owned(), ..Ip::default() };
    Flow {
        time: Some(Timestamp { seconds: second, nanos: 0 }),
        verdict: verdict as i32,
        ip: Some(ip),
        l4: Some(Layer4 { protocol: Some(Protocol::Tcp(tcp)) }),
        source: end("shop", "web-1", "web"),
        destination: end("shop", "db-0", "db"),
        extensions: Some(prost_types::Any { value: extension.encode_to_vec(), ..reads_extension() }),
        ..Flow::default()
    }
}

fn of(what: What, by: By, flows: &[Flow]) -> Summary {
    let mut top = Top::new(what, by, 10);
    for flow in flows {
        top.flow(flow);
    }
    top.summary()
}

fn lines(summary: &Summary) -> Vec<String> {
    let line = |row: &Row| {
        let Sums { connections, denied, packets, bytes, .. } = row.sums;
        let Row { source, destination, protocol, port, reason, .. } = row;
        format!("{source}>{destination} {protocol}{port} {reason}: {connections} {denied} {packets} {bytes}")
    };
    summary.rows.iter().map(line).collect()
}

#[test]
fn a_connections_bytes_count_once_however_often_they_are_told() {
    let told = [
        flow(1, 40_000, EventKind::Opened, 0),
        flow(61, 40_000, EventKind::Active, 1000),
        flow(121, 40_000, EventKind::Active, 3000),
        flow(130, 40_000, EventKind::Closed, 3500),
        // Another one on the same ports would be told as opened at another time; this one began before all this.
        flow(140, 40_001, EventKind::Closed, 200),
        flow(150, 40_002, EventKind::Active, 100),
    ];
    let summary = of(What::Talkers, By::Workload, &told);
    assert_eq!(lines(&summary), ["shop/web>shop/db 0 : 1 0 38 3800"]);
    assert_eq!((summary.flows, summary.since.as_deref()), (6, Some("1970-01-01T00:00:01Z")));
    assert_eq!(summary.rows[0].last_seen.as_deref(), Some("1970-01-01T00:02:30Z"));
}

#[test]
fn denials_are_told_apart_by_port_and_reason_and_answers_belong_to_their_connection() {
    let mut answer = flow(3, 40_000, EventKind::Dropped, 60);
    std::mem::swap(&mut answer.source, &mut answer.destination);
    answer.is_reply = Some(true);
    answer.l4 = Some(Layer4 {
        protocol: Some(Protocol::Tcp(Tcp { source_port: 5432, destination_port: 40_000, flags: None })),
    });
    let mut outside = flow(4, 40_000, EventKind::Dropped, 60);
    (outside.destination, outside.destination_names) = (world(), vec!["db.example".to_owned()]);
    let told = [flow(1, 1, EventKind::Dropped, 60), answer, outside, flow(2, 1, EventKind::Opened, 0)];
    assert_eq!(
        lines(&of(What::Denied, By::Workload, &told)),
        ["shop/web>shop/db TCP5432 default_deny: 0 2 0 0", "shop/web>db.example TCP5432 default_deny: 0 1 0 0"]
    );
    assert_eq!(
        lines(&of(What::Denied, By::Pod, &told[2..3])),
        ["shop/web-1>10.0.0.3 (db.example) TCP5432 default_deny: 0 1 0 0"]
    );
    assert_eq!(lines(&of(What::Talkers, By::Namespace, &told)), ["shop>shop 0 : 1 2 0 0", "shop>world 0 : 0 1 0 0"]);
    assert_eq!(lines(&of(What::Ports, By::Namespace, &told)), [">shop TCP5432 : 1 2 0 0", ">world TCP5432 : 0 1 0 0"]);
}

#[test]
fn what_has_no_row_is_counted_all_the_same() {
    let mut top = Top::new(What::Ports, By::Pod, 2);
    for port in 0..ROWS as u32 + 50 {
        let mut flow = flow(1, 1, EventKind::Opened, 0);
        flow.l4 =
            Some(Layer4 { protocol: Some(Protocol::Tcp(Tcp { source_port: 1, destination_port: port, flags: None })) });
        top.flow(&flow);
    }
    top.lost(7);
    let summary = top.summary();
    assert_eq!(summary.rows.len(), 2);
    assert_eq!(summary.more, ROWS as u64 - 2 + 1);
    assert_eq!(summary.others.connections, ROWS as u64 + 48);
    assert_eq!((summary.total.connections, summary.lost), (ROWS as u64 + 50, 7));
}

#[test]
fn connections_beyond_those_that_are_followed_count_when_they_end() {
    let mut top = Top::new(What::Talkers, By::Pod, 10);
    for port in 0..LIVING as u32 + 1 {
        top.flow(&flow(1, port, EventKind::Active, 100));
    }
    assert_eq!(top.summary().total.bytes, LIVING as u64 * 100);
    top.flow(&flow(2, LIVING as u32, EventKind::Closed, 300));
    top.flow(&flow(2, 0, EventKind::Closed, 300));
    assert_eq!(top.summary().total.bytes, LIVING as u64 * 100 + 300 + 200);
}
