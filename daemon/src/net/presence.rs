//! Whether an interface of the node is there: a question for those who cannot wait. It takes no lock that
//! a change of links holds.

use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};

use super::Node;

/// Asks the kernel, each time anew.
#[derive(Debug)]
pub struct Presence {
    /// Any socket of the node's namespace (netdevice(7)).
    socket: OwnedFd,
}

impl Presence {
    /// Of the interfaces of a node.
    ///
    /// # Errors
    /// Its namespace cannot be entered, or no socket be made.
    pub async fn of(node: &Node) -> std::io::Result<Self> {
        let made = node
            .netns()
            .run(|| socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None))
            .await
            .map_err(std::io::Error::other)?;
        Ok(Self { socket: made? })
    }

    /// Whether there is an interface with this index, whatever its name is. The kernel gives an
    /// index to another one only after all others have had their turn.
    pub fn has(&self, ifindex: u32) -> bool {
        // Not being able to tell is no reason to say that it is gone.
        !matches!(self.name(ifindex), Err(rustix::io::Errno::NODEV | rustix::io::Errno::NXIO))
    }

    /// Index of the interface that has this name now; `None`: there is none.
    pub fn index(&self, name: &str) -> rustix::io::Result<Option<u32>> {
        match netdevice::name_to_index(&self.socket, name) {
            Ok(index) => Ok(Some(index)),
            Err(rustix::io::Errno::NODEV | rustix::io::Errno::NXIO) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What the interface with this index is called now.
    pub fn name(&self, ifindex: u32) -> rustix::io::Result<String> {
        netdevice::index_to_name(&self.socket, ifindex)
    }
}
