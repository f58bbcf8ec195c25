//! The spool after a crash at any byte of a segment or the cursor, and with whatever a file system may leave of what
//! was not synced: cut off, zeros, what was there before.

use super::{
    tests::{LIMITS, drain, part},
    *,
};

/// What is on the disk after three appends of which one batch was taken.
fn story(home: &Path) -> (Vec<u8>, Vec<u8>, u64) {
    let (mut spool, _) = Spool::open(home, LIMITS).unwrap();
    for sequences in [1..=3, 4..=4, 5..=9] {
        let parts: Vec<Part> = sequences.map(|sequence| part(sequence, Losses::default())).collect();
        spool.append(&parts).unwrap();
    }
    let batch = spool.read(2, 1 << 20).unwrap();
    spool.taken(&batch).unwrap();
    let segment = fs::read(segment_path(home, 1)).unwrap();
    (segment, fs::read(home.join("cursor")).unwrap(), batch.end)
}

/// Frames that are whole in so many bytes.
fn whole(segment: &[u8]) -> u64 {
    let (mut at, mut count) = (0, 0);
    while let frame::Decoded::Frame(_, length) = frame::decode(&segment[at..]) {
        at += length;
        count += 1;
    }
    count
}

/// Opens, and wants every record that is whole and was not taken, in order, and new ones behind them.
fn recovers(home: &Path, survived: u64, next: u64, place: &str) {
    let (mut spool, found) = Spool::open(home, LIMITS).unwrap();
    assert_eq!(found.records, (survived + 1).saturating_sub(next), "{place}");
    spool.append(&[part(100, Losses::default())]).unwrap();
    let (all, missing) = drain(&mut spool);
    let expected: Vec<u64> = (next..=survived).chain([100]).collect();
    assert_eq!((all, missing), (expected, vec![]), "{place}");
    drop(spool);
    // And that again survives.
    let (spool, found) = Spool::open(home, LIMITS).unwrap();
    assert!(spool.is_empty() && found.torn_bytes == 0, "{place}");
}

#[test]
fn a_segment_cut_at_any_byte_loses_what_was_not_whole_and_no_more() {
    let home = tempfile::tempdir().unwrap();
    let (segment, cursor, next) = story(home.path());
    assert_eq!(whole(&segment), 9);
    for cut in 0..=segment.len() {
        for zeros in [false, true] {
            let place = tempfile::tempdir().unwrap();
            let mut bytes = segment[..cut].to_vec();
            if zeros {
                bytes.resize(segment.len(), 0);
            }
            fs::write(segment_path(place.path(), 1), &bytes).unwrap();
            fs::write(place.path().join("cursor"), &cursor).unwrap();
            recovers(place.path(), whole(&segment[..cut]), next, &format!("cut at {cut}, zeros {zeros}"));
        }
    }
}

#[test]
fn a_cursor_cut_at_any_byte_costs_records_sent_twice_and_none_lost() {
    let home = tempfile::tempdir().unwrap();
    let (segment, cursor, next) = story(home.path());
    for cut in 0..=cursor.len() {
        let place = tempfile::tempdir().unwrap();
        fs::write(segment_path(place.path(), 1), &segment).unwrap();
        fs::write(place.path().join("cursor"), &cursor[..cut]).unwrap();
        recovers(place.path(), 9, if cut == cursor.len() { next } else { 1 }, &format!("cut at {cut}"));
    }
}

#[test]
fn a_new_segment_that_is_there_without_its_content_costs_nothing() {
    let home = tempfile::tempdir().unwrap();
    let (segment, cursor, next) = story(home.path());
    for tail in [&b""[..], &[0; 40]] {
        let place = tempfile::tempdir().unwrap();
        fs::write(segment_path(place.path(), 1), &segment).unwrap();
        fs::write(segment_path(place.path(), 10), tail).unwrap();
        fs::write(place.path().join("cursor"), &cursor).unwrap();
        recovers(place.path(), 9, next, &format!("{tail:?}"));
    }
}

#[test]
fn any_flipped_bit_is_found_and_what_is_lost_is_counted() {
    let home = tempfile::tempdir().unwrap();
    let (segment, cursor, next) = story(home.path());
    for byte in 0..segment.len() {
        let place = tempfile::tempdir().unwrap();
        let mut bytes = segment.clone();
        bytes[byte] ^= 0x10;
        fs::write(segment_path(place.path(), 1), &bytes).unwrap();
        // A later one, so that what is missing between them is known.
        let later = part(10, Losses::default());
        let mut frame = Vec::new();
        later.encode(10, &mut frame);
        fs::write(segment_path(place.path(), 10), frame).unwrap();
        fs::write(place.path().join("cursor"), &cursor).unwrap();
        let (mut spool, found) = Spool::open(place.path(), LIMITS).unwrap();
        assert_eq!(found.records, 11 - next);
        let (all, missing) = drain(&mut spool);
        let lost: u64 = missing.iter().map(|(_, count)| count).sum();
        assert_eq!(all.len() as u64 + lost, 11 - next, "byte {byte}: {all:?} {missing:?}");
        assert_eq!(all.last(), Some(&10));
    }
}
