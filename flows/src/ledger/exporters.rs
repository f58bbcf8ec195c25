//! What became of the records that each exporter has come to. For every exporter, at every moment:
//!
//! ```text
//! carried + observed + aggregates = exported + filtered + aggregated + spooled + dropped{reason}
//! ```
//!
//! where `aggregates` stand for those `aggregated` whose window is over.
//!
//! One lock per exporter, taken once for a batch, so that the sum holds in whatever is read. Numbers and the last
//! trouble in words; who exports lives elsewhere.

use std::sync::{Arc, Mutex, PoisonError};

/// Why a record did not get to an exporter's receiver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExportLoss {
    /// It was overwritten in memory before the exporter came to it.
    RingOverrun,
    /// The spool had reached its bound, or the disk was full: the oldest records went.
    SpoolFull,
    /// The spool was damaged where it lay.
    SpoolDamaged,
    /// Not even an empty spool could be written to.
    WriteFailed,
    /// The receiver refused it for good.
    Rejected,
    /// The history has kept it for as long as it is told to.
    Expired,
}

impl ExportLoss {
    /// Every reason.
    pub const ALL: [Self; 6] =
        [Self::RingOverrun, Self::SpoolFull, Self::SpoolDamaged, Self::WriteFailed, Self::Rejected, Self::Expired];

    /// Name for metrics labels and loss records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RingOverrun => "ring_overrun",
            Self::SpoolFull => "spool_full",
            Self::SpoolDamaged => "spool_damaged",
            Self::WriteFailed => "write_failed",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
        }
    }
}

/// Name of the flow history among exporters, which no exporter may have.
pub const HISTORY: &str = "history";

/// The counts of one exporter at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ExporterBalance {
    /// Name, from its configuration.
    pub name: String,
    /// Kind of its receiver: `file`, `otlp` or `syslog`.
    pub kind: &'static str,
    /// Records that lay in its spool when the daemon started.
    pub carried: u64,
    /// Records that it has come to, those included that were overwritten before.
    pub observed: u64,
    /// Records that its receiver has taken, or that are in its file.
    pub exported: u64,
    /// Records that its filters left out.
    pub filtered: u64,
    /// Records that are told together with others.
    pub aggregated: u64,
    /// Records that were made to tell of them.
    pub aggregates: u64,
    /// Records that wait, on disk or in the batch under way.
    pub spooled: u64,
    /// Records lost, by [`ExportLoss`].
    pub dropped: [u64; ExportLoss::ALL.len()],
    /// Bytes that its spool takes on disk.
    pub spool_bytes: u64,
    /// Times that something had to be tried again.
    pub retries: u64,
    /// What stands in its way at this moment; empty: nothing.
    pub trouble: String,
}

impl ExporterBalance {
    /// Number of records lost for `loss`.
    pub fn lost(&self, loss: ExportLoss) -> u64 {
        self.dropped[loss as usize]
    }

    /// Counts records lost for `loss`.
    pub fn lose(&mut self, loss: ExportLoss, count: u64) {
        self.dropped[loss as usize] += count;
    }

    /// Whether the sum at the head of this file holds.
    pub fn is_even(&self) -> bool {
        let dropped: u64 = self.dropped.iter().sum();
        self.carried + self.observed + self.aggregates
            == self.exported + self.filtered + self.aggregated + self.spooled + dropped
    }
}

/// The counts of one exporter, for the exporter.
#[derive(Debug)]
pub struct ExporterLedger(Mutex<ExporterBalance>);

impl ExporterLedger {
    /// Changes the counts, all at once.
    pub fn update<T>(&self, change: impl FnOnce(&mut ExporterBalance) -> T) -> T {
        // Counters are right after each step, whoever panicked in between.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The counts.
    pub fn balance(&self) -> ExporterBalance {
        self.update(|balance| balance.clone())
    }
}

/// Every exporter there is.
#[derive(Debug, Default)]
pub(super) struct Exporters(Mutex<Vec<Arc<ExporterLedger>>>);

impl Exporters {
    pub(super) fn open(&self, name: &str, kind: &'static str) -> Arc<ExporterLedger> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |it: &Arc<ExporterLedger>| it.update(|balance| balance.name == name);
        match all.iter().find(|it| same(it)) {
            Some(found) if found.update(|balance| balance.kind == kind) => found.clone(),
            _ => {
                all.retain(|it| !same(it));
                let balance = ExporterBalance { name: name.to_owned(), kind, ..ExporterBalance::default() };
                let ledger = Arc::new(ExporterLedger(Mutex::new(balance)));
                all.push(ledger.clone());
                ledger
            }
        }
    }

    pub(super) fn close(&self, name: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|it| it.update(|balance| balance.name != name));
    }

    pub(super) fn balances(&self) -> Vec<ExporterBalance> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut balances: Vec<_> = all.iter().map(|it| it.balance()).collect();
        balances.sort_by(|a, b| a.name.cmp(&b.name));
        balances
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Ledger;

    #[test]
    fn an_exporter_keeps_its_counts_while_its_name_and_kind_stay() {
        let ledger = Ledger::default();
        let file = ledger.open_exporter("b", "file");
        file.update(|it| (it.observed, it.exported, it.spooled) = (5, 3, 1));
        assert!(!file.balance().is_even());
        file.update(|it| it.lose(ExportLoss::RingOverrun, 1));
        assert!(file.balance().is_even());
        assert_eq!(file.balance().lost(ExportLoss::RingOverrun), 1);
        ledger.open_exporter("a", "otlp");
        assert_eq!(ledger.open_exporter("b", "file").balance().observed, 5);
        let names: Vec<_> = ledger.exporters().into_iter().map(|it| it.name).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(ledger.open_exporter("b", "syslog").balance().observed, 0);
        ledger.close_exporter("a");
        assert_eq!(ledger.exporters().len(), 1);
    }
}
