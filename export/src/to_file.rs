//! The exporter to a file: batches of OCSF lines, appended and rotated. A disk that refuses is asked again; what the
//! ring overwrites meanwhile is counted and told.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use flows::{clock::unix_ns, ledger::ExporterLedger, record::Node};
use tokio::{sync::watch, task::spawn_blocking};
use tracing::{error, info, warn};

use crate::{
    config::FileTarget,
    exporters::{DISK_PAUSE, stopped},
    file::{LogFile, tidy},
    intake::{BATCH, Intake, Item},
    ocsf,
    wanted::Wanted,
};

/// How often to look whether the file is where it should be, and whether it is too old.
const LOOK: Duration = Duration::from_secs(5);

/// What the task needs.
#[derive(Debug)]
pub(crate) struct ToFile {
    pub(crate) name: String,
    pub(crate) target: FileTarget,
    pub(crate) wanted: Wanted,
    pub(crate) node: Arc<Node>,
    pub(crate) ledger: Arc<ExporterLedger>,
    /// Changes when files are to be opened anew.
    pub(crate) reopen: watch::Receiver<u64>,
}

impl ToFile {
    /// Runs until `stop` says so; what has been taken from the ring by then is written or counted.
    pub(crate) async fn run(mut self, mut intake: Intake, mut stop: watch::Receiver<bool>) {
        let mut file = None;
        let mut tidying = tokio::task::JoinSet::new();
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.tidy(&mut tidying);
        loop {
            let ended = tokio::select! {
                () = intake.ready() => false,
                _ = look.tick() => {
                    file = self.look(file).await;
                    continue;
                }
                _ = self.reopen.changed() => {
                    info!(exporter = self.name, path = %self.target.path.display(), "File is opened anew");
                    file = None;
                    continue;
                }
                () = stopped(&mut stop) => {
                    intake.finish();
                    true
                }
            };
            let mut lines = Vec::new();
            let now = unix_ns();
            let tally = intake.take(BATCH, |item| match item {
                Item::Record(record) => ocsf::event(record, &self.wanted, now, &mut lines),
                Item::Lost(notice) => ocsf::loss(notice, &self.node, &mut lines),
            });
            self.ledger.update(|balance| tally.note(balance));
            let written =
                if lines.is_empty() { true } else { self.write(&mut file, lines, &mut tidying, &mut stop).await };
            if !written {
                // Told to stop while the disk refuses: a successor, if there is one, takes these again.
                self.ledger.update(|balance| intake.undo(&tally, balance));
                return;
            }
            intake.done();
            self.ledger.update(|balance| {
                balance.spooled -= tally.taken;
                balance.exported += tally.taken;
            });
            if ended {
                break;
            }
            // Readers of the API share these threads.
            tokio::task::yield_now().await;
        }
        if let Some(file) = file {
            let _ = spawn_blocking(move || file.sync()).await;
        }
        while tidying.join_next().await.is_some() {}
    }

    /// Appends, however long it takes. False: told to stop before it succeeded.
    async fn write(
        &self,
        file: &mut Option<LogFile>,
        mut lines: Vec<u8>,
        tidying: &mut tokio::task::JoinSet<()>,
        stop: &mut watch::Receiver<bool>,
    ) -> bool {
        loop {
            let (taken, target) = (file.take(), self.target.clone());
            let result = spawn_blocking(move || {
                let append = || {
                    let mut file = match taken {
                        Some(file) => file,
                        None => LogFile::open(&target.path, target.rotation)?,
                    };
                    let rotated = file.append(&lines, SystemTime::now())?;
                    Ok((file, rotated))
                };
                let result: std::io::Result<_> = append();
                (result, lines)
            })
            .await;
            let result = match result {
                Ok((result, back)) => {
                    lines = back;
                    result
                }
                Err(error) => {
                    error!(exporter = self.name, %error, "Writing ended in the middle");
                    return false;
                }
            };
            match result {
                Ok((open, rotated)) => {
                    *file = Some(open);
                    let was = self.ledger.update(|balance| std::mem::take(&mut balance.trouble));
                    if !was.is_empty() {
                        info!(exporter = self.name, "File can be written to again");
                    }
                    if rotated {
                        self.tidy(tidying);
                    }
                    return true;
                }
                Err(error) => {
                    let text = format!("{}: {error}", self.target.path.display());
                    let was = self.ledger.update(|balance| {
                        balance.retries += 1;
                        std::mem::replace(&mut balance.trouble, text.clone())
                    });
                    if was != text {
                        warn!(exporter = self.name, error = text, "File cannot be written to; trying again");
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(DISK_PAUSE) => {}
                () = stopped(stop) => return false,
            }
        }
    }

    /// Gives up a file that has been moved or removed.
    async fn look(&self, file: Option<LogFile>) -> Option<LogFile> {
        let file = file?;
        spawn_blocking(move || file.is_in_place().then_some(file)).await.ok().flatten()
    }

    /// Looks after rotated files, beside the writing. One at a time; one more afterwards if there is need.
    fn tidy(&self, tidying: &mut tokio::task::JoinSet<()>) {
        while tidying.try_join_next().is_some() {}
        if !tidying.is_empty() {
            return;
        }
        let FileTarget { path, rotation } = self.target.clone();
        let name = self.name.clone();
        tidying.spawn_blocking(move || {
            if let Err(error) = tidy(&path, &rotation) {
                warn!(exporter = name, path = %path.display(), %error, "Rotated files could not be looked after");
            }
        });
    }
}
