//! The ranges pods get addresses from, checked when they are configured, and which of their
//! addresses no pod gets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

/// A configuration that cannot be a pool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// No range at all.
    #[error("no address pool: give at least one range, as 10.244.0.0/24 or fd00:10:244::/64")]
    Empty,
    /// The address has bits beyond the prefix: a typing error somewhere.
    #[error("address pool {range}: bits are set beyond the prefix; write {network} if that is meant")]
    HostBits {
        /// As given.
        range: IpNetwork,
        /// Without the bits.
        network: IpNetwork,
    },
    /// Nothing would be left for pods.
    #[error(
        "address pool {0}: too small, the gateway and reserved addresses fill it: use at most /30 for IPv4, /126 for IPv6"
    )]
    TooSmall(IpNetwork),
    /// Addresses that no pod can have.
    #[error("address pool {range}: overlaps {kind} addresses ({with})")]
    Special {
        /// As given.
        range: IpNetwork,
        /// What it overlaps.
        with: IpNetwork,
        /// What those are.
        kind: &'static str,
    },
    /// The node itself has an address of a range.
    #[error(
        "address pool {range}: the node itself has {address} on {interface}, so a pod could get an address that is another's: use a range that nobody else has (--pool), or take the address away (ip address del {address}/{prefix_len} dev {interface})"
    )]
    OfNode {
        /// The range.
        range: IpNetwork,
        /// The node's address.
        address: IpAddr,
        /// With this prefix length.
        prefix_len: u8,
        /// Where it has it.
        interface: String,
    },
    /// Two ranges share addresses.
    #[error("address pools {0} and {1} overlap")]
    Overlap(IpNetwork, IpNetwork),
}

/// One range. Offsets count from the network address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    network: IpNetwork,
}

impl Range {
    /// Checks a range.
    pub fn new(range: IpNetwork) -> Result<Self, PoolError> {
        let network = IpNetwork::new(range.network(), range.prefix()).expect("the prefix is that of a network");
        if network.ip() != range.ip() {
            return Err(PoolError::HostBits { range, network });
        }
        let longest = if range.is_ipv4() { 30 } else { 126 };
        if range.prefix() > longest {
            return Err(PoolError::TooSmall(range));
        }
        for (with, kind) in special() {
            if overlap(&range, &with) {
                return Err(PoolError::Special { range, with, kind });
            }
        }
        Ok(Self { network: range })
    }

    /// The range as a prefix.
    pub fn network(&self) -> IpNetwork {
        self.network
    }

    /// The gateway: the first address after the network address.
    pub fn gateway(&self) -> IpAddr {
        self.at(1)
    }

    /// The lowest offset a pod can have: 0 is the network (IPv6: the subnet-router anycast address,
    /// RFC 4291, section 2.6.1), 1 the gateway.
    pub(crate) const FIRST: u128 = 2;

    /// The highest offset a pod can have: IPv4 keeps the last for broadcast (RFC 919, section 7).
    pub(crate) fn last(&self) -> u128 {
        let bits = if self.network.is_ipv4() { 32 } else { 128 };
        let host_bits = u32::from(bits - self.network.prefix());
        // The shortest prefixes overlap special addresses, so the shift stays in range.
        let end = (1_u128 << host_bits) - 1;
        if self.network.is_ipv4() { end - 1 } else { end }
    }

    /// How many pods it can serve.
    pub fn capacity(&self) -> u128 {
        self.last() - Self::FIRST + 1
    }

    /// The address at an offset.
    pub(crate) fn at(&self, offset: u128) -> IpAddr {
        match self.network.ip() {
            IpAddr::V4(base) => {
                let offset = u32::try_from(offset).expect("offsets of IPv4 ranges have 32 bits at most");
                Ipv4Addr::from_bits(base.to_bits() + offset).into()
            }
            IpAddr::V6(base) => Ipv6Addr::from_bits(base.to_bits() + offset).into(),
        }
    }

