//! Which address a pod gets next. Pure: knows pools and owners, no disk, no clock, no kernel.
//!
//! ```text
//!   Pools (checked ranges)  ->  Allocator: next-fit, one owner per address
//!                                   ^ leases and cursors at start    | cursors after each allocation
//!                                   +-------------- Store -----------+
//! ```
//!
//! The allocator is the truth while the daemon runs. What makes an allocation durable is the record
//! of the endpoint, which the caller writes before it tells anybody the address; the record is the
//! lease. If the write fails the address is freed again; if the daemon dies before it, nobody has
//! heard of the address.

pub mod allocator;
pub mod pool;

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

pub use allocator::{AllocateError, Allocator, Conflict, Freed, Usage};
pub use pool::{NodeAddress, PoolError, Pools, Range};

/// Whose an address is: one attachment of a container.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Owner {
    /// CNI_CONTAINERID.
    pub container_id: String,
    /// CNI_IFNAME.
    pub ifname: String,
}

impl Owner {
    /// An owner.
    pub fn new(container_id: impl Into<String>, ifname: impl Into<String>) -> Self {
        Self { container_id: container_id.into(), ifname: ifname.into() }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.container_id, self.ifname)
    }
}

/// One address of a pod, and the gateway of the range it is from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct PodAddress {
    /// The pod's address; on its interface as /32 or /128.
    pub address: IpAddr,
    /// Next hop of the pod's default route; an address of the node.
    pub gateway: IpAddr,
}

/// An owner and what it holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lease {
    /// Who.
    pub owner: Owner,
    /// What, at most one address per family.
    pub addresses: Vec<IpAddr>,
}

/// Where leases and cursors outlive the daemon.
pub trait Store {
    /// Why it cannot be read or written.
    type Error: std::error::Error;

    /// All leases.
    fn leases(&self) -> Result<Vec<Lease>, Self::Error>;

    /// The addresses handed out last, as [`Self::save_cursors`] got them; none is fine.
    fn cursors(&self) -> Result<Vec<IpAddr>, Self::Error>;

    /// Remembers the addresses handed out last. Losing one write costs nothing but that an address
    /// may come again sooner.
    fn save_cursors(&self, cursors: &[IpAddr]) -> Result<(), Self::Error>;
}

/// An allocator that knows what a store holds. Leases that do not fit the pools come back with
/// their reason; they are not kept.
pub fn restore<S: Store>(pools: Pools, store: &S) -> Result<(Allocator, Vec<Conflict>), S::Error> {
    let mut allocator = Allocator::new(pools);
    let mut conflicts = Vec::new();
    for Lease { owner, addresses } in store.leases()? {
        conflicts.extend(addresses.into_iter().filter_map(|address| allocator.claim(&owner, address).err()));
    }
    allocator.set_cursors(&store.cursors()?);
    Ok((allocator, conflicts))
}
