//! Services: which addresses stand for which backends, and what was translated.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::addr::Addr;

/// Key of FRONTENDS: an address and port that stand for others.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct FrontendKey {
    /// A Service's address.
    pub addr: Addr,
    /// Its port in host order.
    pub port: u16,
    /// IANA protocol number.
    pub proto: u8,
    /// Zero.
    pub pad: [u8; 5],
}
crate::assert_size!(FrontendKey, 24);

/// Value of FRONTENDS.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Frontend {
    /// Number of its backends' set in BACKENDS.
    pub set: u32,
    /// How many there are: places 0 to `count` - 1 of the set.
    pub count: u32,
}
crate::assert_size!(Frontend, 8);

/// Key of BACKENDS.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct BackendKey {
    /// Number of the set: backends of one port of one Service in one family.
    pub set: u32,
    /// Place in it.
    pub place: u32,
}
crate::assert_size!(BackendKey, 8);

/// Value of BACKENDS: who serves.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Backend {
    /// Its own address, of the frontend's family.
    pub addr: Addr,
    /// Its port in host order.
    pub port: u16,
    /// Zero.
    pub pad: [u8; 6],
}
crate::assert_size!(Backend, 24);

/// Key of GONE: a backend that a set has no more. The next sweep ends what is translated to it and can be
/// begun anew by any packet (UDP); the daemon removes the entry after it. The value says nothing.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct GoneKey {
    /// The backend's address.
    pub addr: Addr,
    /// Its port in host order.
    pub port: u16,
    /// Zero.
    pub pad: [u8; 2],
    /// Number of the set.
    pub set: u32,
}
crate::assert_size!(GoneKey, 24);

/// What became of a connection's addresses, in its two entries of conntrack.
///
/// With [`crate::conntrack::FLAG_TRANSLATED`]: the connection, whose key has its true ends. This is what its initiator sees
/// in the responder's place.
///
/// With [`crate::conntrack::FLAG_ALIAS`]: not a connection, but the key that its initiator's packets come with. This is
/// the responder.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Translation {
    /// The Service's address, or the backend's.
    pub addr: Addr,
    /// Its port in host order.
    pub port: u16,
    /// Port of the initiator as it knows it, or as it is on the other side: another one where the connection's key
    /// would otherwise be that of another connection.
    pub from_port: u16,
    /// Number of the backends' set.
    pub set: u32,
}
crate::assert_size!(Translation, 24);

/// Source of what a pod sends to itself by way of a Service: with its own address it would not take the packet. Of
/// IPv4 the dummy address (RFC 7600), of IPv6 one of the discard prefix (RFC 6666): nobody has either.
pub const HAIRPIN_V4: Addr = Addr::from_v4([192, 0, 0, 8]);
/// See [`HAIRPIN_V4`].
pub const HAIRPIN_V6: Addr = Addr::from_octets([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
