//! All exporters of a node: reads the settings file, sees when it changes, starts and stops what it names. An exporter
//! whose settings are the same runs on; one whose settings have become wrong runs on as it was.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use flows::Pipeline;
use prost::Message as _;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinHandle,
};
use tracing::{error, info, warn};

use crate::{
    config::{self, Exporter, Settings, SpoolSettings, Target},
    intake::{Intake, Place},
    otlp,
    spooled::{Form, Spooled},
    syslog,
    to_file::ToFile,
    to_otlp::ToOtlp,
    to_syslog::ToSyslog,
};

/// Pause between two looks at the settings file. A ConfigMap's files are replaced within a minute or so anyway.
const LOOK: Duration = Duration::from_secs(2);
/// How long an exporter may take to finish its batch.
const GOODBYE: Duration = Duration::from_secs(5);

/// Pause before a disk that has refused is asked again.
pub(crate) const DISK_PAUSE: Duration = Duration::from_secs(1);

/// What exporters are made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// The settings file. It may come later.
    pub settings: PathBuf,
    /// Folder for what must survive a restart.
    pub state_dir: PathBuf,
}

/// One exporter at work.
#[derive(Debug)]
struct Running {
    exporter: Exporter,
    place: Place,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// All of them.
#[derive(Debug)]
pub struct Exporters {
    options: Options,
    pipeline: Arc<Pipeline>,
    running: BTreeMap<String, Running>,
    reopen: watch::Sender<u64>,
    /// Nothing was started yet: those that are in the file now were there before the first record.
    first: bool,
    /// What the file was when it was read last.
    seen: Option<Result<Vec<u8>, String>>,
}

/// Waits for the order to stop.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that nobody is there to give the order: that is one.
    let _ = stop.wait_for(|stop| *stop).await;
}

impl Exporters {
    /// None yet.
    pub fn new(options: Options, pipeline: Arc<Pipeline>) -> Self {
        Self { options, pipeline, running: BTreeMap::new(), reopen: watch::Sender::new(0), first: true, seen: None }
    }

    /// Runs them until `stop` says so. SIGHUP has files opened anew and the settings read at once.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut hang_up = match signal(SignalKind::hangup()) {
            Ok(signals) => Some(signals),
            Err(error) => {
                warn!(%error, "SIGHUP is not heard");
                None
            }
        };
        loop {
            self.look().await;
            self.first = false;
            let hung_up = async {
                match &mut hang_up {
                    Some(signals) => signals.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                _ = hung_up => {
                    self.reopen.send_modify(|count| *count += 1);
                    self.seen = None;
                }
                () = stopped(&mut stop) => break,
            }
        }
        let running = std::mem::take(&mut self.running);
        futures::future::join_all(running.into_values().map(Running::stop)).await;
    }

    /// Reads the settings if they have changed.
    async fn look(&mut self) {
        let path = self.options.settings.clone();
        let found = tokio::fs::read(&path).await.map_err(|error| format!("{}: {error}", path.display()));
        if self.seen.as_ref() == Some(&found) {
            return;
        }
        match &found {
            Err(problem) => self.complain(vec![problem.clone()]),
            Ok(bytes) => match config::read(bytes) {
                Err(problem) => self.complain(vec![format!("{}: {problem}", path.display())]),
                Ok(settings) => self.settle(settings).await,
            },
        }
        self.seen = Some(found);
    }

    fn complain(&self, problems: Vec<String>) {
        for problem in &problems {
            error!(problem, "Exporters: settings refused, those that run go on");
        }
        self.pipeline.ledger().set_export_problems(problems);
    }

    /// Makes what runs what the settings say.
    async fn settle(&mut self, Settings { exporters, refused }: Settings) {
        self.complain(refused.iter().map(|refused| refused.text.clone()).collect());
        let kept: BTreeSet<&str> = refused.iter().filter_map(|it| it.name.as_deref()).collect();
        let wanted: BTreeSet<&str> = exporters.iter().map(|it| &*it.name).collect();
        let gone: Vec<String> = self
            .running
            .keys()
            .filter(|name| !wanted.contains(&***name) && !kept.contains(&***name))
            .cloned()
            .collect();
        for name in gone {
            if let Some(running) = self.running.remove(&name) {
                running.stop().await;
                self.pipeline.ledger().close_exporter(&name);
                info!(exporter = name, "Exporter ended");
            }
        }
        for exporter in exporters {
            let name = exporter.name.clone();
            if self.running.get(&name).is_some_and(|it| it.exporter == exporter && !it.task.is_finished()) {
                continue;
            }
            let place = match self.running.remove(&name) {
                Some(running) => {
                    let place = running.place.clone();
                    running.stop().await;
                    place
                }
                None if self.first => Place::beginning(),
                None => Place::now(&self.pipeline),
            };
            info!(exporter = name, kind = exporter.target.kind(), "Exporter runs");
            self.running.insert(name, self.start(exporter, place));
        }
    }

    fn start(&self, exporter: Exporter, place: Place) -> Running {
        let Exporter { name, filters, wanted, aggregation, target, .. } = exporter.clone();
        // What lies in a spool is in the form of its kind of receiver.
        let kind = target.kind();
        let ledger = self.pipeline.ledger().open_exporter(&name, kind);
        let intake = Intake::new(self.pipeline.clone(), place.clone(), filters, name.clone()).folding(aggregation);
        let (stop, stops) = watch::channel(false);
        let node = self.pipeline.node().clone();
        let task = match target {
            Target::File(target) => {
                let reopen = self.reopen.subscribe();
                tokio::spawn(ToFile { name, target, wanted, node, ledger, reopen }.run(intake, stops))
            }
            Target::Otlp(target, SpoolSettings { limits, batch }) => {
                let form: Form = Arc::new(move |record, now| otlp::log_record(record, &wanted, now).encode_to_vec());
                let folder = self.options.state_dir.join(format!("{name}.{kind}"));
                let receiver = ToOtlp::new(target, node.clone());
                tokio::spawn(Spooled { name, folder, limits, batch, node, ledger, form }.run(intake, receiver, stops))
            }
            Target::Syslog(target, SpoolSettings { limits, batch }) => {
                let style = target.style.clone();
                let form: Form = Arc::new(move |record, now| syslog::message(record, &wanted, &style, now));
                let folder = self.options.state_dir.join(format!("{name}.{kind}"));
                let receiver = ToSyslog::new(target, node.clone());
                tokio::spawn(Spooled { name, folder, limits, batch, node, ledger, form }.run(intake, receiver, stops))
            }
        };
        Running { exporter, place, stop, task }
    }
}

impl Running {
    async fn stop(self) {
        let _ = self.stop.send(true);
        let mut task = self.task;
        if tokio::time::timeout(GOODBYE, &mut task).await.is_err() {
            warn!(exporter = self.exporter.name, "Exporter did not end in time");
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests;
