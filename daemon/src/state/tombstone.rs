//! DELs that found no daemon: files that the plugin left, see `Tombstone` in proto/bulkhead/cni.proto.
//!
//! Here they are only found, decoded and removed. The type they decode to is the caller's, which
//! serves them like any other DEL.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use prost::Message;
use tracing::info;

use super::{Corrupt, StateDir, StateError, dir, file};

/// One tombstone that was read.
#[derive(Clone, PartialEq, Debug)]
pub struct Tombstone<M> {
    /// What the plugin wrote.
    pub message: M,
    path: PathBuf,
    inode: u64,
}

impl StateDir {
    /// Where tombstones appear. The folder is there once the state folder was opened.
    pub fn tombstone_dir(&self) -> PathBuf {
        self.root().join(dir::TOMBSTONES)
    }

    /// All tombstones, decoded. What cannot be decoded is moved aside and reported.
    pub fn tombstones<M: Message + Default>(&self) -> Result<(Vec<Tombstone<M>>, Vec<Corrupt>), StateError> {
        let mut found = Vec::new();
        let mut corrupt = Vec::new();
        for path in file::list(&self.tombstone_dir())? {
            if path.extension().is_none_or(|extension| extension != "del") {
                if is_abandoned(&path) {
                    info!(?path, "Removing an unfinished tombstone");
                    file::remove(&path, self.durability())?;
                }
                continue;
            }
            // The inode first: if the file is replaced in between, it is not removed later.
            let Some(inode) = inode(&path)? else { continue };
            let Some(bytes) = file::read(&path)? else { continue };
            match M::decode(bytes.as_slice()) {
                Ok(message) => found.push(Tombstone { message, path, inode }),
                Err(error) => corrupt.push(self.move_aside(&path, error.to_string())?),
            }
        }
        Ok((found, corrupt))
    }

    /// Removes a tombstone that was served; one that the plugin has replaced since stays.
    pub fn remove_tombstone<M>(&self, tombstone: &Tombstone<M>) -> Result<(), StateError> {
        if inode(&tombstone.path)? == Some(tombstone.inode) {
            file::remove(&tombstone.path, self.durability())?;
        }
        Ok(())
    }
}

/// Whether a file is one that a plugin has begun and will not finish: hidden, as it names them, and older than
/// any plugin lives.
fn is_abandoned(path: &Path) -> bool {
    const PLUGIN_LIFE: Duration = Duration::from_secs(600);
    let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    let written = fs::symlink_metadata(path).and_then(|metadata| metadata.modified());
    // A clock that was put back makes it younger than now, which is no reason to remove it.
    let age = written.ok().and_then(|written| written.elapsed().ok());
    is_hidden && age.is_some_and(|age| age > PLUGIN_LIFE)
}

fn inode(path: &Path) -> Result<Option<u64>, StateError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StateError::io(path, "look at")(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use proto::bulkhead::cni::v1 as wire;

    use super::*;
    use crate::state::Durability;

    #[test]
    fn what_a_plugin_left_unfinished_long_ago_goes_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (state, _) = StateDir::open(folder.path(), Durability::Process, "boot").unwrap();
        let place = state.tombstone_dir();
        let long_ago = SystemTime::now() - Duration::from_secs(3600);
        for (name, age) in [(".shop:c1:eth0.77", true), (".shop:c2:eth0.78", false), ("notes", true), ("x.del", true)] {
            let file = fs::File::create(place.join(name)).unwrap();
            if age {
                file.set_modified(long_ago).unwrap();
            }
        }
        let (found, corrupt) = state.tombstones::<wire::Tombstone>().unwrap();
        // An empty file is an empty message.
        assert_eq!((found.len(), corrupt.len()), (1, 0));
        let mut left: Vec<String> =
            fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!(left, [".shop:c2:eth0.78", "notes", "x.del"]);
    }
}
