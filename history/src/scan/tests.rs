//! What a reader finds: ranges, the last so many, and a folder that changes under it.

use flows::{filter::FilterSet, fixture::START_UNIX_NS as START};

use super::*;
use crate::{
    Folder,
    folder::tests::{LIMITS, append},
};

const HOUR_NS: u64 = 3_600_000_000_000;

/// Six hours of five records each, all but the last as tables.
fn story() -> (tempfile::TempDir, Folder) {
    let home = tempfile::tempdir().unwrap();
    let (mut folder, _) = Folder::open(home.path(), LIMITS).unwrap();
    append(&mut folder, (0..30).map(|at| (at, START + at / 5 * HOUR_NS + at % 5)));
    while let Some(work) = folder.to_compact() {
        work.run().unwrap();
        folder.compacted(&work).unwrap();
    }
    (home, folder)
}

fn wanted(since: u64, until: u64, last: Option<u64>) -> Wanted {
    Wanted { since, until, filters: FilterSet::default(), last }
}

fn all(scan: &mut Scan) -> Vec<u64> {
    let mut all = Vec::new();
    loop {
        let batch = scan.next(4);
        all.extend(batch.records.iter().map(|record| record.sequence));
        if batch.done {
            return all;
        }
    }
}

#[test]
fn a_range_of_time_is_found_in_tables_and_the_log() {
    let (home, _folder) = story();
    let mut scan = Scan::open(home.path(), wanted(START + 2, START + HOUR_NS + 1, None)).unwrap();
    assert_eq!(all(&mut scan), [2, 3, 4, 5, 6]);
    let mut scan = Scan::open(home.path(), wanted(START + 5 * HOUR_NS + 3, u64::MAX, None)).unwrap();
    assert_eq!(all(&mut scan), [28, 29]);
    assert_eq!(scan.after(), Some((1, 29)));
}

#[test]
fn the_last_so_many_are_the_newest_in_order() {
    let (home, _folder) = story();
    for last in [1, 4, 5, 6, 11, 30, 31, u64::MAX] {
        let mut scan = Scan::open(home.path(), wanted(0, u64::MAX, Some(last))).unwrap();
        let start = 30u64.saturating_sub(last);
        assert_eq!(all(&mut scan), (start..30).collect::<Vec<_>>(), "last {last}");
    }
}

#[test]
fn a_folder_that_changes_under_a_reader_neither_doubles_nor_hides() {
    let (home, mut folder) = story();
    let mut scan = Scan::open(home.path(), wanted(0, u64::MAX, None)).unwrap();
    let mut found: Vec<u64> = scan.next(7).records.iter().map(|record| record.sequence).collect();
    // The oldest go, the log becomes a table, another begins.
    folder.evict().unwrap();
    folder.evict().unwrap();
    folder.evict().unwrap();
    append(&mut folder, [(30, START + 6 * HOUR_NS)]);
    let work = folder.to_compact().unwrap();
    work.run().unwrap();
    folder.compacted(&work).unwrap();
    found.extend(all(&mut scan));
    // Of the file that it had open it reads all; the third is gone before it came.
    assert_eq!(found, (0..10).chain(15..=30).collect::<Vec<_>>());
}
