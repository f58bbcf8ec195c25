//! The overlay's device: one VXLAN device a node without a peer of its own. Where a packet goes is said by the route
//! that leads it there ([`super::node_route`]), so nothing is learned, asked for or flooded.

use std::net::{IpAddr, Ipv6Addr};

use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    link::{InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
};
use sha2::{Digest, Sha256};

use crate::mac::Mac;

use super::{
    NetError, Node, link,
    netlink::{Mode, Request},
    sysctl::{self, Families},
};

/// Its name: 14 bytes of the 15 that a name may have. None that [`link::host_ifname`] makes.
pub const NAME: &str = "bulkhead_vxlan";

/// What a packet grows by in the tunnel, in bytes: Ethernet header 14, VXLAN header 8 (RFC 7348, section 5), UDP 8,
/// and IPv4 20 or IPv6 40.
pub const fn overhead(outer: Family) -> u32 {
    match outer {
        Family::V4 => 50,
        Family::V6 => 70,
    }
}

/// Family of the packets that carry others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// That of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// What the device is to be like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Device {
    /// UDP port, on this node and on all others.
    pub port: u16,
    /// MTU in bytes, of what is carried.
    pub mtu: u32,
    /// Its address, which the other nodes know by [`mac_of`].
    pub mac: Mac,
}

/// Address of the device of a node, by the node's name: so nobody has to ask for it.
pub fn mac_of(node: &str) -> Mac {
    let hash = Sha256::digest(format!("bulkhead overlay/{node}"));
    Mac::local(hash[..6].try_into().expect("a digest has 32 bytes"))
}

/// The link-local address that goes with a device's address (RFC 4291, appendix A): the next hop of IPv6 packets. No
/// device has it; a permanent neighbour entry says what is behind it.
pub fn link_local_of(Mac([a, b, c, d, e, f]): Mac) -> Ipv6Addr {
    let pair = |high, low| u16::from_be_bytes([high, low]);
    Ipv6Addr::new(0xfe80, 0, 0, 0, pair(a ^ 2, b), pair(c, 0xff), pair(0xfe, d), pair(e, f))
}

/// Makes the device, or makes it so, and does not bring it up. One of the name that is none, or has another port, is
/// replaced: with it go its routes.
pub async fn ensure(node: &Node, wanted: Device) -> Result<Made, NetError> {
    let mut changed = false;
    let found = match find(node).await? {
        Some(found) if found.port == Some(wanted.port) => found,
        other => {
            if other.is_some() {
                remove(node).await?;
            }
            changed = true;
            node.netlink().change(create(wanted)).await?;
            find(node).await?.ok_or_else(|| NetError::Unexpected {
                action: "look up",
                object: object(),
                answer: "no such link, though it was made".into(),
            })?
        }
    };
    if changed || found.device() != Some(wanted) {
        changed = true;
        // Not when it is made: kernels since 6.4 look for the IPv6 half of a device that has none yet.
        let mut message = link::no_link_local(found.ifindex);
        message.attributes.extend([LinkAttribute::Mtu(wanted.mtu), LinkAttribute::Address(wanted.mac.0.to_vec())]);
        node.netlink().change(link::set(message, "configure", object())).await?;
    }
    // What comes out of it must be from where it leads: `rp_filter` is strict.
    node.netns().run(|| sysctl::host_link(NAME, Families { v4: true, v6: true })).await??;
    Ok(Made { ifindex: found.ifindex, is_up: found.is_up, changed })
}

/// Brings the device up: packets pass from now on. The programs must be attached before.
pub async fn bring_up(node: &Node, ifindex: u32) -> Result<(), NetError> {
    node.netlink().change(link::up(ifindex, object())).await
}

/// A device that was seen to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Made {
    /// Its index.
    pub ifindex: u32,
    /// Whether packets pass.
    pub is_up: bool,
    /// Whether anything was not as it should be.
    pub changed: bool,
}

/// Whether there is a link of the name.
pub async fn exists(node: &Node) -> Result<bool, NetError> {
    find(node).await.map(|found| found.is_some())
}

