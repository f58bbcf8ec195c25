//! The state folder: locked, cleaned and read when it is opened; written one file at a time.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{Read, Seek, Write},
    net::IpAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use ipnetwork::IpNetwork;
use rustix::fs::{FlockOperation, flock};
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use tracing::{info, warn};

use super::{
    Durability, EndpointRecord, Identities, IdentitiesSince, StateError, file,
    record::{FORMAT, Head, Stored},
};
use crate::ipam::{Lease, Owner, Store};

const LOCK: &str = "lock";
const ENDPOINTS: &str = "endpoints";
const IDENTITIES: &str = "identities.json";
const IDENTITIES_SINCE: &str = "identities-since.json";
const CURSORS: &str = "cursors.json";
const GATEWAYS: &str = "gateways.json";
const RANGES: &str = "ranges.json";
const CORRUPT: &str = "corrupt";
pub(super) const TOMBSTONES: &str = "tombstones";

/// The folder, for as long as this daemon uses it.
pub struct StateDir {
    root: PathBuf,
    durability: Durability,
    boot_id: String,
    /// Unlocked when it is closed.
    _lock: File,
}

/// What was found when the folder was opened.
#[derive(Debug, Default)]
pub struct Opened {
    /// Endpoints of this boot, by owner.
    pub endpoints: Vec<EndpointRecord>,
    /// Endpoints of an earlier boot. Their files are removed already; their pods are gone.
    pub stale: Vec<EndpointRecord>,
    /// Identities; empty if there were none.
    pub identities: Identities,
    /// Files that could not be read, and where they are now. The pod of an endpoint among them may
    /// still run: its addresses can be learned from the kernel (`net::host::addresses_behind`).
    pub corrupt: Vec<Corrupt>,
}

/// A file that could not be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Corrupt {
    /// Where it was.
    pub path: PathBuf,
    /// Where it is.
    pub moved_to: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not readable ({}), moved to {:?}", self.path, self.reason, self.moved_to)
    }
}

impl fmt::Debug for StateDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateDir").field("root", &self.root).finish_non_exhaustive()
    }
}

enum Loaded<T> {
    Missing,
    Corrupt(Corrupt),
    Found(Stored<T>),
}

/// The gateways that a folder remembers, for those who only look: locks nothing, changes nothing.
/// What cannot be read is nothing.
pub fn gateways_in(root: &Path) -> Vec<IpAddr> {
    let read = fs::read(root.join(GATEWAYS)).ok();
    read.and_then(|bytes| serde_json::from_slice::<Stored<Vec<IpAddr>>>(&bytes).ok())
        .map_or_else(Vec::new, |stored| stored.content)
}

