//! The inotify watches of a folder and those below it, and what to say when there are too few.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use notify::{INotifyWatcher, RecursiveMode, Watcher};

use super::folder::Change;
use super::scan::{FolderId, Listing};

/// Who tells of changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Notice {
    /// inotify, and the regular look for what it does not see (a symlink's target, some network
    /// file systems).
    Inotify,
    /// The regular look alone.
    Rescan,
}

/// What the watching thread is told.
pub(super) enum Message {
    /// Something happened to a file or folder.
    Changed(notify::Event),
    /// Something may have happened to any of them.
    LostTrack,
    /// Nobody wants to know any more.
    Stop,
}

/// The inotify watches, one per folder.
pub(super) struct Watching {
    watcher: Option<INotifyWatcher>,
    watched: BTreeMap<PathBuf, FolderId>,
    /// Why changes are noticed late.
    slow: Option<String>,
}

impl Watching {
    pub(super) fn new(notice: Notice, inbox: SyncSender<Message>, overflow: Arc<AtomicBool>) -> Self {
        let mut watching = Self { watcher: None, watched: BTreeMap::new(), slow: None };
        if notice == Notice::Rescan {
            return watching;
        }
        let tell = move |event: notify::Result<notify::Event>| {
            let message = event.map_or(Message::LostTrack, Message::Changed);
            if inbox.try_send(message).is_err() {
                overflow.store(true, Ordering::Relaxed);
            }
        };
        match INotifyWatcher::new(tell, notify::Config::default().with_follow_symlinks(false)) {
            Ok(watcher) => watching.watcher = Some(watcher),
            Err(error) => watching.slow = Some(error.to_string()),
        }
        watching
    }

    /// Watches the folders of a listing and no others. Says whether one of them is new.
    pub(super) fn follow(&mut self, listing: &Listing) -> bool {
        let Some(watcher) = &mut self.watcher else { return false };
        self.watched.retain(|folder, id| {
            let stays = listing.folders.get(folder) == Some(id);
            if !stays {
                // It fails when the folder is gone, and with it the watch.
                let _ = watcher.unwatch(folder);
            }
            stays
        });
        let (mut news, mut slow) = (false, None);
        for (folder, id) in &listing.folders {
            if self.watched.contains_key(folder) {
                continue;
            }
            match watcher.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.watched.insert(folder.clone(), *id);
                    news = true;
                }
                Err(error) => slow = Some(format!("{error}; raise fs.inotify.max_user_watches")),
            }
        }
        self.slow = slow;
        news
    }

    /// The watch of a folder that was removed or renamed is worth nothing.
    pub(super) fn forget(&mut self, folder: &Path) {
        if self.watched.remove(folder).is_some()
            && let Some(watcher) = &mut self.watcher
        {
            let _ = watcher.unwatch(folder);
        }
    }

    /// The standing error about watching, if there is one.
    pub(super) fn standing(&self, root: &Path, rescan: Duration) -> (String, Change) {
        let place = format!("{} (watching)", root.display());
        match &self.slow {
            None => (place, Change::Removed),
            Some(reason) => {
                (place, Change::Slow(format!("changes are noticed only every {} s: {reason}", rescan.as_secs())))
            }
        }
    }
}
