//! Lists the manifests of a folder and reads one. Knows nothing of what they mean.
//!
//! Manifests are regular files named `*.yaml`, `*.yml` or `*.json`, in the folder and in folders
//! below it, to a depth of [`MAX_DEPTH`]. What begins with a dot is passed over, so editors' swap
//! files and the `..data` of a Kubernetes volume are; a symlink to a file is followed, so that the
//! volume's files are found; one to a folder is not, so that nothing goes in circles.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::OFlags;

/// Folders below the one that is watched.
const MAX_DEPTH: usize = 8;
/// Manifests in all.
const MAX_FILES: usize = 10_000;
/// A change within this time of the last look may have left the time of change as it was: kernels
/// stamp files by a clock that ticks every 1 to 10 ms.
const STAMP_GRAIN: Duration = Duration::from_millis(50);

/// Tells whether a file has changed without reading it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    /// So young that a further change might not show.
    pub(super) doubtful: bool,
}

impl Stamp {
    fn of(metadata: &Metadata, now: SystemTime) -> Self {
        let since_change = metadata.modified().ok().and_then(|modified| now.duration_since(modified).ok());
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            doubtful: since_change.is_none_or(|since| since < STAMP_GRAIN),
        }
    }

    /// Whether the file is certainly as it was at `earlier`.
    pub(super) fn is_unchanged_since(&self, earlier: &Self) -> bool {
        !earlier.doubtful && Self { doubtful: false, ..*self } == *earlier
    }

    /// Whether this is the very file that `earlier` was taken of, perhaps with other content.
    pub(super) fn is_same_file(&self, earlier: &Self) -> bool {
        (self.device, self.inode) == (earlier.device, earlier.inode)
    }

    /// How long ago the file was last written, at `now`; zero if that lies in the future.
    pub(super) fn age(&self, now: SystemTime) -> Duration {
        let (seconds, nanoseconds) = self.modified;
        let since_epoch = Duration::new(u64::try_from(seconds).unwrap_or(0), u32::try_from(nanoseconds).unwrap_or(0));
        now.duration_since(SystemTime::UNIX_EPOCH + since_epoch).unwrap_or_default()
    }
}

/// Tells one folder from another that took its name, and perhaps its inode number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FolderId {
    device: u64,
    inode: u64,
    created: Option<SystemTime>,
}

/// What lies in a folder.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Manifests by path.
    pub(super) files: BTreeMap<PathBuf, Stamp>,
    /// The folder itself and those below it.
    pub(super) folders: BTreeMap<PathBuf, FolderId>,
    /// Files and folders of which not even that much is known, with the reason.
    pub(super) unreadable: BTreeMap<PathBuf, String>,
}

impl Listing {
    /// Whether `path` lies in a folder that could not be listed, so that its absence means nothing.
    pub(super) fn is_hidden(&self, path: &Path) -> bool {
        path.ancestors().any(|folder| self.unreadable.contains_key(folder))
    }
}

/// Lists `root`.
///
/// # Errors
///
/// When `root` itself cannot be listed.
pub(super) fn list(root: &Path, now: SystemTime) -> io::Result<Listing> {
    let mut listing = Listing::default();
    list_folder(root, 0, now, &mut listing)?;
    Ok(listing)
}

fn list_folder(folder: &Path, depth: usize, now: SystemTime, listing: &mut Listing) -> io::Result<()> {
    let metadata = fs::metadata(folder)?;
    let id = FolderId { device: metadata.dev(), inode: metadata.ino(), created: metadata.created().ok() };
    listing.folders.insert(folder.to_owned(), id);
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        names.insert(entry?.file_name());
    }
    for name in names {
        let path = folder.join(&name);
        let Some(name) = name.to_str() else {
            listing.unreadable.insert(path, "its name is not UTF-8; rename it".to_owned());
            continue;
        };
        if name.starts_with('.') {
            continue;
        }
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.is_dir() {
            let result = match depth < MAX_DEPTH {
                true => list_folder(&path, depth + 1, now, listing),
                false => Err(io::Error::other(format!("more than {MAX_DEPTH} folders deep; move it up"))),
            };
            match result {
                // It went away while we looked.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    listing.unreadable.insert(path, error.to_string());
                }
                Ok(()) => {}
            }
        } else if is_manifest(name) {
            list_file(path, now, listing);
        }
    }
    Ok(())
}

