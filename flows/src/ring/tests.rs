//! The ring against a plain list.

use std::{
    sync::atomic::AtomicBool,
    thread,
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::*;

fn ring(capacity: usize) -> Arc<Ring> {
    Arc::new(Ring::new(NonZeroUsize::new(capacity).unwrap()))
}

/// An entry that carries a number.
fn numbered(number: u64) -> Entry {
    Entry::Lost(Lost { count: number, cpu: None, time_unix_ns: 0 })
}

fn number(entry: &Entry) -> u64 {
    match entry {
        Entry::Lost(lost) => lost.count,
        Entry::Flow(_) => panic!("the tests write no flows"),
    }
}

#[test]
fn an_empty_ring_has_nothing() {
    let ring = ring(4);
    assert!(ring.is_empty());
    assert!(matches!(ring.get(0), Found::NotYet));
    assert!(matches!(Cursor::new(ring, 0).advance(), Next::End));
}

#[test]
fn it_holds_the_last_entries_and_no_more() {
    let ring = ring(4);
    let mut writer = ring.writer();
    for n in 0..6 {
        writer.push(numbered(n));
    }
    drop(writer);
    assert_eq!((ring.head(), ring.tail(), ring.len(), ring.capacity()), (6, 2, 4, 4));
    assert!(matches!(ring.get(1), Found::Gone));
    assert!(matches!(ring.get(2), Found::Entry(entry) if number(&entry) == 2));
    assert!(matches!(ring.get(5), Found::Entry(entry) if number(&entry) == 5));
    assert!(matches!(ring.get(6), Found::NotYet));
}

#[test]
fn a_ring_of_one_works() {
    let ring = ring(1);
    let mut cursor = Cursor::new(ring.clone(), 0);
    for n in 0..3 {
        ring.writer().push(numbered(n));
    }
    assert!(matches!(cursor.advance(), Next::Overrun(2)));
    assert!(matches!(cursor.advance(), Next::Entry(entry) if number(&entry) == 2));
    assert!(matches!(cursor.advance(), Next::End));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Write(u8),
    Read { reader: usize, times: u8 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (1u8..40).prop_map(Step::Write),
        (0usize..3, 1u8..40).prop_map(|(reader, times)| Step::Read { reader, times }),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    /// Whatever the order of writing and reading: a reader gets every entry once and in order, or
    /// is told exactly how many it has not got.
    #[test]
    fn every_entry_is_read_or_counted_as_lost(capacity in 1usize..50, steps in steps()) {
        let ring = ring(capacity);
        let mut cursors: Vec<Cursor> = (0..3).map(|_| Cursor::new(ring.clone(), 0)).collect();
        let mut expected = [0u64; 3];
        let mut written = 0u64;
        for step in steps {
            match step {
                Step::Write(count) => {
                    let mut writer = ring.writer();
                    for _ in 0..count {
                        writer.push(numbered(written));
                        written += 1;
                    }
                }
                Step::Read { reader, times } => {
                    for _ in 0..times {
                        match cursors[reader].advance() {
                            Next::Entry(entry) => {
                                prop_assert_eq!(number(&entry), expected[reader]);
                                expected[reader] += 1;
                            }
                            Next::Overrun(lost) => {
                                prop_assert!(lost > 0);
                                prop_assert!(expected[reader] < ring.tail(), "told of a loss that is none");
                                expected[reader] += lost;
                            }
                            Next::End => prop_assert_eq!(expected[reader], written),
                        }
                        prop_assert!(expected[reader] <= written);
                        prop_assert_eq!(cursors[reader].position(), expected[reader]);
                    }
                }
            }
            prop_assert_eq!(ring.len(), written.min(capacity as u64));
        }
    }
}

#[test]
fn a_reader_beside_a_running_writer_misses_nothing_untold() {
    const WRITTEN: u64 = 200_000;
    let ring = ring(64);
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (mut cursor, done) = (Cursor::new(ring.clone(), 0), done.clone());
            thread::spawn(move || {
                let mut sum = 0;
                loop {
                    let finished = done.load(Ordering::Acquire);
                    match cursor.advance() {
                        Next::Entry(entry) => {
                            assert_eq!(number(&entry), sum);
                            sum += 1;
                        }
                        Next::Overrun(lost) => sum += lost,
                        Next::End if finished => return sum,
                        Next::End => thread::yield_now(),
                    }
                }
            })
        })
        .collect();
    for n in 0..WRITTEN {
        ring.writer().push(numbered(n));
    }
    done.store(true, Ordering::Release);
    for reader in readers {
        assert_eq!(reader.join().unwrap(), WRITTEN);
    }
}

#[test]
fn a_reader_that_never_reads_does_not_hold_up_the_writer() {
    let ring = ring(16);
    let sleeper = Cursor::new(ring.clone(), 0);
    let start = Instant::now();
    let mut writer = ring.writer();
    for n in 0..100_000 {
        writer.push(numbered(n));
    }
    assert_eq!(ring.tail(), 100_000 - 16);
    assert_eq!(sleeper.position(), 0);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_waiting_reader_is_woken_by_a_write() {
    let ring = ring(4);
    let changed = ring.changed();
    ring.writer().push(numbered(1));
    tokio::time::timeout(Duration::from_secs(10), changed).await.expect("woken although it came before the await");
}
