//! The task that reads the ring and keeps what it finds. Its counts are a line of the exporters' ledger, under the
//! name `history`:
//!
//! ```text
//! carried + observed = spooled + dropped{reason}
//! ```
//!
//! where `spooled` is what lies in the folder, `spool_full` what went for room and `expired` what went for its age.
//! Writing and compacting are on threads that may block; nothing waits for them but this task.

use std::{path::PathBuf, sync::Arc, time::Duration};

use flows::{
    Pipeline,
    clock::unix_ns,
    filter::FilterSet,
    intake::{BATCH, Intake, Item, Place, Tally},
    ledger::{ExportLoss, ExporterLedger, HISTORY},
};
use tokio::{
    sync::watch,
    task::{JoinHandle, spawn_blocking},
};
use tracing::{error, info, warn};

use crate::{
    Error, Folder, Limits,
    folder::{Batch, Compaction, Found, Outcome},
};

/// Kind in the ledger.
const KIND: &str = "parquet";
/// Pause before a disk that has refused is asked again.
const DISK_PAUSE: Duration = Duration::from_secs(1);
/// Pause before a compaction that has failed is tried again.
const COMPACT_PAUSE: u32 = 30;

/// What a keeper is made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Where files are.
    pub folder: PathBuf,
    /// How much is kept.
    pub limits: Limits,
    /// How much of the newest a power cut may take; not zero.
    pub sync_every: Duration,
}

/// Keeps records; see the module.
#[derive(Debug)]
pub struct Keeper {
    settings: Settings,
    intake: Intake,
    ledger: Arc<ExporterLedger>,
    compacting: Option<(Compaction, JoinHandle<Result<(), Error>>)>,
    /// Ticks until a compaction may be tried again.
    pause: u32,
}

impl Keeper {
    /// Keeps every record of `pipeline`, from its first on.
    pub fn new(settings: Settings, pipeline: Arc<Pipeline>) -> Self {
        let ledger = pipeline.ledger().open_exporter(HISTORY, KIND);
        let intake = Intake::new(pipeline, Place::beginning(), FilterSet::default(), HISTORY.to_owned());
        Self { settings, intake, ledger, compacting: None, pause: 0 }
    }

