//! Replacing a file so that at every instant it has its old content or its new.

use std::{
    ffi::OsStr,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use super::StateError;
#[cfg(test)]
use super::journal::{self, Op};

/// What a completed write withstands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// A crash of the daemon. Enough for everything here: what a crash of the machine could lose
    /// belongs to pods that are gone with it.
    #[default]
    Process,
    /// A crash of the machine as well: each write waits for the disk, twice.
    Machine,
}

/// What is about to be done; tests stop there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    Create,
    Write,
    Sync,
    Rename,
    SyncFolder,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Write => "write",
            Self::Sync => "sync",
            Self::Rename => "rename",
            Self::SyncFolder => "sync the folder of",
        }
    }
}

const UNFINISHED: &str = ".tmp";

/// Whether a name is that of a file whose writing was not finished.
pub(crate) fn is_unfinished(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(b".") && name.ends_with(UNFINISHED.as_bytes())
}

/// Replaces a file, or makes it.
pub(crate) fn replace(path: &Path, bytes: &[u8], durability: Durability) -> Result<(), StateError> {
    replace_watched(path, bytes, durability, &mut |_| Ok(()))
}

/// As [`replace`], asking before every step.
pub(crate) fn replace_watched(
    path: &Path,
    bytes: &[u8],
    durability: Durability,
    before: &mut dyn FnMut(Step) -> io::Result<()>,
) -> Result<(), StateError> {
    // Two writers of one file must not share a temporary one.
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let folder = path.parent().unwrap_or(Path::new("."));
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    // The name is not part of it: together they could be longer than a name may be.
    let unfinished = folder.join(format!(".{}-{number}{UNFINISHED}", std::process::id()));
    let written = (|| {
        let step = |step: Step| move |error| (step, error);
        before(Step::Create).map_err(step(Step::Create))?;
        let mut file = create(&unfinished).map_err(step(Step::Create))?;
        before(Step::Write).and_then(|()| write(&mut file, &unfinished, bytes)).map_err(step(Step::Write))?;
        if durability == Durability::Machine {
            before(Step::Sync).and_then(|()| sync(&file, &unfinished)).map_err(step(Step::Sync))?;
        }
        before(Step::Rename).and_then(|()| rename(&unfinished, path)).map_err(step(Step::Rename))?;
        if durability == Durability::Machine {
            before(Step::SyncFolder).and_then(|()| sync_folder(folder)).map_err(step(Step::SyncFolder))?;
        }
        Ok(())
    })();
    written.map_err(|(step, source): (Step, io::Error)| {
        // Best effort; at the next start it would be removed.
        let _ = delete(&unfinished);
        StateError::Io { path: path.to_owned(), step: step.name(), source }
    })
}

// One operation on the disk each, told to tests that lose some of them.

fn create(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    #[cfg(test)]
    journal::note(|| Op::Create(path.to_owned()));
    Ok(file)
}

fn write(file: &mut File, _path: &Path, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)?;
    #[cfg(test)]
    journal::note(|| Op::Write(_path.to_owned(), bytes.to_owned()));
    Ok(())
}

fn sync(file: &File, _path: &Path) -> io::Result<()> {
    file.sync_all()?;
    #[cfg(test)]
    journal::note(|| Op::Sync(_path.to_owned()));
    Ok(())
}

pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    #[cfg(test)]
    journal::note(|| Op::Rename(from.to_owned(), to.to_owned()));
    Ok(())
}

fn delete(path: &Path) -> io::Result<()> {
    fs::remove_file(path)?;
    #[cfg(test)]
    journal::note(|| Op::Remove(path.to_owned()));
    Ok(())
}

/// Makes a folder for root alone, and those above it; one that is there is fine.
pub(crate) fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    #[cfg(test)]
    journal::note(|| Op::Folder(path.to_owned()));
    Ok(())
}

pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()?;
    #[cfg(test)]
    journal::note(|| Op::SyncFolder(folder.to_owned()));
    Ok(())
}

/// Removes a file; says whether there was one.
pub(crate) fn remove(path: &Path, durability: Durability) -> Result<bool, StateError> {
    match delete(path) {
        Ok(()) => {
            if durability == Durability::Machine {
                let folder = path.parent().unwrap_or(Path::new("."));
                sync_folder(folder).map_err(StateError::io(folder, "sync"))?;
            }
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(StateError::io(path, "remove")(error)),
    }
}

/// Reads a file; `None` if there is none.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, StateError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StateError::io(path, "read")(error)),
    }
}

/// Plain files of a folder, sorted.
pub(crate) fn list(folder: &Path) -> Result<Vec<PathBuf>, StateError> {
    let listed = || {
        let mut paths = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                paths.push(entry.path());
            }
        }
        paths.sort();
        Ok(paths)
    };
    match listed() {
        Err(error) if io::Error::kind(&error) == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.map_err(StateError::io(folder, "list")),
    }
}
