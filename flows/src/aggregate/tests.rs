//! What is folded, what never is, what a record of many says, and that nothing goes uncounted.

use std::{net::IpAddr, sync::Arc};

use super::*;
use crate::{
    fixture,
    record::{PodInfo, Workload},
};

const SECOND: u64 = 1_000_000_000;

fn limits(groups: usize) -> Limits {
    Limits { window: Duration::from_secs(60), groups: NonZeroUsize::new(groups).unwrap() }
}

fn all(aggregator: &mut Aggregator) -> Vec<FlowRecord> {
    aggregator.close();
    std::iter::from_fn(|| aggregator.next(0)).collect()
}

fn count(record: &FlowRecord) -> u64 {
    record.aggregate.as_ref().unwrap().count
}

/// A connection of another pod of the same workload, from another port.
fn of_replica(number: u16) -> FlowRecord {
    let mut record = fixture::record(&fixture::opened());
    let pod = record.source.pod.as_deref().unwrap().clone();
    record.source.pod = Some(Arc::new(PodInfo {
        name: format!("web-{number}"),
        uid: format!("uid-{number}"),
        workload: Some(Workload { kind: "Deployment".to_owned(), name: "web".to_owned() }),
        ..pod
    }));
    record.source.ip = IpAddr::from([10, 1, 1, number as u8]);
    record.source.port = 40_000 + number;
    record.sequence = u64::from(number) + 1;
    record.time_unix_ns += u64::from(number) * SECOND;
    record
}

#[test]
fn pods_of_a_workload_are_told_together_with_what_they_have_in_common() {
    let mut aggregator = Aggregator::new(limits(10));
    for number in 0..5 {
        assert!(aggregator.fold(&of_replica(number), 0));
    }
    assert_eq!(aggregator.held(), 5);
    let records = all(&mut aggregator);
    assert_eq!((records.len(), aggregator.held()), (1, 0));
    let (record, one) = (&records[0], of_replica(0));
    let aggregate = record.aggregate.as_deref().unwrap();
    assert_eq!((aggregate.count, aggregate.first_sequence, record.sequence), (5, 1, 5));
    assert_eq!(record.time_unix_ns - aggregate.first_unix_ns, 4 * SECOND);
    assert_eq!((record.source.ip, record.source.port), (IpAddr::from([0, 0, 0, 0]), 0));
    assert_eq!((record.source.pod_name(), record.source.namespace()), ("", one.source.namespace()));
    assert_eq!(record.source.pod.as_ref().unwrap().workload.as_ref().unwrap().name, "web");
    assert_eq!(record.destination, one.destination);
    assert_eq!((&record.egress, &record.ingress), (&one.egress, &one.ingress));
    assert_eq!(record.forward.packets, 5 * one.forward.packets);
    assert_eq!(record.forward.bytes, 5 * one.forward.bytes);
    assert_ne!(record.uuid(), of_replica(4).uuid());
    // The same again has the same name.
    let mut again = Aggregator::new(limits(10));
    assert!((0..5).all(|number| again.fold(&of_replica(number), 0)));
    assert_eq!(all(&mut again)[0].uuid(), record.uuid());
}

#[test]
fn what_somebody_may_have_to_answer_is_never_folded() {
    let mut aggregator = Aggregator::new(limits(10));
    let mut staged = fixture::record(&fixture::opened());
    staged.staged_ingress = Some(Ruling::Isolated(Arc::default()));
    let mut cut = fixture::record(&fixture::closed());
    cut.end_reason = Some(EndReason::PolicyChange);
    let lookups = fixture::lookups(&fixture::world());
    let alone = [fixture::record(&fixture::denied()), staged, cut].into_iter().chain(lookups.iter().skip(1).cloned());
    let mut tried = 0;
    for record in alone {
        assert!(!aggregator.fold(&record, 0), "{record:?}");
        tried += 1;
    }
    assert_eq!((tried, aggregator.held()), (6, 0));
    assert!(aggregator.fold(&lookups[0], 0));
    // What stands for others does not go into a second one.
    let made = all(&mut aggregator).remove(0);
    assert!(!aggregator.fold(&made, 0));
}

