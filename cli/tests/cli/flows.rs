//! `bulkhead flows`: what is printed, what is asked, and what happens when the stream breaks.

use std::{
    io::{BufRead, BufReader, Read},
    time::{Duration, Instant},
};

use proto::{flow::FlowFilter, observer::GetFlowsRequest};
use tonic::Status;

use crate::{
    fake::{Answers, Fake, assert_golden, bulkhead},
    shop_flows,
};

/// Takes out of a request what every table asks for: some fields, and our extension in its own type.
fn without_mask(mut request: GetFlowsRequest) -> GetFlowsRequest {
    let mask = request.field_mask.take().expect("a field mask");
    assert!(mask.paths.iter().any(|path| path == "extensions"), "{mask:?}");
    assert_eq!(request.extensions.take(), Some(flows::observer::convert::reads_extension()));
    request
}

/// What was asked, without the above.
fn asked(fake: &Fake) -> Vec<GetFlowsRequest> {
    fake.asked.flows.lock().unwrap().iter().cloned().map(without_mask).collect()
}

/// Between two flows of a busy stream; shorter than any pause.
const PACE: Duration = Duration::from_millis(8);

fn shop() -> Fake {
    Fake::start(Answers { flows: shop_flows::all(), ..Answers::default() })
}

#[test]
fn each_kind_of_flow_has_its_line() {
    let fake = shop();
    for (name, args) in [
        ("flows.txt", &["flows"][..]),
        ("flows-colour.txt", &["flows", "--color", "always"]),
        ("flows.jsonl", &["flows", "-o", "json"]),
        ("flows.jsonl", &["flows", "-o", "jsonpb"]),
    ] {
        let ended = fake.run(args);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{args:?}");
        assert_golden(name, &ended.stdout);
    }
}

#[test]
fn every_line_of_json_is_an_object() {
    let ended = shop().run(&["flows", "-o", "json"]);
    let lines: Vec<serde_json::Value> =
        ended.stdout.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert_eq!(lines.len(), shop_flows::all().len());
    let allowed = &lines[0]["flow"];
    assert_eq!(allowed["verdict"], "FORWARDED");
    assert_eq!(allowed["IP"]["ipVersion"], "IPv4");
    assert_eq!(allowed["l4"]["TCP"]["destination_port"], 5432);
    assert_eq!(lines[0]["node_name"], "node-a");
}

#[test]
fn flows_are_added_up() {
    for (name, args) in [
        ("flows-top-talkers.txt", &["flows", "--top", "talkers"][..]),
        ("flows-top-denied.txt", &["flows", "--top", "denied", "--by", "pod"]),
        ("flows-top-ports.txt", &["flows", "--top", "ports", "--by", "namespace", "--rows", "1"]),
        ("flows-top.json", &["flows", "--top", "talkers", "--by", "pod", "-o", "json"]),
    ] {
        let fake = shop();
        let ended = fake.run(args);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{args:?}");
        assert_golden(name, &ended.stdout);
        // All that there is, unless something else is asked for.
        assert_eq!(asked(&fake)[0].number, u64::MAX);
    }
    let fake = shop();
    fake.run(&["flows", "--top", "ports", "--since", "1h"]);
    assert_eq!(asked(&fake)[0].number, 0);
    let ended = Fake::start(Answers::default()).run(&["flows", "--top", "denied"]);
    assert_eq!(ended.stdout, "0 flows from - to -: 0 connections, 0 packets denied, 0 B\n");
}

#[test]
fn a_summary_that_breaks_off_is_not_shown_as_if_it_were_whole() {
    let end = Some(tonic::Status::unavailable("gone"));
    let ended = Fake::start(Answers { flows: shop_flows::all(), flows_end: end, ..Answers::default() })
        .run(&["flows", "--top", "talkers"]);
    assert_ne!(ended.code, Some(0));
    assert_eq!(ended.stdout, "");
}

#[test]
fn no_flows_print_nothing() {
    let ended = Fake::start(Answers::default()).run(&["flows"]);
    assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.as_str()), (Some(0), "", ""));
}

