//! Hands what lies in a spool to a receiver, batch by batch: one in flight, tried again for as long as it takes, with
//! pauses that grow and are never the same twice. A receiver that refuses a batch for good is given its halves, until
//! the record that it cannot take stands alone; only that one is lost, and counted.

use std::{
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use flows::{
    clock::unix_ns,
    ledger::{ExportLoss, ExporterLedger},
};
use tokio::{
    sync::{Notify, watch},
    task::spawn_blocking,
};
use tracing::{info, warn};

use crate::{
    exporters::stopped,
    notice::{Gap, Notice},
    spool::{Batch, Head, Spool},
};

/// First pause after a failure, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// The longest that a receiver may ask to be left alone for.
const LONGEST_ASKED: Duration = Duration::from_secs(300);
/// How often to look whether there is something to do that nobody has told of.
const LOOK: Duration = Duration::from_secs(1);

/// One thing to hand over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Parcel {
    /// In the receiver's form.
    pub(crate) payload: Vec<u8>,
    /// A record, and no notice.
    pub(crate) is_record: bool,
}

/// What became of parcels.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// They are the receiver's now, but for so many records that it refused.
    Taken {
        /// Refused.
        rejected: u64,
        /// In its words.
        why: String,
    },
    /// Not now.
    Again {
        /// As long as the receiver asks to be left alone.
        after: Option<Duration>,
        /// In words.
        why: String,
    },
    /// Never, as they are together.
    Refused {
        /// In words.
        why: String,
    },
}

/// Somebody who takes parcels.
pub(crate) trait Receiver: Send + 'static {
    /// Hands them over. Ends within the receiver's own deadline, whatever the other side does.
    fn send(&mut self, parcels: &[Parcel]) -> impl Future<Output = Outcome> + Send;

    /// A notice in the receiver's form.
    fn notice(&self, notice: &Notice) -> Vec<u8>;
}

/// The most in one batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchLimits {
    /// Records.
    pub records: usize,
    /// Bytes of payload.
    pub bytes: usize,
}

/// The spool and who tells that something is in it.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) spool: Arc<Mutex<Spool>>,
    pub(crate) filled: Arc<Notify>,
    pub(crate) ledger: Arc<ExporterLedger>,
    pub(crate) name: String,
}

impl Shared {
    /// Does something with the spool on a thread that may block.
    pub(crate) async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Spool, &ExporterLedger) -> T + Send + 'static,
    ) -> Option<T> {
        let (spool, ledger) = (self.spool.clone(), self.ledger.clone());
        let done = spawn_blocking(move || {
            let mut spool = spool.lock().unwrap_or_else(PoisonError::into_inner);
            let result = work(&mut spool, &ledger);
            ledger.update(|balance| balance.spool_bytes = spool.bytes());
            result
        });
        done.await.ok()
    }

    /// Says what stands in the way; once, while it is the same.
    pub(crate) fn trouble(&self, text: String) {
        let was = self.ledger.update(|balance| {
            balance.retries += 1;
            std::mem::replace(&mut balance.trouble, text.clone())
        });
        if was != text {
            warn!(exporter = self.name, trouble = text, "Records wait, trying again");
        }
    }

    /// Nothing does.
    pub(crate) fn well(&self) {
        if !self.ledger.update(|balance| std::mem::take(&mut balance.trouble)).is_empty() {
            info!(exporter = self.name, "Records go out again");
        }
    }
}

/// The pause before the attempt number `failures`, from 1: twice as long each time, between half of that and all of it.
fn pause(failures: u32, chance: u64) -> Duration {
    let longest = PAUSES.0.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(PAUSES.1);
    let half = longest / 2;
    half + Duration::from_nanos(chance % (half.as_nanos() as u64).max(1))
}