impl StateDir {
    /// Opens the folder, or makes it: locks it, removes unfinished files and records of an earlier
    /// boot, moves aside what cannot be read, and reads the rest.
    pub fn open(root: &Path, durability: Durability, boot_id: &str) -> Result<(Self, Opened), StateError> {
        for folder in [root.to_owned(), root.join(ENDPOINTS), root.join(TOMBSTONES)] {
            file::make_folder(&folder).map_err(StateError::io(&folder, "create"))?;
        }
        if durability == Durability::Machine {
            // Or what is written into a new folder is lost with it.
            file::sync_folder(root).map_err(StateError::io(root, "sync"))?;
        }
        let lock = lock(root)?;
        let state = Self { root: root.to_owned(), durability, boot_id: boot_id.to_owned(), _lock: lock };
        let opened = state.load()?;
        Ok((state, opened))
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn durability(&self) -> Durability {
        self.durability
    }

    pub(super) fn load(&self) -> Result<Opened, StateError> {
        let mut opened = Opened::default();
        for folder in [self.root.clone(), self.root.join(ENDPOINTS)] {
            for path in file::list(&folder)? {
                if path.file_name().is_some_and(file::is_unfinished) {
                    info!(?path, "Removing an unfinished file");
                    file::remove(&path, self.durability)?;
                }
            }
        }
        for path in self.endpoint_paths()? {
            match self.read::<EndpointRecord>(&path)? {
                Loaded::Missing => {}
                Loaded::Corrupt(corrupt) => opened.corrupt.push(corrupt),
                Loaded::Found(stored) if stored.boot_id != self.boot_id => {
                    file::remove(&path, self.durability)?;
                    opened.stale.push(stored.content);
                }
                Loaded::Found(stored) => {
                    if self.endpoint_path(&stored.content.owner) == path {
                        opened.endpoints.push(stored.content);
                    } else {
                        let reason = format!("it is about {}, which has another file", stored.content.owner);
                        opened.corrupt.push(self.move_aside(&path, reason)?);
                    }
                }
            }
        }
        opened.endpoints.sort_by(|a, b| a.owner.cmp(&b.owner));
        match self.read(&self.root.join(IDENTITIES))? {
            Loaded::Missing => {}
            Loaded::Corrupt(corrupt) => opened.corrupt.push(corrupt),
            Loaded::Found(Stored { content, .. }) => opened.identities = content,
        }
        match self.read::<IdentitiesSince>(&self.root.join(IDENTITIES_SINCE))? {
            Loaded::Missing => {}
            Loaded::Corrupt(corrupt) => opened.corrupt.push(corrupt),
            Loaded::Found(Stored { content, .. }) => content.apply_to(&mut opened.identities),
        }
        Ok(opened)
    }

    /// Writes the record of an endpoint: new, or in place of its older one. When this returns, the
    /// addresses in it are reserved.
    pub fn put_endpoint(&self, record: &EndpointRecord) -> Result<(), StateError> {
        self.write(&self.endpoint_path(&record.owner), record)
    }

    /// Removes the record of an endpoint; says whether there was one.
    pub fn remove_endpoint(&self, owner: &Owner) -> Result<bool, StateError> {
        file::remove(&self.endpoint_path(owner), self.durability)
    }

    /// Writes all identities.
    pub fn put_identities(&self, identities: &Identities) -> Result<(), StateError> {
        self.write(&self.root.join(IDENTITIES), identities)
    }

    /// Writes what has changed about them since.
    pub fn put_identities_since(&self, since: &IdentitiesSince) -> Result<(), StateError> {
        self.write(&self.root.join(IDENTITIES_SINCE), since)
    }

    /// The gateways that were put on `lo`, as [`Self::put_gateways`] got them; none is fine.
    pub fn gateways(&self) -> Result<Vec<IpAddr>, StateError> {
        match self.read(&self.root.join(GATEWAYS))? {
            Loaded::Found(Stored { content, .. }) => Ok(content),
            Loaded::Missing | Loaded::Corrupt(_) => Ok(Vec::new()),
        }
    }

    /// Remembers the gateways that are, or are about to be, on `lo`. Writes only what is new, so that a
    /// daemon starts again on a full disk.
    pub fn put_gateways(&self, gateways: &[IpAddr]) -> Result<(), StateError> {
        if self.gateways()? == gateways {
            return Ok(());
        }
        self.write(&self.root.join(GATEWAYS), &gateways)
    }

    /// The ranges of pods' addresses that the API server has told last; none is fine.
    pub fn ranges(&self) -> Result<Vec<IpNetwork>, StateError> {
        match self.read(&self.root.join(RANGES))? {
            Loaded::Found(Stored { content, .. }) => Ok(content),
            Loaded::Missing | Loaded::Corrupt(_) => Ok(Vec::new()),
        }
    }

    /// Remembers them, for a start while the API server is away. Writes only what is new.
    pub fn put_ranges(&self, ranges: &[IpNetwork]) -> Result<(), StateError> {
        if self.ranges()? == ranges {
            return Ok(());
        }
        self.write(&self.root.join(RANGES), &ranges)
    }

    fn write<T: Serialize>(&self, path: &Path, content: &T) -> Result<(), StateError> {
        let stored = Stored { format: FORMAT, boot_id: self.boot_id.clone(), content };
        let mut bytes = serde_json::to_vec_pretty(&stored).expect("strings, numbers and lists of them become JSON");
        bytes.push(b'\n');
        file::replace(path, &bytes, self.durability)
    }

    fn read<T: DeserializeOwned>(&self, path: &Path) -> Result<Loaded<T>, StateError> {
        let Some(bytes) = file::read(path)? else { return Ok(Loaded::Missing) };
        let stored = serde_json::from_slice::<Head>(&bytes).and_then(|head| {
            if head.format > FORMAT { Ok(Err(head.format)) } else { serde_json::from_slice(&bytes).map(Ok) }
        });
        match stored {
            Ok(Ok(stored)) => Ok(Loaded::Found(stored)),
            Ok(Err(found)) => Err(StateError::Newer { path: path.to_owned(), found, known: FORMAT }),
            Err(error) => Ok(Loaded::Corrupt(self.move_aside(path, error.to_string())?)),
        }
    }

    pub(super) fn move_aside(&self, path: &Path, reason: String) -> Result<Corrupt, StateError> {
        let folder = self.root.join(CORRUPT);
        file::make_folder(&folder).map_err(StateError::io(&folder, "create"))?;
        let name = path.file_name().unwrap_or_default();
        // Numbered: what was moved aside before stays.
        let moved_to = (0_u32..)
            .map(|number| {
                let mut numbered = std::ffi::OsString::from(format!("{number}-"));
                numbered.push(name);
                // A name that is as long as may be loses its end, not its number.
                let end = numbered.len().min(NAME_MAX);
                folder.join(String::from_utf8_lossy(&numbered.as_encoded_bytes()[..end]).as_ref())
            })
            .find(|path| !path.exists())
            .expect("there are fewer files than numbers");
        file::rename(path, &moved_to).map_err(StateError::io(path, "move aside"))?;
        warn!(?path, ?moved_to, reason, "Moving aside a file that is not readable");
        Ok(Corrupt { path: path.to_owned(), moved_to, reason })
    }

    fn endpoint_paths(&self) -> Result<Vec<PathBuf>, StateError> {
        let mut paths = file::list(&self.root.join(ENDPOINTS))?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        Ok(paths)
    }

    fn endpoint_path(&self, owner: &Owner) -> PathBuf {
        self.root.join(ENDPOINTS).join(file_name(owner))
    }
}

/// Longest name of a file in bytes (`NAME_MAX`, include/uapi/linux/limits.h).
const NAME_MAX: usize = 255;

/// Neither part can hold a `:` or a `/` (CNI 1.1.0, section "Parameters"); where that is not so, or
/// the name would be too long, a hash stands in.
fn file_name(Owner { container_id, ifname }: &Owner) -> String {
    const END: &str = ".json";
    let name = format!("{container_id}:{ifname}");
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && b != b':' && b != b'/');
    if plain(container_id) && plain(ifname) && !name.starts_with('.') && name.len() + END.len() <= NAME_MAX {
        return name + END;
    }
    let hash = Sha256::digest(format!("{}:{name}", container_id.len()));
    hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + END
}

