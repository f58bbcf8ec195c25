//! The namespace whose network we run: as a rule the daemon's own, in tests a throwaway one.

use std::path::Path;

use super::{Netlink, Netns, NetnsError};

/// The node's namespace with a netlink connection in it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Node {
    netns: Netns,
    netlink: Netlink,
}

impl Node {
    /// The calling thread's namespace: that of the daemon, as no thread of the executor ever leaves it.
    pub async fn own() -> Result<Self, NetnsError> {
        Self::at(Netns::own()?).await
    }

    /// Another namespace.
    pub async fn at(netns: Netns) -> Result<Self, NetnsError> {
        let netlink = netns.connect().await?;
        Ok(Self { netns, netlink })
    }

    /// Opens a pod's namespace: it must be there, be a network namespace, not be the node's, and
    /// have this inode (0: any).
    pub fn sandbox(&self, path: &Path, inode: u64) -> Result<Netns, NetnsError> {
        Netns::open(path)?.other_than(&self.netns)?.expect_inode(inode)
    }

    /// The namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The connection in it.
    pub fn netlink(&self) -> &Netlink {
        &self.netlink
    }
}
