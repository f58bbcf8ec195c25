//! The flow API over a ring that is too small and a history that is not: each record comes once, in order, whichever
//! part of the answer it is from.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use flows::{
    Observer, ObserverConfig, Pipeline,
    enrich::WallClock,
    fixture::{self, START_NS, START_UNIX_NS, node, world},
    observer::convert,
};
use proto::{
    flow::FlowFilter,
    observer::{GetFlowsRequest, GetFlowsResponse, get_flows_response::ResponseTypes, observer_server::Observer as _},
};
use tokio::sync::watch;
use tokio_stream::StreamExt as _;
use tonic::Request;

use super::*;
use crate::{Keeper, Limits, Settings};

const RING: usize = 64;

struct Bench {
    pipeline: Arc<Pipeline>,
    observer: Observer,
    home: tempfile::TempDir,
    stop: watch::Sender<bool>,
}

/// Record `n` is of second `n`, and its source port is n.
fn push(pipeline: &Pipeline, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        let mut event = fixture::opened();
        event.port[0] = u16::try_from(number).unwrap();
        let clock = WallClock::new(START_NS, START_UNIX_NS + number * 1_000_000_000);
        pipeline.push(&event, clock, &world()).unwrap();
    }
}

impl Bench {
    async fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let pipeline = Arc::new(Pipeline::new(node(), NonZeroUsize::new(RING).unwrap()));
        let (stop, stops) = watch::channel(false);
        let limits = Limits { max_bytes: 64 << 20, max_age: Duration::ZERO };
        let settings = Settings { folder: home.path().to_owned(), limits, sync_every: Duration::from_millis(10) };
        tokio::spawn(Keeper::new(settings, pipeline.clone()).run(stops));
        let history = Arc::new(History::new(home.path().to_owned()));
        let observer = Observer::new(ObserverConfig::default(), pipeline.clone()).with_past(history);
        let bench = Self { pipeline, observer, home, stop };
        for start in (1..=500).step_by(20) {
            push(&bench.pipeline, start..start + 20);
            bench.kept(start + 19).await;
        }
        bench
    }

    /// Until so many are in the folder.
    async fn kept(&self, count: u64) {
        for _ in 0..1000 {
            if self.pipeline.ledger().exporters()[0].spooled >= count {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Counted when it is taken, which is before it is written.
        let total = || -> u64 {
            let found = crate::folder::list(self.home.path()).unwrap();
            let wanted = Wanted { since: 0, until: u64::MAX, filters: Default::default(), last: None };
            let mut walk = History::new(self.home.path().to_owned()).walk(wanted).unwrap();
            let mut total = 0;
            while !found.is_empty() {
                let batch = walk.next();
                total += batch.records.len() as u64;
                if batch.done {
                    break;
                }
            }
            total
        };
        for _ in 0..500 {
            if total() >= count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{count} records were never kept");
    }

    async fn ask(&self, request: GetFlowsRequest) -> Vec<GetFlowsResponse> {
        let stream = self.observer.get_flows(Request::new(request)).await.unwrap().into_inner();
        stream.map(Result::unwrap).collect().await
    }

    async fn ports(&self, request: GetFlowsRequest) -> Vec<u64> {
        self.ask(request).await.iter().map(port).collect()
    }
}

fn port(answer: &GetFlowsResponse) -> u64 {
    let Some(ResponseTypes::Flow(flow)) = &answer.response_types else { panic!("{answer:?}") };
    match flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref()) {
        Some(proto::flow::layer4::Protocol::Tcp(tcp)) => tcp.source_port.into(),
        other => panic!("{other:?}"),
    }
}

fn at(number: u64) -> Option<prost_types::Timestamp> {
    Some(convert::timestamp(START_UNIX_NS + number * 1_000_000_000))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_older_than_the_ring_comes_out_of_the_history_and_nothing_twice() {
    let bench = Bench::new().await;
    let ask = GetFlowsRequest::default;
    let range = |from: u64, to: u64| (from..=to).collect::<Vec<_>>();
    assert_eq!(bench.ports(GetFlowsRequest { since: at(1), ..ask() }).await, range(1, 500));
    assert_eq!(bench.ports(GetFlowsRequest { since: at(400), ..ask() }).await, range(400, 500));
    assert_eq!(bench.ports(GetFlowsRequest { since: at(490), ..ask() }).await, range(490, 500));
    assert_eq!(bench.ports(GetFlowsRequest { since: at(100), until: at(120), ..ask() }).await, range(100, 120));
    assert_eq!(bench.ports(GetFlowsRequest { until: at(20), ..ask() }).await, range(1, 20));
    assert_eq!(bench.ports(GetFlowsRequest { first: true, number: 7, ..ask() }).await, range(1, 7));
    assert_eq!(bench.ports(GetFlowsRequest { number: 20, ..ask() }).await, range(481, 500));
    assert_eq!(bench.ports(GetFlowsRequest { number: 300, ..ask() }).await, range(201, 500));
    assert_eq!(bench.ports(GetFlowsRequest { number: u64::MAX, ..ask() }).await, range(1, 500));
    assert_eq!(bench.ports(GetFlowsRequest { since: at(300), number: 5, ..ask() }).await, range(300, 304));
    let one = FlowFilter { source_port: vec!["33".to_owned(), "499".to_owned()], ..FlowFilter::default() };
    assert_eq!(bench.ports(GetFlowsRequest { number: 9, whitelist: vec![one], ..ask() }).await, [33, 499]);
    bench.stop.send_replace(true);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_from_the_history_is_the_one_that_the_ring_gave() {
    let bench = Bench::new().await;
    push(&bench.pipeline, [501]);
    let request = GetFlowsRequest { since: at(501), ..GetFlowsRequest::default() };
    let new = bench.ask(request.clone()).await;
    for start in (502..=601).step_by(20) {
        push(&bench.pipeline, start..start + 20);
        bench.kept(start + 19).await;
    }
    let old = bench.ask(GetFlowsRequest { until: at(501), ..request }).await;
    assert_eq!((old.len(), &old), (1, &new));
    bench.stop.send_replace(true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_goes_on_from_the_history_into_the_present() {
    let bench = Bench::new().await;
    let request = GetFlowsRequest { since: at(3), follow: true, ..GetFlowsRequest::default() };
    let mut stream = bench.observer.get_flows(Request::new(request)).await.unwrap().into_inner();
    let mut found = Vec::new();
    while found.last() != Some(&500) {
        found.push(port(&stream.next().await.unwrap().unwrap()));
    }
    push(&bench.pipeline, 501..=510);
    while found.last() != Some(&510) {
        found.push(port(&stream.next().await.unwrap().unwrap()));
    }
    assert_eq!(found, (3..=510).collect::<Vec<_>>());
    bench.stop.send_replace(true);
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_stop_reading_cost_nobody_and_too_many_are_refused() {
    let bench = Bench::new().await;
    let request = GetFlowsRequest { since: at(1), ..GetFlowsRequest::default() };
    let mut idle = Vec::new();
    for _ in 0..4 {
        idle.push(bench.observer.get_flows(Request::new(request.clone())).await.unwrap().into_inner());
    }
    let refused = bench.observer.get_flows(Request::new(request.clone())).await.err().unwrap();
    assert!(refused.message().contains("4 clients read the history already"), "{refused:?}");
    // The ring, and what keeps it, go on.
    push(&bench.pipeline, 501..=520);
    bench.kept(520).await;
    assert_eq!(bench.ports(GetFlowsRequest { number: 2, ..GetFlowsRequest::default() }).await, [519, 520]);
    drop(idle);
    assert_eq!(bench.ports(request).await.len(), 520);
    bench.stop.send_replace(true);
}
