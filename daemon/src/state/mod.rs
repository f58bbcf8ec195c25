//! What must survive a restart of the daemon, on disk: who has which address, which identity has
//! which number, and the DELs that were asked for while the daemon was down.
//!
//! ```text
//!   /var/lib/bulkhead/            0700
//!     lock                        held by the daemon that uses the folder
//!     endpoints/ID:IFNAME.json    one per attachment; at the same time the reservation of its addresses
//!     identities.json             number -> what it stands for
//!     identities-since.json       what has changed of that since
//!     cursors.json                addresses handed out last
//!     gateways.json               addresses that were put on lo
//!     ranges.json                 ranges of pods' addresses as the API server has told them
//!     tombstones/*.del            written by the plugin
//!     corrupt/                    what could not be read, moved aside
//! ```
//!
//! A file is replaced by writing a temporary one beside it and renaming that, so a reader and a crash
//! of the daemon see the old content or the new. Endpoints carry the boot id: sandboxes do not outlive
//! the kernel, so records of another boot are dropped, and with that nothing here needs `fsync` to be
//! right; who wants it nevertheless can have it ([`Durability`]).
//!
//! Nothing here decides what a record means.

mod dir;
mod file;
mod identities;
#[cfg(test)]
mod journal;
#[cfg(test)]
mod power_cut;
pub mod record;
pub mod tombstone;

use std::{
    io,
    path::{Path, PathBuf},
};

pub use dir::{Corrupt, Opened, StateDir, gateways_in};
pub use file::Durability;
pub use identities::IdentityBook;
pub use record::{EndpointRecord, Identities, IdentitiesSince, IdentityRecord, Phase, PodRef};
pub use tombstone::Tombstone;

/// State that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file system refused.
    #[error("state {path:?}: {step}: {source}")]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// What was tried.
        step: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// Another daemon uses the folder.
    #[error("state folder {root:?} is in use by process {pid}: stop it, or give this daemon another --state-dir")]
    InUse {
        /// The folder.
        root: PathBuf,
        /// What the other one wrote into the lock file; "?" if that is not known.
        pid: String,
    },
    /// A record of a newer daemon. Reading it wrong could give an address to two pods.
    #[error(
        "state {path:?} has format {found}, this daemon knows {known} at most: use the newer daemon, or drain the node and remove the file"
    )]
    Newer {
        /// Which.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// Ours.
        known: u32,
    },
}

impl StateError {
    pub(crate) fn io(path: &Path, step: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, step, source }
    }
}

/// The running kernel's boot id (proc_sys_kernel(5), `random/boot_id`).
pub fn boot_id() -> Result<String, StateError> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let text = std::fs::read_to_string(path).map_err(StateError::io(path, "read"))?;
    Ok(text.trim().to_owned())
}
