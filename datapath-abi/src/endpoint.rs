//! Who sits behind an interface: one entry per local pod interface, indexed by slot.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::addr::Addr;

/// Slot 0 is nobody: its entry is all zeroes, and so are the rules of whoever is not local.
pub const NO_SLOT: u32 = 0;

/// One local endpoint. Exactly one cache line.
///
/// `identity` and `rules` are changed by the program `swing` alone, one store each, so that a
/// packet sees either the old pointer or the new one. Every other field is written once, before
/// the slot becomes reachable through the interface map.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Endpoint {
    /// [`RulesPtr`] bits by [`crate::policy::Direction`]: `[egress, ingress]`.
    pub rules: [u64; 2],
    /// The pod's IPv6 address, [`Addr::ZERO`] if it has none.
    pub addr6: Addr,
    /// The pod's IPv4 address in mapped form, [`Addr::ZERO`] if it has none.
    pub addr4: Addr,
    /// Interface index of the host side of its veth. 0: this slot is free.
    pub ifindex: u32,
    /// Identity, see [`crate::identity`].
    pub identity: u32,
    /// MAC address of the container side.
    pub mac: [u8; 6],
    /// Zero.
    pub pad: [u8; 2],
}
crate::assert_size!(Endpoint, 64);

/// Points an endpoint at its rules for one direction, in one 64-bit word:
/// generation (32 bits, high), flags (8 bits), rule set (24 bits, low).
///
/// A generation is never given out twice on a node, so equal words mean the same endpoint under
/// the same rules. Conntrack remembers the word a verdict was reached under.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RulesPtr(pub u64);

impl RulesPtr {
    /// Isolated in this direction: what no rule admits is denied.
    pub const ISOLATED: u8 = 1 << 0;
    /// The rule set has entries for single identities.
    pub const HAS_PEERS: u8 = 1 << 1;
    /// The rule set has entries for wildcard classes.
    pub const HAS_CLASSES: u8 = 1 << 2;
    /// The rule set has address regions (ipBlock).
    pub const HAS_REGIONS: u8 = 1 << 3;
    /// STAGED says what would hold in this direction with the staged policies. Says nothing about
    /// what does hold: see [`Self::is_ruled`].
    pub const HAS_STAGED: u8 = 1 << 4;

    /// Greatest rule set number (24 bits).
    pub const MAX_RULESET: u32 = (1 << 24) - 1;

    /// Packs the three parts. `ruleset` is cut to 24 bits.
    #[inline(always)]
    pub const fn new(generation: u32, flags: u8, ruleset: u32) -> Self {
        Self((generation as u64) << 32 | (flags as u64) << 24 | (ruleset & Self::MAX_RULESET) as u64)
    }

    /// The generation.
    #[inline(always)]
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The flags.
    #[inline(always)]
    pub const fn flags(self) -> u8 {
        (self.0 >> 24) as u8
    }

    /// The number of the rule set; 0 is the empty one.
    #[inline(always)]
    pub const fn ruleset(self) -> u32 {
        self.0 as u32 & Self::MAX_RULESET
    }

    /// Where to go on after [`crate::policy::Verdict::Pass`]: the same pointer, to the other rule
    /// set of the pair.
    #[inline(always)]
    pub const fn after_pass(self) -> Self {
        Self(self.0 | 1)
    }

    /// Whether any rules are in force. If not, everything passes.
    #[inline(always)]
    pub const fn is_ruled(self) -> bool {
        self.flags() & !Self::HAS_STAGED != 0
    }

    /// Whether any of `flags` is set.
    #[inline(always)]
    pub const fn has(self, flags: u8) -> bool {
        self.flags() & flags != 0
    }
}

/// One order to the program `swing`, whose packet data is an array of these.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Swing {
    /// New words, `[egress, ingress]`.
    pub rules: [u64; 2],
    /// Slot of the endpoint.
    pub slot: u32,
    /// Identity it has from now on.
    pub identity: u32,
}
crate::assert_size!(Swing, 24);

/// MAC address of the host side of every veth. Locally administered (bit 1 of the first octet,
/// IEEE 802-2014, section 8.2); the same on all of them, as each is a link of its own.
pub const HOST_MAC: [u8; 6] = [0x02, 0xb0, 0x1c, 0x4e, 0xad, 0x01];