/// Removes the device and its routes; gone already is done.
pub async fn remove(node: &Node) -> Result<(), NetError> {
    link::delete_link(node, NAME).await
}

fn object() -> String {
    format!("link {NAME}")
}

fn create(wanted: Device) -> Request {
    let mut message = LinkMessage::default();
    message.attributes.extend([
        LinkAttribute::IfName(NAME.to_owned()),
        LinkAttribute::Address(wanted.mac.0.to_vec()),
        LinkAttribute::Mtu(wanted.mtu),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Vxlan),
            LinkInfo::Data(InfoData::Vxlan(vec![
                InfoVxlan::CollectMetadata(true),
                InfoVxlan::Learning(false),
                InfoVxlan::Port(wanted.port),
                // A tunnel over IPv6 sends no UDP checksum unless its route asks for one (RFC 6935).
                InfoVxlan::UDPZeroCsumRX(true),
            ])),
        ]),
    ]);
    Request { message: RouteNetlinkMessage::NewLink(message), mode: Mode::Create, action: "create", object: object() }
}

/// What is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Found {
    ifindex: u32,
    is_up: bool,
    mtu: u32,
    mac: Option<Mac>,
    /// `None`: it is no VXLAN device without peers.
    port: Option<u16>,
}

impl Found {
    fn device(&self) -> Option<Device> {
        Some(Device { port: self.port?, mtu: self.mtu, mac: self.mac? })
    }
}

async fn find(node: &Node) -> Result<Option<Found>, NetError> {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::IfName(NAME.to_owned())];
    match node.netlink().get(RouteNetlinkMessage::GetLink(message), object()).await {
        Ok(RouteNetlinkMessage::NewLink(message)) => Ok(Some(read(&message))),
        Ok(other) => Err(NetError::Unexpected { action: "look up", object: object(), answer: format!("{other:?}") }),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn read(message: &LinkMessage) -> Found {
    let mut found = Found {
        ifindex: message.header.index,
        is_up: message.header.flags.contains(LinkFlags::Up),
        mtu: 0,
        mac: None,
        port: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Mtu(mtu) => found.mtu = *mtu,
            LinkAttribute::Address(bytes) => found.mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(Mac),
            LinkAttribute::LinkInfo(infos) => found.port = infos.iter().find_map(port),
            _ => {}
        }
    }
    found
}

fn port(info: &LinkInfo) -> Option<u16> {
    let LinkInfo::Data(InfoData::Vxlan(settings)) = info else { return None };
    settings.contains(&InfoVxlan::CollectMetadata(true)).then_some(())?;
    settings.iter().find_map(|setting| match setting {
        InfoVxlan::Port(port) => Some(*port),
        _ => None,
    })
}

/// Next hop on the device for packets to a range: on no link at all for IPv4, the node's own for IPv6.
pub(super) fn next_hop(range: ipnetwork::IpNetwork, mac: Mac) -> IpAddr {
    match range.network() {
        address @ IpAddr::V4(_) => address,
        IpAddr::V6(_) => link_local_of(mac).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_what_is_read() {
        let wanted = Device { port: 8472, mtu: 1450, mac: mac_of("n1") };
        let RouteNetlinkMessage::NewLink(mut message) = create(wanted).message else { panic!("no link") };
        assert_eq!(read(&message).device(), Some(wanted));
        message.attributes.retain(|attribute| !matches!(attribute, LinkAttribute::LinkInfo(_)));
        assert_eq!(read(&message).port, None);
    }

    #[test]
    fn nodes_have_addresses_of_their_own_that_are_the_same_everywhere() {
        assert_ne!(mac_of("n1"), mac_of("n2"));
        assert_eq!(mac_of("n1").0[0] & 3, 2);
        let mac: Mac = "02:b0:1c:4e:ad:01".parse().unwrap();
        assert_eq!(link_local_of(mac).to_string(), "fe80::b0:1cff:fe4e:ad01");
    }
}
