//! The interface that leads out of the node: where its default route goes.

use std::net::IpAddr;

use super::{NetError, Node, link, route};

/// The interface of the default route.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Uplink {
    /// Its name.
    pub name: String,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether only IPv6 leads out there.
    pub is_v6: bool,
}

/// Looks for it: of several default routes the one that the kernel takes, which is that with the
/// least metric; IPv4 before IPv6. `None`: the node has no default route.
pub async fn find(node: &Node) -> Result<Option<Uplink>, NetError> {
    let defaults = route::defaults(node.netlink()).await?;
    let Some(first) = defaults.into_iter().min_by_key(|found| (found.is_v6, found.metric)) else { return Ok(None) };
    match link::by_index(node.netlink(), first.ifindex).await {
        Ok(found) => Ok(Some(Uplink { name: found.name, mtu: found.mtu, is_v6: first.is_v6 })),
        // It has gone since.
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Names of the interfaces of all default routes.
pub async fn all(node: &Node) -> Result<Vec<String>, NetError> {
    let mut names = Vec::new();
    for found in route::defaults(node.netlink()).await? {
        match link::by_index(node.netlink(), found.ifindex).await {
            Ok(found) => names.push(found.name),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(names)
}

/// The link by which packets to an address leave; `None`: no route, or it is this node's own address.
pub async fn towards(node: &Node, address: IpAddr) -> Result<Option<Uplink>, NetError> {
    let Some(ifindex) = route::link_towards(node.netlink(), address).await? else { return Ok(None) };
    match link::by_index(node.netlink(), ifindex).await {
        Ok(found) => Ok(Some(Uplink { name: found.name, mtu: found.mtu, is_v6: address.is_ipv6() })),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
