//! Address blocks with exceptions (`ipBlock`), and the one form in which addresses are compared.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use thiserror::Error;

/// Bits of an IPv6 prefix that say "IPv4-mapped" (RFC 4291, section 2.5.5.2).
const MAPPED_BITS: u8 = 96;

/// A block of addresses without some blocks inside it. Prints as `10.0.0.0/8 except 10.1.0.0/16`.
///
/// Host bits are cleared, exceptions are sorted and lie strictly inside the block.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct IpBlock {
    cidr: IpNetwork,
    except: Vec<IpNetwork>,
}

impl IpBlock {
    /// A block and its exceptions.
    ///
    /// # Errors
    ///
    /// When an exception is not strictly inside the block, which the API refuses too ("Except
    /// values will be rejected if they are outside the cidr range").
    pub fn new(cidr: IpNetwork, except: impl IntoIterator<Item = IpNetwork>) -> Result<Self, IpBlockError> {
        let cidr = canonical_network(cidr);
        let mut holes = Vec::new();
        for hole in except {
            let hole = canonical_network(hole);
            if hole.prefix() <= cidr.prefix() || !network_contains(cidr, hole) {
                return Err(IpBlockError { cidr, except: hole });
            }
            holes.push(hole);
        }
        holes.sort_unstable();
        holes.dedup();
        Ok(Self { cidr, except: holes })
    }

    /// The block.
    pub fn cidr(&self) -> IpNetwork {
        self.cidr
    }

    /// What is taken out of it.
    pub fn except(&self) -> &[IpNetwork] {
        &self.except
    }

    /// Whether an address is in the block and in none of its exceptions.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = canonical_ip(ip);
        self.cidr.contains(ip) && !self.except.iter().any(|hole| hole.contains(ip))
    }
}

impl fmt::Display for IpBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.cidr)?;
        for (position, hole) in self.except.iter().enumerate() {
            write!(f, "{}{hole}", if position == 0 { " except " } else { "," })?;
        }
        Ok(())
    }
}

/// An exception that is not strictly inside its block.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("exception {except} is not strictly inside {cidr}")]
pub struct IpBlockError {
    /// The block.
    pub cidr: IpNetwork,
    /// The exception.
    pub except: IpNetwork,
}

/// An IPv4-mapped IPv6 address as the IPv4 address it stands for; others as they are. The kernel
/// half writes IPv4 in mapped form, so the two must never be told apart here either.
pub fn canonical_ip(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

/// A network with its host bits cleared; one inside `::ffff:0:0/96` as the IPv4 network it stands for.
pub fn canonical_network(network: IpNetwork) -> IpNetwork {
    let prefix = network.prefix();
    match (network.ip(), prefix.checked_sub(MAPPED_BITS)) {
        (IpAddr::V6(ip), Some(v4_prefix)) if ip.to_ipv4_mapped().is_some() => {
            let v4 = ip.to_ipv4_mapped().unwrap_or(Ipv4Addr::UNSPECIFIED);
            masked(IpAddr::V4(v4), v4_prefix)
        }
        (ip, _) => masked(ip, prefix),
    }
}

/// Whether `outer` holds all of `inner`. Networks of different families never do.
pub fn network_contains(outer: IpNetwork, inner: IpNetwork) -> bool {
    outer.prefix() <= inner.prefix() && outer.contains(inner.ip())
}

fn masked(ip: IpAddr, prefix: u8) -> IpNetwork {
    const FITS: &str = "a prefix length that came from a network of this family fits it";
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(u32::from(32 - prefix)).unwrap_or(0);
            IpNetwork::V4(Ipv4Network::new(Ipv4Addr::from_bits(ip.to_bits() & mask), prefix).expect(FITS))
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(u32::from(128 - prefix)).unwrap_or(0);
            IpNetwork::V6(Ipv6Network::new(Ipv6Addr::from_bits(ip.to_bits() & mask), prefix).expect(FITS))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> IpNetwork {
        text.parse().unwrap()
    }

    #[test]
    fn networks_have_one_form() {
        for (written, meant) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("10.1.2.3/32", "10.1.2.3/32"),
            ("10.1.2.3/0", "0.0.0.0/0"),
            ("fd00::1234/16", "fd00::/16"),
            ("2001:db8::1/0", "::/0"),
            ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
            ("::ffff:10.1.2.3/128", "10.1.2.3/32"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::ffff:0:0/95", "::fffe:0:0/95"),
        ] {
            assert_eq!(canonical_network(network(written)), network(meant), "{written}");
        }
        assert_eq!(canonical_ip("::ffff:10.0.0.1".parse().unwrap()).to_string(), "10.0.0.1");
    }

    #[test]
    fn exceptions_lie_strictly_inside() {
        for (cidr, hole) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.0.0.0/8", "11.0.0.0/16"),
            ("10.0.0.0/8", "0.0.0.0/0"),
            ("10.0.0.0/8", "::ffff:10.0.0.0/104"),
            ("::/0", "10.0.0.0/8"),
            ("10.0.0.0/8", "fd00::/64"),
        ] {
            let error = IpBlock::new(network(cidr), [network(hole)]).unwrap_err();
            let except = canonical_network(network(hole));
            assert_eq!(error.to_string(), format!("exception {except} is not strictly inside {cidr}"));
        }
    }

    #[test]
    fn a_block_holds_what_no_exception_takes() {
        let block =
            IpBlock::new(network("10.0.0.0/8"), ["10.1.0.0/16", "10.1.0.0/16", "10.0.0.1/32"].map(network)).unwrap();
        assert_eq!(block.to_string(), "10.0.0.0/8 except 10.0.0.1/32,10.1.0.0/16");
        for (ip, inside) in [
            ("10.0.0.2", true),
            ("::ffff:10.0.0.2", true),
            ("10.0.0.1", false),
            ("10.1.9.9", false),
            ("11.0.0.1", false),
        ] {
            assert_eq!(block.contains(ip.parse().unwrap()), inside, "{ip}");
        }
        let all = IpBlock::new(network("::/0"), []).unwrap();
        assert!(all.contains("::1".parse().unwrap()));
        assert!(!all.contains("10.0.0.1".parse().unwrap()));
        assert!(!all.contains("::ffff:10.0.0.1".parse().unwrap()));
    }
}
