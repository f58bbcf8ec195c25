//! What an agent of another ABI version has left: pins beside ours, with programs that go on deciding by its maps until ours
//! are attached. Its connections are taken over if they mean the same, then it is removed.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aya::maps::{HashMap, Map, MapData, MapError};
use datapath_abi::{
    ABI_VERSION, CONNECTIONS_SINCE,
    conntrack::{CtEntry, CtKey},
    maps,
};

use super::{
    load,
    maps::{TableError, failed},
};

/// In place of the rules' words of a connection that was taken over: what no rules have (their generation would have to come
/// to its end first), so that its next packet has them asked.
const ASK_AGAIN: u64 = u64::MAX;
/// Only what is not there yet (bpf(2), `BPF_NOEXIST`).
const NEW: u64 = 1;

/// An agent of another ABI version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Predecessor {
    /// Folder of its pins.
    folder: PathBuf,
    version: u32,
}

/// Those of which there are pins below `base`, the newest first.
///
/// # Errors
/// The folder cannot be read.
pub fn find(base: &Path) -> io::Result<Vec<Predecessor>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(base)? {
        let folder = entry?.path();
        let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let version = name.strip_prefix('v').and_then(|number| number.parse().ok());
        match version {
            Some(version) if version != ABI_VERSION && folder.is_dir() => found.push(Predecessor { folder, version }),
            _ => {}
        }
    }
    found.sort_by_key(|predecessor| std::cmp::Reverse(predecessor.version));
    Ok(found)
}

impl Predecessor {
    /// Folder of its pins.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether its connections mean what ours do.
    pub fn is_understood(&self) -> bool {
        (CONNECTIONS_SINCE..ABI_VERSION).contains(&self.version)
    }

    /// Adds its connections to ours below `base`, but for those that are there already. How many; what finds no room is taken up
    /// from its middle, as are all of a predecessor that [is not understood](Self::is_understood).
    ///
    /// # Errors
    /// A map cannot be opened or read, or the kernel refuses an entry.
    pub fn hand_over(&self, base: &Path) -> Result<usize, TableError> {
        if !self.is_understood() {
            return Ok(0);
        }
        let mut count = 0;
        for map in [maps::PENDING, maps::CONNTRACK] {
            let theirs = open(map, &self.folder.join("maps").join(map))?;
            let mut ours = open(map, &load::map_pin(base, map))?;
            for entry in theirs.iter() {
                let (key, mut entry) = match entry {
                    Ok(entry) => entry,
                    // It has ended since.
                    Err(MapError::KeyNotFound) => continue,
                    Err(error) => return Err(failed(map, "read")(error)),
                };
                entry.ends.rules = [ASK_AGAIN; 2];
                match ours.insert(key, entry, NEW) {
                    Ok(()) => count += 1,
                    Err(MapError::SyscallError(error)) if is_no_matter(&error.io_error) => {}
                    Err(error) => return Err(failed(map, "write")(error)),
                }
            }
        }
        Ok(count)
    }

    /// Removes its pins: its programs leave the interfaces, its maps are freed.
    ///
    /// # Errors
    /// A pin cannot be removed.
    pub fn retire(self) -> io::Result<()> {
        fs::remove_dir_all(&self.folder)
    }
}

/// It is there already, or the table is full.
fn is_no_matter(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::EXIST, Errno::TOOBIG].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn open(name: &'static str, pin: &Path) -> Result<HashMap<MapData, CtKey, CtEntry>, TableError> {
    let data = MapData::from_pin(pin).map_err(failed(name, "open"))?;
    let map = Map::from_map_data(data).map_err(failed(name, "open"))?;
    HashMap::try_from(map).map_err(|source| TableError::Type { map: name, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_other_versions_are_found_and_the_newest_is_first() {
        let base = tempfile::tempdir().unwrap();
        for name in ["v0", "v12", "vault", "v", "v-1", &format!("v{ABI_VERSION}")] {
            fs::create_dir(base.path().join(name)).unwrap();
        }
        fs::write(base.path().join("v7777"), "a file").unwrap();
        let found: Vec<u32> = find(base.path()).unwrap().iter().map(|it| it.version).collect();
        assert_eq!(found, [12, 0]);
    }

    #[test]
    fn who_is_older_than_the_layout_or_comes_after_us_is_not_understood() {
        let of = |version| Predecessor { folder: PathBuf::new(), version };
        assert!(!of(CONNECTIONS_SINCE - 1).is_understood());
        assert!(!of(ABI_VERSION + 1).is_understood());
        assert_eq!(of(ABI_VERSION - 1).is_understood(), ABI_VERSION > CONNECTIONS_SINCE);
    }

    #[test]
    fn retiring_removes_the_folder() {
        let base = tempfile::tempdir().unwrap();
        fs::create_dir_all(base.path().join("v0/maps")).unwrap();
        let [found] = &find(base.path()).unwrap()[..] else { panic!("one") };
        found.clone().retire().unwrap();
        assert_eq!(find(base.path()).unwrap(), []);
    }
}
