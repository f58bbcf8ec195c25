//! A look at the network namespace that the runtime names, without entering it.
//!
//! The plugin shares the runtime's mount namespace, the daemon may not: so it is here that a wrong
//! path is noticed. A namespace is its inode on the kernel's nsfs (namespaces(7)).

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

/// What a path turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The namespace's inode.
    pub(crate) inode: u64,
    /// Whether it is the one that the plugin itself runs in: the host's.
    pub(crate) own: bool,
}

/// Why a path cannot be an attachment's namespace.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetnsError {
    #[error("CNI_NETNS {path:?} cannot be opened: {source}")]
    Open { path: String, source: io::Error },
    #[error("CNI_NETNS {path:?} is the network namespace of the host, which cannot be attached")]
    Own { path: String },
}

/// Looks at `path`. Fails where it does not exist or is not a namespace.
pub(crate) fn look(path: &Path) -> io::Result<Seen> {
    let own = fs::metadata("/proc/self/ns/net")?;
    let other = fs::metadata(path)?;
    if own.dev() != other.dev() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a network namespace"));
    }
    Ok(Seen { inode: other.ino(), own: own.ino() == other.ino() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_namespace_is_recognised() {
        let seen = look(Path::new("/proc/thread-self/ns/net")).unwrap();
        assert!(seen.own);
        assert_ne!(seen.inode, 0);
    }

    #[test]
    fn a_plain_file_is_not_a_namespace() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(look(file.path()).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_missing_path_is_reported_as_such() {
        assert_eq!(look(Path::new("/nonexistent/ns")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
