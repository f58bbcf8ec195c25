//! Addresses as they lie in memory: 16 bytes in network order for both families, so that one
//! implementation in the kernel serves IPv4 and IPv6.

use core::net::{IpAddr, Ipv6Addr};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An IP address, 16 bytes in network order; IPv4 as `::ffff:a.b.c.d` (RFC 4291, 2.5.5.2).
///
/// Held as two 64-bit words (each the *memory image* of eight network-order bytes), so that the
/// kernel half compares and copies it in two instructions.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Addr {
    /// The sixteen bytes, as two words of memory.
    pub words: [u64; 2],
}
crate::assert_size!(Addr, 16);

impl Addr {
    /// `::`, which also means "none".
    pub const ZERO: Addr = Addr { words: [0, 0] };

    /// From sixteen bytes in network order.
    #[inline(always)]
    pub const fn from_octets(octets: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = octets;
        Self { words: [u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes([i, j, k, l, m, n, o, p])] }
    }

    /// From four bytes in network order, as IPv4-mapped.
    #[inline(always)]
    pub const fn from_v4(octets: [u8; 4]) -> Self {
        let [a, b, c, d] = octets;
        Self { words: [0, u64::from_ne_bytes([0, 0, 0xff, 0xff, a, b, c, d])] }
    }

    /// The sixteen bytes in network order.
    #[inline(always)]
    pub const fn octets(self) -> [u8; 16] {
        let [a, b, c, d, e, f, g, h] = self.words[0].to_ne_bytes();
        let [i, j, k, l, m, n, o, p] = self.words[1].to_ne_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    /// The sixteen bytes as four words of memory; IPv4's are the last.
    #[inline(always)]
    pub const fn quarters(self) -> [u32; 4] {
        let [a, b, c, d, e, f, g, h] = self.words[0].to_ne_bytes();
        let [i, j, k, l, m, n, o, p] = self.words[1].to_ne_bytes();
        [
            u32::from_ne_bytes([a, b, c, d]),
            u32::from_ne_bytes([e, f, g, h]),
            u32::from_ne_bytes([i, j, k, l]),
            u32::from_ne_bytes([m, n, o, p]),
        ]
    }

    /// Whether this is an IPv4 address in mapped form.
    #[inline(always)]
    pub const fn is_v4(self) -> bool {
        let [a, b, c, d, ..] = self.words[1].to_ne_bytes();
        self.words[0] == 0 && a == 0 && b == 0 && c == 0xff && d == 0xff
    }
}

impl From<IpAddr> for Addr {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => Self::from_v4(v4.octets()),
            IpAddr::V6(v6) => Self::from_octets(v6.octets()),
        }
    }
}

impl From<Addr> for IpAddr {
    fn from(addr: Addr) -> Self {
        let v6 = Ipv6Addr::from(addr.octets());
        v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4)
    }
}

/// Key of the address map: whose address is this?
pub type AddrKey = Addr;

/// Number of bits that the IPv4-mapped prefix `::ffff:0:0/96` adds to an IPv4 prefix length.
pub const V4_PREFIX_BITS: u32 = 96;

/// Value of the address map and of the CIDR trie.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct AddrEntry {
    /// Identity of the owner, see [`crate::identity`].
    pub identity: u32,
    /// Slot of the local endpoint that owns it, 0 if it is not local.
    pub slot: u32,
}
crate::assert_size!(AddrEntry, 8);
