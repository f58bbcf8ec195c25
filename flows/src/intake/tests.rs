//! What is passed, left out, missed and told.

use std::num::NonZeroUsize;

use crate::fixture::{self, clock, node, world};
use proto::flow::{FlowFilter, Verdict};

use super::*;

fn pipeline(capacity: usize) -> Arc<Pipeline> {
    Arc::new(Pipeline::new(node(), NonZeroUsize::new(capacity).unwrap()))
}

fn push(pipeline: &Pipeline, count: usize) {
    for _ in 0..count {
        pipeline.push(&fixture::opened(), clock(), &world()).unwrap();
    }
}

fn intake(pipeline: &Arc<Pipeline>, place: &Place, filters: FilterSet) -> Intake {
    Intake::new(pipeline.clone(), place.clone(), filters, "x".to_owned())
}

/// Sequences of records, and notices as `reason count after before`.
fn taken(intake: &mut Intake, most: usize) -> (Vec<String>, Tally) {
    let mut all = Vec::new();
    let tally = intake.take(most, |item| {
        all.push(match item {
            Item::Record(record) => record.sequence.to_string(),
            Item::Lost(Notice { gap, count, after, before, .. }) => format!("{} {count} {after} {before}", gap.name()),
        });
    });
    (all, tally)
}

#[test]
fn filters_leave_out_and_everything_is_counted() {
    let pipeline = pipeline(64);
    let place = Place::now(&pipeline);
    let denied = FlowFilter { verdict: vec![Verdict::Dropped as i32], ..FlowFilter::default() };
    let mut intake = intake(&pipeline, &place, FilterSet::compile(&[denied], &[]).unwrap());
    push(&pipeline, 2);
    pipeline.push(&fixture::denied(), clock(), &world()).unwrap();
    let (all, tally) = taken(&mut intake, 10);
    assert_eq!(all, ["3"]);
    assert_eq!(tally, Tally { observed: 3, filtered: 2, overrun: 0, taken: 1, sequence: 3 });
}

#[test]
fn what_was_overwritten_is_counted_exactly_and_told_between_which_records() {
    let pipeline = pipeline(16);
    let place = Place::now(&pipeline);
    let mut intake = intake(&pipeline, &place, FilterSet::default());
    push(&pipeline, 3);
    assert_eq!(taken(&mut intake, 10).0, ["1", "2", "3"]);
    push(&pipeline, 20);
    pipeline.kernel_lost(5, None, 7);
    push(&pipeline, 20);
    let (all, tally) = taken(&mut intake, 1);
    assert_eq!((all, tally.overrun), (Vec::<String>::new(), 0), "only the next record tells how many");
    let (all, tally) = taken(&mut intake, 1);
    let first: u64 = all.last().unwrap().parse().unwrap();
    let missed = first - 4;
    assert_eq!(all[..2], [format!("ring_overrun {missed} 3 {first}"), format!("kernel_ring_full 5 3 {first}")]);
    assert_eq!((tally.observed, tally.overrun, tally.taken), (missed + 1, missed, 1));
    let (rest, _) = taken(&mut intake, 100);
    assert_eq!(rest.len() as u64, 43 - first);
}

#[test]
fn a_batch_that_came_to_nothing_is_taken_again_by_a_successor() {
    let pipeline = pipeline(16);
    let place = Place::now(&pipeline);
    let mut first = intake(&pipeline, &place, FilterSet::default());
    push(&pipeline, 2);
    taken(&mut first, 1);
    first.done();
    pipeline.kernel_lost(3, Some(1), 7);
    let lost = taken(&mut first, 5);
    assert_eq!(lost.0, ["kernel_ring_full 3 1 2", "2"]);
    let mut second = intake(&pipeline, &place, FilterSet::default());
    assert_eq!(taken(&mut second, 5), lost);
    second.done();
    assert!(taken(&mut intake(&pipeline, &place, FilterSet::default()), 5).0.is_empty());
}

#[test]
fn an_exporter_begins_with_what_comes() {
    let pipeline = pipeline(16);
    push(&pipeline, 40);
    pipeline.kernel_lost(3, None, 7);
    let place = Place::now(&pipeline);
    push(&pipeline, 1);
    assert_eq!(taken(&mut intake(&pipeline, &place, FilterSet::default()), 5).0, ["41"]);
}