fn lock(root: &Path) -> Result<File, StateError> {
    let path = root.join(LOCK);
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let mut file = opened.map_err(StateError::io(&path, "open"))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            let pid = if pid.trim().is_empty() { "?".to_owned() } else { pid.trim().to_owned() };
            return Err(StateError::InUse { root: root.to_owned(), pid });
        }
        Err(error) => return Err(StateError::io(&path, "lock")(error.into())),
    }
    let noted = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    noted.map_err(StateError::io(&path, "write"))?;
    Ok(file)
}

impl Store for StateDir {
    type Error = StateError;

    fn leases(&self) -> Result<Vec<Lease>, StateError> {
        let mut leases = Vec::new();
        for path in self.endpoint_paths()? {
            if let Loaded::Found(Stored { content: EndpointRecord { owner, addresses, .. }, .. }) = self.read(&path)? {
                leases.push(Lease { owner, addresses: addresses.iter().map(|pod| pod.address).collect() });
            }
        }
        Ok(leases)
    }

    fn cursors(&self) -> Result<Vec<IpAddr>, StateError> {
        match self.read(&self.root.join(CURSORS))? {
            Loaded::Found(Stored { content, .. }) => Ok(content),
            Loaded::Missing | Loaded::Corrupt(_) => Ok(Vec::new()),
        }
    }

    fn save_cursors(&self, cursors: &[IpAddr]) -> Result<(), StateError> {
        self.write(&self.root.join(CURSORS), &cursors)
    }
}

#[cfg(test)]
mod tests;
