//! The overlay's device: one a node, VXLAN or Geneve, without a peer of its own. Where a packet goes is said by the route
//! that leads it there ([`super::node_route`]), so nothing is learned, asked for or flooded.

use std::net::{IpAddr, Ipv6Addr};

use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    link::{InfoData, InfoGeneve, InfoKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
};
use sha2::{Digest, Sha256};

use crate::mac::Mac;

use super::{
    NetError, Node, kind, link,
    netlink::{Mode, Request},
    sysctl::{self, Families},
};

/// What packets between nodes are wrapped in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Protocol {
    /// RFC 7348.
    Vxlan,
    /// RFC 8926, without options.
    Geneve,
}

impl Protocol {
    /// Every one.
    pub const ALL: [Self; 2] = [Self::Vxlan, Self::Geneve];

    /// As it is asked for, and as the kernel calls its devices and the module that brings them.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::Geneve => "geneve",
        }
    }

    /// As its specification calls it.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Vxlan => "VXLAN",
            Self::Geneve => "Geneve",
        }
    }

    /// Name of its device: of the 15 bytes that a name may have 14 or all. None that [`link::host_ifname`] makes.
    pub const fn link(self) -> &'static str {
        match self {
            Self::Vxlan => "bulkhead_vxlan",
            Self::Geneve => "bulkhead_geneve",
        }
    }

    /// UDP port unless another is asked for. Of VXLAN not the one that IANA has given it, see ADR 0019; RFC 8926,
    /// section 3.3.
    pub const fn port(self) -> u16 {
        match self {
            Self::Vxlan => 8472,
            Self::Geneve => 6081,
        }
    }

    /// How many routers a packet in the tunnel may pass, to be said by each route; `None`: the kernel does what
    /// `ip_default_ttl` says. A Geneve device of this kind takes it from the route without looking whether it is 0
    /// (`geneve_xmit_skb`, drivers/net/geneve.c), and the first router would throw such a packet away.
    pub const fn hop_limit(self) -> Option<u8> {
        match self {
            Self::Vxlan => None,
            Self::Geneve => Some(64),
        }
    }

    /// What a packet grows by in the tunnel, in bytes: Ethernet header 14; header of the tunnel 8 (VXLAN: RFC 7348,
    /// section 5; Geneve without options: RFC 8926, section 3.4); UDP 8 (RFC 768); IPv4 20 (RFC 791) or IPv6 40 (RFC
    /// 8200).
    pub const fn overhead(self, outer: Family) -> u32 {
        let header = match self {
            Self::Vxlan | Self::Geneve => 8,
        };
        let ip = match outer {
            Family::V4 => 20,
            Family::V6 => 40,
        };
        14 + header + 8 + ip
    }

    fn kind(self) -> InfoKind {
        match self {
            Self::Vxlan => InfoKind::Vxlan,
            Self::Geneve => InfoKind::Geneve,
        }
    }

    fn object(self) -> String {
        format!("link {}", self.link())
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
    /// Which kind.
    pub protocol: Protocol,
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

/// Whether this kernel makes devices of a protocol. Where they are a module it may be loaded by this.
pub async fn is_known(node: &Node, protocol: Protocol) -> Result<bool, NetError> {
    kind::is_known(node, protocol.kind()).await
}

/// Makes the device, or makes it so, and does not bring it up. One of the name that is none, or has another port, is
/// replaced: with it go its routes. That of another protocol stays.
pub async fn ensure(node: &Node, wanted: Device) -> Result<Made, NetError> {
    let protocol = wanted.protocol;
    let mut changed = false;
    let found = match find(node, protocol).await? {
        Some(found) if found.port == Some(wanted.port) => found,
        other => {
            if other.is_some() {
                remove(node, protocol).await?;
            }
            changed = true;
            node.netlink().change(create(wanted)).await?;
            find(node, protocol).await?.ok_or_else(|| NetError::Unexpected {
                action: "look up",
                object: protocol.object(),
                answer: "no such link, though it was made".into(),
            })?
        }
    };
    if changed || found.device(protocol) != Some(wanted) {
        changed = true;
        // Not when it is made: kernels since 6.4 look for the IPv6 half of a device that has none yet.
        let mut message = link::no_link_local(found.ifindex);
        message.attributes.extend([LinkAttribute::Mtu(wanted.mtu), LinkAttribute::Address(wanted.mac.0.to_vec())]);
        node.netlink().change(link::set(message, "configure", protocol.object())).await?;
    }
    // What comes out of it must be from where it leads: `rp_filter` is strict.
    node.netns().run(move || sysctl::host_link(protocol.link(), Families { v4: true, v6: true })).await??;
    Ok(Made { ifindex: found.ifindex, is_up: found.is_up, changed })
}

/// Brings the device up: packets pass from now on. The programs must be attached before.
pub async fn bring_up(node: &Node, ifindex: u32) -> Result<(), NetError> {
    node.netlink().change(link::up(ifindex, format!("the overlay's link {ifindex}"))).await
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
pub async fn exists(node: &Node, protocol: Protocol) -> Result<bool, NetError> {
    ifindex(node, protocol).await.map(|found| found.is_some())
}

/// Index of the device, if there is one.
///
/// # Errors
/// The kernel does not tell.
pub async fn ifindex(node: &Node, protocol: Protocol) -> Result<Option<u32>, NetError> {
    find(node, protocol).await.map(|found| found.map(|found| found.ifindex))
}

/// Removes the device and its routes; gone already is done.
pub async fn remove(node: &Node, protocol: Protocol) -> Result<(), NetError> {
    link::delete_link(node, protocol.link()).await
}

fn create(wanted: Device) -> Request {
    let Device { protocol, port, mtu, mac } = wanted;
    // A tunnel over IPv6 sends no UDP checksum unless its route asks for one (RFC 6935).
    let data = match protocol {
        Protocol::Vxlan => InfoData::Vxlan(vec![
            InfoVxlan::CollectMetadata(true),
            InfoVxlan::Learning(false),
            InfoVxlan::Port(port),
            InfoVxlan::UDPZeroCsumRX(true),
        ]),
        Protocol::Geneve => InfoData::Geneve(vec![
            InfoGeneve::CollectMetadata,
            InfoGeneve::Port(port),
            InfoGeneve::UdpZeroCsum6Rx(true),
        ]),
    };
    let mut message = LinkMessage::default();
    message.attributes.extend([
        LinkAttribute::IfName(protocol.link().to_owned()),
        LinkAttribute::Address(mac.0.to_vec()),
        LinkAttribute::Mtu(mtu),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(protocol.kind()), LinkInfo::Data(data)]),
    ]);
    Request {
        message: RouteNetlinkMessage::NewLink(message),
        mode: Mode::Create,
        action: "create",
        object: protocol.object(),
    }
}

