//! The folder after a crash at any byte of the log and between any two steps of a compaction; its bounds; clocks that
//! are set.

use flows::{FlowRecord, filter::FilterSet, fixture};

use super::*;
use crate::{Scan, Wanted};

pub(crate) const LIMITS: Limits = Limits { max_bytes: 64 << 20, max_age: Duration::ZERO };
const START: u64 = fixture::START_UNIX_NS;
const MINUTE_NS: u64 = 60_000_000_000;

pub(crate) fn record(sequence: u64, time_unix_ns: u64) -> FlowRecord {
    FlowRecord { sequence, time_unix_ns, ..fixture::record(&fixture::opened()) }
}

pub(crate) fn append(folder: &mut Folder, records: impl IntoIterator<Item = (u64, u64)>) -> Outcome {
    let mut batch = Batch::default();
    for (sequence, time) in records {
        batch.push(&record(sequence, time));
    }
    folder.append(&batch).unwrap()
}

/// Sequences of all that a reader finds.
pub(crate) fn sequences(path: &Path) -> Vec<u64> {
    let wanted = Wanted { since: 0, until: u64::MAX, filters: FilterSet::default(), last: None };
    let mut scan = Scan::open(path, wanted).unwrap();
    let mut all = Vec::new();
    loop {
        let batch = scan.next(3);
        assert!(batch.problems.is_empty(), "{:?}", batch.problems);
        all.extend(batch.records.iter().map(|record| record.sequence));
        if batch.done {
            return all;
        }
    }
}

fn compact(folder: &mut Folder) {
    while let Some(work) = folder.to_compact() {
        work.run().unwrap();
        folder.compacted(&work).unwrap();
    }
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(path).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn each_hour_becomes_a_table() {
    let home = tempfile::tempdir().unwrap();
    let (mut folder, _) = Folder::open(home.path(), LIMITS).unwrap();
    append(&mut folder, (1..=10).map(|at| (at, START + at * 20 * MINUTE_NS)));
    folder.close_if_over(START + 220 * MINUTE_NS).unwrap();
    assert!(folder.to_compact().is_some());
    compact(&mut folder);
    let found = names(home.path());
    assert_eq!(
        found,
        [
            "flows-0000000004.log",
            "flows-20260102T03Z-0000000001.parquet",
            "flows-20260102T04Z-0000000002.parquet",
            "flows-20260102T05Z-0000000003.parquet"
        ]
    );
    assert_eq!(sequences(home.path()), (1..=10).collect::<Vec<_>>());
    assert_eq!(folder.rows(), 10);
    let bytes: u64 = found.iter().map(|name| fs::metadata(home.path().join(name)).unwrap().len()).sum();
    assert_eq!(folder.bytes(), bytes);
    // The last one closes without a record that comes after it.
    folder.close_if_over(START + 300 * MINUTE_NS).unwrap();
    compact(&mut folder);
    assert_eq!(names(home.path()).iter().filter(|name| name.ends_with(".log")).count(), 0);
    assert_eq!(sequences(home.path()), (1..=10).collect::<Vec<_>>());
}

#[test]
fn a_log_cut_at_any_byte_loses_what_was_not_whole_and_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let (mut folder, _) = Folder::open(home.path(), LIMITS).unwrap();
    let mut ends = Vec::new();
    for sequence in 1..=4 {
        append(&mut folder, [(sequence, START)]);
        ends.push(folder.bytes());
    }
    let whole = fs::read(names::log(home.path(), 1)).unwrap();
    for cut in 0..=whole.len() {
        for zeros in [false, true] {
            let place = tempfile::tempdir().unwrap();
            let mut bytes = whole[..cut].to_vec();
            if zeros {
                bytes.resize(whole.len(), 0);
            }
            fs::write(names::log(place.path(), 1), &bytes).unwrap();
            // Zeros may be what stood there.
            let same = |end: &&u64| bytes.get(..**end as usize) == whole.get(..**end as usize);
            let survived = ends.iter().filter(same).count() as u64;
            // A reader beside it sees no more and no less.
            let wanted: Vec<u64> = (1..=survived).collect();
            assert_eq!(sequences(place.path()), wanted, "cut at {cut}, zeros {zeros}");
            let (mut folder, found) = Folder::open(place.path(), LIMITS).unwrap();
            assert_eq!(found.rows, survived, "cut at {cut}, zeros {zeros}");
            append(&mut folder, [(100, START)]);
            let wanted: Vec<u64> = (1..=survived).chain([100]).collect();
            assert_eq!(sequences(place.path()), wanted, "cut at {cut}, zeros {zeros}");
            if cut % 101 == 0 {
                // The table reads only what was checked above.
                folder.close().unwrap();
                compact(&mut folder);
                assert_eq!(sequences(place.path()), wanted, "cut at {cut}, zeros {zeros}");
            }
        }
    }
}

