//! An exporter's place in the ring of records: what it comes to is filtered, counted and handed on in batches. Never
//! more than a batch is held, and the ring waits for nobody: who is too slow is told how many it has missed, and so is
//! its receiver. Where it is asked for, records are folded ([`crate::aggregate`]) before they are handed on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    FlowRecord, Pipeline,
    aggregate::{Aggregator, Limits},
    clock::unix_ns,
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
    /// Folded into others, which are handed on when their window is over.
    pub folded: u64,
    /// Handed on, those included that stand for others.
    pub taken: u64,
    /// How many of those stand for others.
    pub made: u64,
    /// For how many.
    pub stood_for: u64,
    /// Sequence of the last record passed.
    pub sequence: u64,
}

impl Tally {
    /// Counts all of it but what was handed on, which waits.
    pub fn note(&self, balance: &mut ExporterBalance) {
        balance.observed += self.observed;
        balance.filtered += self.filtered;
        balance.lose(ExportLoss::RingOverrun, self.overrun);
        balance.aggregated += self.folded;
        balance.aggregates += self.made;
        balance.spooled += self.taken;
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
    folds: Option<Aggregator>,
    /// The next batch is the last.
    finishing: bool,
    /// Where the clock of `folds` begins.
    began: Instant,
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
        Self {
            cursor,
            pipeline,
            place,
            filters,
            exporter,
            folds: None,
            finishing: false,
            began: Instant::now(),
            overrun: 0,
            sequence,
            told,
        }
    }

    /// Folds records before they are handed on; `None`: each is handed on.
    #[must_use]
    pub fn folding(mut self, limits: Option<Limits>) -> Self {
        self.folds = limits.map(Aggregator::new);
        self
    }

    /// Waits until there is something to take.
    pub async fn ready(&self) {
        let ring = self.cursor.ring();
        let changed = ring.changed();
        if ring.head() != self.cursor.position() {
            return;
        }
        match self.folds.as_ref().and_then(Aggregator::due_ns) {
            Some(due) => {
                let _ = tokio::time::timeout_at((self.began + Duration::from_nanos(due)).into(), changed).await;
            }
            None => changed.await,
        }
    }

    /// Has the next [`Intake::take`] hand on all that was folded: it is the last.
    pub fn finish(&mut self) {
        self.finishing = true;
    }

    /// Passes up to `most` entries, and hands on what the filters let through and nothing folds, and what has been folded
    /// and is due.
    pub fn take(&mut self, most: usize, mut each: impl FnMut(Item<'_>)) -> Tally {
        let mut tally = Tally::default();
        let now_ns = self.began.elapsed().as_nanos() as u64;
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
                    if !self.filters.matches(&record) {
                        tally.filtered += 1;
                    } else if self.folds.as_mut().is_some_and(|folds| folds.fold(&record, now_ns)) {
                        tally.folded += 1;
                    } else {
                        tally.taken += 1;
                        each(Item::Record(&record));
                    }
                }
                Next::Entry(Entry::Lost(_)) => self.tell_earlier_losses(last, 0, &mut each),
                Next::Overrun(count) => self.overrun += count,
                Next::End => break,
            }
        }
        tally.sequence = last;
        self.sequence = last;
        self.hand_on_folded(most, now_ns, &mut tally, &mut each);
        tally
    }

    fn hand_on_folded(&mut self, most: usize, now_ns: u64, tally: &mut Tally, each: &mut impl FnMut(Item<'_>)) {
        let Some(folds) = &mut self.folds else { return };
        if self.finishing {
            folds.close();
        }
        for _ in 0..if self.finishing { usize::MAX } else { most } {
            let Some(record) = folds.next(now_ns) else { break };
            tally.taken += 1;
            tally.made += 1;
            tally.stood_for += record.aggregate.as_ref().map_or(0, |it| it.count);
            each(Item::Record(&record));
        }
    }

    /// Takes back what was counted of a batch that came to nothing: a successor will come to the same records. Not to those
    /// that were folded before: they are lost.
    pub fn undo(&mut self, tally: &Tally, balance: &mut ExporterBalance) {
        let Tally { observed, filtered, overrun, folded, taken, made, stood_for, sequence: _ } = *tally;
        let held = self.folds.as_ref().map_or(0, Aggregator::held) + stood_for;
        self.folds = None;
        balance.observed -= observed;
        balance.aggregates -= made;
        balance.filtered -= filtered;
        balance.dropped[ExportLoss::RingOverrun as usize] -= overrun;
        balance.spooled -= taken;
        balance.aggregated -= held;
        balance.lose(ExportLoss::WriteFailed, held.saturating_sub(folded));
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
        Notice { gap, count, time_unix_ns: unix_ns(), after, before, exporter: self.exporter.clone() }
    }
}

#[cfg(test)]
mod tests;
