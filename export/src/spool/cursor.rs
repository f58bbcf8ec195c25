//! How far a receiver has taken a spool's records. Written anew after each batch, beside the old one and then in its
//! place; one that cannot be read costs records sent twice, never one lost.

use std::{fs, io, path::Path};

use super::frame::Losses;

const NAME: &str = "cursor";
const NEW: &str = "cursor.new";
/// CRC-32, then next, epoch, sequence, losses.
const BYTES: usize = 4 + 8 * 7;

/// See the module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cursor {
    /// Number of the next record to be sent.
    pub(super) next: u64,
    /// Node epoch and sequence of the last record taken.
    pub(super) after: (u64, u64),
    /// Losses that the receiver has been told.
    pub(super) told: Losses,
}

impl Cursor {
    /// Before the record of this number, with nothing told.
    pub(super) fn at(next: u64) -> Self {
        Self { next, after: (0, 0), told: Losses::default() }
    }

    /// What is written down, if it can be read.
    pub(super) fn read(folder: &Path) -> Option<Self> {
        Self::decode(&fs::read(folder.join(NAME)).ok()?)
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (crc, body) = <&[u8; BYTES]>::try_from(bytes).ok()?.split_at(4);
        if crc != crc32fast::hash(body).to_le_bytes() {
            return None;
        }
        let number =
            |at: usize| body[8 * at..8 * at + 8].iter().rev().fold(0u64, |word, byte| word << 8 | u64::from(*byte));
        Some(Self {
            next: number(0),
            after: (number(1), number(2)),
            told: Losses(std::array::from_fn(|at| number(3 + at))),
        })
    }

    /// Writes it down.
    pub(super) fn write(&self, folder: &Path) -> io::Result<()> {
        let Self { next, after: (epoch, sequence), told } = self;
        let words = [*next, *epoch, *sequence].into_iter().chain(told.0);
        let body: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
        let bytes = [&crc32fast::hash(&body).to_le_bytes()[..], &body].concat();
        fs::write(folder.join(NEW), bytes)?;
        fs::rename(folder.join(NEW), folder.join(NAME))
    }
}
