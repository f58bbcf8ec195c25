//! An exporter's place in the ring of records: what it comes to is filtered, counted and handed on in batches. Never
//! more than a batch is held, and the ring waits for nobody: who is too slow is told how many it has missed, and so is
//! its receiver.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use crate::{
    FlowRecord, Pipeline,
    filter::FilterSet,
    ledger::{ExportLoss, ExporterBalance, Loss},
    notice::{Gap, Notice},
    ring::{Cursor, Entry, Next},
};

/// Ring entries in one batch: the most records that are held in memory.
pub const BATCH: usize = 512;

/// Where an exporter is in the ring. Outlives its task, so that a change of its settings skips nothing.
#[derive(Clone, Debug)]
pub struct Place {
    next: Arc<AtomicU64>,
    /// Sequence of the last record passed; 0: none.
    sequence: Arc<AtomicU64>,
    /// Of the events that never became records, how many have been told, by [`Loss`].
    told: Arc<[AtomicU64; Loss::ALL.len()]>,
}

impl Place {
    /// Before everything, for who was there from the start: what the kernel has kept for this daemon is read at once.
    pub fn beginning() -> Self {
        Self { next: Arc::default(), sequence: Arc::default(), told: Arc::default() }
    }

    /// At what comes next.
    pub fn now(pipeline: &Pipeline) -> Self {
        let balance = pipeline.ledger().balance();
        let place = Self { next: Arc::default(), sequence: Arc::default(), told: Arc::default() };
        place.next.store(pipeline.ring().head(), Ordering::Relaxed);
        for loss in Loss::ALL {
            place.told[loss as usize].store(balance.dropped(loss), Ordering::Relaxed);
        }
        place
    }
}

/// One thing to export.
#[derive(Debug)]
pub enum Item<'a> {
    /// A record.
    Record(&'a FlowRecord),
    /// Something is missing.
    Lost(&'a Notice),
}

/// What a batch has come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Records passed, those lost included.
    pub observed: u64,
    /// Left out by filters.
    pub filtered: u64,
    /// Overwritten before we came.
    pub overrun: u64,
    /// Handed on.
    pub taken: u64,
    /// Sequence of the last record passed.
    pub sequence: u64,
}

impl Tally {
    /// Counts all of it but what was handed on, which waits.
    pub fn note(&self, balance: &mut ExporterBalance) {
        balance.observed += self.observed;
        balance.filtered += self.filtered;
        balance.lose(ExportLoss::RingOverrun, self.overrun);
        balance.spooled += self.taken;
    }

    /// Takes that back: somebody else will come to the same.
    pub fn undo(&self, balance: &mut ExporterBalance) {
        balance.observed -= self.observed;
        balance.filtered -= self.filtered;
        balance.dropped[ExportLoss::RingOverrun as usize] -= self.overrun;
        balance.spooled -= self.taken;
    }
}

/// Reads the ring for one exporter.
#[derive(Debug)]
pub struct Intake {
    cursor: Cursor,
    pipeline: Arc<Pipeline>,
    place: Place,
    filters: FilterSet,
    exporter: String,
    /// Entries overwritten, until the next record tells how many records that were.
    overrun: u64,
    /// As in [`Place`], of what was taken and may yet come to nothing.
    sequence: u64,
    told: [u64; Loss::ALL.len()],
}

impl Intake {
    /// At `place`, for the exporter of this name.
    pub fn new(pipeline: Arc<Pipeline>, place: Place, filters: FilterSet, exporter: String) -> Self {
        let cursor = Cursor::new(pipeline.ring().clone(), place.next.load(Ordering::Relaxed));
        let sequence = place.sequence.load(Ordering::Relaxed);
        let told = Loss::ALL.map(|loss| place.told[loss as usize].load(Ordering::Relaxed));
        Self { cursor, pipeline, place, filters, exporter, overrun: 0, sequence, told }
    }

    /// Waits until there is something to take.
    pub async fn ready(&self) {
        let ring = self.cursor.ring();
        let changed = ring.changed();
        if ring.head() == self.cursor.position() {
            changed.await;
        }
    }

    /// Passes up to `most` entries, and hands on what the filters let through.
    pub fn take(&mut self, most: usize, mut each: impl FnMut(Item<'_>)) -> Tally {
        let mut tally = Tally::default();
        let mut last = self.sequence;
        for _ in 0..most {
            match self.cursor.advance() {
                Next::Entry(Entry::Flow(record)) => {
                    if self.overrun > 0 {
                        // Among what was overwritten may have been notices of the kernel's losses: sequences tell.
                        let missed = if last == 0 { self.overrun } else { record.sequence.saturating_sub(last + 1) };
                        self.overrun = 0;
                        tally.observed += missed;
                        tally.overrun += missed;
                        if missed > 0 {
                            let gap = Gap::Here(ExportLoss::RingOverrun);
                            each(Item::Lost(&self.notice(gap, missed, last, record.sequence)));
                        }
                    }
                    self.tell_earlier_losses(last, record.sequence, &mut each);
                    last = record.sequence;
                    tally.observed += 1;
                    if self.filters.matches(&record) {
                        tally.taken += 1;
                        each(Item::Record(&record));
                    } else {
                        tally.filtered += 1;
                    }
                }
                Next::Entry(Entry::Lost(_)) => self.tell_earlier_losses(last, 0, &mut each),
                Next::Overrun(count) => self.overrun += count,
                Next::End => break,
            }
        }
        tally.sequence = last;
        self.sequence = last;
        tally
    }

    /// From here on the batch is somebody else's to keep: a successor goes on behind it.
    pub fn done(&self) {
        // What is overwritten and not yet told is found again by a successor, whose place it is behind.
        self.place.next.store(self.cursor.position() - self.overrun, Ordering::Relaxed);
        self.place.sequence.store(self.sequence, Ordering::Relaxed);
        for loss in Loss::ALL {
            self.place.told[loss as usize].store(self.told[loss as usize], Ordering::Relaxed);
        }
    }

    /// Losses of events that never became records are counted once for all readers; this one tells what it has not.
    fn tell_earlier_losses(&mut self, after: u64, before: u64, each: &mut impl FnMut(Item<'_>)) {
        let balance = self.pipeline.ledger().balance();
        for loss in Loss::ALL {
            let total = balance.dropped(loss);
            let count = total.saturating_sub(std::mem::replace(&mut self.told[loss as usize], total));
            if count > 0 {
                each(Item::Lost(&self.notice(Gap::Before(loss), count, after, before)));
            }
        }
    }

    fn notice(&self, gap: Gap, count: u64, after: u64, before: u64) -> Notice {
        Notice { gap, count, time_unix_ns: now_unix_ns(), after, before, exporter: self.exporter.clone() }
    }
}

/// Now, nanoseconds since 1970.
fn now_unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