    /// The offset of an address, if it is in the range.
    pub(crate) fn offset(&self, address: IpAddr) -> Option<u128> {
        if !self.network.contains(address) {
            return None;
        }
        match (self.network.ip(), address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => Some(u128::from(address.to_bits() - base.to_bits())),
            (IpAddr::V6(base), IpAddr::V6(address)) => Some(address.to_bits() - base.to_bits()),
            _ => None,
        }
    }

    /// Why no pod gets the address at an offset, if so.
    pub(crate) fn reserved(&self, offset: u128) -> Option<&'static str> {
        match offset {
            0 => Some("the network's own address"),
            1 => Some("the gateway"),
            _ if offset > self.last() => Some("the broadcast address"),
            _ => None,
        }
    }
}

/// An address that the node has, and that is not a gateway which we have given it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeAddress {
    /// The address.
    pub address: IpAddr,
    /// With this prefix length.
    pub prefix_len: u8,
    /// On this interface.
    pub interface: String,
}

/// All ranges of a node: several per family, used one after another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pools {
    pub(crate) v4: Vec<Range>,
    pub(crate) v6: Vec<Range>,
}

impl Pools {
    /// Checks the ranges. Their order in each family is the order they are used in.
    pub fn new(ranges: &[IpNetwork]) -> Result<Self, PoolError> {
        if ranges.is_empty() {
            return Err(PoolError::Empty);
        }
        for (i, one) in ranges.iter().enumerate() {
            if let Some(other) = ranges[..i].iter().find(|other| overlap(one, other)) {
                return Err(PoolError::Overlap(*other, *one));
            }
        }
        let checked = ranges.iter().map(|&range| Range::new(range)).collect::<Result<Vec<_>, _>>()?;
        let (v4, v6) = checked.into_iter().partition(|range| range.network.is_ipv4());
        Ok(Self { v4, v6 })
    }

    /// All ranges, IPv4 first.
    pub fn ranges(&self) -> impl Iterator<Item = &Range> {
        self.v4.iter().chain(&self.v6)
    }

    /// The gateways of all ranges.
    pub fn gateways(&self) -> Vec<IpAddr> {
        self.ranges().map(Range::gateway).collect()
    }

    /// Refuses the first of the node's addresses that is in a range.
    pub fn must_not_have(&self, of_node: &[NodeAddress]) -> Result<(), PoolError> {
        let clash = of_node.iter().find_map(|found| Some((self.range_of(found.address)?.network(), found)));
        match clash {
            None => Ok(()),
            Some((range, NodeAddress { address, prefix_len, interface })) => Err(PoolError::OfNode {
                range,
                address: *address,
                prefix_len: *prefix_len,
                interface: interface.clone(),
            }),
        }
    }

    /// The range an address is in.
    pub fn range_of(&self, address: IpAddr) -> Option<&Range> {
        self.ranges().find(|range| range.offset(address).is_some())
    }
}

fn overlap(a: &IpNetwork, b: &IpNetwork) -> bool {
    a.is_ipv4() == b.is_ipv4() && (a.contains(b.network()) || b.contains(a.network()))
}

