//! Watches a folder of manifests: inotify tells when to look, a look every few seconds finds what
//! inotify did not tell, and [`Folder`] says what follows.
//!
//! One thread of its own does all of it, because every step blocks. Events leave in batches
//! through a bounded channel; while the consumer is slow nothing is read, and nothing is lost.
//!
//! Read are files named `*.yaml`, `*.yml` and `*.json` in the folder and in those below it, but
//! nothing that begins with a dot. Of an object in two files the first by path counts. A folder
//! that goes away takes nothing with it: its objects stay in force until it is back.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use notify::EventKind;
use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use objects::Limits;
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tracing::debug;

use super::folder::{Change, Folder};
use super::scan::{self, Listing, Stamp};
use super::settle::{Delays, Hint, Readiness, Settle};
use super::watching::{Message, Watching};
use super::{SourceEvent, SourceStatus};

pub use super::watching::Notice;

#[cfg(test)]
mod tests;

/// Batches that wait for the consumer at most.
const BATCHES: usize = 16;
/// File system events that wait while the thread is busy. When there are more, it looks at everything.
const WAITING_EVENTS: usize = 1024;

/// How to watch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// When a changed file is complete.
    pub delays: Delays,
    /// Pause between looks that nothing asked for.
    pub rescan: Duration,
    /// Limits of one file.
    pub limits: Limits,
    /// Who tells of changes.
    pub notice: Notice,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            delays: Delays::default(),
            rescan: Duration::from_secs(5),
            limits: Limits::default(),
            notice: Notice::Inotify,
        }
    }
}

