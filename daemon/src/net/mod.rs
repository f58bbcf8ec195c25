//! The kernel's network configuration: namespaces, links, addresses, routes, sysctls, masquerade.
//!
//! The only user of rtnetlink and of network namespaces. Nothing here decides anything: which
//! address, which name, in which order is said by the caller (`endpoint`, `ipam`). No eBPF either.
//!
//! ```text
//!   node (the daemon's own namespace)                 sandbox (the pod's namespace)
//!   lo   10.0.0.1/32 fd00::1/128   <- gateways        lo
//!   bhXXXXXXXXXXX  02:b0:1c:4e:ad:01 ===== pair ===== eth0  10.0.0.7/32 fd00::7/128
//!     10.0.0.7 dev bhX src 10.0.0.1                     10.0.0.1 dev eth0 scope link
//!     neigh 10.0.0.7 = the pod's MAC, permanent         default via 10.0.0.1
//!                                                       neigh 10.0.0.1 = 02:b0:..., permanent
//! ```
//!
//! IPv6 is wired the same way. The gateways live on `lo` as host addresses, so that no dummy device
//! is needed and every pair shares them; the permanent neighbour entries make ARP and neighbour
//! discovery unnecessary, so the first packet goes out at once. For the same reason neither side
//! gets a link-local address: `addr_gen_mode none` leaves nothing to detect duplicates of.

pub mod address;
pub mod alias;
pub mod changes;
pub mod error;
pub mod filter;
pub mod host;
mod kind;
pub mod link;
pub mod mac;
pub mod masquerade;
pub mod netlink;
pub mod netns;
mod nftables;
pub mod node;
pub mod node_route;
pub mod overlay;
pub mod pair;
pub mod pod;
pub mod presence;
pub mod route;
pub mod sysctl;
pub mod uplink;

use std::net::IpAddr;

pub use error::NetError;
pub use netlink::Netlink;
pub use netns::{Netns, NetnsError};
pub use node::Node;

/// Prefix length of a single address: 32 or 128.
pub(crate) fn host_prefix(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}
