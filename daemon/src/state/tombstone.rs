//! DELs that found no daemon: files that the plugin left, see `Tombstone` in proto/bulkhead/cni.proto.
//!
//! Here they are only found, decoded and removed. The type they decode to is the caller's, which
//! serves them like any other DEL.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use prost::Message;

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

fn inode(path: &Path) -> Result<Option<u64>, StateError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StateError::io(path, "look at")(error)),
    }
}
