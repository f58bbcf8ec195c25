//! Routes to the pods of other nodes: one for each of a node's ranges, by way of that node's address or through the
//! overlay's device, and then the route says to which node the tunnel goes.
//! They bear a protocol number of our own, so that nobody else's are touched and those of a predecessor are found.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    route::{
        RouteAttribute, RouteFlags, RouteHeader, RouteIp6Tunnel, RouteIpTunnel, RouteLwEnCapType, RouteLwTunnelEncap,
        RouteMessage, RouteMetric, RouteProtocol, RouteScope, RouteType,
    },
};

use crate::mac::Mac;

use super::{
    NetError, Node,
    address::family,
    error::Tolerate as _,
    netlink::{Mode, Request},
    overlay,
    route::{self, ip, main_table, path_mtu},
};

/// `rtm_protocol` of our routes. Above 4 the kernel gives numbers no meaning (include/uapi/linux/rtnetlink.h);
/// this one is in no list of those that routing daemons use (iproute2, etc/iproute2/rt_protos).
const PROTOCOL: u8 = 98;

/// A route to a range of pods.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeRoute {
    /// Where the pods are.
    pub range: IpNetwork,
    /// The node that has them, an address on a link of ours; with a tunnel, what stands for it on the device.
    pub gateway: IpAddr,
    /// How it gets there if not as it is.
    pub tunnel: Option<Tunnel>,
}

/// The way through the overlay.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Tunnel {
    /// Address of the node where it ends.
    pub remote: IpAddr,
    /// Address of this node that packets in the tunnel come from; `None`: the kernel chooses.
    pub local: Option<IpAddr>,
    /// The overlay's device.
    pub ifindex: u32,
    /// What this node's own packets have as their source; `None`: the kernel chooses.
    pub source: Option<IpAddr>,
    /// How many routers packets in the tunnel may pass; `None`: the device chooses.
    pub hop_limit: Option<u8>,
    /// How many bytes packets that go through it may have; `None`: what the device takes. Who sends more is told so.
    pub mtu: Option<u32>,
}

impl NodeRoute {
    /// As it is, by way of a node's address.
    pub fn direct(range: IpNetwork, gateway: IpAddr) -> Self {
        Self { range, gateway, tunnel: None }
    }

    /// Through the overlay to the node whose device has this address.
    pub fn through(range: IpNetwork, mac: Mac, tunnel: Tunnel) -> Self {
        Self { range, gateway: overlay::next_hop(range, mac), tunnel: Some(tunnel) }
    }
}

/// Says which device is behind the next hop of a route through the overlay. May be repeated.
pub async fn set_neighbour(node: &Node, route: NodeRoute, mac: Mac) -> Result<(), NetError> {
    let Some(tunnel) = route.tunnel else { return Ok(()) };
    node.netlink().change(route::set_neighbour(tunnel.ifindex, route.gateway, mac)).await
}

/// Makes a route, or makes it so. A gateway that is on no link of ours is refused by the kernel.
pub async fn set(node: &Node, route: NodeRoute) -> Result<(), NetError> {
    node.netlink().change(request(route, RouteNetlinkMessage::NewRoute, Mode::Replace, "set")).await
}

/// Takes a route away; gone already is done.
pub async fn remove(node: &Node, route: NodeRoute) -> Result<(), NetError> {
    node.netlink().change(request(route, RouteNetlinkMessage::DelRoute, Mode::Change, "remove")).await.or_gone()
}

/// All of ours that are there.
pub async fn list(node: &Node) -> Result<Vec<NodeRoute>, NetError> {
    let found = main_table(node.netlink(), Vec::new()).await?;
    let mut routes: Vec<NodeRoute> = found.iter().filter_map(read).collect();
    routes.sort_unstable();
    routes.dedup();
    Ok(routes)
}

fn request(
    route: NodeRoute,
    message: fn(RouteMessage) -> RouteNetlinkMessage,
    mode: Mode,
    action: &'static str,
) -> Request {
    let NodeRoute { range, gateway, tunnel } = route;
    let mut body = RouteMessage::default();
    body.header.address_family = family(range.ip());
    body.header.table = RouteHeader::RT_TABLE_MAIN;
    body.header.protocol = RouteProtocol::Other(PROTOCOL);
    body.header.kind = RouteType::Unicast;
    body.header.scope = RouteScope::Universe;
    body.header.destination_prefix_length = range.prefix();
    body.attributes =
        vec![RouteAttribute::Destination(range.network().into()), RouteAttribute::Gateway(gateway.into())];
    let mut object = format!("route to {range} by way of {gateway}");
    if let Some(Tunnel { remote, local, ifindex, source, hop_limit, mtu }) = tunnel {
        object = format!("route to {range} through the overlay to {remote}");
        body.header.flags = RouteFlags::Onlink;
        // The number that the tunnel carries: 0 says nothing, and the receiver asks who has the address.
        let (kind, encap) = match remote {
            IpAddr::V4(remote) => {
                let mut settings = vec![RouteIpTunnel::Id(0), RouteIpTunnel::Destination(remote)];
                if let Some(IpAddr::V4(local)) = local {
                    settings.push(RouteIpTunnel::Source(local));
                }
                settings.extend(hop_limit.map(RouteIpTunnel::Ttl));
                (RouteLwEnCapType::Ip, settings.into_iter().map(RouteLwTunnelEncap::Ip).collect())
            }
            IpAddr::V6(remote) => {
                let mut settings = vec![RouteIp6Tunnel::Id(0), RouteIp6Tunnel::Destination(remote)];
                if let Some(IpAddr::V6(local)) = local {
                    settings.push(RouteIp6Tunnel::Source(local));
                }
                settings.extend(hop_limit.map(RouteIp6Tunnel::Hoplimit));
                (RouteLwEnCapType::Ip6, settings.into_iter().map(RouteLwTunnelEncap::Ip6).collect())
            }
        };
        body.attributes.extend([
            RouteAttribute::Oif(ifindex),
            RouteAttribute::EncapType(kind),
            RouteAttribute::Encap(encap),
        ]);
        body.attributes.extend(source.map(|source| RouteAttribute::PrefSource(source.into())));
        body.attributes.extend(mtu.map(|mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)])));
    }
    Request { message: message(body), mode, action, object }
}

