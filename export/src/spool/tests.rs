//! What goes in comes out in order; bounds, losses, damage.

use super::*;
use crate::notice::Gap;
use flows::ledger::Loss;

pub(super) const LIMITS: Limits = Limits { max_bytes: 1 << 20, sync_every: Duration::from_secs(1) };

pub(super) fn part(sequence: u64, losses: Losses) -> Part {
    let payload = Some(format!("record {sequence} {}", "x".repeat(sequence as usize % 50)).into_bytes());
    Part { epoch: 7, sequence, time_unix_ns: sequence * 1000, losses, payload }
}

fn parts(sequences: std::ops::RangeInclusive<u64>) -> Vec<Part> {
    sequences.map(|sequence| part(sequence, Losses::default())).collect()
}

fn open(folder: &Path, limits: Limits) -> (Spool, Found) {
    Spool::open(folder, limits).unwrap()
}

pub(super) fn sequences(batch: &Batch) -> Vec<u64> {
    batch.frames.iter().map(|frame| frame.head.sequence).collect()
}

/// Everything that is there, taken batch by batch: sequences, and what is missing.
pub(super) fn drain(spool: &mut Spool) -> (Vec<u64>, Vec<(ExportLoss, u64)>) {
    let (mut all, mut missing) = (Vec::new(), Vec::new());
    while !spool.is_empty() {
        let batch = spool.read(7, 1 << 20).unwrap();
        all.extend(sequences(&batch));
        missing.extend(batch.missing.clone());
        spool.taken(&batch).unwrap();
    }
    assert_eq!(spool.waiting(), 0);
    (all, missing)
}

#[test]
fn records_are_read_in_order_until_they_were_taken_also_after_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let (mut spool, found) = open(home.path(), LIMITS);
    assert_eq!(found, Found::default());
    assert!(spool.is_empty());
    spool.append(&parts(1..=5)).unwrap();
    spool.append(&parts(6..=8)).unwrap();
    let batch = spool.read(3, 1 << 20).unwrap();
    assert_eq!((sequences(&batch), batch.records, batch.end, batch.after), (vec![1, 2, 3], 3, 4, (0, 0)));
    assert_eq!(spool.read(3, 1 << 20).unwrap(), batch, "not taken");
    assert_eq!(batch.frames[1].payload.as_deref(), Some(format!("record 2 {}", "x".repeat(2)).as_bytes()));
    spool.taken(&batch).unwrap();
    assert_eq!(spool.waiting(), 5);
    drop(spool);
    let (mut spool, found) = open(home.path(), LIMITS);
    assert_eq!((found.records, found.torn_bytes), (5, 0));
    let batch = spool.read(100, 1).unwrap();
    assert_eq!((sequences(&batch), batch.after), (vec![4], (7, 3)), "one at least, however small the bound");
    assert_eq!(drain(&mut spool), (vec![4, 5, 6, 7, 8], vec![]));
}

#[test]
fn beyond_the_bound_the_oldest_records_go_and_are_counted_and_told() {
    let home = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(home.path(), Limits { max_bytes: 256 << 10, ..LIMITS });
    let mut evicted = 0;
    for round in 0..100 {
        evicted += spool.append(&parts(round * 100 + 1..=round * 100 + 100)).unwrap().evicted;
        assert!(spool.bytes() <= 256 << 10);
        assert_eq!(spool.waiting(), (round + 1) * 100);
    }
    assert!(evicted > 5000, "{evicted}");
    let (all, missing) = drain(&mut spool);
    assert_eq!(missing, [(ExportLoss::SpoolFull, evicted)]);
    assert_eq!(all, (evicted + 1..=10_000).collect::<Vec<u64>>());
}

#[test]
fn records_in_flight_are_no_loss_when_their_segment_goes() {
    let home = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(home.path(), Limits { max_bytes: 256 << 10, ..LIMITS });
    spool.append(&parts(1..=100)).unwrap();
    let batch = spool.read(50, 1 << 20).unwrap();
    let mut evicted = 0;
    for round in 1..100 {
        evicted += spool.append(&parts(round * 100 + 1..=round * 100 + 100)).unwrap().evicted;
    }
    spool.taken(&batch).unwrap();
    let (all, missing) = drain(&mut spool);
    assert_eq!(missing, [(ExportLoss::SpoolFull, evicted)]);
    assert_eq!(all, (evicted + 51..=10_000).collect::<Vec<u64>>());
}