#[test]
fn a_crash_between_any_two_steps_of_a_compaction_neither_doubles_nor_loses() {
    let wanted: Vec<u64> = (1..=5).collect();
    for steps in 0..=4 {
        let home = tempfile::tempdir().unwrap();
        let (mut folder, _) = Folder::open(home.path(), LIMITS).unwrap();
        append(&mut folder, (1..=5).map(|sequence| (sequence, START)));
        folder.close().unwrap();
        let work = folder.to_compact().unwrap();
        if steps == 1 {
            fs::write(work.new_path(), "half of a table").unwrap();
        }
        if steps >= 2 {
            work.write().unwrap();
        }
        if steps >= 3 {
            work.rename().unwrap();
        }
        if steps >= 4 {
            remove(&work.log).unwrap();
        }
        drop(folder);
        assert_eq!(sequences(home.path()), wanted, "after {steps} steps");
        let (mut folder, found) = Folder::open(home.path(), LIMITS).unwrap();
        assert_eq!((found.rows, found.problems.len()), (5, 0), "after {steps} steps");
        assert_eq!(sequences(home.path()), wanted, "after {steps} steps");
        folder.close().unwrap();
        compact(&mut folder);
        assert_eq!(sequences(home.path()), wanted, "after {steps} steps");
        assert_eq!(names(home.path()), ["flows-20260102T03Z-0000000001.parquet"], "after {steps} steps");
    }
}

#[test]
fn a_compaction_that_was_cut_off_by_eviction_leaves_nothing() {
    let home = tempfile::tempdir().unwrap();
    let (mut folder, _) = Folder::open(home.path(), LIMITS).unwrap();
    append(&mut folder, [(1, START)]);
    folder.close().unwrap();
    let work = folder.to_compact().unwrap();
    work.run().unwrap();
    assert_eq!(folder.evict().unwrap(), Some(1));
    folder.compacted(&work).unwrap();
    assert_eq!((names(home.path()), folder.rows()), (vec![], 0));
}

#[test]
fn what_is_too_much_or_too_old_goes_oldest_first_and_is_counted() {
    let home = tempfile::tempdir().unwrap();
    let limits = Limits { max_bytes: 64 << 20, max_age: Duration::from_secs(3 * 3600) };
    let (mut folder, _) = Folder::open(home.path(), limits).unwrap();
    append(
        &mut folder,
        (0..6).flat_map(|hour| [(2 * hour + 1, START + hour * HOUR_NS), (2 * hour + 2, START + hour * HOUR_NS)]),
    );
    compact(&mut folder);
    let outcome = folder.retain(START + 5 * HOUR_NS).unwrap();
    assert_eq!(outcome, Outcome { expired: 4, ..Outcome::default() });
    assert_eq!(sequences(home.path()), (5..=12).collect::<Vec<_>>());
    drop(folder);
    let smaller = Limits { max_bytes: fs::metadata(names::log(home.path(), 6)).unwrap().len(), ..limits };
    let (mut folder, _) = Folder::open(home.path(), smaller).unwrap();
    let outcome = folder.retain(START + 5 * HOUR_NS).unwrap();
    assert_eq!(outcome, Outcome { evicted: 6, ..Outcome::default() });
    assert_eq!(sequences(home.path()), [11, 12]);
}

