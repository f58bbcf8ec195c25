//! Hostile bytes where the history is read: frames of a log, and rows of cells that became records. Whatever is taken
//! is written as the same thing.

use ::history::{
    cell::Cell,
    codec, columns,
    log::{self, Body, Decoded},
};
use flows::{fixture, frame};

/// Takes the rest of `bytes` for what the first one says: a log, the body of one frame, the cells of a row.
///
/// # Panics
///
/// On a defect.
pub fn read(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    match kind % 3 {
        0 => frames(rest),
        1 => {
            let mut sealed = Vec::new();
            frame::wrap(rest, &mut sealed);
            frames(&sealed);
        }
        _ => row(rest),
    }
}

fn frames(mut bytes: &[u8]) {
    while let Decoded::Body(body, length) = log::decode(bytes) {
        if let Body::Row(cells) = &body {
            record(cells);
        }
        bytes = &bytes[length..];
    }
}

fn row(bytes: &[u8]) {
    let Ok(cells) = codec::decode(bytes) else { return };
    let mut again = Vec::new();
    codec::encode(&cells, &mut again);
    assert_eq!(codec::decode(&again).as_deref(), Ok(&*cells));
    record(&cells);
}

/// A row that is a record is the same record when it is made a row again.
fn record(cells: &[Cell<'_>]) {
    let Ok(record) = columns::record(cells, &mut columns::Pools::default()) else { return };
    let again = columns::record(&columns::row(&record), &mut columns::Pools::default());
    assert_eq!(again.as_ref(), Ok(&record));
}

/// A log of two records, the body of a frame, a row.
pub fn seeds() -> Vec<Vec<u8>> {
    let records = [fixture::record(&fixture::opened()), fixture::record(&fixture::denied())];
    let mut whole = vec![0];
    log::encode_head(&mut whole);
    let head = whole.len();
    for record in &records {
        log::encode(record, &mut whole);
    }
    let body = [&[1][..], &whole[head + frame::PREFIX..]].concat();
    let mut row = vec![2];
    codec::encode(&columns::row(&records[0]), &mut row);
    vec![whole, body, row]
}
