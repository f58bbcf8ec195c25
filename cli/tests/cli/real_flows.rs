//! `bulkhead flows` against the real observer of the crate `flows`: that each option means there
//! what it says here, and that what the lines are made from is what the daemon sends.

use std::{num::NonZeroUsize, sync::Arc};

use flows::{Observer, ObserverConfig, Pipeline, fixture};
use tempfile::TempDir;
use tokio::{net::UnixListener, runtime::Runtime};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

use crate::fake::{Ended, assert_golden, bulkhead, run};

/// An observer that has seen six events.
struct Seen {
    _runtime: Runtime,
    dir: TempDir,
}

impl Seen {
    fn start() -> Self {
        Self::start_with(true)
    }

    /// `rows`: it knows the columns of the history.
    fn start_with(rows: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pipeline = Arc::new(Pipeline::new(fixture::node(), NonZeroUsize::new(64).unwrap()));
        let world = fixture::world();
        let mut batch = pipeline.batch(fixture::clock(), &world);
        for event in [
            fixture::opened(),
            fixture::denied(),
            fixture::ping(),
            fixture::from_outside(),
            fixture::bad_packet(),
            fixture::closed(),
        ] {
            batch.push(&event).unwrap();
        }
        drop(batch);
        pipeline.kernel_lost(3, Some(1), fixture::START_UNIX_NS + 3_000_000_000);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = {
            let _inside = runtime.enter();
            UnixListener::bind(dir.path().join("api.sock")).unwrap()
        };
        let observer = Observer::new(ObserverConfig::default(), pipeline);
        let observer = if rows { observer.with_rows(history::rows::of) } else { observer };
        runtime.spawn(
            Server::builder()
                .add_service(observer.observer_service())
                .serve_with_incoming(UnixListenerStream::new(listener)),
        );
        Self { _runtime: runtime, dir }
    }

    fn flows(&self, args: &str) -> Ended {
        let mut line = vec!["flows"];
        line.extend(args.split_whitespace());
        run(&self.dir.path().join("api.sock"), &line)
    }

    /// The column VERDICT of each line.
    fn lines(&self, args: &str) -> Vec<String> {
        let ended = self.flows(args);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{args}");
        let rows = ended.stdout.lines().skip(1).filter(|line| !line.contains("LOST"));
        rows.map(|line| line.split("  ").filter(|word| !word.is_empty()).nth(1).unwrap().trim().to_owned()).collect()
    }
}

#[test]
fn what_the_daemon_records_has_its_lines() {
    let seen = Seen::start();
    for (name, args) in [("real-flows.txt", ""), ("real-flows.jsonl", "-o json")] {
        let ended = seen.flows(args);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{args}");
        assert_golden(name, &ended.stdout);
    }
}

#[test]
fn programs_find_the_deciding_rule() {
    let ended = Seen::start().flows("-o json --first 2");
    let lines: Vec<serde_json::Value> = ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [allowed, denied] = &lines[..] else { panic!("two lines: {}", ended.stdout) };
    let extension = &allowed["flow"]["extensions"]["value"];
    assert_eq!(extension["ingress"]["rule"]["policy"]["name"], "db-clients");
    assert_eq!(extension["ingress"]["rule"]["index"], 1);
    let isolated = &denied["flow"]["extensions"]["value"]["ingress"];
    assert_eq!((&isolated["outcome"], &isolated["isolated_by"][0]["name"]), (&"ISOLATED".into(), &"db-clients".into()));
}

#[test]
fn each_option_means_what_it_says() {
    let seen = Seen::start();
    // In the order of the events: web opens to db, eve is denied at db, web pings db, the world
    // sends web UDP, web sends db a bad packet, the first connection closes.
    let (open, deny, ping, world, bad, close) = ("ALLOWED", "DENIED", "ALLOWED", "ALLOWED", "DENIED", "CLOSED");
    let all = [open, deny, ping, world, bad, close];
    for (args, expected) in [
        ("", &all[..]),
        ("--all", &all),
        ("--last 2", &[bad, close]),
        ("--first 2", &[open, deny]),
        ("--verdict denied", &[deny, bad]),
        ("--verdict allowed", &[open, ping, world, close]),
        ("--not --verdict denied", &[open, ping, world, close]),
        ("-n other", &[deny]),
        ("--not -n other --not --protocol udp", &[open, ping, bad, close]),
        ("--from-namespace other", &[deny]),
        ("--to-namespace other", &[]),
        ("--pod eve-0", &[deny]),
        ("--pod other/eve", &[deny]),
        ("-n shop --pod eve-0", &[]),
        ("-n other --pod eve-0", &[deny]),
        ("--from-pod shop/web --to-pod shop/db", &[open, ping, bad, close]),
        ("--label app=eve", &[deny]),
        ("--from-label app=web --to-label app=db", &[open, ping, bad, close]),
        ("--label app=web,tier=web-tier", &[open, ping, world, bad, close]),
        ("--workload StatefulSet/db", &[open, deny, ping, bad, close]),
        ("--from-workload web", &[open, ping, bad, close]),
        ("--ip 10.1.0.66", &[deny]),
        ("--from-ip 10.1.0.64/26 --to-ip 10.1.0.9", &[deny]),
        ("--ip 2001:db8::/32", &[world]),
        ("--identity world", &[world]),
        ("--from-identity 258", &[deny]),
        ("--port 5432", &[open, deny, bad, close]),
        ("--to-port 53", &[world]),
        ("--from-port 53", &[]),
        ("--protocol icmp", &[ping]),
        ("--protocol udp --protocol icmpv4", &[ping, world]),
        ("--since 2026-01-02T03:04:06Z", &[close]),
        ("--until 2026-01-02T03:04:06Z", &[open, deny, ping, world, bad]),
    ] {
        assert_eq!(seen.lines(args), expected, "flows {args}");
    }
}

#[test]
fn the_daemon_answers_in_the_columns_of_the_history() {
    let seen = Seen::start();
    let csv = seen.flows("-o csv --verdict denied");
    assert_eq!((csv.code, csv.stderr.as_str()), (Some(0), "note: 3 events lost here, between these rows\n"));
    let lines: Vec<&str> = csv.stdout.lines().collect();
    assert_eq!((lines.len(), lines[0]), (3, history::csv::head().trim_end()));
    assert!(lines[1].contains(",dropped,ingress,default_deny,ingress,"), "{}", lines[1]);
    let socket = seen.dir.path().join("api.sock");
    let output = bulkhead(&socket, &["flows", "-o", "parquet", "--first", "4"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let path = seen.dir.path().join("flows.parquet");
    std::fs::write(&path, output.stdout).unwrap();
    let mut table = history::table::Reader::open(&path).unwrap();
    assert_eq!(table.summary().rows, 4);
    let cells = table.next(0, u64::MAX).unwrap().expect("a row");
    let first = fixture::record(&fixture::opened());
    let record = history::columns::row(&first);
    let verdict = history::rows::names().iter().position(|name| name == "verdict").unwrap();
    assert_eq!(cells[verdict], record[verdict]);
    let ended = seen.flows("-o parquet --follow");
    assert!(ended.code == Some(64) && ended.stderr.contains("-o csv"), "{}", ended.stderr);
    let ended = Seen::start_with(false).flows("-o csv");
    assert!(ended.code != Some(0) && ended.stderr.contains("runs without that part"), "{}", ended.stderr);
}

#[test]
fn a_selector_that_does_not_parse_is_a_usage_error() {
    let ended = Seen::start().flows("--label app=(web");
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(64), ""));
    assert!(ended.stderr.contains("label selector"), "{}", ended.stderr);
}
