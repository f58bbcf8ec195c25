//! For tests: every operation of this module on the disk, in order, so that a crash after each of them can
//! be played again with part of it lost.

use std::{cell::RefCell, path::PathBuf};

/// One operation that the kernel has carried out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Op {
    /// A folder.
    Folder(PathBuf),
    /// An empty file.
    Create(PathBuf),
    /// All of its content.
    Write(PathBuf, Vec<u8>),
    /// The content is on the disk.
    Sync(PathBuf),
    /// In place of what was there.
    Rename(PathBuf, PathBuf),
    /// A file is gone.
    Remove(PathBuf),
    /// The names in the folder are on the disk.
    SyncFolder(PathBuf),
}

thread_local! {
    /// Of this thread, while it is recorded: tests run beside each other.
    static NOTED: RefCell<Option<Vec<Op>>> = const { RefCell::new(None) };
}

/// Notes an operation, if somebody wants to know.
pub(super) fn note(op: impl FnOnce() -> Op) {
    NOTED.with_borrow_mut(|noted| {
        if let Some(noted) = noted {
            noted.push(op());
        }
    });
}

/// How many were noted so far.
pub(super) fn length() -> usize {
    NOTED.with_borrow(|noted| noted.as_ref().map_or(0, Vec::len))
}

/// What is done to the disk while `work` runs.
pub(super) fn record(work: impl FnOnce()) -> Vec<Op> {
    NOTED.set(Some(Vec::new()));
    work();
    NOTED.take().expect("nobody else takes it")
}
