//! The overlay: from where packets of other nodes' addresses come, and which identity numbers they may carry.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::addr::Addr;

/// Key in NUMBERS that stands for no identity: while it is there, packets carry numbers and those that they carry are
/// believed, as far as the number itself is there, too. Its value says nothing.
pub const BELIEVED: u32 = 0;

/// Value of ORIGINS: where packets from a range of addresses come from.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Origin {
    /// Address of the node, as the packets that carry others have it for their source.
    pub node: Addr,
    /// Interface of the overlay's device.
    pub ifindex: u32,
    /// [`Origin::ONLY_THERE`] or 0.
    pub flags: u32,
}
crate::assert_size!(Origin, 24);

impl Origin {
    /// They come in by the overlay's device and no other: addresses of pods. Those of nodes may also come as they are.
    pub const ONLY_THERE: u32 = 1;

    /// Whether [`Origin::ONLY_THERE`] is set.
    #[inline(always)]
    pub const fn only_there(&self) -> bool {
        self.flags & Self::ONLY_THERE != 0
    }
}