    /// Runs until `stop` says so; what has been taken from the ring by then is written and synced, or counted.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let Some(mut folder) = self.open(&mut stop).await else { return };
        let mut tick = tokio::time::interval(self.settings.sync_every);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let ended = tokio::select! {
                () = self.intake.ready() => false,
                _ = tick.tick() => {
                    folder = match self.tick(folder).await {
                        Some(folder) => folder,
                        None => return,
                    };
                    continue;
                }
                () = stopped(&mut stop) => true,
            };
            let mut batch = Batch::default();
            let tally = self.intake.take(BATCH, |item| match item {
                Item::Record(record) => batch.push(record),
                // A gap in the sequence says as much, and the ledger how many.
                Item::Lost(_) => {}
            });
            self.ledger.update(|balance| tally.note(balance));
            folder = match self.write(folder, batch, tally).await {
                Some(folder) => folder,
                None => return,
            };
            self.intake.done();
            if ended {
                break;
            }
            tokio::task::yield_now().await;
        }
        if let Some((_, task)) = self.compacting.take() {
            // What it has not finished the next start does again.
            task.abort();
        }
        let _ = spawn_blocking(move || folder.close()).await;
    }

    /// Until it succeeds, or `stop` says to give up.
    async fn open(&mut self, stop: &mut watch::Receiver<bool>) -> Option<Folder> {
        loop {
            let Settings { folder, limits, .. } = self.settings.clone();
            match spawn_blocking(move || Folder::open(&folder, limits)).await.ok()? {
                Ok((folder, Found { rows, torn_bytes, problems })) => {
                    info!(rows, torn_bytes, folder = %folder.path().display(), "History is kept");
                    for problem in &problems {
                        warn!(%problem, "History: a file is passed over");
                    }
                    let trouble = problems.first().map(ToString::to_string).unwrap_or_default();
                    self.ledger.update(|balance| {
                        (balance.carried, balance.spooled) = (balance.carried + rows, balance.spooled + rows);
                        balance.spool_bytes = folder.bytes();
                        balance.trouble = trouble;
                    });
                    return Some(folder);
                }
                Err(error) => self.complain(&error),
            }
            tokio::select! {
                () = tokio::time::sleep(DISK_PAUSE) => {}
                () = stopped(stop) => return None,
            }
        }
    }

    fn complain(&self, problem: &Error) {
        let text = problem.to_string();
        let was = self.ledger.update(|balance| {
            balance.retries += 1;
            std::mem::replace(&mut balance.trouble, text.clone())
        });
        if was != text {
            error!(%problem, "History cannot be written");
        }
    }

    fn note(&self, folder: &Folder, outcome: Outcome) {
        let Outcome { written: _, refused, evicted, expired } = outcome;
        self.ledger.update(|balance| {
            // What was taken counts as spooled from the start.
            balance.spooled = balance.spooled.saturating_sub(refused + evicted + expired);
            balance.lose(ExportLoss::WriteFailed, refused);
            balance.lose(ExportLoss::SpoolFull, evicted);
            balance.lose(ExportLoss::Expired, expired);
            balance.spool_bytes = folder.bytes();
        });
    }

    /// Writes a batch. What the disk refuses is counted: memory is no place to wait in. `None`: a thread has panicked.
    async fn write(&self, mut folder: Folder, batch: Batch, tally: Tally) -> Option<Folder> {
        if tally.taken == 0 {
            return Some(folder);
        }
        let (back, result) = spawn_blocking(move || {
            let result = folder.append(&batch);
            (folder, result)
        })
        .await
        .ok()?;
        match result {
            Ok(outcome) if outcome.refused > 0 => {
                self.note(&back, outcome);
                let text = format!("{}: the disk is full, and nothing old is left to go", back.path().display());
                self.ledger.update(|balance| balance.trouble = text);
            }
            Ok(outcome) => {
                self.note(&back, outcome);
                self.ledger.update(|balance| balance.trouble.clear());
            }
            Err(error) => {
                self.complain(&error);
                // Of the batch, what stands in the folder is not lost.
                let held = back.rows();
                self.ledger.update(|balance| {
                    let lost = balance.spooled.saturating_sub(held);
                    balance.spooled -= lost;
                    balance.lose(ExportLoss::WriteFailed, lost);
                });
            }
        }
        Some(back)
    }

    /// Syncs, closes an hour, has old files go, has a closed log made a table.
    async fn tick(&mut self, mut folder: Folder) -> Option<Folder> {
        let mut done = None;
        if self.compacting.as_ref().is_some_and(|(_, task)| task.is_finished())
            && let Some((work, task)) = self.compacting.take()
        {
            done = match task.await {
                Ok(Ok(())) => Some(work),
                Ok(Err(error)) if error.is_full() => {
                    self.complain(&error);
                    let evicted = folder.evict().ok().flatten().unwrap_or_default();
                    self.note(&folder, Outcome { evicted, ..Outcome::default() });
                    None
                }
                Ok(Err(error)) => {
                    self.complain(&error);
                    self.pause = COMPACT_PAUSE;
                    None
                }
                Err(_) => None,
            };
        }
        let (folder, result) = spawn_blocking(move || {
            let mut all = || {
                folder.sync()?;
                if let Some(done) = &done {
                    folder.compacted(done)?;
                }
                folder.close_if_over(unix_ns())?;
                folder.retain(unix_ns())
            };
            let result = all();
            (folder, result)
        })
        .await
        .ok()?;
        match result {
            Ok(outcome) => self.note(&folder, outcome),
            Err(error) => self.complain(&error),
        }
        self.pause = self.pause.saturating_sub(1);
        if self.compacting.is_none()
            && self.pause == 0
            && let Some(work) = folder.to_compact()
        {
            let (task, copy) = (work.clone(), work);
            self.compacting = Some((copy, spawn_blocking(move || task.run())));
        }
        Some(folder)
    }
}

/// Waits for the order to stop.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that nobody is there to give the order: that is one.
    let _ = stop.wait_for(|stop| *stop).await;
}

#[cfg(test)]
mod tests;