/// Sends until `stop` says so. What is in flight then is sent again by a successor.
pub(crate) async fn run<R: Receiver>(
    shared: Shared,
    limits: BatchLimits,
    mut receiver: R,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let read = shared.with(move |spool, ledger| {
            if spool.is_empty() {
                return Ok(None);
            }
            let batch = spool.read(limits.records, limits.bytes)?;
            ledger.update(|balance| {
                balance.lose(ExportLoss::SpoolDamaged, batch.damaged);
                balance.spooled -= batch.damaged;
            });
            Ok(Some(batch))
        });
        let batch: Option<std::io::Result<Option<Batch>>> = read.await;
        let batch = match batch {
            Some(Ok(Some(batch))) => batch,
            other => {
                if let Some(Err(error)) = other {
                    shared.trouble(format!("the spool cannot be read: {error}"));
                }
                tokio::select! {
                    () = shared.filled.notified() => {}
                    () = tokio::time::sleep(LOOK) => {}
                    () = stopped(&mut stop) => return,
                }
                continue;
            }
        };
        let parcels = parcels(&batch, &shared.name, &receiver);
        let sent = tokio::select! {
            sent = deliver(&shared, &mut receiver, &parcels) => sent,
            () = stopped(&mut stop) => return,
        };
        let taken = shared.with(move |spool, ledger| {
            let result = spool.taken(&batch);
            ledger.update(|balance| {
                let rejected = sent.min(batch.records);
                balance.spooled -= batch.records;
                balance.exported += batch.records - rejected;
                balance.lose(ExportLoss::Rejected, rejected);
            });
            result
        });
        if let Some(Err(error)) = taken.await {
            warn!(exporter = shared.name, %error, "What was sent could not be written down: a restart sends it again");
        }
    }
}

/// Notices and records of a batch, in the order in which the receiver is to have them.
fn parcels<R: Receiver>(batch: &Batch, exporter: &str, receiver: &R) -> Vec<Parcel> {
    let mut parcels = Vec::with_capacity(batch.frames.len() + batch.missing.len());
    let mut told = batch.told;
    let (mut epoch, mut after) = batch.after;
    let notice = |gap: Gap, count: u64, after: u64, before: u64, time_unix_ns: u64| {
        let notice = Notice { gap, count, time_unix_ns, after, before, exporter: exporter.to_owned() };
        Parcel { payload: receiver.notice(&notice), is_record: false }
    };
    let mut missing = batch.missing.iter();
    for frame in &batch.frames {
        let Head { epoch: made_in, sequence, time_unix_ns, losses, .. } = frame.head;
        if made_in != epoch {
            // Sequences of another start of the daemon say nothing about this one's.
            (epoch, after) = (made_in, 0);
        }
        for (loss, count) in missing.by_ref() {
            parcels.push(notice(Gap::Here(*loss), *count, after, sequence, time_unix_ns));
        }
        for (gap, count) in losses.since(&told) {
            parcels.push(notice(gap, count, after, sequence, time_unix_ns));
        }
        told = losses;
        if let Some(payload) = &frame.payload {
            parcels.push(Parcel { payload: payload.clone(), is_record: true });
            after = sequence;
        }
    }
    parcels.extend(missing.map(|(loss, count)| notice(Gap::Here(*loss), *count, after, 0, unix_ns())));
    parcels
}

/// Hands parcels over, however long it takes. How many records the receiver has refused.
async fn deliver<R: Receiver>(shared: &Shared, receiver: &mut R, parcels: &[Parcel]) -> u64 {
    let mut left = Vec::from([Range { start: 0, end: parcels.len() }]);
    let (mut rejected, mut failures) = (0, 0);
    while let Some(range) = left.pop() {
        if range.is_empty() {
            continue;
        }
        match receiver.send(&parcels[range.clone()]).await {
            Outcome::Taken { rejected: some, why } => {
                failures = 0;
                rejected += some;
                if some > 0 {
                    warn!(exporter = shared.name, rejected = some, why, "The receiver has refused records");
                }
                shared.well();
            }
            Outcome::Again { after, why } => {
                shared.trouble(why);
                failures += 1;
                let pause = pause(failures, unix_ns() >> 4).max(after.unwrap_or_default().min(LONGEST_ASKED));
                left.push(range);
                tokio::time::sleep(pause).await;
            }
            Outcome::Refused { why } if range.len() == 1 => {
                failures = 0;
                // One line for each batch: the counts say how many.
                if rejected == 0 {
                    warn!(exporter = shared.name, why, "The receiver has refused a record for good");
                }
                rejected += u64::from(parcels[range.start].is_record);
            }
            Outcome::Refused { .. } => {
                let middle = range.start + range.len() / 2;
                left.push(middle..range.end);
                left.push(range.start..middle);
            }
        }
    }
    rejected
}

#[cfg(test)]
mod tests;
