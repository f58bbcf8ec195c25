//! The node's side: gateway addresses on `lo`, the host end of a pod's link, the node's own addresses.

use std::{collections::BTreeSet, net::IpAddr};

use crate::{
    ipam::{NodeAddress, PodAddress},
    mac::Mac,
};

use super::{
    NetError, Node, address,
    error::Tolerate,
    host_prefix, link,
    pod::{LOOPBACK, Mismatch, families, has_route},
    route::{self, Route},
    sysctl::{self, Families},
};

/// Prepares the node: forwarding, and the gateways of the pools as single addresses on `lo`.
///
/// On `lo` because an address there belongs to the node as a whole, whichever link it is asked
/// through, and needs no device of its own. May be repeated.
pub async fn prepare(node: &Node, gateways: &[IpAddr]) -> Result<(), NetError> {
    let families = Families { v4: gateways.iter().any(IpAddr::is_ipv4), v6: gateways.iter().any(IpAddr::is_ipv6) };
    node.netns().run(move || sysctl::enable_forwarding(families)).await??;
    let mut requests = vec![link::up(LOOPBACK, "link lo".into())];
    requests.extend(gateways.iter().map(|&gateway| address::add_single(LOOPBACK, gateway)));
    node.netlink().change_all(requests).await
}

/// Takes gateways off `lo`; those that are gone already are done.
pub async fn remove_gateways(node: &Node, gateways: &[IpAddr]) -> Result<(), NetError> {
    let requests = gateways.iter().map(|&gateway| address::remove_single(LOOPBACK, gateway)).collect();
    node.netlink().change_each(requests).await.into_iter().try_for_each(Tolerate::or_gone)
}

/// All addresses of all links of the node, except those of `ours` that are single addresses on `lo`,
/// as [`prepare`] puts them there.
pub async fn addresses_of_others(node: &Node, ours: &BTreeSet<IpAddr>) -> Result<Vec<NodeAddress>, NetError> {
    let mut found = Vec::new();
    for address::LinkAddress { ifindex, address, prefix_len } in address::list(node.netlink(), None).await? {
        if ifindex == LOOPBACK && prefix_len == host_prefix(address) && ours.contains(&address) {
            continue;
        }
        match link::by_index(node.netlink(), ifindex).await {
            Ok(link) => found.push(NodeAddress { address, prefix_len, interface: link.name }),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// What the host side of a pod's link is to look like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostSide {
    /// Its name.
    pub ifname: String,
    /// Its index.
    pub ifindex: u32,
    /// MAC address of the pod's side.
    pub pod_mac: Mac,
    /// The pod's addresses and gateways.
    pub addresses: Vec<PodAddress>,
}

/// Brings the host side up and leads the pod's addresses there: from now on packets pass. The
/// programs must be attached before. The pod's side may need a moment to notice:
/// [`super::pod::wait_until_open`]. May be repeated.
pub async fn enable(node: &Node, side: &HostSide) -> Result<(), NetError> {
    let families = families(&side.addresses);
    let ifname = side.ifname.clone();
    node.netns().run(move || sysctl::host_link(&ifname, families)).await??;
    let mut requests = vec![link::up(side.ifindex, format!("link {}", side.ifname))];
    for pod in &side.addresses {
        requests.push(route::set_neighbour(side.ifindex, pod.address, side.pod_mac));
        requests.push(route::set(side.ifindex, route_to(pod), pod.address));
    }
    node.netlink().change_all(requests).await
}

fn route_to(pod: &PodAddress) -> Route {
    Route { destination: Some(pod.address), gateway: None, source: Some(pod.gateway) }
}

/// Compares the host side with what it is to look like.
pub async fn check(node: &Node, side: &HostSide) -> Result<Vec<Mismatch>, NetError> {
    let name = || side.ifname.clone();
    let link = match link::find_link(node.netlink(), &side.ifname).await {
        Ok(link) if link.ifindex != side.ifindex => return Ok(vec![Mismatch::OtherLink(name())]),
        Ok(link) => link,
        Err(error) if error.is_not_found() => return Ok(vec![Mismatch::NoLink(name())]),
        Err(error) => return Err(error),
    };
    let mut mismatches = Vec::new();
    if !link.is_up {
        mismatches.push(Mismatch::LinkDown(name()));
    }
    let found = route::list(node.netlink(), side.ifindex).await?;
    let wanted = side.addresses.iter().map(|pod| (route_to(pod), pod.address));
    let missing = wanted.filter(|(route, like)| !has_route(&found, route, *like));
    mismatches.extend(missing.map(|(route, _)| Mismatch::NoRoute(route, name())));
    Ok(mismatches)
}

/// Addresses that the node routes to a host link: the pod's, if the link is one of ours.
pub async fn addresses_behind(node: &Node, ifindex: u32) -> Result<Vec<PodAddress>, NetError> {
    let found = route::list(node.netlink(), ifindex).await?;
    let pods = found.into_iter().filter_map(|route| match route {
        Route { destination: Some(address), gateway: None, source: Some(gateway) } => {
            Some(PodAddress { address, gateway })
        }
        _ => None,
    });
    Ok(pods.collect())
}

/// The node's own addresses: all of all its links, but those that never are in a packet between a
/// pod and the node (loopback), and link-local ones, which say nothing about who has them elsewhere.
pub async fn own_addresses(node: &Node) -> Result<BTreeSet<IpAddr>, NetError> {
    let listed = address::list(node.netlink(), None).await?;
    Ok(listed.into_iter().map(|found| found.address).filter(|&address| counts(address)).collect())
}

fn counts(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !link_local && !address.is_loopback() && !address.is_unspecified() && !address.is_multicast()
}
