//! Who takes part in the tests of the programs: three pods of this node, and everybody else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use datapath_abi::{endpoint::HOST_MAC, identity};

use crate::packet::{Body, Packet};

/// Address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Both families.
pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// A pod of this node, or somebody outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// For messages.
    pub name: &'static str,
    /// Slot of a local pod, 0 for others.
    pub slot: u32,
    /// Interface of a local pod; the one it is behind, for others; 0 for the node itself.
    pub ifindex: u32,
    /// MAC address; for those outside, the gateway's.
    pub mac: [u8; 6],
    /// IPv4 address.
    pub v4: Ipv4Addr,
    /// IPv6 address.
    pub v6: Ipv6Addr,
    /// Identity.
    pub identity: u32,
}

const fn pod(name: &'static str, slot: u8) -> Host {
    Host {
        name,
        slot: slot as u32,
        ifindex: 10 + slot as u32,
        mac: [0x02, 0, 0, 0, 0, 10 + slot],
        v4: Ipv4Addr::new(10, 244, 0, 10 + slot),
        v6: Ipv6Addr::new(0xfd00, 0x244, 0, 0, 0, 0, 0, 10 + slot as u16),
        identity: 1000 + slot as u32,
    }
}

/// A pod of this node.
pub const A: Host = pod("A", 1);
/// A pod of this node.
pub const B: Host = pod("B", 2);
/// A pod of this node.
pub const C: Host = pod("C", 3);

/// Interface to the outside.
pub const UPLINK: u32 = 20;

/// A pod of another node.
pub const REMOTE: Host = Host {
    name: "REMOTE",
    slot: 0,
    ifindex: UPLINK,
    mac: HOST_MAC,
    v4: Ipv4Addr::new(10, 244, 9, 9),
    v6: Ipv6Addr::new(0xfd00, 0x244, 9, 0, 0, 0, 0, 9),
    identity: 2009,
};

/// Somebody outside the cluster (RFC 5737 and RFC 3849 documentation addresses).
pub const WORLD: Host = Host {
    name: "WORLD",
    slot: 0,
    ifindex: UPLINK,
    mac: HOST_MAC,
    v4: Ipv4Addr::new(203, 0, 113, 7),
    v6: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7),
    identity: identity::WORLD,
};

/// A router outside, no end of anything.
pub const ROUTER: Host = Host {
    name: "ROUTER",
    v4: Ipv4Addr::new(198, 51, 100, 1),
    v6: Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1),
    ..WORLD
};

/// A Service's addresses: nobody's.
pub const SERVICE: Host = Host {
    name: "SERVICE",
    v4: Ipv4Addr::new(10, 96, 0, 10),
    v6: Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 10),
    ..WORLD
};

/// A process of this node.
pub const NODE: Host = Host {
    name: "NODE",
    slot: 0,
    ifindex: 0,
    mac: HOST_MAC,
    v4: Ipv4Addr::new(192, 0, 2, 1),
    v6: Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1),
    identity: identity::HOST,
};

/// Everybody.
pub const EVERYBODY: [Host; 6] = [A, B, C, REMOTE, WORLD, NODE];

impl Host {
    /// Its address.
    pub fn addr(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4.into(),
            Family::V6 => self.v6.into(),
        }
    }

    /// Whether it is a pod of this node.
    pub fn is_local(&self) -> bool {
        self.slot != 0
    }

    /// A packet to `to`.
    pub fn packet(&self, to: &Host, family: Family, body: Body) -> Packet {
        let mac = if self.is_local() { [self.mac, HOST_MAC] } else { [HOST_MAC, to.mac] };
        Packet::new(mac, [self.addr(family), to.addr(family)], body)
    }

    /// A TCP packet to `to`.
    pub fn tcp(&self, to: &Host, family: Family, port: [u16; 2], flags: u8) -> Packet {
        self.packet(to, family, Body::Tcp { port, flags })
    }

    /// A UDP packet to `to`.
    pub fn udp(&self, to: &Host, family: Family, port: [u16; 2]) -> Packet {
        self.packet(to, family, Body::Udp { port })
    }

    /// An SCTP packet to `to`.
    pub fn sctp(&self, to: &Host, family: Family, port: [u16; 2], chunk: u8) -> Packet {
        self.packet(to, family, Body::Sctp { port, chunk })
    }

    /// An ICMP or ICMPv6 packet to `to`.
    pub fn icmp(&self, to: &Host, family: Family, kind: u8, code: u8) -> Packet {
        self.packet(to, family, Body::Icmp { kind, code, rest: [0; 4] })
    }

    /// An ICMP echo request to `to` (RFC 792, RFC 4443).
    pub fn ping(&self, to: &Host, family: Family, identifier: u16) -> Packet {
        self.echo(to, family, identifier, if family == Family::V4 { 8 } else { 128 })
    }

    /// The answer to one.
    pub fn pong(&self, to: &Host, family: Family, identifier: u16) -> Packet {
        self.echo(to, family, identifier, if family == Family::V4 { 0 } else { 129 })
    }

    fn echo(&self, to: &Host, family: Family, identifier: u16, kind: u8) -> Packet {
        let [high, low] = identifier.to_be_bytes();
        self.packet(to, family, Body::Icmp { kind, code: 0, rest: [high, low, 0, 1] })
    }
}
