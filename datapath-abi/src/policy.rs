//! Rule sets as the kernel sees them.
//!
//! A verdict for a new connection is found in at most two steps per direction:
//!
//! ```text
//! PEERS   (rule set, identity), else (rule set, class of identity), else (rule set, any)  -> PeerEntry
//! REGIONS (rule set, address), longest prefix; only with RulesPtr::HAS_REGIONS            -> PeerEntry
//! PORTS   (port set, protocol, port prefix), longest prefix, as named in PeerEntry::lengths -> Decision
//! ```
//!
//! The compiler flattens: an entry for one identity holds everything that its class and "any"
//! would have said, so the most specific entry found is the whole answer. Of the answers from
//! PEERS and from REGIONS the one with the higher precedence counts.
//!
//! If that one says [`Verdict::Pass`], the same is asked of a second rule set
//! ([`crate::endpoint::RulesPtr::after_pass`]), whose answer is the verdict. A rule set in which
//! something passes has an even number, and the next number is its second one: the first holds
//! all rules, the second those that come after the admin tier. One rule set would not do: a pass
//! found by identity and a denial of lower precedence in the same tier found by address would
//! have to be told from a denial that comes after the tier.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::addr::Addr;

/// Policy direction, seen from the pod.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Direction {
    /// Traffic the pod sends.
    Egress = 0,
    /// Traffic the pod receives.
    Ingress = 1,
}

/// What a rule says. Crosses as `u8`.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Verdict {
    /// No rule matched.
    #[default]
    None = 0,
    /// Let it pass.
    Allow = 1,
    /// Drop it.
    Deny = 2,
    /// Ask the second rule set.
    Pass = 3,
}

impl TryFrom<u8> for Verdict {
    type Error = u8;

    fn try_from(value: u8) -> Result<Self, u8> {
        match value {
            0 => Ok(Self::None),
            1 => Ok(Self::Allow),
            2 => Ok(Self::Deny),
            3 => Ok(Self::Pass),
            other => Err(other),
        }
    }
}

/// Protocol number that stands for every protocol in [`PortKey`].
pub const PROTO_ANY: u8 = 0;

/// A verdict with its standing and its author.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Decision {
    /// Names the policy and the rule; 0 when there is none.
    pub cookie: u32,
    /// Precedence: of two decisions the greater counts. 0 only with [`Verdict::None`].
    pub precedence: u16,
    /// A [`Verdict`].
    pub verdict: u8,
    /// Zero.
    pub pad: u8,
}
crate::assert_size!(Decision, 8);

/// Key of PEERS.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct PeerKey {
    /// Rule set.
    pub ruleset: u32,
    /// An identity or a `CLASS_` of [`crate::identity`].
    pub identity: u32,
}
crate::assert_size!(PeerKey, 8);

/// Value of PEERS and REGIONS: what applies to this peer, by port.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct PeerEntry {
    /// Number of the port set; 0 if only `otherwise` applies.
    pub portset: u32,
    /// Bit `n` set: the port set has a prefix of length `n` (0 to 16) for some protocol.
    pub lengths: u32,
    /// What holds for every protocol and port that the port set does not mention.
    pub otherwise: Decision,
}
crate::assert_size!(PeerEntry, 16);

/// Key of PORTS. A port set is the entries that share `portset`.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct PortKey {
    /// Port set.
    pub portset: u32,
    /// Port with the bits below the prefix cleared, host order.
    pub port: u16,
    /// IANA protocol number, never [`PROTO_ANY`].
    pub proto: u8,
    /// Prefix length, 0 to 16. 0 is every port of the protocol, also for protocols without ports.
    pub length: u8,
}
crate::assert_size!(PortKey, 8);

/// Key of REGIONS, without the prefix length that the trie keeps in front of it. Its prefix
/// length in bits is 32 + the length of the address prefix in the 128-bit form.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct RegionKey {
    /// Rule set, big-endian bytes, so that the trie orders by it first.
    pub ruleset: [u8; 4],
    /// First address of the region, sixteen bytes in network order.
    pub addr: [u8; 16],
}
crate::assert_size!(RegionKey, 20);

impl RegionKey {
    /// For a rule set and an address.
    #[inline(always)]
    pub const fn new(ruleset: u32, addr: Addr) -> Self {
        Self { ruleset: ruleset.to_be_bytes(), addr: addr.octets() }
    }
}

/// Number of bits that the rule set takes in a [`RegionKey`].
pub const REGION_RULESET_BITS: u32 = 32;

/// Value of RULESETS, which the programs never read: lets a restarted daemon recognise the
/// rule sets it finds.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RulesetInfo {
    /// Digest of the rule table, see `policy::lower`.
    pub digest: [u8; 16],
}
crate::assert_size!(RulesetInfo, 16);