/// Why a folder cannot be watched at all.
#[derive(Debug, Error)]
pub enum OpenError {
    /// There is none.
    #[error("the folder {} does not exist; create it, or name another one", .0.display())]
    Missing(PathBuf),
    /// It is something else.
    #[error("{} is not a folder; name a folder that holds manifests", .0.display())]
    NotAFolder(PathBuf),
    /// Its path is not UTF-8, so that no message could name it rightly.
    #[error("the path {} is not UTF-8; rename the folder", .0.display())]
    NotUtf8(PathBuf),
    /// It cannot be listed.
    #[error("the folder {} cannot be listed; check its permissions", path.display())]
    Unreadable {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The thread that watches could not be started.
    #[error("no thread to watch the folder {}", path.display())]
    Thread {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// A folder that is being watched. Watching ends when this or the receiver of events is dropped.
#[derive(Debug)]
pub struct Directory {
    status: watch::Receiver<Arc<SourceStatus>>,
    inbox: SyncSender<Message>,
    stop: Arc<AtomicBool>,
}

impl Directory {
    /// Starts to watch `path`. The first batch tells all that is there and ends with
    /// [`SourceEvent::Synced`].
    ///
    /// # Errors
    ///
    /// When there is no such folder or it cannot be listed. What happens later is told by events.
    pub fn watch(path: &Path, options: Options) -> Result<(Self, mpsc::Receiver<Vec<SourceEvent>>), OpenError> {
        if path.to_str().is_none() {
            return Err(OpenError::NotUtf8(path.to_owned()));
        }
        match std::fs::read_dir(path) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(OpenError::Missing(path.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Err(OpenError::NotAFolder(path.to_owned()));
            }
            Err(source) => return Err(OpenError::Unreadable { path: path.to_owned(), source }),
        }
        let (inbox, messages) = sync_channel(WAITING_EVENTS);
        let (events, receiver) = mpsc::channel(BATCHES);
        let (status_sender, status) = watch::channel(Arc::default());
        let (stop, overflow) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let watching = Watching::new(options.notice, inbox.clone(), Arc::clone(&overflow));
        let eye = Eye {
            root: path.to_owned(),
            options,
            folder: Folder::new(options.limits),
            stamps: BTreeMap::new(),
            settle: Settle::new(options.delays),
            watching,
            synced: false,
            events,
            status: status_sender,
        };
        let loop_stop = Arc::clone(&stop);
        thread::Builder::new()
            .name("source-directory".to_owned())
            .spawn(move || eye.run(&messages, &loop_stop, &overflow))
            .map_err(|source| OpenError::Thread { path: path.to_owned(), source })?;
        Ok((Self { status, inbox, stop }, receiver))
    }

    /// What is in force and what stands wrong now.
    pub fn status(&self) -> Arc<SourceStatus> {
        Arc::clone(&self.status.borrow())
    }

    /// The same for who wants to be told of changes.
    pub fn status_receiver(&self) -> watch::Receiver<Arc<SourceStatus>> {
        self.status.clone()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // When the inbox is full the thread is awake and will see the flag.
        let _ = self.inbox.try_send(Message::Stop);
    }
}

/// The thread's state.
struct Eye {
    root: PathBuf,
    options: Options,
    folder: Folder,
    /// Files as they were when they were last read.
    stamps: BTreeMap<PathBuf, Stamp>,
    settle: Settle,
    watching: Watching,
    synced: bool,
    events: mpsc::Sender<Vec<SourceEvent>>,
    status: watch::Sender<Arc<SourceStatus>>,
}

/// The receiver of events is gone.
struct Unwanted;

impl Eye {
    fn run(mut self, messages: &Receiver<Message>, stop: &AtomicBool, overflow: &AtomicBool) {
        loop {
            if self.look().is_err() {
                return;
            }
            let rescan_at = Instant::now() + self.options.rescan;
            loop {
                if stop.load(Ordering::Relaxed) || self.events.is_closed() {
                    return;
                }
                let now = Instant::now();
                if overflow.swap(false, Ordering::Relaxed) {
                    self.settle.lost_track(now);
                }
                let due = self.settle.due().map_or(rescan_at, |due| due.min(rescan_at));
                match messages.recv_timeout(due.saturating_duration_since(now)) {
                    Ok(Message::Changed(event)) => self.note(&event),
                    Ok(Message::LostTrack) => self.settle.lost_track(Instant::now()),
                    Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => break,
                }
            }
        }
    }

    fn note(&mut self, event: &notify::Event) {
        if event.need_rescan() {
            return self.settle.lost_track(Instant::now());
        }
        let Some(path) = event.paths.last() else { return };
        let is_manifest = path.file_name().and_then(|name| name.to_str()).is_some_and(scan::is_manifest);
        let hint = match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) if is_manifest => Hint::Closed,
            EventKind::Modify(ModifyKind::Data(_)) if is_manifest => Hint::Written,
            // Reading is none of our business, nor is what goes on in files that are not read.
            EventKind::Access(_) | EventKind::Modify(ModifyKind::Data(_)) => return,
            EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::Both)) => Hint::Closed,
            EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(RenameMode::From)) => {
                self.watching.forget(path);
                Hint::Other
            }
            _ => Hint::Other,
        };
        self.settle.note(&name_of(path), hint, Instant::now());
    }

    /// Lists the folder, reads what has changed, and tells what follows.
    fn look(&mut self) -> Result<(), Unwanted> {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let mut changes = Vec::new();
        let news = match scan::list(&self.root, wall) {
            Ok(listing) => {
                let news = self.watching.follow(&listing);
                self.changed_files(&listing, now, wall, &mut changes);
                self.removed_files(&listing, &mut changes);
                news
            }
            Err(error) => {
                let reason = match error.kind() {
                    io::ErrorKind::NotFound => "the folder is gone; create it again".to_owned(),
                    io::ErrorKind::NotADirectory => "it is no longer a folder; make it one again".to_owned(),
                    _ => error.to_string(),
                };
                changes.push((name_of(&self.root), Change::Unreadable(reason)));
                false
            }
        };
        // Lines may have moved without any event.
        let moved = !changes.is_empty();
        changes.push(self.watching.standing(&self.root, self.options.rescan));
        self.settle.looked(now);
        if news {
            // A file may have come between the look and the watch.
            self.settle.note(&name_of(&self.root), Hint::Other, Instant::now());
        }
        self.tell(changes, moved)
    }

    fn changed_files(
        &mut self,
        listing: &Listing,
        now: Instant,
        wall: SystemTime,
        changes: &mut Vec<(String, Change)>,
    ) {
        for (path, stamp) in &listing.files {
            let name = name_of(path);
            let known = self.stamps.get(path);
            let readiness = self.settle.readiness(&name, now);
            if known.is_some_and(|known| stamp.is_unchanged_since(known)) || readiness == Readiness::Open {
                continue;
            }
            // Written in place a moment ago, and nobody said that this was all: wait.
            let replaced = known.is_some_and(|known| !stamp.is_same_file(known));
            let age = stamp.age(wall);
            let young = self.synced && !replaced && age < self.settle.open_delay();
            if young && readiness == Readiness::Unknown {
                self.settle.suspect(&name, now.checked_sub(age).unwrap_or(now));
                continue;
            }
            match scan::read(path, self.options.limits.file_bytes, wall) {
                Ok((stamp, bytes)) => {
                    self.stamps.insert(path.clone(), stamp);
                    changes.push((name, Change::Content(bytes)));
                }
                // It went away while we looked; the next look settles it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    self.stamps.remove(path);
                    changes.push((name, Change::Unreadable(error.to_string())));
                }
            }
        }
    }

    fn removed_files(&mut self, listing: &Listing, changes: &mut Vec<(String, Change)>) {
        for (path, reason) in &listing.unreadable {
            self.stamps.remove(path);
            changes.push((name_of(path), Change::Unreadable(reason.clone())));
        }
        self.stamps.retain(|path, _| listing.files.contains_key(path));
        let present: BTreeSet<String> = listing.files.keys().map(|path| name_of(path)).collect();
        let gone = self.folder.files().filter(|name| !present.contains(*name) && !listing.is_hidden(Path::new(name)));
        changes.extend(gone.map(|name| (name.to_owned(), Change::Removed)));
    }

    fn tell(&mut self, changes: Vec<(String, Change)>, moved: bool) -> Result<(), Unwanted> {
        let mut batch = self.folder.update(changes);
        if !self.synced {
            self.synced = true;
            batch.push(SourceEvent::Synced);
        }
        if moved || !batch.is_empty() {
            self.status.send_replace(Arc::new(self.folder.status(self.synced)));
        }
        if batch.is_empty() {
            return Ok(());
        }
        debug!(folder = %self.root.display(), events = batch.len(), "Folder changed");
        self.events.blocking_send(batch).map_err(|_| Unwanted)
    }
}

fn name_of(path: &Path) -> String {
    path.display().to_string()
}
