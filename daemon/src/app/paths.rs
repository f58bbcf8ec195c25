//! What is known of the ways that tunnels take to other nodes: how many bytes they carry.
//!
//! Packets in a tunnel over IPv6 are cut by nobody: a router with a small link drops them and says so to the node, which
//! sent them. The kernel remembers that for some minutes (`net.ipv6.route.mtu_expires`) and forwards the next packet of a pod
//! all the same, since it does not ask what was learned where it forwards (`ip6_dst_mtu_maybe_forward`, include/net/ip6_route.h).
//! So the route through the tunnel has to say it: then the pod is told, as by any router.
//!
//! What was learned is kept longer than the kernel does. To forget it would cost every large packet until it is learned
//! again, and RFC 8201 leaves it to us whether we look if the way carries more by now.

use std::{collections::BTreeMap, net::IpAddr};

use crate::net::uplink::Way;

/// The least that a link for IPv6 carries (RFC 8200, section 5).
pub(super) const LEAST_V6: u32 = 1280;

/// Ways to nodes, by the node's address.
#[derive(Default, Debug)]
pub(super) struct Paths(BTreeMap<IpAddr, Path>);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Path {
    ifindex: u32,
    link_mtu: u32,
    mtu: u32,
}

impl Paths {
    /// Takes note of the way as it is now. How many bytes it carries: the least that was ever found, as long as it leaves
    /// by the same link.
    pub(super) fn note(&mut self, node: IpAddr, way: &Way) -> u32 {
        let now = Path { ifindex: way.ifindex, link_mtu: way.link_mtu, mtu: way.mtu };
        let path = self.0.entry(node).or_insert(now);
        let same = (path.ifindex, path.link_mtu) == (now.ifindex, now.link_mtu);
        *path = Path { mtu: if same { path.mtu.min(now.mtu) } else { now.mtu }, ..now };
        path.mtu
    }

    /// Forgets the ways to all others.
    pub(super) fn keep(&mut self, is_there: impl Fn(&IpAddr) -> bool) {
        self.0.retain(|node, _| is_there(node));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(ifindex: u32, link_mtu: u32, mtu: u32) -> Way {
        Way { ifindex, link: "eth0".to_owned(), link_mtu, mtu }
    }

    #[test]
    fn what_was_learned_holds_until_the_way_is_another() {
        let mut paths = Paths::default();
        let [near, far] = ["fd31::12", "fd31::13"].map(|ip| ip.parse::<IpAddr>().unwrap());
        assert_eq!(paths.note(far, &way(2, 1500, 1500)), 1500);
        assert_eq!(paths.note(far, &way(2, 1500, 1400)), 1400);
        assert_eq!(paths.note(far, &way(2, 1500, 1500)), 1400, "the kernel has forgotten it");
        assert_eq!(paths.note(near, &way(2, 1500, 1500)), 1500, "another's");
        assert_eq!(paths.note(far, &way(2, 1500, 1300)), 1300);
        assert_eq!(paths.note(far, &way(3, 1500, 1500)), 1500, "another link");
        assert_eq!(paths.note(far, &way(3, 1500, 1400)), 1400);
        assert_eq!(paths.note(far, &way(3, 9000, 9000)), 9000, "a link that carries more by now");
        paths.note(far, &way(3, 9000, 1400));
        paths.keep(|node| *node == near);
        assert_eq!(paths.note(far, &way(3, 9000, 9000)), 9000, "a node that was gone");
    }
}