#[test]
fn losses_that_are_in_flight_and_later_ones_are_told_once_each() {
    let home = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(home.path(), Limits { max_bytes: 256 << 10, ..LIMITS });
    let mut next = 1;
    let mut evict = |spool: &mut Spool| {
        let mut evicted = 0;
        while evicted == 0 {
            evicted = spool.append(&parts(next..=next + 99)).unwrap().evicted;
            next += 100;
        }
        evicted
    };
    let first = evict(&mut spool);
    let batch = spool.read(10, 1 << 20).unwrap();
    assert_eq!(batch.missing, [(ExportLoss::SpoolFull, first)]);
    let second = evict(&mut spool);
    let third = evict(&mut spool);
    spool.taken(&batch).unwrap();
    let batch = spool.read(10, 1 << 20).unwrap();
    assert_eq!(batch.missing, [(ExportLoss::SpoolFull, second + third)]);
    assert_eq!(sequences(&batch)[0], first + 10 + second + third + 1);
}

#[test]
fn marks_tell_losses_once_and_are_no_records() {
    let home = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(home.path(), LIMITS);
    let mut losses = Losses::default();
    losses.add(Gap::Before(Loss::KernelRingFull), 5);
    let mark = Part { payload: None, sequence: 0, ..part(0, losses) };
    spool.append(&[part(1, Losses::default()), mark.clone()]).unwrap();
    assert_eq!(spool.waiting(), 1);
    let batch = spool.read(10, 1 << 20).unwrap();
    assert_eq!((batch.records, batch.frames.len(), batch.end), (1, 2, 2));
    assert_eq!(
        batch.frames[1].head.losses.since(&batch.told).collect::<Vec<_>>(),
        [(Gap::Before(Loss::KernelRingFull), 5)]
    );
    spool.taken(&batch).unwrap();
    assert!(spool.is_empty() && spool.read(10, 1 << 20).unwrap().frames.is_empty());
    drop(spool);
    let (mut spool, found) = open(home.path(), LIMITS);
    assert_eq!(found.losses, losses);
    assert!(spool.is_empty());
    losses.add(Gap::Before(Loss::KernelRingFull), 2);
    spool.append(&[Part { losses, ..mark }]).unwrap();
    assert!(!spool.is_empty() && spool.waiting() == 0);
    let batch = spool.read(10, 1 << 20).unwrap();
    assert_eq!(batch.frames[0].head.losses.since(&batch.told).map(|(_, count)| count).collect::<Vec<_>>(), [2]);
}

#[test]
fn damage_costs_what_is_damaged_is_counted_exactly_and_what_comes_is_read() {
    let home = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(home.path(), LIMITS);
    for round in 0..10 {
        spool.append(&parts(round * 100 + 1..=round * 100 + 100)).unwrap();
    }
    assert!(spool.segments.len() > 1, "{:?}", spool.segments);
    let first = segment_path(home.path(), 1);
    let mut bytes = fs::read(&first).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&first, bytes).unwrap();
    // In the one that grows, too.
    let last = segment_path(home.path(), spool.segments.back().unwrap().first);
    let mut bytes = fs::read(&last).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&last, bytes).unwrap();
    let mut all = Vec::new();
    let mut damaged = 0;
    let mut told = 0;
    for turn in 0.. {
        if spool.is_empty() {
            break;
        }
        let batch = spool.read(64, 1 << 20).unwrap();
        assert_eq!(spool.read(64, 1 << 20).unwrap().damaged, 0, "counted once");
        all.extend(sequences(&batch));
        damaged += batch.damaged;
        told += batch.missing.iter().map(|(_, count)| count).sum::<u64>();
        spool.taken(&batch).unwrap();
        assert!(turn < 100);
    }
    assert_eq!(all.len() as u64 + damaged, 1000);
    assert_eq!(told, damaged);
    assert!(all.contains(&999) && !all.contains(&1000) && all.is_sorted());
    spool.append(&parts(1001..=1002)).unwrap();
    assert_eq!(drain(&mut spool), (vec![1001, 1002], vec![]));
}

#[test]
fn a_batch_that_fits_nowhere_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(home.path(), Limits { max_bytes: 1000, ..LIMITS });
    assert!(spool.append(&parts(1..=100)).unwrap().refused);
    assert_eq!(spool.append(&parts(1..=3)).unwrap(), Appended::default());
    assert_eq!(drain(&mut spool).0, [1, 2, 3]);
}

#[test]
fn no_number_is_given_twice_when_only_the_cursor_outlives_a_power_cut() {
    let home = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(home.path(), LIMITS);
    spool.append(&parts(1..=5)).unwrap();
    drain(&mut spool);
    drop(spool);
    fs::write(segment_path(home.path(), 1), "").unwrap();
    let (mut spool, found) = open(home.path(), LIMITS);
    assert_eq!(found.records, 0);
    spool.append(&parts(6..=6)).unwrap();
    assert_eq!(spool.read(1, 1).unwrap().frames[0].head.number, 6);
    assert_eq!(drain(&mut spool), (vec![6], vec![]));
}
