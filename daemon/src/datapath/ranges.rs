//! Ranges of addresses as keys of a trie: prefix bits of sixteen bytes, IPv4 in its place inside IPv6.

use std::net::IpAddr;

use aya::maps::lpm_trie::Key;
use datapath_abi::addr::{Addr, V4_PREFIX_BITS};
use ipnetwork::IpNetwork;

/// A range's key.
pub(super) fn key(range: IpNetwork) -> Key<[u8; 16]> {
    let more = if range.is_ipv4() { V4_PREFIX_BITS } else { 0 };
    Key::new(u32::from(range.prefix()) + more, Addr::from(range.network()).octets())
}

/// The range of a key.
pub(super) fn range(key: &Key<[u8; 16]>) -> IpNetwork {
    let address = IpAddr::from(Addr::from_octets(key.data()));
    let less = if address.is_ipv4() { V4_PREFIX_BITS } else { 0 };
    let length = u8::try_from(key.prefix_len().saturating_sub(less)).unwrap_or(u8::MAX);
    IpNetwork::new(address, length).unwrap_or_else(|_| IpNetwork::from(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_found_again_by_its_key() {
        for text in ["10.244.1.0/24", "192.0.2.7/32", "fd00:1::/64", "fd31::12/128"] {
            let wanted: IpNetwork = text.parse().unwrap();
            assert_eq!(range(&key(wanted)), wanted);
        }
        assert_eq!(key("10.0.0.0/8".parse().unwrap()).prefix_len(), 104);
    }
}
