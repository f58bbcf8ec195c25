//! Routes to the pods of other nodes: one for each of a node's ranges, by way of that node's address.
//! They bear a protocol number of our own, so that nobody else's are touched and those of a predecessor are found.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
};

use super::{
    NetError, Node,
    address::family,
    error::Tolerate as _,
    netlink::{Mode, Request},
    route::{ip, main_table},
};

/// `rtm_protocol` of our routes. Above 4 the kernel gives numbers no meaning (include/uapi/linux/rtnetlink.h);
/// this one is in no list of those that routing daemons use (iproute2, etc/iproute2/rt_protos).
const PROTOCOL: u8 = 98;

/// A route to a range of pods.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeRoute {
    /// Where the pods are.
    pub range: IpNetwork,
    /// The node that has them, an address on a link of ours.
    pub gateway: IpAddr,
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
    let NodeRoute { range, gateway } = route;
    let mut body = RouteMessage::default();
    body.header.address_family = family(range.ip());
    body.header.table = RouteHeader::RT_TABLE_MAIN;
    body.header.protocol = RouteProtocol::Other(PROTOCOL);
    body.header.kind = RouteType::Unicast;
    body.header.scope = RouteScope::Universe;
    body.header.destination_prefix_length = range.prefix();
    body.attributes =
        vec![RouteAttribute::Destination(range.network().into()), RouteAttribute::Gateway(gateway.into())];
    Request { message: message(body), mode, action, object: format!("route to {range} by way of {gateway}") }
}

fn read(message: &RouteMessage) -> Option<NodeRoute> {
    if message.header.protocol != RouteProtocol::Other(PROTOCOL) {
        return None;
    }
    let (mut to, mut gateway) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => to = ip(address),
            RouteAttribute::Gateway(address) => gateway = ip(address),
            _ => {}
        }
    }
    let range = IpNetwork::new(to?, message.header.destination_prefix_length).ok()?;
    Some(NodeRoute { range, gateway: gateway? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_what_is_read_and_others_routes_are_not_ours() {
        for (range, gateway) in [("10.244.1.0/24", "172.31.0.12"), ("fd00:1::/64", "fd31::12")] {
            let route = NodeRoute { range: range.parse().unwrap(), gateway: gateway.parse().unwrap() };
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