#[test]
fn what_differs_in_what_matters_is_told_apart() {
    let mut aggregator = Aggregator::new(limits(100));
    let base = || fixture::record(&fixture::opened());
    let with = |change: &dyn Fn(&mut FlowRecord)| {
        let mut record = base();
        change(&mut record);
        record
    };
    let different = [
        base(),
        fixture::record(&fixture::closed()),
        with(&|it| it.destination.port = 1),
        with(&|it| it.protocol = 17),
        with(&|it| it.ingress = Ruling::Open),
        with(&|it| it.egress = Ruling::Exempt),
        with(&|it| it.source.pod = None),
        with(&|it| {
            it.destination.pod = None;
            it.destination.known_as = None;
        }),
        with(&|it| {
            it.destination.pod = None;
            it.destination.known_as = None;
            it.destination.ip = IpAddr::from([203, 0, 113, 1]);
        }),
    ];
    for record in &different {
        assert!(aggregator.fold(record, 0) && aggregator.fold(record, 0));
    }
    let records = all(&mut aggregator);
    assert_eq!(records.len(), different.len());
    assert!(records.iter().all(|record| count(record) == 2));
}

#[test]
fn a_scan_and_ten_thousand_destinations_make_few_records_and_none_is_uncounted() {
    let mut aggregator = Aggregator::new(limits(64));
    let mut folded = 0;
    for port in 1..=10_000 {
        let mut record = fixture::record(&fixture::opened());
        record.destination.port = port;
        folded += u64::from(aggregator.fold(&record, 0));
    }
    for number in 0..10_000u32 {
        let mut record = fixture::record(&fixture::opened());
        (record.destination.pod, record.destination.known_as) = (None, None);
        record.destination.identity = datapath_abi::identity::WORLD;
        record.destination.ip = IpAddr::from((0xc633_0000 + number).to_be_bytes());
        folded += u64::from(aggregator.fold(&record, 0));
    }
    // More pairs of identities than are kept apart, too.
    for identity in 0..1000 {
        let mut record = fixture::record(&fixture::opened());
        (record.destination.pod, record.destination.known_as) = (None, None);
        record.destination.identity = 100_000 + identity;
        folded += u64::from(aggregator.fold(&record, 0));
    }
    assert_eq!((folded, aggregator.held()), (21_000, 21_000));
    let records = all(&mut aggregator);
    assert!(records.len() <= 64 + 16 + 1, "{}", records.len());
    assert_eq!(records.iter().map(count).sum::<u64>(), 21_000);
    let least = records.iter().find(|it| it.destination.identity == 0).expect("one that tells the least");
    assert_eq!((least.source.pod.as_ref(), least.protocol, least.direction()), (None, 0, None));
    // The bytes of all of them are in the sum.
    let one = fixture::record(&fixture::opened()).forward.bytes;
    assert_eq!(records.iter().map(|it| it.forward.bytes).sum::<u64>(), 21_000 * one);
}

#[test]
fn a_window_ends_by_the_clock_and_begins_with_a_record() {
    let mut aggregator = Aggregator::new(limits(10));
    let record = fixture::record(&fixture::opened());
    assert_eq!((aggregator.due_ns(), aggregator.next(u64::MAX)), (None, None));
    assert!(aggregator.fold(&record, 5 * SECOND));
    assert_eq!(aggregator.due_ns(), Some(65 * SECOND));
    assert_eq!(aggregator.next(65 * SECOND - 1), None);
    // A record that comes late opens the next window, and those of the first are due.
    assert!(aggregator.fold(&record, 66 * SECOND));
    assert_eq!(aggregator.due_ns(), Some(0));
    assert_eq!(aggregator.next(66 * SECOND).as_ref().map(count), Some(1));
    assert_eq!(aggregator.due_ns(), Some(126 * SECOND));
    assert_eq!(aggregator.next(126 * SECOND).as_ref().map(count), Some(1));
    assert_eq!(aggregator.due_ns(), None);
}

#[test]
fn totals_so_far_are_not_added_up() {
    let mut aggregator = Aggregator::new(limits(10));
    let mut active = fixture::record(&fixture::closed());
    (active.kind, active.end_reason) = (EventKind::Active, None);
    assert!(aggregator.fold(&active, 0) && aggregator.fold(&active, 0));
    let record = all(&mut aggregator).remove(0);
    assert_eq!((count(&record), record.forward.bytes, record.reverse.packets), (2, 0, 0));
}

#[test]
fn the_key_of_a_group_stays_that_of_its_records() {
    for detail in Detail::ALL {
        let mut group = merge::first(&of_replica(0), detail);
        let mut rtt = merge::Mean::of(&of_replica(0));
        for number in 1..4 {
            let record = of_replica(number);
            assert_eq!(Key::of(&group, detail), Key::of(&record, detail));
            merge::into(&mut group, &mut rtt, &record);
            assert_eq!(Key::of(&group, detail), Key::of(&record, detail));
        }
    }
}
