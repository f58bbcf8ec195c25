//! Retries, halves and notices, with a receiver that does as it is told.

use std::collections::VecDeque;

use flows::ledger::{ExporterBalance, Ledger};

use super::*;
use crate::spool::{Limits, Losses, Part};

/// Takes parcels but for those that it refuses; before, plays what it was told.
#[derive(Debug, Default)]
struct Fake {
    plan: VecDeque<Outcome>,
    refuses: Vec<Vec<u8>>,
    taken: Arc<Mutex<Vec<String>>>,
}

impl Receiver for Fake {
    async fn send(&mut self, parcels: &[Parcel]) -> Outcome {
        if let Some(outcome) = self.plan.pop_front() {
            return outcome;
        }
        if parcels.iter().any(|it| self.refuses.contains(&it.payload)) {
            return Outcome::Refused { why: "no".to_owned() };
        }
        let texts = parcels.iter().map(|it| String::from_utf8(it.payload.clone()).unwrap());
        self.taken.lock().unwrap().extend(texts);
        Outcome::Taken { rejected: 0, why: String::new() }
    }

    fn notice(&self, notice: &Notice) -> Vec<u8> {
        let Notice { gap, count, after, before, .. } = notice;
        format!("{} {count} {after} {before}", gap.name()).into_bytes()
    }
}

fn part(sequence: u64, losses: Losses) -> Part {
    Part { epoch: 1, sequence, time_unix_ns: 5, losses, payload: Some(sequence.to_string().into_bytes()) }
}

/// Everything that `fake` is sent of `parts`, and the counts at the end.
async fn sent(fake: Fake, parts: &[Part]) -> (Vec<String>, ExporterBalance) {
    let home = tempfile::tempdir().unwrap();
    let limits = Limits { max_bytes: 1 << 20, sync_every: Duration::from_secs(1) };
    let (mut spool, _) = Spool::open(home.path(), limits).unwrap();
    spool.append(parts).unwrap();
    let ledger = Ledger::default().open_exporter("x", "otlp");
    let records = parts.iter().filter(|part| part.payload.is_some()).count() as u64;
    ledger.update(|balance| (balance.observed, balance.spooled) = (records, records));
    let shared = Shared {
        spool: Arc::new(Mutex::new(spool)),
        filled: Arc::default(),
        ledger: ledger.clone(),
        name: "x".to_owned(),
    };
    let taken = fake.taken.clone();
    let (stop, stops) = watch::channel(false);
    let spool = shared.spool.clone();
    let task = tokio::spawn(run(shared, BatchLimits { records: 100, bytes: 1 << 20 }, fake, stops));
    let all_gone = async {
        while !spool.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), all_gone).await.unwrap();
    // The sender's last word, which comes a little after.
    while ledger.balance().spooled > 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    stop.send(true).unwrap();
    task.await.unwrap();
    let (taken, balance) = (taken.lock().unwrap().clone(), ledger.balance());
    assert!(balance.is_even(), "{balance:?}");
    (taken, balance)
}

fn plain(sequences: std::ops::RangeInclusive<u64>) -> Vec<Part> {
    sequences.map(|sequence| part(sequence, Losses::default())).collect()
}

#[tokio::test]
async fn one_record_that_cannot_be_taken_costs_no_other() {
    let refuses = [7u64, 30, 31].map(|it| it.to_string().into_bytes()).to_vec();
    let (taken, balance) = sent(Fake { refuses, ..Fake::default() }, &plain(1..=50)).await;
    let expected: Vec<String> = (1..=50).filter(|it| ![7, 30, 31].contains(it)).map(|it| it.to_string()).collect();
    assert_eq!(taken, expected);
    assert_eq!((balance.exported, balance.lost(ExportLoss::Rejected)), (47, 3));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_taken_now_is_tried_again_and_counted_once() {
    let again = |after| Outcome::Again { after, why: "down".to_owned() };
    let plan = [again(None), again(Some(Duration::from_millis(1))), again(None)].into();
    let (taken, balance) = sent(Fake { plan, ..Fake::default() }, &plain(1..=5)).await;
    assert_eq!(taken, ["1", "2", "3", "4", "5"]);
    assert_eq!((balance.exported, balance.retries, balance.trouble.as_str()), (5, 3, ""));
}

#[tokio::test]
async fn partial_success_is_counted() {
    let plan = [Outcome::Taken { rejected: 2, why: "some".to_owned() }].into();
    let (_, balance) = sent(Fake { plan, ..Fake::default() }, &plain(1..=5)).await;
    assert_eq!((balance.exported, balance.lost(ExportLoss::Rejected)), (3, 2));
}

#[tokio::test]
async fn losses_are_told_where_they_were() {
    let losses = |kernel, overrun| Losses([kernel, 0, overrun, 0]);
    let mark = Part { sequence: 0, payload: None, ..part(0, losses(9, 3)) };
    let parts = [part(1, losses(0, 0)), part(5, losses(0, 3)), part(6, losses(7, 3)), mark];
    let (taken, _) = sent(Fake::default(), &parts).await;
    assert_eq!(taken, ["1", "ring_overrun 3 1 5", "5", "kernel_ring_full 7 5 6", "6", "kernel_ring_full 2 6 0"]);
}

#[test]
fn pauses_grow_and_are_never_the_same_twice_and_end() {
    let bounds = |failures| (pause(failures, 0), pause(failures, u64::MAX));
    for failures in 1..40 {
        let (least, most) = bounds(failures);
        assert!(least >= Duration::from_millis(250) && most <= Duration::from_secs(30), "{failures}");
        assert!(least >= most / 3, "{failures}: {least:?} {most:?}");
    }
    assert!(bounds(1).1 < bounds(3).0);
    assert_ne!(pause(3, 1_000), pause(3, 77_777_777));
}
