//! Counts what became of every event, so that nothing is lost in silence. Two sums hold:
//!
//! ```text
//! observed = kept + dropped{kernel_ring_full} + dropped{malformed}      of events
//! passed   = delivered + filtered + lost                                of records, per reader
//! ```
//!
//! and one more for each exporter, see [`ExporterBalance`]. Numbers only; the daemon shows them as metrics.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

mod exporters;

pub use exporters::{ExportLoss, ExporterBalance, ExporterLedger, HISTORY};

/// Why an event did not become a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// The ring buffer between kernel and daemon was full.
    KernelRingFull,
    /// The event does not follow the contract, see [`crate::enrich::Malformed`].
    Malformed,
}

impl Loss {
    /// Every reason.
    pub const ALL: [Loss; 2] = [Loss::KernelRingFull, Loss::Malformed];

    /// Name for metrics labels.
    pub const fn name(self) -> &'static str {
        match self {
            Loss::KernelRingFull => "kernel_ring_full",
            Loss::Malformed => "malformed",
        }
    }
}

/// The counters. Shared by the pipeline and all readers.
#[derive(Debug, Default)]
pub struct Ledger {
    observed: AtomicU64,
    kept: AtomicU64,
    dropped: [AtomicU64; Loss::ALL.len()],
    passed: AtomicU64,
    delivered: AtomicU64,
    filtered: AtomicU64,
    reader_lost: AtomicU64,
    readers: AtomicU64,
    readers_refused: AtomicU64,
    exporters: exporters::Exporters,
    export_problems: Mutex<Vec<String>>,
    dns: Mutex<dns::Figures>,
}

/// The counters at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Balance {
    /// Events that the kernel produced, those that it could not hand over included.
    pub observed: u64,
    /// Events that became records in the ring.
    pub kept: u64,
    /// Events lost because the kernel's ring buffer was full.
    pub kernel_ring_full: u64,
    /// Events that did not follow the contract.
    pub malformed: u64,
    /// Records that readers have passed, each reader counted.
    pub passed: u64,
    /// Records sent to a reader.
    pub delivered: u64,
    /// Records that a reader's filters left out.
    pub filtered: u64,
    /// Records overwritten before a slow reader came to them.
    pub reader_lost: u64,
    /// Readers at this moment.
    pub readers: u64,
    /// Readers refused because there were too many.
    pub readers_refused: u64,
    /// DNS messages of pods: they are no events, the lookups made of them are.
    pub dns: dns::Figures,
}

impl Balance {
    /// Whether both sums hold. While events flow a moment's reading may be off by those in flight.
    pub fn is_even(&self) -> bool {
        self.observed == self.kept + self.kernel_ring_full + self.malformed
            && self.passed == self.delivered + self.filtered + self.reader_lost
    }

    /// Number of events lost for `loss`.
    pub fn dropped(&self, loss: Loss) -> u64 {
        match loss {
            Loss::KernelRingFull => self.kernel_ring_full,
            Loss::Malformed => self.malformed,
        }
    }
}

impl Ledger {
    /// All counters.
    pub fn balance(&self) -> Balance {
        Balance {
            observed: self.observed.load(Relaxed),
            kept: self.kept.load(Relaxed),
            kernel_ring_full: self.dropped[Loss::KernelRingFull as usize].load(Relaxed),
            malformed: self.dropped[Loss::Malformed as usize].load(Relaxed),
            passed: self.passed.load(Relaxed),
            delivered: self.delivered.load(Relaxed),
            filtered: self.filtered.load(Relaxed),
            reader_lost: self.reader_lost.load(Relaxed),
            readers: self.readers.load(Relaxed),
            readers_refused: self.readers_refused.load(Relaxed),
            dns: *self.dns.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// The counts of the exporter of this name and kind: those it had, if there is one.
    pub fn open_exporter(&self, name: &str, kind: &'static str) -> Arc<ExporterLedger> {
        self.exporters.open(name, kind)
    }

    /// The exporter is no more.
    pub fn close_exporter(&self, name: &str) {
        self.exporters.close(name);
    }

    /// What is wrong with the settings of exporters, one line each.
    pub fn export_problems(&self) -> Vec<String> {
        self.export_problems.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says so.
    pub fn set_export_problems(&self, problems: Vec<String>) {
        *self.export_problems.lock().unwrap_or_else(PoisonError::into_inner) = problems;
    }

    /// Says what became of DNS messages so far.
    pub fn set_dns(&self, figures: dns::Figures) {
        *self.dns.lock().unwrap_or_else(PoisonError::into_inner) = figures;
    }

    /// The counts of every exporter, by name.
    pub fn exporters(&self) -> Vec<ExporterBalance> {
        self.exporters.balances()
    }

    /// Events came out of the kernel; `kept` of them became records.
    pub(crate) fn observed(&self, observed: u64, kept: u64) {
        self.observed.fetch_add(observed, Relaxed);
        self.kept.fetch_add(kept, Relaxed);
    }

    /// Events became nothing. They still have to be told to [`Ledger::observed`].
    pub(crate) fn dropped(&self, loss: Loss, count: u64) {
        self.dropped[loss as usize].fetch_add(count, Relaxed);
    }

    /// A reader went on by `passed` records and sends some of them.
    pub(crate) fn read(&self, passed: u64, delivered: u64, filtered: u64, lost: u64) {
        self.passed.fetch_add(passed, Relaxed);
        self.delivered.fetch_add(delivered, Relaxed);
        self.filtered.fetch_add(filtered, Relaxed);
        self.reader_lost.fetch_add(lost, Relaxed);
    }

    /// A reader comes, unless there are `most` already. Give it back by [`Ledger::reader_left`].
    pub(crate) fn reader_came(&self, most: u64) -> bool {
        let came = self.readers.fetch_update(Relaxed, Relaxed, |now| (now < most).then_some(now + 1)).is_ok();
        if !came {
            self.readers_refused.fetch_add(1, Relaxed);
        }
        came
    }

    /// A reader has gone.
    pub(crate) fn reader_left(&self) {
        self.readers.fetch_sub(1, Relaxed);
    }
}