#[test]
fn how_many_and_from_when() {
    let fake = shop();
    for args in [
        &["flows"][..],
        &["flows", "--last", "7"],
        &["flows", "--first", "3"],
        &["flows", "--all"],
        &["flows", "--since", "2026-01-02T03:04:05Z"],
        &["flows", "--since", "2026-01-02T03:04:05Z", "--until", "2026-01-02T03:04:06.5Z", "--last", "9"],
    ] {
        assert_eq!(fake.run(args).code, Some(0), "{args:?}");
    }
    let second = |seconds: i64, nanos| Some(prost_types::Timestamp { seconds: 1_767_323_045 + seconds, nanos });
    let base = GetFlowsRequest::default;
    let expected = [
        GetFlowsRequest { number: 20, ..base() },
        GetFlowsRequest { number: 7, ..base() },
        GetFlowsRequest { number: 3, first: true, ..base() },
        GetFlowsRequest { number: u64::MAX, ..base() },
        GetFlowsRequest { since: second(0, 0), ..base() },
        GetFlowsRequest { number: 9, since: second(0, 0), until: second(1, 500_000_000), ..base() },
    ];
    assert_eq!(asked(&fake), expected);
}

#[test]
fn options_become_filters() {
    let fake = shop();
    let line = "flows -n shop --to-pod db --port 5432 --verdict denied --not --protocol udp";
    assert_eq!(fake.run(&line.split(' ').collect::<Vec<_>>()).code, Some(0));
    let base = FlowFilter { destination_pod: vec!["shop/db".into()], verdict: vec![2], ..FlowFilter::default() };
    let port = vec!["5432".to_owned()];
    let source = FlowFilter { source_port: port.clone(), ..base.clone() };
    let destination = FlowFilter { destination_port: port, ..base };
    let udp = FlowFilter { protocol: vec!["udp".into()], ..FlowFilter::default() };
    assert_eq!(
        asked(&fake),
        [GetFlowsRequest {
            number: 20,
            whitelist: vec![source, destination],
            blacklist: vec![udp],
            ..GetFlowsRequest::default()
        }]
    );
}

#[test]
fn a_stream_that_breaks_keeps_what_has_come() {
    let flows = vec![shop_flows::allowed()];
    let end = Some(Status::internal("map is gone"));
    let ended = Fake::start(Answers { flows, flows_end: end, ..Answers::default() }).run(&["flows"]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stdout.contains("shop/web-0 -> shop/db-0:5432"), "{}", ended.stdout);
    assert!(ended.stderr.contains("map is gone"), "{}", ended.stderr);
}

#[test]
fn followed_flows_come_at_once_and_the_end_of_the_daemon_is_told() {
    let mut fake = Fake::start(Answers { flows: vec![shop_flows::allowed()], ..Answers::default() });
    let mut child = bulkhead(&fake.socket(), &["flows", "--follow"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().starts_with("TIME (UTC)"));
    assert!(lines.next().unwrap().unwrap().contains("ALLOWED"));
    assert_eq!(asked(&fake)[0], GetFlowsRequest { follow: true, ..GetFlowsRequest::default() });
    // The stream is silent now, and the command waits; longer than its deadline for answers would be wrong.
    std::thread::sleep(Duration::from_millis(100));
    assert!(child.try_wait().unwrap().is_none());
    fake.kill();
    assert!(lines.next().is_none());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(69), "{stderr}");
    assert!(stderr.contains("fix: "), "{stderr}");
}

#[test]
fn silence_while_following_is_no_error() {
    let fake = Fake::start(Answers::default());
    let mut child = bulkhead(&fake.socket(), &["--timeout", "100ms", "flows", "--follow"]).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(600));
    let ended = child.try_wait().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(ended.is_none(), "{ended:?}");
}

#[test]
fn a_stream_without_pauses_is_not_kept_back() {
    // 125 flows in the second, evenly: never a pause long enough to flush for its sake.
    let mut fake = Fake::start(Answers { flows: vec![shop_flows::allowed(); 600], pace: PACE, ..Answers::default() });
    let mut child = bulkhead(&fake.socket(), &["flows", "--follow"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let begin = Instant::now();
    assert!(lines.next().unwrap().unwrap().starts_with("TIME (UTC)"));
    let waited = begin.elapsed();
    fake.kill();
    child.wait().unwrap();
    assert!(waited < PACE * 300, "the first line came after {waited:?}");
}
