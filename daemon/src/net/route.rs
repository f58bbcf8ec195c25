//! Routes and permanent neighbour entries.

use std::net::IpAddr;

use rtnetlink::packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope, RouteType,
    },
};

use crate::mac::Mac;

use super::{
    NetError, Netlink,
    address::family,
    host_prefix,
    netlink::{Mode, Request},
};

/// One route of the main table, as far as we set or check routes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Route {
    /// Destination: a single address, or `None` for the default route.
    pub destination: Option<IpAddr>,
    /// Next hop, `None` for on-link.
    pub gateway: Option<IpAddr>,
    /// Preferred source address.
    pub source: Option<IpAddr>,
}

/// A request to set a route through a link. The link must be up.
pub(crate) fn set(ifindex: u32, route: Route, like: IpAddr) -> Request {
    let mut message = RouteMessage::default();
    message.header.address_family = family(like);
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = RouteType::Unicast;
    message.header.scope = if route.gateway.is_some() { RouteScope::Universe } else { RouteScope::Link };
    if let Some(destination) = route.destination {
        message.header.destination_prefix_length = host_prefix(destination);
        message.attributes.push(RouteAttribute::Destination(destination.into()));
    }
    if let Some(gateway) = route.gateway {
        message.attributes.push(RouteAttribute::Gateway(gateway.into()));
    }
    if let Some(source) = route.source {
        message.attributes.push(RouteAttribute::PrefSource(source.into()));
    }
    message.attributes.push(RouteAttribute::Oif(ifindex));
    let to = route.destination.map_or_else(|| "default".to_owned(), |destination| destination.to_string());
    Request {
        message: RouteNetlinkMessage::NewRoute(message),
        mode: Mode::Replace,
        action: "set",
        object: format!("route to {to} through link {ifindex}"),
    }
}

/// A request to fix the MAC address behind an address on a link.
pub(crate) fn set_neighbour(ifindex: u32, address: IpAddr, mac: Mac) -> Request {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = ifindex;
    message.header.state = NeighbourState::Permanent;
    message.attributes = vec![
        NeighbourAttribute::Destination(match address {
            IpAddr::V4(address) => NeighbourAddress::Inet(address),
            IpAddr::V6(address) => NeighbourAddress::Inet6(address),
        }),
        NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()),
    ];
    Request {
        message: RouteNetlinkMessage::NewNeighbour(message),
        mode: Mode::Replace,
        action: "set",
        object: format!("neighbour {address} on link {ifindex}"),
    }
}

/// Routes of the main table through one link, to single addresses and the default, both families.
pub async fn list(netlink: &Netlink, ifindex: u32) -> Result<Vec<Route>, NetError> {
    let through = vec![RouteAttribute::Oif(ifindex)];
    let found = main_table(netlink, through).await?;
    let mut routes: Vec<Route> = found.into_iter().filter_map(|message| read(message, ifindex)).collect();
    routes.sort_unstable();
    routes.dedup();
    Ok(routes)
}

/// What the kernel says of the main table's routes, both families. It may say more than those that have these
/// attributes.
pub(super) async fn main_table(netlink: &Netlink, like: Vec<RouteAttribute>) -> Result<Vec<RouteMessage>, NetError> {
    let mut routes = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.attributes.clone_from(&like);
        let found = netlink.dump(RouteNetlinkMessage::GetRoute(message), "routes").await?;
        routes.extend(found.into_iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewRoute(message) => Some(message),
            _ => None,
        }));
    }
    Ok(routes)
}

/// Whether the namespace takes packets to an address for its own.
pub(crate) async fn is_own(netlink: &Netlink, address: IpAddr) -> Result<bool, NetError> {
    Ok(way_to(netlink, address).await?.is_some_and(|found| found.header.kind == RouteType::Local))
}

/// The way that packets to an address of somebody else take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Way {
    /// The link by which they leave.
    pub(crate) ifindex: u32,
    /// How many bytes a packet may have, if the kernel knows it of more than the link: somebody set it for the route, or
    /// a router on the way has said so.
    pub(crate) mtu: Option<u32>,
}

/// The way to an address; `None`: there is none, or it is our own.
pub(crate) async fn way(netlink: &Netlink, address: IpAddr) -> Result<Option<Way>, NetError> {
    let found = way_to(netlink, address).await?.filter(|found| found.header.kind == RouteType::Unicast);
    Ok(found.and_then(|found| read_way(&found)))
}

fn read_way(message: &RouteMessage) -> Option<Way> {
    let (mut link, mut mtu) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(ifindex) => link = Some(*ifindex),
            RouteAttribute::Metrics(metrics) => mtu = path_mtu(metrics),
            _ => {}
        }
    }
    link.map(|ifindex| Way { ifindex, mtu })
}

/// The MTU among the metrics of a route.
pub(super) fn path_mtu(metrics: &[RouteMetric]) -> Option<u32> {
    metrics.iter().find_map(|metric| match metric {
        RouteMetric::Mtu(mtu) => Some(*mtu),
        _ => None,
    })
}

/// What the kernel would do with a packet to an address; `None`: there is no way to it at all.
async fn way_to(netlink: &Netlink, address: IpAddr) -> Result<Option<RouteMessage>, NetError> {
    let mut message = RouteMessage::default();
    message.header.address_family = family(address);
    message.header.destination_prefix_length = host_prefix(address);
    message.attributes = vec![RouteAttribute::Destination(address.into())];
    match netlink.get(RouteNetlinkMessage::GetRoute(message), format!("route to {address}")).await {
        Ok(RouteNetlinkMessage::NewRoute(found)) => Ok(Some(found)),
        Ok(_) | Err(NetError::NotFound { .. } | NetError::Refused { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A default route of the main table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct DefaultRoute {
    pub(crate) is_v6: bool,
    /// The least is taken (`RTA_PRIORITY`).
    pub(crate) metric: u32,
    /// The link it goes through; of several the first.
    pub(crate) ifindex: u32,
}

/// The default routes, both families.
pub(crate) async fn defaults(netlink: &Netlink) -> Result<Vec<DefaultRoute>, NetError> {
    Ok(main_table(netlink, Vec::new()).await?.iter().filter_map(read_default).collect())
}

fn read_default(message: &RouteMessage) -> Option<DefaultRoute> {
    let header = &message.header;
    if header.kind != RouteType::Unicast || header.destination_prefix_length != 0 {
        return None;
    }
    let (mut metric, mut through) = (0, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::Oif(index) => through = Some(*index),
            RouteAttribute::MultiPath(hops) if through.is_none() => {
                through = hops.first().map(|hop| hop.interface_index)
            }
            _ => {}
        }
    }
    let is_v6 = header.address_family == AddressFamily::Inet6;
    through.map(|ifindex| DefaultRoute { is_v6, metric, ifindex })
}

fn read(message: RouteMessage, ifindex: u32) -> Option<Route> {
    let mut route = Route { destination: None, gateway: None, source: None };
    let mut through = None;
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => route.destination = ip(&address),
            RouteAttribute::Gateway(address) => route.gateway = ip(&address),
            RouteAttribute::PrefSource(address) => route.source = ip(&address),
            RouteAttribute::Oif(index) => through = Some(index),
            _ => {}
        }
    }
    let ours = through == Some(ifindex)
        && message.header.kind == RouteType::Unicast
        && message.header.destination_prefix_length == route.destination.map_or(0, host_prefix);
    ours.then_some(route)
}

/// An address of IP that a message holds.
pub(super) fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}
