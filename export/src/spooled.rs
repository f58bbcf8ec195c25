//! What an exporter with a spool does at its near end: records come out of the ring, get the receiver's form, and are
//! written down. The far end is `sender`. The two meet only in the spool, so that a receiver that is away costs disk
//! and not memory.

use std::{path::PathBuf, sync::Arc, time::Duration};

use flows::{
    FlowRecord,
    clock::unix_ns,
    ledger::{ExportLoss, ExporterLedger},
    record::Node,
};
use tokio::{
    sync::{Notify, watch},
    task::spawn_blocking,
};
use tracing::{error, info, warn};

use crate::{
    exporters::{DISK_PAUSE, stopped},
    intake::{BATCH, Intake, Item},
    notice::Gap,
    sender::{self, BatchLimits, Receiver, Shared},
    spool::{Limits, Losses, Part, Spool},
};

/// Makes a record into what the receiver takes.
pub(crate) type Form = Arc<dyn Fn(&FlowRecord, u64) -> Vec<u8> + Send + Sync>;

/// What the task needs.
pub(crate) struct Spooled {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    pub(crate) limits: Limits,
    pub(crate) batch: BatchLimits,
    pub(crate) node: Arc<Node>,
    pub(crate) ledger: Arc<ExporterLedger>,
    pub(crate) form: Form,
}

impl Spooled {
    /// Runs until `stop` says so.
    pub(crate) async fn run<R: Receiver>(self, intake: Intake, receiver: R, mut stop: watch::Receiver<bool>) {
        let Some((shared, losses)) = self.open(&mut stop).await else { return };
        let sending = sender::run(shared.clone(), self.batch, receiver, stop.clone());
        let filling = self.fill(intake, &shared, losses, stop);
        tokio::join!(sending, filling);
        if let Some(Err(error)) = shared.with(|spool, _| spool.sync()).await {
            warn!(exporter = self.name, %error, "The spool could not be synced");
        }
    }

    /// Opens the spool, however long it takes.
    async fn open(&self, stop: &mut watch::Receiver<bool>) -> Option<(Shared, Losses)> {
        loop {
            let (folder, limits) = (self.folder.clone(), self.limits);
            let opened = spawn_blocking(move || Spool::open(&folder, limits)).await;
            let text = match opened {
                Ok(Ok((spool, found))) => {
                    if found.torn_bytes > 0 {
                        info!(
                            exporter = self.name,
                            bytes = found.torn_bytes,
                            "A record that a crash had cut was cut off"
                        );
                    }
                    self.ledger.update(|balance| {
                        // What waited when the exporter was last stopped is counted already.
                        balance.carried += found.records.saturating_sub(balance.spooled);
                        let gone = balance.spooled.saturating_sub(found.records);
                        balance.spooled = found.records;
                        // Evicted while they were in flight, and never arrived.
                        balance.lose(ExportLoss::SpoolFull, gone);
                        balance.spool_bytes = spool.bytes();
                        balance.trouble.clear();
                    });
                    let shared = Shared {
                        spool: Arc::new(std::sync::Mutex::new(spool)),
                        filled: Arc::new(Notify::new()),
                        ledger: self.ledger.clone(),
                        name: self.name.clone(),
                    };
                    return Some((shared, found.losses));
                }
                Ok(Err(error)) => format!("the spool {} cannot be opened: {error}", self.folder.display()),
                Err(error) => format!("opening the spool failed: {error}"),
            };
            if self.ledger.update(|balance| std::mem::replace(&mut balance.trouble, text.clone())) != text {
                error!(exporter = self.name, trouble = text, "Exporter cannot work, trying again");
            }
            tokio::select! {
                () = tokio::time::sleep(DISK_PAUSE) => {}
                () = stopped(stop) => return None,
            }
        }
    }

    /// From the ring into the spool.
    async fn fill(&self, mut intake: Intake, shared: &Shared, mut losses: Losses, mut stop: watch::Receiver<bool>) {
        let mut sync = tokio::time::interval(self.limits.sync_every.max(Duration::from_millis(100)));
        sync.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let ended = tokio::select! {
                () = intake.ready() => false,
                _ = sync.tick() => {
                    if let Some(Err(error)) = shared.with(|spool, _| spool.sync_if_due()).await {
                        shared.trouble(format!("the spool cannot be synced: {error}"));
                    }
                    continue;
                }
                () = stopped(&mut stop) => {
                    intake.finish();
                    true
                }
            };
            let before = losses;
            let mut parts = Vec::new();
            let (now, epoch) = (unix_ns(), self.node.epoch);
            let tally = intake.take(BATCH, |item| match item {
                Item::Record(record) => parts.push(Part {
                    epoch,
                    sequence: record.sequence,
                    time_unix_ns: record.time_unix_ns,
                    losses,
                    payload: Some((self.form)(record, now)),
                }),
                Item::Lost(notice) => losses.add(notice.gap, notice.count),
            });
            let told = parts.last().map_or(before, |part| part.losses);
            if losses != told {
                parts.push(Part { epoch, sequence: 0, time_unix_ns: now, losses, payload: None });
            }
            self.ledger.update(|balance| tally.note(balance));
            if !parts.is_empty() {
                match self.keep(shared, parts, tally.taken, &mut stop).await {
                    Kept::Yes => {}
                    Kept::Refused => losses.add(Gap::Here(ExportLoss::WriteFailed), tally.taken),
                    Kept::Stopped => {
                        self.ledger.update(|balance| intake.undo(&tally, balance));
                        return;
                    }
                }
                shared.filled.notify_one();
            }
            intake.done();
            if ended {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Writes parts down, however long it takes.
    async fn keep(
        &self,
        shared: &Shared,
        mut parts: Vec<Part>,
        records: u64,
        stop: &mut watch::Receiver<bool>,
    ) -> Kept {
        loop {
            let written = shared.with(move |spool, ledger| {
                let result = spool.append(&parts);
                if let Ok(appended) = &result {
                    ledger.update(|balance| {
                        balance.lose(ExportLoss::SpoolFull, appended.evicted);
                        balance.spooled -= appended.evicted;
                        if appended.refused {
                            balance.lose(ExportLoss::WriteFailed, records);
                            balance.spooled -= records;
                        }
                    });
                }
                (result, parts)
            });
            let Some((result, back)) = written.await else { return Kept::Stopped };
            match result {
                Ok(appended) if appended.refused => return Kept::Refused,
                Ok(_) => return Kept::Yes,
                Err(error) => shared.trouble(format!("the spool {} cannot be written: {error}", self.folder.display())),
            }
            parts = back;
            tokio::select! {
                () = tokio::time::sleep(DISK_PAUSE) => {}
                () = stopped(stop) => return Kept::Stopped,
            }
        }
    }
}

/// What became of parts.
enum Kept {
    Yes,
    /// They found no room even in an empty spool, and are counted as lost.
    Refused,
    /// Told to stop before.
    Stopped,
}
