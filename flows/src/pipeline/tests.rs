//! Events in, records out, and the books even.

use zerocopy::IntoBytes;

use super::*;
use crate::{
    fixture::{self, clock, world},
    ring::Found,
};

fn pipeline(capacity: usize) -> Pipeline {
    Pipeline::new(fixture::node(), NonZeroUsize::new(capacity).unwrap())
}

fn sequence_at(pipeline: &Pipeline, position: u64) -> u64 {
    match pipeline.ring().get(position) {
        Found::Entry(Entry::Flow(record)) => record.sequence,
        other => panic!("no record at {position}: {other:?}"),
    }
}

#[test]
fn events_become_records_with_numbers_without_gaps() {
    let pipeline = pipeline(8);
    let world = world();
    let mut batch = pipeline.batch(clock(), &world);
    batch.push(&fixture::opened()).unwrap();
    batch.push_bytes(fixture::denied().as_bytes()).unwrap();
    assert_eq!(batch.push(&FlowEvent { kind: 99, ..fixture::opened() }), Err(Malformed::Kind(99)));
    assert_eq!(batch.push_bytes(&[0; 10]), Err(Malformed::Size(10)));
    batch.push(&fixture::closed()).unwrap();
    drop(batch);
    assert_eq!([0, 1, 2].map(|position| sequence_at(&pipeline, position)), [1, 2, 3]);
    assert_eq!(pipeline.recorded(), 3);
}

#[test]
fn observed_is_kept_plus_dropped() {
    let pipeline = pipeline(2);
    let world = world();
    for round in 0..5u64 {
        let mut batch = pipeline.batch(clock(), &world);
        for _ in 0..round {
            batch.push(&fixture::opened()).unwrap();
            assert!(batch.push_bytes(&[]).is_err());
        }
        drop(batch);
        pipeline.kernel_lost(round, Some(1), 0);
        let balance = pipeline.ledger().balance();
        assert!(balance.is_even(), "{balance:?}");
    }
    let balance = pipeline.ledger().balance();
    assert_eq!((balance.observed, balance.kept), (30, 10));
    assert_eq!(Loss::ALL.map(|loss| balance.dropped(loss)), [10, 10]);
}

#[test]
fn a_loss_in_the_kernel_lies_between_the_records() {
    let pipeline = pipeline(8);
    let world = world();
    pipeline.push(&fixture::opened(), clock(), &world).unwrap();
    pipeline.kernel_lost(17, Some(3), 42);
    pipeline.kernel_lost(0, Some(3), 43);
    pipeline.push(&fixture::closed(), clock(), &world).unwrap();
    assert_eq!(pipeline.ring().head(), 3, "a loss of nothing is no entry");
    match pipeline.ring().get(1) {
        Found::Entry(Entry::Lost(lost)) => assert_eq!(lost, Lost { count: 17, cpu: Some(3), time_unix_ns: 42 }),
        other => panic!("{other:?}"),
    }
    assert_eq!(sequence_at(&pipeline, 2), 2, "losses take no number");
}

#[test]
fn namespaces_are_remembered_and_forgotten() {
    let pipeline = pipeline(1);
    let world = world();
    pipeline.push(&fixture::denied(), clock(), &world).unwrap();
    pipeline.push(&fixture::from_outside(), clock(), &world).unwrap();
    assert_eq!(pipeline.namespaces(0), ["other", "shop"], "also of records that have left the ring");
    let late = FlowEvent { time_ns: fixture::START_NS + 1_000, ..fixture::opened() };
    pipeline.push(&late, clock(), &world).unwrap();
    assert_eq!(pipeline.namespaces(fixture::START_UNIX_NS + 500), ["shop"]);
}

#[test]
fn labels_of_the_node_are_those_it_has_when_something_happens() {
    let pipeline = pipeline(8);
    let world = world();
    pipeline.push(&fixture::opened(), clock(), &world).unwrap();
    let labels = [("topology.kubernetes.io/zone".to_owned(), "b".to_owned())].into();
    pipeline.set_node_labels(&labels);
    pipeline.push(&fixture::opened(), clock(), &world).unwrap();
    let told: Vec<_> = (0..2)
        .map(|position| match pipeline.ring().get(position) {
            Found::Entry(Entry::Flow(record)) => record.node.labels.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(told, [pipeline.node().labels.clone(), labels]);
}
