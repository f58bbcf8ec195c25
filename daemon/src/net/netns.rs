//! Network namespaces: open one by path with checks, run code in it, talk netlink in it.
//!
//! A thread is moved, never the process: each visit is a thread of its own that ends afterwards, so
//! that no pooled thread is ever left in a pod's namespace. A socket stays in the namespace it was
//! made in, so netlink needs the visit only to be opened.

use std::{
    fmt,
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use rustix::{
    fs::{self as rfs, Mode, OFlags},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use super::netlink::Netlink;

/// A file system type of its own for namespaces: `NSFS_MAGIC`, include/uapi/linux/magic.h.
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// Why a network namespace cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// Nothing at the path: the sandbox is gone, or never was.
    #[error("network namespace {path:?} does not exist")]
    NotFound {
        /// Which.
        path: PathBuf,
    },
    /// Something else is at the path.
    #[error("{path:?} is no network namespace: it is {found}")]
    NotNetns {
        /// Which.
        path: PathBuf,
        /// What it is instead.
        found: &'static str,
    },
    /// The path leads to the node's namespace: wiring a pod there would take the node apart.
    #[error("{path:?} is the node's own network namespace: a pod needs one of its own")]
    Own {
        /// Which.
        path: PathBuf,
    },
    /// The path now leads to another namespace than the caller has seen.
    #[error("{path:?} has become another network namespace: inode {found}, expected {expected}")]
    Replaced {
        /// Which.
        path: PathBuf,
        /// Inode that was asked for.
        expected: u64,
        /// Inode that is there.
        found: u64,
    },
    /// It cannot be opened or looked at.
    #[error("network namespace {path:?}: {step}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What was tried.
        step: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The thread that was to enter it ended without an answer.
    #[error("the thread in network namespace {path:?} panicked")]
    Panicked {
        /// Which.
        path: PathBuf,
    },
}

impl NetnsError {
    /// Whether the namespace is gone, which for a DEL is as good as done.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}

/// Names a namespace for as long as it lives: the device and inode of its file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NetnsId {
    /// Device of the nsfs.
    pub device: u64,
    /// Inode in it.
    pub inode: u64,
}

/// An open network namespace. It lives at least as long as this does.
#[derive(Clone)]
pub struct Netns(Arc<Inner>);

struct Inner {
    fd: OwnedFd,
    path: PathBuf,
    id: NetnsId,
}

impl Netns {
    /// Opens the namespace at a path, as `/run/netns/NAME` or `/proc/PID/ns/net`.
    pub fn open(path: &Path) -> Result<Self, NetnsError> {
        let io = |step, source: rustix::io::Errno| NetnsError::Io { path: path.into(), step, source: source.into() };
        // O_PATH first: opening a FIFO or a device for real could block or do something.
        let place = rfs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(|error| match error {
            rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR => NetnsError::NotFound { path: path.into() },
            error => io("open", error),
        })?;
        let place = File::from(place);
        let found = rfs::fstatfs(&place).map_err(|error| io("statfs", error))?;
        #[allow(clippy::cast_sign_loss, clippy::unnecessary_cast)]
        if found.f_type as u64 != NSFS_MAGIC {
            let kind = place.metadata().map(|m| kind_of(&m)).unwrap_or("something else");
            return Err(NetnsError::NotNetns { path: path.into(), found: kind });
        }
        let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&place));
        let fd = rfs::open(link, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(|error| io("open", error))?;
        let stat = rfs::fstat(&fd).map_err(|error| io("stat", error))?;
        #[allow(clippy::unnecessary_cast)]
        let id = NetnsId { device: stat.st_dev as u64, inode: stat.st_ino as u64 };
        Ok(Self(Arc::new(Inner { fd, path: path.into(), id })))
    }

    /// The namespace of the calling thread.
    pub fn own() -> Result<Self, NetnsError> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// The same, if it still is the namespace with this inode; 0 is any.
    pub fn expect_inode(self, inode: u64) -> Result<Self, NetnsError> {
        let found = self.0.id.inode;
        if inode != 0 && inode != found {
            return Err(NetnsError::Replaced { path: self.0.path.clone(), expected: inode, found });
        }
        Ok(self)
    }

    /// The same, if it is another than `node`.
    pub fn other_than(self, node: &Netns) -> Result<Self, NetnsError> {
        if self.0.id == node.0.id {
            return Err(NetnsError::Own { path: self.0.path.clone() });
        }
        Ok(self)
    }

    /// Which namespace this is.
    pub fn id(&self) -> NetnsId {
        self.0.id
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Runs `visit` in the namespace, in a thread of its own, and waits for it without blocking the
    /// executor.
    pub async fn run<T: Send + 'static>(&self, visit: impl FnOnce() -> T + Send + 'static) -> Result<T, NetnsError> {
        let (answer, waiting) = tokio::sync::oneshot::channel();
        let netns = self.clone();
        self.spawn(move || {
            // Nobody waits any more: the visit was made for nothing.
            let _ = answer.send(netns.enter().map(|()| visit()));
        })?;
        waiting.await.map_err(|_| NetnsError::Panicked { path: self.0.path.clone() })?
    }

    /// As [`Self::run`], for callers that may block.
    pub fn run_blocking<T: Send + 'static>(&self, visit: impl FnOnce() -> T + Send + 'static) -> Result<T, NetnsError> {
        let netns = self.clone();
        let thread = self.spawn(move || netns.enter().map(|()| visit()))?;
        thread.join().map_err(|_| NetnsError::Panicked { path: self.0.path.clone() })?
    }

    /// Opens a netlink connection in the namespace, after `prepare` has run there.
    ///
    /// Needs a tokio runtime, which drives the connection until the last clone of it is dropped.
    pub async fn connect_after<T: Send + 'static>(
        &self,
        prepare: impl FnOnce() -> T + Send + 'static,
    ) -> Result<(T, Netlink), NetnsError> {
        let runtime = tokio::runtime::Handle::current();
        let (prepared, netlink) = self
            .run(move || {
                let prepared = prepare();
                let _context = runtime.enter();
                (prepared, Netlink::open())
            })
            .await?;
        let netlink = netlink.map_err(|source| self.io("netlink socket", source))?;
        Ok((prepared, netlink))
    }

    /// Opens a netlink connection in the namespace.
    pub async fn connect(&self) -> Result<Netlink, NetnsError> {
        Ok(self.connect_after(|| ()).await?.1)
    }

    fn spawn<T: Send + 'static>(
        &self,
        visit: impl FnOnce() -> T + Send + 'static,
    ) -> Result<thread::JoinHandle<T>, NetnsError> {
        thread::Builder::new().name("netns".into()).spawn(visit).map_err(|source| self.io("start a thread", source))
    }

    /// Moves the calling thread. Private: only threads that end may be moved.
    fn enter(&self) -> Result<(), NetnsError> {
        move_into_link_name_space(self.0.fd.as_fd(), Some(LinkNameSpaceType::Network)).map_err(|error| match error {
            rustix::io::Errno::INVAL => {
                NetnsError::NotNetns { path: self.0.path.clone(), found: "a namespace of another kind" }
            }
            error => self.io("enter", error.into()),
        })
    }

    fn io(&self, step: &'static str, source: io::Error) -> NetnsError {
        NetnsError::Io { path: self.0.path.clone(), step, source }
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}

impl fmt::Debug for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Netns").field("path", &self.0.path).field("inode", &self.0.id.inode).finish_non_exhaustive()
    }
}

fn kind_of(metadata: &std::fs::Metadata) -> &'static str {
    let kind = metadata.file_type();
    if kind.is_dir() {
        "a folder"
    } else if kind.is_file() {
        "a plain file: the namespace was unmounted from it, or never was"
    } else {
        "something else"
    }
}
