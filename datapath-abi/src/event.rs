//! What the ring buffer carries: one record type for every kind of event.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{addr::Addr, service::Translation};

/// Kind of an event. Crosses as `u8`.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum EventKind {
    /// First packet of a connection that is allowed.
    Opened = 1,
    /// A packet was dropped; `reason` says why.
    Dropped = 2,
    /// A connection ended; `end` says how, counters are totals.
    Closed = 3,
    /// A long connection lives on; counters are totals so far.
    Active = 4,
    /// A name was looked up. The programs write no such event: it is the daemon's, who makes it of [`crate::dns`].
    Dns = 5,
}

impl TryFrom<u8> for EventKind {
    type Error = u8;

    fn try_from(value: u8) -> Result<Self, u8> {
        Ok(match value {
            1 => Self::Opened,
            2 => Self::Dropped,
            3 => Self::Closed,
            4 => Self::Active,
            5 => Self::Dns,
            other => return Err(other),
        })
    }
}

/// How a connection ended. Crosses as `u8`, 0 when it has not.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum EndReason {
    /// Both ends said goodbye.
    Fin = 1,
    /// Reset or abort.
    Rst = 2,
    /// Silent for longer than its timeout.
    Idle = 3,
    /// A policy or label change forbids it.
    PolicyChange = 4,
    /// Its pod is gone.
    EndpointGone = 5,
    /// Its place was taken by a new connection with the same addresses and ports.
    Replaced = 6,
}

impl TryFrom<u8> for EndReason {
    type Error = u8;

    fn try_from(value: u8) -> Result<Self, u8> {
        Ok(match value {
            1 => Self::Fin,
            2 => Self::Rst,
            3 => Self::Idle,
            4 => Self::PolicyChange,
            5 => Self::EndpointGone,
            6 => Self::Replaced,
            other => return Err(other),
        })
    }
}

/// Where the program sits that saw the packet. Named by where the packet comes from. Crosses
/// as `u8`.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Hook {
    /// A pod has sent it.
    FromPod = 0,
    /// The host's stack is about to give it to a pod.
    ToPod = 1,
    /// It came in from outside the node, by an interface that is watched.
    FromUplink = 2,
}

/// Number of hooks, for arrays by hook.
pub const HOOKS: u32 = 3;

/// `direction` in [`FlowEvent`] when no endpoint's policy was asked.
pub const DIRECTION_NONE: u8 = 0xff;

/// `staged` in [`FlowEvent`] when no staged policies concern the direction, or rules are not asked.
pub const STAGED_NOT_ASKED: u8 = 0;

/// `staged` in [`FlowEvent`] when it would be allowed: no [`crate::reason::DropReason`].
pub const STAGED_ALLOWS: u8 = 0xff;

/// One event. Pairs are `[source, destination]` of the packet for `Opened` and `Dropped`, and
/// `[initiator, responder]` of the connection for `Closed` and `Active` (`Opened` is both).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FlowEvent {
    /// `bpf_ktime_get_ns`: CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// Addresses.
    pub addr: [Addr; 2],
    /// [`crate::endpoint::RulesPtr`] bits asked: the source's egress and the destination's
    /// ingress, 0 where none was.
    pub rules: [u64; 2],
    /// Packets by direction, totals. `Opened`, `Dropped`: `[1, 0]`.
    pub packets: [u64; 2],
    /// Bytes by direction, totals, from the network header on.
    pub bytes: [u64; 2],
    /// Identities.
    pub identity: [u32; 2],
    /// Slots, 0 where not local.
    pub slot: [u32; 2],
    /// Cookies of the deciding rules: egress of the source, ingress of the destination. 0: none.
    pub cookie: [u32; 2],
    /// The same for `staged`.
    pub staged_cookie: [u32; 2],
    /// `created_ns` of the connection; with the five-tuple it names the connection.
    pub created_ns: u64,
    /// Microseconds from the first packet to the first answer, 0 unknown.
    pub rtt_us: u32,
    /// Interface the packet was seen at.
    pub ifindex: u32,
    /// Ports in host order. ICMP: `[type, code]`.
    pub port: [u16; 2],
    /// IANA protocol number.
    pub proto: u8,
    /// An [`EventKind`].
    pub kind: u8,
    /// A [`crate::reason::DropReason`], 0 if not dropped.
    pub reason: u8,
    /// An [`EndReason`], 0 if not ended.
    pub end: u8,
    /// `Dropped` by policy: the [`crate::policy::Direction`] that denied; else
    /// [`DIRECTION_NONE`].
    pub direction: u8,
    /// A [`Hook`].
    pub hook: u8,
    /// TCP flags by direction: OR over the connection, or those of the packet in `[0]`.
    pub tcp_flags: [u8; 2],
    /// 1: the packet went from the connection's responder to its initiator. Then `rules` and
    /// `cookie` are still the initiator's egress and the responder's ingress.
    pub reply: u8,
    /// `Opened`, and `Dropped` by policy: what each direction's rules would say if the staged
    /// policies were in force, whatever the other direction says and whatever is in force.
    /// [`STAGED_NOT_ASKED`], [`STAGED_ALLOWS`] or the [`crate::reason::DropReason`]. Directions as
    /// in `cookie`.
    pub staged: [u8; 2],
    /// Zero.
    pub pad: u8,
    /// What the initiator sees in the responder's place: a Service's address and port; zero if it is no Service's.
    pub service: Translation,
}
crate::assert_size!(FlowEvent, 176);
