//! A DEL that finds no daemon leaves a file, and the runtime may go on (`Tombstone` in cni.proto).
//!
//! A pod must be able to go away while the daemon is down or being upgraded. The daemon reads
//! `<stateDir>/tombstones/*.del` when it starts and whenever a file appears, does what each asks for and
//! removes it. Nothing here reads tombstones.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use prost::Message;
use proto::bulkhead::cni::v1::{AttachmentId, DelRequest, Tombstone};

/// A tombstone that could not be left.
#[derive(Debug, thiserror::Error)]
#[error("cannot leave the tombstone {path:?}: {step}: {source}")]
pub(crate) struct TombstoneError {
    path: PathBuf,
    step: &'static str,
    source: io::Error,
}

/// Writes the file durably; returns its path. A second one for the same attachment replaces the first.
pub(crate) fn leave(state_dir: &Path, request: DelRequest, now: SystemTime) -> Result<PathBuf, TombstoneError> {
    let dir = state_dir.join("tombstones");
    let name = file_name(&request);
    let path = dir.join(format!("{name}.del"));
    let since_1970 = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let stone = Tombstone {
        request: Some(request),
        deleted_at_unix_ms: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
    };
    let unfinished = dir.join(format!(".{name}.{}", std::process::id()));
    let written = write(&dir, &unfinished, &path, &stone.encode_to_vec());
    if written.is_err() {
        // Best effort: the daemon does not read it, whether it stays or goes.
        let _ = fs::remove_file(&unfinished);
    }
    written.map_err(|(step, source)| TombstoneError { path: path.clone(), step, source })?;
    Ok(path)
}

fn write(dir: &Path, unfinished: &Path, path: &Path, bytes: &[u8]) -> Result<(), (&'static str, io::Error)> {
    let step = |name| move |error| (name, error);
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(step("create the folder"))?;
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(unfinished).map_err(step("create"))?;
    file.write_all(bytes).map_err(step("write"))?;
    file.sync_all().map_err(step("sync"))?;
    fs::rename(unfinished, path).map_err(step("rename"))?;
    File::open(dir).and_then(|d| d.sync_all()).map_err(step("sync the folder"))
}

/// A name for the attachment: none of its parts can hold a `:` or a `/`.
fn file_name(request: &DelRequest) -> String {
    /// Leaves room for what is put around it in NAME_MAX, 255 bytes.
    const LONGEST: usize = 200;
    let network = request.network.as_ref().map_or("", |n| n.name.as_str());
    let AttachmentId { container_id, ifname } = request.id.clone().unwrap_or_default();
    let name = format!("{network}:{container_id}:{ifname}");
    if name.len() <= LONGEST { name } else { format!("{:032x}", fnv1a(name.as_bytes())) }
}

/// FNV-1a of 128 bits (RFC 9923, section 5): enough to tell names apart, and the same in every build.
fn fnv1a(bytes: &[u8]) -> u128 {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    bytes.iter().fold(BASIS, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, time::Duration};

    use proto::bulkhead::cni::v1::Network;

    use super::*;

    fn request(container_id: &str) -> DelRequest {
        DelRequest {
            id: Some(AttachmentId { container_id: container_id.into(), ifname: "eth0".into() }),
            network: Some(Network { name: "shop".into(), ..Network::default() }),
            ..DelRequest::default()
        }
    }

    fn at(ms: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(ms)
    }

    #[test]
    fn what_is_left_says_what_to_do_and_since_when() {
        let dir = tempfile::tempdir().unwrap();
        let path = leave(&dir.path().join("state"), request("c1"), at(1234)).unwrap();
        assert_eq!(path, dir.path().join("state/tombstones/shop:c1:eth0.del"));
        let stone = Tombstone::decode(fs::read(&path).unwrap().as_slice()).unwrap();
        assert_eq!(stone, Tombstone { request: Some(request("c1")), deleted_at_unix_ms: 1234 });
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_repeated_del_leaves_one_file_with_the_later_time() {
        let dir = tempfile::tempdir().unwrap();
        leave(dir.path(), request("c1"), at(1)).unwrap();
        let path = leave(dir.path(), request("c1"), at(2)).unwrap();
        leave(dir.path(), request("c2"), at(3)).unwrap();
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 2);
        assert_eq!(Tombstone::decode(fs::read(&path).unwrap().as_slice()).unwrap().deleted_at_unix_ms, 2);
    }

    #[test]
    fn names_of_any_length_fit_a_file_system() {
        let dir = tempfile::tempdir().unwrap();
        let long = "c".repeat(5000);
        let one = leave(dir.path(), request(&long), at(1)).unwrap();
        let other = leave(dir.path(), request(&format!("{long}d")), at(1)).unwrap();
        assert_ne!(one, other);
        assert_eq!(one, leave(dir.path(), request(&long), at(2)).unwrap());
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = leave(file.path(), request("c1"), at(1)).unwrap_err().to_string();
        assert!(error.contains("create the folder") && error.contains("shop:c1:eth0.del"), "{error}");
    }

    #[test]
    fn the_hash_is_fnv1a() {
        // FNV-1a 128 of the empty string and of "a".
        assert_eq!(fnv1a(b""), 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);
        assert_eq!(fnv1a(b"a"), 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
    }
}