/// Addresses that mean something else: the IANA special-purpose address registries (RFC 6890) as far
/// as a pod could never use them.
fn special() -> impl Iterator<Item = (IpNetwork, &'static str)> {
    let v4 = |a, b, c, d, prefix| {
        IpNetwork::new(Ipv4Addr::new(a, b, c, d).into(), prefix).expect("the prefix is one of IPv4")
    };
    let v6 = |first: u16, prefix| {
        IpNetwork::new(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0).into(), prefix).expect("the prefix is one of IPv6")
    };
    let mapped = Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0);
    [
        (v4(0, 0, 0, 0, 8), "unspecified"),
        (v4(127, 0, 0, 0, 8), "loopback"),
        (v4(169, 254, 0, 0, 16), "link-local"),
        (v4(224, 0, 0, 0, 4), "multicast"),
        (v4(240, 0, 0, 0, 4), "reserved"),
        (v6(0, 127), "unspecified and loopback"),
        (IpNetwork::new(mapped.into(), 96).expect("the prefix is one of IPv6"), "IPv4-mapped"),
        (v6(0xfe80, 10), "link-local"),
        (v6(0xff00, 8), "multicast"),
    ]
    .into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pools(ranges: &[&str]) -> Result<Pools, PoolError> {
        Pools::new(&ranges.iter().map(|range| range.parse().unwrap()).collect::<Vec<_>>())
    }

    fn net(text: &str) -> IpNetwork {
        text.parse().unwrap()
    }

    #[test]
    fn what_cannot_be_a_pool_is_refused_with_its_reason() {
        assert_eq!(pools(&[]), Err(PoolError::Empty));
        let refusal = |ranges: &[&str]| pools(ranges).unwrap_err().to_string();
        assert_eq!(
            refusal(&["10.0.0.5/24"]),
            "address pool 10.0.0.5/24: bits are set beyond the prefix; write 10.0.0.0/24 if that is meant"
        );
        for small in ["10.0.0.0/31", "10.0.0.0/32", "fd00::/127", "fd00::/128"] {
            assert_eq!(pools(&[small]), Err(PoolError::TooSmall(net(small))));
        }
        for (range, kind) in [
            ("127.1.0.0/16", "loopback"),
            ("0.0.0.0/0", "unspecified"),
            ("128.0.0.0/1", "link-local"),
            ("225.0.0.0/8", "multicast"),
            ("::/0", "unspecified and loopback"),
            ("::ffff:10.0.0.0/104", "IPv4-mapped"),
            ("fe80::/64", "link-local"),
            ("ff02::/64", "multicast"),
        ] {
            match pools(&[range]) {
                Err(PoolError::Special { kind: found, .. }) => assert_eq!(found, kind, "{range}"),
                other => panic!("{range}: {other:?}"),
            }
        }
        assert_eq!(
            pools(&["10.0.0.0/16", "fd00::/64", "10.0.7.0/24"]),
            Err(PoolError::Overlap(net("10.0.0.0/16"), net("10.0.7.0/24")))
        );
    }

    #[test]
    fn a_range_with_an_address_of_the_node_is_refused_by_name() {
        let pools = pools(&["10.0.0.0/24", "fd00::/64"]).unwrap();
        let on = |address: &str, prefix_len| NodeAddress {
            address: address.parse().unwrap(),
            prefix_len,
            interface: "eth0".to_owned(),
        };
        assert_eq!(pools.must_not_have(&[on("10.0.1.1", 16), on("fd00:1::1", 64), on("192.0.2.1", 24)]), Ok(()));
        let error = pools.must_not_have(&[on("192.0.2.1", 24), on("fd00::7", 64)]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "address pool fd00::/64: the node itself has fd00::7 on eth0, so a pod could get an address that is another's: use a range that nobody else has (--pool), or take the address away (ip address del fd00::7/64 dev eth0)"
        );
    }

    #[test]
    fn the_smallest_pools_serve_someone() {
        let pools = pools(&["10.0.0.0/30", "fd00::/126"]).unwrap();
        let capacities: Vec<u128> = pools.ranges().map(Range::capacity).collect();
        assert_eq!(capacities, [1, 2]);
        assert_eq!(pools.gateways(), ["10.0.0.1".parse::<IpAddr>().unwrap(), "fd00::1".parse().unwrap()]);
    }

    #[test]
    fn large_pools_are_counted_not_listed() {
        let pools = pools(&["10.0.0.0/8", "fd00::/8"]).unwrap();
        let capacities: Vec<u128> = pools.ranges().map(Range::capacity).collect();
        assert_eq!(capacities, [(1 << 24) - 3, (1 << 120) - 2]);
    }

    #[test]
    fn offsets_and_addresses_are_inverse() {
        let range = Range::new(net("10.0.0.0/24")).unwrap();
        for offset in 0..256 {
            assert_eq!(range.offset(range.at(offset)), Some(offset));
        }
        assert_eq!(range.offset("10.0.1.0".parse().unwrap()), None);
        assert_eq!(range.offset("fd00::1".parse().unwrap()), None);
        assert_eq!(range.reserved(255), Some("the broadcast address"));
        assert_eq!(range.reserved(254), None);
    }
}