#[test]
fn a_log_that_is_full_becomes_a_table_before_its_hour_is_over() {
    let home = tempfile::tempdir().unwrap();
    let (mut folder, _) = Folder::open(home.path(), Limits { max_bytes: 1 << 20, ..LIMITS }).unwrap();
    let mut evicted = 0;
    for batch in 0..200 {
        evicted += append(&mut folder, (0..20).map(|at| (batch * 20 + at, START))).evicted;
        compact(&mut folder);
        evicted += folder.retain(START).unwrap().evicted;
    }
    assert!(folder.bytes() <= 1 << 20);
    let found = sequences(home.path());
    assert_eq!(found, (evicted..4000).collect::<Vec<_>>());
    assert!(names(home.path()).len() > 2);
}

#[test]
fn a_clock_that_is_set_back_begins_a_log_of_its_own_and_loses_nothing() {
    let home = tempfile::tempdir().unwrap();
    let (mut folder, _) = Folder::open(home.path(), LIMITS).unwrap();
    // Out of order by a moment around the hour; then two hours back; then on.
    let hour = (START / HOUR_NS + 1) * HOUR_NS;
    let times = [hour, hour - 1, hour + 1, hour - 2 * HOUR_NS, hour - 2 * HOUR_NS + 1, hour + 2];
    append(&mut folder, times.into_iter().enumerate().map(|(at, time)| (at as u64, time)));
    folder.close_if_over(hour + 3).unwrap();
    compact(&mut folder);
    assert_eq!(
        names(home.path()),
        ["flows-0000000003.log", "flows-20260102T02Z-0000000002.parquet", "flows-20260102T03Z-0000000001.parquet"]
    );
    assert_eq!(sequences(home.path()), [0, 1, 2, 3, 4, 5]);
    // Records of the future are not too old.
    assert_eq!(folder.retain(hour - 30 * 24 * HOUR_NS).unwrap(), Outcome::default());
}

#[test]
fn a_file_of_another_version_is_refused_by_name_and_the_rest_is_read() {
    let home = tempfile::tempdir().unwrap();
    let (mut folder, _) = Folder::open(home.path(), LIMITS).unwrap();
    append(&mut folder, [(1, START), (2, START + HOUR_NS), (3, START + 2 * HOUR_NS)]);
    compact(&mut folder);
    drop(folder);
    let table = home.path().join("flows-20260102T04Z-0000000002.parquet");
    let bytes = fs::read(&table).unwrap();
    let key = bytes.windows(table::VERSION_KEY.len()).rposition(|it| it == table::VERSION_KEY.as_bytes()).unwrap();
    let mut newer = bytes.clone();
    let value = key + table::VERSION_KEY.len() + 2;
    assert_eq!(newer[value], b'1');
    newer[value] = b'9';
    for bad in [newer, b"no table".to_vec(), vec![]] {
        fs::write(&table, bad).unwrap();
        let (folder, found) = Folder::open(home.path(), LIMITS).unwrap();
        let problem = found.problems[0].to_string();
        assert!(problem.contains("0000000002.parquet") && problem.contains("move it out of the folder"), "{problem}");
        assert_eq!((folder.rows(), found.problems.len()), (2, 1));
        let wanted = Wanted { since: 0, until: u64::MAX, filters: FilterSet::default(), last: None };
        let batch = Scan::open(home.path(), wanted).unwrap().next(100);
        assert_eq!((batch.records.len(), batch.problems.len(), batch.done), (2, 1, true));
    }
}
