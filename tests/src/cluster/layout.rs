//! Where everything of a test cluster is: addresses of the underlay, ranges of pods and Services.
//! Every cluster has the same ones, as each is in network namespaces of its own.
//!
//! ```text
//!   control plane 172.31.0.1, fd31::1 --- bridge --- n1 172.31.0.11, fd31::11
//!                                              \---- n2 172.31.0.12, fd31::12
//! ```

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Which families the cluster has, the first one being the family of a Service that says nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Families {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// Both, IPv4 first.
    #[default]
    DualStack,
}

impl Families {
    /// IPv4 is one of them.
    pub fn has_v4(self) -> bool {
        self != Self::Ipv6
    }

    /// IPv6 is one of them.
    pub fn has_v6(self) -> bool {
        self != Self::Ipv4
    }

    /// What there is of an IPv4 and an IPv6 thing, in the cluster's order, with commas.
    pub fn list(self, v4: impl fmt::Display, v6: impl fmt::Display) -> String {
        match self {
            Self::Ipv4 => v4.to_string(),
            Self::Ipv6 => v6.to_string(),
            Self::DualStack => format!("{v4},{v6}"),
        }
    }

    /// The first of the two.
    pub fn first<T>(self, v4: T, v6: T) -> T {
        if self.has_v4() { v4 } else { v6 }
    }
}

/// Ranges that nodes get their parts of.
pub const POD_RANGES: (&str, &str) = ("10.244.0.0/16", "fd00:10:244::/56");
/// How long the prefix of a node's part is.
pub const NODE_MASKS: (u8, u8) = (24, 64);
/// Ranges of Services.
pub const SERVICE_RANGES: (&str, &str) = ("10.96.0.0/16", "fd00:10:96::/112");
/// Address of the cluster's DNS.
pub const DNS: (Ipv4Addr, Ipv6Addr) = (Ipv4Addr::new(10, 96, 0, 10), Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 10));
/// Port of the API server.
pub const API_PORT: u16 = 6443;
/// MTU of the underlay.
pub const MTU: u32 = 1500;

/// A machine of the underlay: 1 is the control plane, nodes begin at 11.
pub fn underlay(host: u8) -> (Ipv4Addr, Ipv6Addr) {
    // Written alike in both families, so that one reads as the other: 11 is ::11.
    let digits = u16::from(host / 10 % 10) << 4 | u16::from(host % 10) | u16::from(host / 100) << 8;
    (Ipv4Addr::new(172, 31, 0, host), Ipv6Addr::new(0xfd31, 0, 0, 0, 0, 0, 0, digits))
}

/// Number of the control plane in the underlay.
pub const CONTROL: u8 = 1;

/// Number in the underlay of the node with this index.
pub fn node_host(index: usize) -> u8 {
    11 + u8::try_from(index).unwrap_or(u8::MAX - 11)
}

/// Name of the node with this index.
pub fn node_name(index: usize) -> String {
    format!("n{}", index + 1)
}

/// Who a node is, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seat {
    /// Its name.
    pub name: String,
    /// Its number in the underlay.
    pub host: u8,
}

impl Seat {
    /// That of the node with this index.
    pub fn of(index: usize) -> Self {
        Self { name: node_name(index), host: node_host(index) }
    }
}

/// Where nodes reach the API server.
pub fn api_server(families: Families) -> String {
    let (v4, v6) = underlay(CONTROL);
    match families.first(IpAddr::V4(v4), IpAddr::V6(v6)) {
        IpAddr::V4(address) => format!("{address}:{API_PORT}"),
        IpAddr::V6(address) => format!("[{address}]:{API_PORT}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_read_alike() {
        assert_eq!(underlay(11), ("172.31.0.11".parse().unwrap(), "fd31::11".parse().unwrap()));
        assert_eq!(underlay(120).1, "fd31::120".parse::<Ipv6Addr>().unwrap());
        assert_eq!(api_server(Families::Ipv6), "[fd31::1]:6443");
        assert_eq!(Families::DualStack.list(1, 2), "1,2");
    }
}
