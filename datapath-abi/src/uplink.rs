//! What comes in from outside the node: whose packets are refused, and how many of the refused have a record.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Value of DENIED: what becomes of packets from a range of addresses; the longest prefix decides.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Denied {
    /// [`Denied::REFUSED`]: they are dropped. Anything else: spared, although a wider range is refused.
    pub verdict: u32,
}
crate::assert_size!(Denied, 4);

impl Denied {
    /// Packets from here are dropped.
    pub const REFUSED: u32 = 1;
    /// Packets from here are let through.
    pub const SPARED: u32 = 0;
}

/// Value of BUDGET, by CPU.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Budget {
    /// CLOCK_MONOTONIC shifted right by [`Budget::WINDOW_SHIFT`].
    pub window: u64,
    /// Records written in it.
    pub written: u64,
}
crate::assert_size!(Budget, 16);

impl Budget {
    /// A window has two to the power of this many nanoseconds: 1.07 seconds.
    pub const WINDOW_SHIFT: u32 = 30;
    /// Records in a window.
    pub const MOST: u64 = 128;
}
