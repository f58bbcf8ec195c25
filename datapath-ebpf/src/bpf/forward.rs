//! Where a packet goes that may go: into a pod of this node, or to the host's stack.

use crate::bpf::{kernel, maps::EndpointRef, packet::Skb};

/// Source MAC of what we deliver ourselves: that of the host side of every pod's link. Locally
/// administered, the same on all of them, as each is a link of its own with one neighbour.
pub(crate) const HOST_MAC: [u8; 6] = datapath_abi::endpoint::HOST_MAC;

/// What a program returns: `TC_ACT_UNSPEC`, which is `TCX_NEXT`: whoever comes next decides.
pub(crate) const NEXT: i32 = -1;
/// `TC_ACT_SHOT`.
pub(crate) const DROP: i32 = 2;

/// Hands the packet to the pod behind `target`, past the host's stack. A packet that must not
/// be routed any more (TTL) goes to the stack, which tells the sender.
#[inline(always)]
pub(crate) fn to_endpoint(skb: &Skb, v4: bool, ttl: u8, target: EndpointRef) -> i32 {
    if ttl <= 1 || !skb.route(target.mac(), HOST_MAC, v4, ttl) {
        return NEXT;
    }
    kernel::redirect_peer(target.ifindex())
}