fn read(message: &RouteMessage) -> Option<NodeRoute> {
    if message.header.protocol != RouteProtocol::Other(PROTOCOL) {
        return None;
    }
    let (mut to, mut gateway, mut link, mut source) = (None, None, None, None);
    let (mut remote, mut local, mut hop_limit, mut mtu) = (None, None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => to = ip(address),
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::Oif(ifindex) => link = Some(*ifindex),
            RouteAttribute::PrefSource(address) => source = ip(address),
            RouteAttribute::Metrics(metrics) => mtu = path_mtu(metrics),
            RouteAttribute::Encap(settings) => {
                remote = settings.iter().find_map(end);
                local = settings.iter().find_map(beginning);
                hop_limit = settings.iter().find_map(limit);
            }
            _ => {}
        }
    }
    let range = IpNetwork::new(to?, message.header.destination_prefix_length).ok()?;
    let tunnel = remote.zip(link).map(|(remote, ifindex)| Tunnel { remote, local, ifindex, source, hop_limit, mtu });
    Some(NodeRoute { range, gateway: gateway?, tunnel })
}

/// Where a tunnel ends.
fn end(setting: &RouteLwTunnelEncap) -> Option<IpAddr> {
    match setting {
        RouteLwTunnelEncap::Ip(RouteIpTunnel::Destination(address)) => Some((*address).into()),
        RouteLwTunnelEncap::Ip6(RouteIp6Tunnel::Destination(address)) => Some((*address).into()),
        _ => None,
    }
}

/// Where it begins, if that is said: the kernel tells the unspecified address if not.
fn beginning(setting: &RouteLwTunnelEncap) -> Option<IpAddr> {
    let address: IpAddr = match setting {
        RouteLwTunnelEncap::Ip(RouteIpTunnel::Source(address)) => (*address).into(),
        RouteLwTunnelEncap::Ip6(RouteIp6Tunnel::Source(address)) => (*address).into(),
        _ => return None,
    };
    Some(address).filter(|address| !address.is_unspecified())
}

/// How many routers it may pass, if that is said: the kernel tells 0 if not.
fn limit(setting: &RouteLwTunnelEncap) -> Option<u8> {
    match setting {
        RouteLwTunnelEncap::Ip(RouteIpTunnel::Ttl(limit))
        | RouteLwTunnelEncap::Ip6(RouteIp6Tunnel::Hoplimit(limit)) => Some(*limit).filter(|limit| *limit != 0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_what_is_read_and_others_routes_are_not_ours() {
        let ranges = ["10.244.1.0/24", "fd00:1::/64"].map(|range| range.parse::<IpNetwork>().unwrap());
        let ips = ["172.31.0.12", "fd31::12"].map(|address| address.parse::<IpAddr>().unwrap());
        let sources = ["10.244.0.1", "fd00::1"].map(|address| address.parse::<IpAddr>().unwrap());
        let mut routes = vec![NodeRoute::direct(ranges[0], ips[0]), NodeRoute::direct(ranges[1], ips[1])];
        for (range, own) in ranges.into_iter().zip(sources) {
            for remote in ips {
                for (source, local, hop_limit, mtu) in [
                    (None, None, None, None),
                    (Some(own), None, Some(64), Some(1330)),
                    (Some(own), Some(remote), None, None),
                ] {
                    let tunnel = Tunnel { remote, local, ifindex: 7, source, hop_limit, mtu };
                    routes.push(NodeRoute::through(range, overlay::mac_of("n2"), tunnel));
                }
            }
        }
        for route in routes {
            let RouteNetlinkMessage::NewRoute(mut message) =
                request(route, RouteNetlinkMessage::NewRoute, Mode::Replace, "set").message
            else {
                panic!("no route")
            };
            assert_eq!(read(&message), Some(route));
            message.header.protocol = RouteProtocol::Static;
            assert_eq!(read(&message), None);
        }
    }
}
