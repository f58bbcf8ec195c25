//! Where objects come from, and what a source tells: changes in batches, and what stands wrong.
//!
//! ```text
//!  files --scan--> changed contents --folder--> [SourceEvent] --channel--> policy index
//!    ^                (settle: when)      |
//!  inotify, clock                         +--> SourceStatus: objects in force, standing errors
//! ```
//!
//! In a cluster the API server takes the place of files: [`kubernetes`].
//!
//! [`folder`] decides what a change of files means and does no I/O; [`settle`] decides when a file
//! is complete and reads no clock; [`directory`] and `scan` are the I/O around them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use objects::ObjectError;
use policy::IdentityKey;
use policy::model::{Object, ObjectKey};

pub mod directory;
pub mod folder;
pub mod kubernetes;
mod scan;
pub mod settle;
mod watching;

/// One change, as a consumer applies it. They come in batches: what one batch holds happened
/// together, and its order is one in which applying is safe (what isolates before what is
/// isolated, additions before removals).
#[derive(Clone, PartialEq, Debug)]
pub enum SourceEvent {
    /// The object is new, or another than before.
    Apply(Object, Origin),
    /// The object is gone.
    Delete(ObjectKey),
    /// Something is wrong from now on.
    Error(SourceError),
    /// What was wrong is no longer.
    Resolved(SourceError),
    /// A number of the cluster's stands for this; `None`: for nobody.
    Number(u32, Option<Arc<IdentityKey>>),
    /// The cluster has numbers that all nodes share, and those there were have been told. Comes once at most.
    NumbersShared,
    /// All there was at the start has been told. Comes once.
    Synced,
}

/// Where an object was read. Prints as `FILE, document 2, item 3 (line 40)`, or as what is no file and has no
/// documents: `API server`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Origin {
    /// Path of the file.
    pub file: String,
    /// Number of the document in it, from 1; 0 if it is no file.
    pub document: usize,
    /// Number of the element, from 1, when the document is a list.
    pub item: Option<usize>,
    /// Line where it starts, from 1.
    pub line: usize,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.document == 0 {
            return f.write_str(&self.file);
        }
        write!(f, "{}, document {}", self.file, self.document)?;
        if let Some(item) = self.item {
            write!(f, ", item {item}")?;
        }
        write!(f, " (line {})", self.line)
    }
}

/// Something that stands wrong at a source. It never keeps the rest from working.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SourceError {
    /// The file or folder.
    pub place: String,
    /// The object, when one is to blame and its name could be read.
    pub key: Option<ObjectKey>,
    /// What is wrong.
    pub problem: SourceProblem,
    /// Number of objects of which an earlier version stays in force because of this.
    pub kept: usize,
    /// There was no earlier version, and it is a policy: what it selects is denied meanwhile.
    pub closed: bool,
}

/// What is wrong at a source.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum SourceProblem {
    /// A document, or a file as a whole, was refused.
    Refused(ObjectError),
    /// Another definition of the object, which counts.
    Duplicate {
        /// The definition that counts.
        winner: Origin,
        /// The one that does not.
        loser: Origin,
    },
    /// A file or folder cannot be read. With what the system says.
    Unreadable(String),
    /// Changes are noticed late. With the reason.
    Slow(String),
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problem {
            SourceProblem::Refused(error) => write!(f, "{error}")?,
            SourceProblem::Duplicate { winner, loser } => {
                let key = self.key.as_ref().map(ToString::to_string).unwrap_or_default();
                write!(f, "{loser}: {key} is also defined in {winner}, which counts; remove one of them")?;
            }
            SourceProblem::Unreadable(reason) => write!(f, "{}: cannot be read: {reason}", self.place)?,
            SourceProblem::Slow(reason) => write!(f, "{}: {reason}", self.place)?,
        }
        match self.kept {
            0 if self.closed => f.write_str(" (until then what it selects is denied)"),
            0 => Ok(()),
            1 => f.write_str(" (the last good version stays in force)"),
            kept => write!(f, " (the {kept} objects last read from it stay in force)"),
        }
    }
}

impl std::error::Error for SourceError {}

/// What a source has in force and what stands wrong, at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SourceStatus {
    /// All there was at the start has been read.
    pub synced: bool,
    /// Objects in force, and where each was read.
    pub objects: BTreeMap<ObjectKey, Origin>,
    /// Standing errors, by place.
    pub errors: Vec<SourceError>,
}
