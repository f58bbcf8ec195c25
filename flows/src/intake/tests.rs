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
    assert_eq!(tally, Tally { observed: 3, filtered: 2, overrun: 0, taken: 1, sequence: 3, ..Tally::default() });
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

fn minute() -> Limits {
    Limits { window: Duration::from_secs(60), groups: std::num::NonZeroUsize::new(8).unwrap() }
}

/// As an exporter counts.
fn balance(tallies: &[Tally]) -> ExporterBalance {
    let mut balance = ExporterBalance::default();
    for tally in tallies {
        tally.note(&mut balance);
    }
    balance
}

#[test]
fn what_is_folded_is_handed_on_at_the_end_and_everything_is_counted() {
    let pipeline = pipeline(64);
    let place = Place::now(&pipeline);
    let mut intake = intake(&pipeline, &place, FilterSet::default()).folding(Some(minute()));
    push(&pipeline, 3);
    pipeline.push(&fixture::denied(), clock(), &world()).unwrap();
    let (first, one) = taken(&mut intake, 10);
    assert_eq!(first, ["4"], "a denial waits for nobody");
    assert_eq!((one.observed, one.folded, one.taken, one.made), (4, 3, 1, 0));
    push(&pipeline, 2);
    intake.finish();
    let (last, two) = taken(&mut intake, 10);
    assert_eq!(last, ["6"]);
    assert_eq!((two.folded, two.taken, two.made, two.stood_for), (2, 1, 1, 5));
    let balance = balance(&[one, two]);
    assert!(balance.is_even(), "{balance:?}");
    assert_eq!((balance.aggregated, balance.aggregates, balance.spooled), (5, 1, 2));
}

#[test]
fn what_was_folded_before_a_batch_that_came_to_nothing_is_lost_and_counted() {
    let pipeline = pipeline(64);
    let place = Place::now(&pipeline);
    for finishing in [false, true] {
        let mut intake = intake(&pipeline, &place, FilterSet::default()).folding(Some(minute()));
        let mut counts = ExporterBalance::default();
        push(&pipeline, 3);
        let (_, one) = taken(&mut intake, 10);
        one.note(&mut counts);
        intake.done();
        push(&pipeline, 2);
        if finishing {
            intake.finish();
        }
        let (_, two) = taken(&mut intake, 10);
        two.note(&mut counts);
        assert!(counts.is_even(), "{counts:?}");
        intake.undo(&two, &mut counts);
        assert!(counts.is_even(), "{counts:?}");
        assert_eq!((counts.observed, counts.lost(ExportLoss::WriteFailed)), (3, 3));
        assert_eq!((counts.aggregated, counts.aggregates, counts.spooled), (0, 0, 0));
        // A successor comes to the other two.
        let mut successor = self::intake(&pipeline, &place, FilterSet::default());
        assert_eq!(taken(&mut successor, 10).0.len(), 2);
        successor.done();
    }
}

#[tokio::test(start_paused = true)]
async fn a_window_that_is_over_wakes_who_waits() {
    let pipeline = pipeline(64);
    let place = Place::now(&pipeline);
    let limits = Limits { window: Duration::from_millis(5), ..minute() };
    let mut intake = intake(&pipeline, &place, FilterSet::default()).folding(Some(limits));
    push(&pipeline, 1);
    intake.ready().await;
    assert_eq!(taken(&mut intake, 10).0, Vec::<String>::new());
    // Nothing else comes. The clock of the window is the machine's.
    std::thread::sleep(Duration::from_millis(6));
    intake.ready().await;
    assert_eq!(taken(&mut intake, 10).0, ["1"]);
}
