//! What probes and scrapers get of the same parts.

use super::*;
use crate::telemetry::{Health, MapFigures, Source};

#[tokio::test]
async fn ready_means_read_and_without_trouble() {
    let node = shop();
    let health = |alive, problems: &[&str]| Health {
        alive,
        problems: problems.iter().map(|problem| (*problem).to_owned()).collect(),
    };
    assert_eq!(node.service().health().await, health(true, &[]));
    node.state().synced = false;
    let unread = "the source has not been read completely yet";
    assert_eq!(node.service().health().await, health(true, &[unread]));
    node.state().trouble = Some("map PEERS: insert".to_owned());
    let both = [unread, "rules could not be brought up to date: map PEERS: insert"];
    assert_eq!(node.service().health().await, health(true, &both));
    assert!(!node.service().health().await.is_ready());
}

#[tokio::test]
async fn an_engine_that_is_gone_is_told() {
    let mut node = shop();
    node.parts.engine = Arc::new(Gone);
    let health = node.service().health().await;
    assert!(!health.alive && !health.is_ready() && health.problems.len() == 1, "{health:?}");
    let error = refused(node.service().status(Request::new(pb::StatusRequest {})).await);
    assert_eq!(error, "Unavailable: the daemon is shutting down: ask again when it runs");
    // Metrics tell what does not need it.
    let snapshot = node.service().snapshot().await;
    assert!(snapshot.engine.is_none() && snapshot.datapath.is_some());
}

/// An engine that takes questions and never answers.
struct Stuck;

impl Look for Stuck {
    fn look(&self, question: Question) -> BoxFuture<'_, Result<(), EngineError>> {
        Box::pin(async move {
            let _question = question;
            std::future::pending().await
        })
    }
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_does_not_answer_is_not_waited_for() {
    let mut node = shop();
    node.parts.engine = Arc::new(Stuck);
    let health = node.service().health().await;
    assert!(!health.alive && health.problems[0].contains("has not answered for 3s"), "{health:?}");
    let error = refused(node.service().list_policies(Request::new(pb::ListPoliciesRequest::default())).await);
    assert!(error.starts_with("DeadlineExceeded: the engine has not answered"), "{error}");
}

#[tokio::test]
async fn a_question_that_panics_leaves_the_engine_alone() {
    let node = shop();
    let service = node.service();
    let answer = service.ask(|_| -> u32 { panic!("as the test wants it") }).await;
    assert_eq!(answer, Err(NoAnswer::Defect));
    assert_eq!(service.ask(|state| state.plans).await, Ok(1));
}

#[tokio::test]
async fn a_snapshot_has_the_figures_of_all_parts() {
    let node = shop();
    *lock(&node.parts.sweep) = Some(SweepReport { established: 7, pending: 2, removed: 0, reported: 0 });
    lock(&node.counts).counters = vec![(1, 3, Counter { packets: 4, bytes: 5 })];
    lock(&node.counts).scalars = BTreeMap::from([(Scalar::Redecided, 6)]);
    node.files(&[("a.yaml", "kind: [")]);
    let snapshot = node.service().snapshot().await;
    let engine = snapshot.engine.unwrap();
    assert_eq!((engine.endpoints, engine.endpoints_isolated, engine.identities), (3, 2, 3));
    assert_eq!((engine.namespaces, engine.pods, engine.policies, engine.rule_sets), (2, 5, 2, 2));
    assert_eq!((engine.refusals, engine.in_trouble, engine.plans), (0, false, 1));
    assert_eq!(engine.last_plan, Duration::from_micros(250));
    let datapath = snapshot.datapath.unwrap();
    let counter = datapath.counters[0];
    assert_eq!((counter.hook, counter.reason, counter.packets, counter.bytes), (1, 3, 4, 5));
    assert_eq!(datapath.scalars.len(), Scalar::ALL.len());
    assert!(datapath.scalars.contains(&(Scalar::Redecided, 6)));
    let capacity = u64::from(node.parts.facts.capacities[maps::CONNTRACK]);
    assert!(snapshot.maps.contains(&MapFigures { name: maps::CONNTRACK, entries: 7, capacity }));
    assert_eq!((snapshot.source.synced, snapshot.source.errors), (true, 1));
    assert_eq!(snapshot.pools[1].range, "fd88::/64");
    assert_eq!((snapshot.build.version.as_str(), snapshot.build.attach_mode.as_str()), ("1.2.3", "tcx"));
    assert_eq!(snapshot.flows.record_capacity, 64);
}
