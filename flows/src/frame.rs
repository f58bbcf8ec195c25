//! How records lie in an append-only file, so that a crash at any byte leaves those before it whole and the rest
//! known to be none. Numbers are little endian:
//!
//! ```text
//!   length u32 | CRC-32 of the body u32 | body
//! ```
//!
//! What a body is, its file knows: the spool of an exporter, the log of the history. Pure.

use std::ops::RangeInclusive;

/// Bytes in front of a body.
pub const PREFIX: usize = 8;

/// What lies at a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unwrapped<'a> {
    /// A body, in a frame of so many bytes.
    Body(&'a [u8], usize),
    /// Not as many bytes as a frame needs.
    Short,
    /// No frame.
    Damaged,
}

/// Writes `body`, which is far shorter than 4 GiB, behind `out`.
pub fn wrap(body: &[u8], out: &mut Vec<u8>) {
    out.extend((body.len() as u32).to_le_bytes());
    out.extend(crc32fast::hash(body).to_le_bytes());
    out.extend(body);
}

/// Reads the frame at the front of `bytes`; no body is shorter or longer than `lengths`.
pub fn unwrap(bytes: &[u8], lengths: RangeInclusive<usize>) -> Unwrapped<'_> {
    let word = |at: usize| bytes.get(at..at + 4).and_then(|it| it.try_into().ok()).map(u32::from_le_bytes);
    let (Some(length), Some(crc)) = (word(0), word(4)) else { return Unwrapped::Short };
    let length = length as usize;
    if !lengths.contains(&length) {
        return Unwrapped::Damaged;
    }
    let Some(body) = bytes.get(PREFIX..PREFIX + length) else { return Unwrapped::Short };
    if crc32fast::hash(body) == crc { Unwrapped::Body(body, PREFIX + length) } else { Unwrapped::Damaged }
}
