//! One record as it lies in a segment. All numbers are little endian:
//!
//! ```text
//!   length u32 | CRC-32 of the rest u32 | version u8, kind u8, 0 u16
//!   number u64 | node epoch u64 | node sequence u64 | time u64 | losses so far, 4 x u64 | payload
//! ```
//!
//! `length` counts from `version` on. Pure; fuzzed.

use flows::{
    frame::{self, Unwrapped},
    ledger::{ExportLoss, Loss},
};

use crate::notice::Gap;

/// Bytes between prefix and payload.
const HEAD: usize = 4 + 4 * 8 + 8 * KINDS;
/// Longest payload. One record takes a few kilobytes.
pub const MOST_PAYLOAD: usize = 1 << 20;
const VERSION: u8 = 1;
const RECORD: u8 = 0;
const MARK: u8 = 1;
/// Kinds of losses in front of the spool.
const KINDS: usize = 4;

/// Losses in front of the spool, as totals of its life, in the order of [`Losses::GAPS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Losses(pub [u64; KINDS]);

impl Losses {
    /// What each of them is.
    pub const GAPS: [Gap; KINDS] = [
        Gap::Before(Loss::KernelRingFull),
        Gap::Before(Loss::Malformed),
        Gap::Here(ExportLoss::RingOverrun),
        Gap::Here(ExportLoss::WriteFailed),
    ];

    /// Adds.
    pub fn add(&mut self, gap: Gap, count: u64) {
        for (known, total) in Self::GAPS.iter().zip(&mut self.0) {
            if *known == gap {
                *total += count;
            }
        }
    }

    /// What came since `before`.
    pub fn since(&self, before: &Self) -> impl Iterator<Item = (Gap, u64)> + use<> {
        let counts: [u64; KINDS] = std::array::from_fn(|at| self.0[at].saturating_sub(before.0[at]));
        Self::GAPS.into_iter().zip(counts).filter(|(_, count)| *count > 0)
    }
}

/// What is known of a record without its payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Head {
    /// Number in the spool; of a mark, that of the next record.
    pub number: u64,
    /// The daemon's start that made it.
    pub epoch: u64,
    /// Its sequence since then; of a mark 0.
    pub sequence: u64,
    /// Its time, nanoseconds since 1970.
    pub time_unix_ns: u64,
    /// Losses before it.
    pub losses: Losses,
}

/// One record or mark that was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// See there.
    pub head: Head,
    /// What is to be sent; `None`: only losses are to be told.
    pub payload: Option<Vec<u8>>,
}

/// One record or mark to be written. Its number is the spool's to give.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// See [`Head::epoch`].
    pub epoch: u64,
    /// See [`Head::sequence`].
    pub sequence: u64,
    /// See [`Head::time_unix_ns`].
    pub time_unix_ns: u64,
    /// See [`Head::losses`].
    pub losses: Losses,
    /// See [`Frame::payload`].
    pub payload: Option<Vec<u8>>,
}

impl Part {
    /// Writes it behind `out`.
    pub fn encode(&self, number: u64, out: &mut Vec<u8>) {
        let payload = self.payload.as_deref().unwrap_or_default();
        let mut body = Vec::with_capacity(HEAD + payload.len());
        body.extend([VERSION, if self.payload.is_some() { RECORD } else { MARK }, 0, 0]);
        for word in [number, self.epoch, self.sequence, self.time_unix_ns].into_iter().chain(self.losses.0) {
            body.extend(word.to_le_bytes());
        }
        body.extend(payload);
        frame::wrap(&body, out);
    }
}

/// What lies at a place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decoded {
    /// A frame of so many bytes.
    Frame(Frame, usize),
    /// Not as many bytes as a frame needs.
    Short,
    /// No frame.
    Damaged,
}

/// Reads the frame at the front of `bytes`.
pub fn decode(bytes: &[u8]) -> Decoded {
    let (body, length) = match frame::unwrap(bytes, HEAD..=HEAD + MOST_PAYLOAD) {
        Unwrapped::Body(body, length) => (body, length),
        Unwrapped::Short => return Decoded::Short,
        Unwrapped::Damaged => return Decoded::Damaged,
    };
    let (head, payload) = body.split_at(HEAD);
    let kind = match head[..4] {
        [VERSION, kind @ (RECORD | MARK), 0, 0] => kind,
        _ => return Decoded::Damaged,
    };
    let number = |at: usize| {
        let at = 4 + 8 * at;
        head[at..at + 8].iter().rev().fold(0u64, |word, byte| word << 8 | u64::from(*byte))
    };
    let head = Head {
        number: number(0),
        epoch: number(1),
        sequence: number(2),
        time_unix_ns: number(3),
        losses: Losses(std::array::from_fn(|at| number(4 + at))),
    };
    let payload = (kind == RECORD).then(|| payload.to_vec());
    Decoded::Frame(Frame { head, payload }, length)
}