/// What is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Found {
    ifindex: u32,
    is_up: bool,
    mtu: u32,
    mac: Option<Mac>,
    /// `None`: it is no device of the protocol, or one with a peer.
    port: Option<u16>,
}

impl Found {
    fn device(&self, protocol: Protocol) -> Option<Device> {
        Some(Device { protocol, port: self.port?, mtu: self.mtu, mac: self.mac? })
    }
}

async fn find(node: &Node, protocol: Protocol) -> Result<Option<Found>, NetError> {
    let object = || protocol.object();
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::IfName(protocol.link().to_owned())];
    match node.netlink().get(RouteNetlinkMessage::GetLink(message), object()).await {
        Ok(RouteNetlinkMessage::NewLink(message)) => Ok(Some(read(protocol, &message))),
        Ok(other) => Err(NetError::Unexpected { action: "look up", object: object(), answer: format!("{other:?}") }),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn read(protocol: Protocol, message: &LinkMessage) -> Found {
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
            LinkAttribute::LinkInfo(infos) => found.port = infos.iter().find_map(|info| port(protocol, info)),
            _ => {}
        }
    }
    found
}

fn port(protocol: Protocol, info: &LinkInfo) -> Option<u16> {
    match (protocol, info) {
        (Protocol::Vxlan, LinkInfo::Data(InfoData::Vxlan(settings))) => {
            settings.contains(&InfoVxlan::CollectMetadata(true)).then_some(())?;
            settings.iter().find_map(|setting| match setting {
                InfoVxlan::Port(port) => Some(*port),
                _ => None,
            })
        }
        (Protocol::Geneve, LinkInfo::Data(InfoData::Geneve(settings))) => {
            settings.contains(&InfoGeneve::CollectMetadata).then_some(())?;
            settings.iter().find_map(|setting| match setting {
                InfoGeneve::Port(port) => Some(*port),
                _ => None,
            })
        }
        _ => None,
    }
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
        for protocol in Protocol::ALL {
            let wanted = Device { protocol, port: 8472, mtu: 1450, mac: mac_of("n1") };
            let RouteNetlinkMessage::NewLink(mut message) = create(wanted).message else { panic!("no link") };
            assert_eq!(read(protocol, &message).device(protocol), Some(wanted));
            for other in Protocol::ALL.into_iter().filter(|other| *other != protocol) {
                assert_eq!(read(other, &message).port, None);
            }
            message.attributes.retain(|attribute| !matches!(attribute, LinkAttribute::LinkInfo(_)));
            assert_eq!(read(protocol, &message).port, None);
        }
    }

    #[test]
    fn names_are_no_pods_and_fit() {
        for protocol in Protocol::ALL {
            // IFNAMSIZ is 16 with the final zero (include/uapi/linux/if.h).
            assert!(protocol.link().len() < 16 && !link::is_host_ifname(protocol.link()));
            assert_eq!([Family::V4, Family::V6].map(|outer| protocol.overhead(outer)), [50, 70]);
        }
    }

    #[test]
    fn nodes_have_addresses_of_their_own_that_are_the_same_everywhere() {
        assert_ne!(mac_of("n1"), mac_of("n2"));
        assert_eq!(mac_of("n1").0[0] & 3, 2);
        let mac: Mac = "02:b0:1c:4e:ad:01".parse().unwrap();
        assert_eq!(link_local_of(mac).to_string(), "fe80::b0:1cff:fe4e:ad01");
    }
}