fn list_file(path: PathBuf, now: SystemTime, listing: &mut Listing) {
    match fs::metadata(&path) {
        Ok(metadata) if metadata.is_file() => {
            if listing.files.len() < MAX_FILES {
                listing.files.insert(path, Stamp::of(&metadata, now));
            } else {
                listing.unreadable.insert(path, format!("it is past the first {MAX_FILES} files; join some"));
            }
        }
        // A folder that is called like a file, or a symlink to one.
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => {
            listing.unreadable.insert(path, "it is not a regular file; remove it".to_owned());
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_symlink(&path) => {}
        Err(error) => {
            listing.unreadable.insert(path, error.to_string());
        }
    }
}

fn is_symlink(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink())
}

/// Whether a file of this name is read. Backups (`a.yaml~`), drafts (`a.yaml.tmp`) and hidden
/// files are not.
pub(super) fn is_manifest(name: &str) -> bool {
    let extension = name.rsplit_once('.').filter(|(stem, _)| !stem.is_empty()).map(|(_, extension)| extension);
    !name.starts_with(['.', '#']) && matches!(extension, Some("yaml" | "yml" | "json"))
}

/// Reads a file, but no more than one byte past `limit`.
///
/// # Errors
///
/// What the system says; and when it is no regular file any more.
pub(super) fn read(path: &Path, limit: usize, now: SystemTime) -> io::Result<(Stamp, Vec<u8>)> {
    // Should a FIFO have taken the file's place, do not wait for its writer.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file: File = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file; remove it"));
    }
    let mut bytes = Vec::new();
    file.take(u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1)).read_to_end(&mut bytes)?;
    Ok((Stamp::of(&metadata, now), bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_manifests_are_read() {
        for name in ["a.yaml", "a.yml", "a.json", "a.b.yaml", "a b.yaml"] {
            assert!(is_manifest(name), "{name}");
        }
        for name in [
            "a",
            "yaml",
            ".yaml",
            ".a.yaml",
            ".a.yaml.swp",
            "a.yaml~",
            "a.yaml.bak",
            "a.yaml.tmp",
            "#a.yaml#",
            "#a.yaml",
            "4913",
            "..data",
            "a.txt",
            "README.md",
        ] {
            assert!(!is_manifest(name), "{name}");
        }
    }

    #[test]
    fn absence_from_a_folder_that_cannot_be_listed_means_nothing() {
        let unreadable = BTreeMap::from([(PathBuf::from("/r/locked"), "denied".to_owned())]);
        let listing = Listing { unreadable, ..Listing::default() };
        assert!(listing.is_hidden(Path::new("/r/locked/deeper/a.yaml")));
        assert!(listing.is_hidden(Path::new("/r/locked")));
        assert!(!listing.is_hidden(Path::new("/r/locked.yaml")));
        assert!(!listing.is_hidden(Path::new("/r/a.yaml")));
    }

    #[test]
    fn folders_are_followed_to_their_depth_and_no_symlink_to_one_is() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut deepest = folder.path().to_owned();
        for _ in 0..=MAX_DEPTH {
            fs::write(deepest.join("a.yaml"), "").expect("a file");
            deepest.push("d");
            fs::create_dir(&deepest).expect("a folder");
        }
        fs::write(deepest.join("a.yaml"), "").expect("a file");
        std::os::unix::fs::symlink(folder.path(), folder.path().join("circle")).expect("a symlink");
        std::os::unix::fs::symlink(folder.path(), folder.path().join("circle.yaml")).expect("a symlink");
        let listing = list(folder.path(), SystemTime::now()).expect("the folder is there");
        assert_eq!((listing.files.len(), listing.folders.len()), (MAX_DEPTH + 1, MAX_DEPTH + 1));
        let reasons: Vec<_> = listing.unreadable.into_iter().collect();
        assert_eq!(reasons, [(deepest, "more than 8 folders deep; move it up".to_owned())]);
    }

    #[test]
    fn a_young_stamp_proves_nothing() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("a.yaml");
        fs::write(&path, "a").expect("a file");
        let metadata = fs::metadata(&path).expect("metadata");
        let modified = metadata.modified().expect("a time");
        let young = Stamp::of(&metadata, modified + STAMP_GRAIN / 2);
        let old = Stamp::of(&metadata, modified + STAMP_GRAIN * 2);
        assert!(!old.is_unchanged_since(&young));
        assert!(old.is_unchanged_since(&old));
        assert_eq!(old.age(modified + Duration::from_secs(3)), Duration::from_secs(3));
        assert_eq!(old.age(modified - Duration::from_secs(3)), Duration::ZERO);
    }
}
