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

/// How packets get to an address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Way {
    /// Index of the link by which they leave.
    pub ifindex: u32,
    /// Its name.
    pub link: String,
    /// Its MTU in bytes.
    pub link_mtu: u32,
    /// How many bytes all of the way carries, as far as the kernel knows; not more than the link.
    pub mtu: u32,
}

/// The way to an address; `None`: there is none, or it is this node's own.
pub async fn towards(node: &Node, address: IpAddr) -> Result<Option<Way>, NetError> {
    let Some(route::Way { ifindex, mtu }) = route::way(node.netlink(), address).await? else { return Ok(None) };
    match link::by_index(node.netlink(), ifindex).await {
        Ok(found) => {
            let mtu = mtu.map_or(found.mtu, |mtu| mtu.min(found.mtu));
            Ok(Some(Way { ifindex, link: found.name, link_mtu: found.mtu, mtu }))
        }
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
