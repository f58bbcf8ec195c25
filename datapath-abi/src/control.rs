//! Orders to the programs that the daemon runs by `BPF_PROG_TEST_RUN`, as packet data.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Most [`crate::endpoint::Swing`] orders in one run. 16 + 40 x 24 bytes are below a page with
/// the headroom that the kernel adds.
pub const MAX_SWINGS: usize = 40;

/// Where the orders begin in the packet data of `swing`; zeroes before. The kernel takes the
/// first 14 bytes for an Ethernet header, and refuses to run on data whose EtherType promises an
/// IP header that is not there (6.18, `bpf_prog_test_run_skb`). The other programs' data have
/// zeroes in that place.
pub const SWINGS_AT: usize = 16;

/// Packet data of `clock`; the program fills it in.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Clock {
    /// `bpf_ktime_get_ns`.
    pub monotonic_ns: u64,
    /// `bpf_jiffies64`, low 32 bits.
    pub jiffies: u32,
    /// Zero.
    pub pad: u32,
}
crate::assert_size!(Clock, 16);

/// Packet data of `sweep`, followed by a [`SweepReport`] that the program fills in.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Sweep {
    /// How often a living connection is reported, nanoseconds.
    pub active_interval_ns: u64,
    /// Jiffies per second.
    pub hz: u32,
    /// How many connections of one endpoint may wait in PENDING from now on; 0: any number. See
    /// [`crate::conntrack::Waiting`].
    pub share: u32,
}
crate::assert_size!(Sweep, 16);

/// What a sweep found.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SweepReport {
    /// Entries in CONNTRACK.
    pub established: u32,
    /// Entries in PENDING.
    pub pending: u32,
    /// Entries removed.
    pub removed: u32,
    /// Events written.
    pub reported: u32,
}
crate::assert_size!(SweepReport, 16);
