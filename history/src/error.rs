//! What can be wrong with a file of the history: always with the file's name, and what to do.

use std::{
    io,
    path::{Path, PathBuf},
};

/// A file or the folder cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk says no.
    #[error("{}: {source}", path.display())]
    Disk {
        /// Which file.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
    /// The file is of another version.
    #[error(
        "{}: has version {found} of the history's columns, this program knows {}: read it with a newer bulkhead, or move it out of the folder",
        path.display(), crate::SCHEMA_VERSION
    )]
    Version {
        /// Which file.
        path: PathBuf,
        /// The version it names, or what stands there instead.
        found: String,
    },
    /// The file is not what its name says, or damaged.
    #[error("{}: {what}: move it out of the folder", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// In what way.
        what: String,
    },
}

impl Error {
    /// For `map_err` of what touches `path`.
    pub(crate) fn disk(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Disk { path, source }
    }

    pub(crate) fn damaged(path: &Path, what: impl ToString) -> Self {
        Self::Damaged { path: path.to_owned(), what: what.to_string() }
    }

    /// Whether there is no room for more.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Disk { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            Self::Version { .. } | Self::Damaged { .. } => false,
        }
    }

    /// Whether the file is not there (any more).
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Disk { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}
