//! What a receiver is told when records could not be given to it: how many, why, and between which two records of
//! the stream. Pure; each output has its own form for it.

use crate::ledger::{ExportLoss, Loss};

/// Why records are missing from a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gap {
    /// Events that never became records, for whatever [`Loss`].
    Before(Loss),
    /// The exporter's own losses.
    Here(ExportLoss),
}

impl Gap {
    /// Name, as in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Before(loss) => loss.name(),
            Self::Here(loss) => loss.name(),
        }
    }
}

/// Records that are missing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notice {
    /// Why.
    pub gap: Gap,
    /// How many.
    pub count: u64,
    /// When that was noticed, nanoseconds since 1970.
    pub time_unix_ns: u64,
    /// Sequence of the last record before the gap, 0 if there was none.
    pub after: u64,
    /// Sequence of the first record after it, 0 if there is none yet.
    pub before: u64,
    /// Name of the exporter.
    pub exporter: String,
}

impl Notice {
    /// One line for people.
    pub fn summary(&self) -> String {
        let Self { gap, count, after, before, exporter, .. } = self;
        let place = match (after, before) {
            (0, 0) => String::new(),
            (0, before) => format!(" before record {before}"),
            (after, 0) => format!(" after record {after}"),
            (after, before) => format!(" between records {after} and {before}"),
        };
        format!("{count} flow records lost{place} ({}) in exporter {exporter}", gap.name())
    }

    /// Name of the notice itself: the same when it is sent again.
    pub fn uid(&self, node_epoch: u64) -> String {
        // FNV-1a: tells the notices of one moment apart.
        let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        let salt = self.gap.name().bytes().chain(self.exporter.bytes()).fold(node_epoch, hash);
        crate::Uuid::new(self.time_unix_ns, salt, self.after ^ self.count << 32).to_string()
    }
}
