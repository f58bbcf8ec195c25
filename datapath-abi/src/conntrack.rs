//! Conntrack: one entry per connection, found from both directions under one key.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{addr::Addr, service::Translation};

/// Key of both conntrack tables. The two ends are put in order, so that both directions of a
/// connection have one key: `addr[0]` is the smaller one by ([`Addr::words`], port).
///
/// For ICMP echo the asker's port is the identifier and the other's the number after it, so that
/// a request the other way is another connection.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CtKey {
    /// The two addresses, smaller end first.
    pub addr: [Addr; 2],
    /// The two ports in host order, in the order of `addr`.
    pub port: [u16; 2],
    /// IANA protocol number.
    pub proto: u8,
    /// Zero.
    pub pad: [u8; 3],
}
crate::assert_size!(CtKey, 40);

/// Key of FRAGMENTS: what the fragments of one packet have in common (RFC 791, section 3.2; RFC 8200,
/// section 4.5).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FragmentKey {
    /// Source and destination address.
    pub addr: [Addr; 2],
    /// The header's identification, in memory order.
    pub id: u32,
    /// IPv4: IANA protocol number. IPv6: 0.
    pub proto: u8,
    /// Zero.
    pub pad: [u8; 3],
}
crate::assert_size!(FragmentKey, 40);

/// Value of FRAGMENTS: what the first fragment has said and later ones do not repeat.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FragmentEntry {
    /// Source and destination port as in the packet's [`CtKey`], before they were put in order.
    pub port: [u16; 2],
    /// IANA protocol number of the transport header.
    pub proto: u8,
    /// Zero.
    pub pad: [u8; 3],
}
crate::assert_size!(FragmentEntry, 8);

/// The initiator is `addr[1]` of the key rather than `addr[0]`.
pub const FLAG_INITIATOR_HIGH: u8 = 1 << 0;
/// Set up through the host's own stack: deliver through it, not by redirect.
pub const FLAG_VIA_STACK: u8 = 1 << 1;
/// The rules were changed and forbid it now: dropped in both directions, until they change
/// again or a packet opens the connection anew.
pub const FLAG_REVOKED: u8 = 1 << 2;
/// Picked up in the middle: the handshake was not seen.
pub const FLAG_MIDSTREAM: u8 = 1 << 3;
/// Its initiator speaks to a Service: see [`Translation`].
pub const FLAG_TRANSLATED: u8 = 1 << 4;
/// No connection, but the key that a Service's clients use for one: see [`Translation`]. Of everything else only
/// `last_seen` counts.
pub const FLAG_ALIAS: u8 = 1 << 5;

/// State of a connection. Crosses as `u8`. TCP names are RFC 9293's, seen from the middle.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum CtState {
    /// First packet seen, no answer yet. TCP: SYN, SCTP: INIT, else any packet.
    #[default]
    New = 0,
    /// TCP: SYN and SYN-ACK seen, the last ACK not yet.
    SynReceived = 1,
    /// Packets in both directions; TCP and SCTP: handshake done.
    Established = 2,
    /// TCP: FIN of one end. SCTP: SHUTDOWN.
    Closing = 3,
    /// TCP: FIN of both ends; waits for late packets. SCTP: SHUTDOWN-COMPLETE.
    TimeWait = 4,
    /// TCP: RST. SCTP: ABORT.
    Reset = 5,
}

impl TryFrom<u8> for CtState {
    type Error = u8;

    fn try_from(value: u8) -> Result<Self, u8> {
        Ok(match value {
            0 => Self::New,
            1 => Self::SynReceived,
            2 => Self::Established,
            3 => Self::Closing,
            4 => Self::TimeWait,
            5 => Self::Reset,
            other => return Err(other),
        })
    }
}

/// The two ends of a connection (initiator, responder) or of a packet (source, destination).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Ends {
    /// [`crate::endpoint::RulesPtr`] bits the verdict was reached under: the initiator's egress
    /// rules and the responder's ingress rules, 0 for an end that is not local.
    pub rules: [u64; 2],
    /// Slots, [`crate::endpoint::NO_SLOT`] for an end that is not local.
    pub slot: [u32; 2],
    /// Interfaces, 0 for an end that is not local. With the slot they name an endpoint: the
    /// kernel does not hand out an interface index again.
    pub ifindex: [u32; 2],
    /// Identities, see [`crate::identity`].
    pub identity: [u32; 2],
    /// Cookies of the deciding rules: egress of the initiator, ingress of the responder.
    pub cookie: [u32; 2],
}
crate::assert_size!(Ends, 48);

/// Packets and bytes of one direction.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Tally {
    /// Packets.
    pub packets: u64,
    /// Bytes, from the network header on.
    pub bytes: u64,
}
crate::assert_size!(Tally, 16);

/// Value of both conntrack tables. Where a field is a pair, `[0]` is the initiator's (or the
/// direction initiator to responder), `[1]` the responder's.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CtEntry {
    /// The two ends, and what their rules said.
    pub ends: Ends,
    /// `bpf_jiffies64`, low 32 bits, when the last packet came.
    pub last_seen: u32,
    /// A [`CtState`].
    pub state: u8,
    /// `FLAG_` bits.
    pub flags: u8,
    /// TCP flags seen by direction, as in the TCP header's byte 13.
    pub tcp_flags: [u8; 2],
    /// What one CPU alone counts of a direction, without a lock: see `owner`.
    pub own: [Tally; 2],
    /// What all others count, by locked additions. The totals are [`CtEntry::packets`] and
    /// [`CtEntry::bytes`].
    pub shared: [Tally; 2],
    /// `bpf_ktime_get_ns` of the first packet.
    pub created_ns: u64,
    /// `bpf_ktime_get_ns` of the last report, 0 before the first.
    pub reported_ns: u64,
    /// From the first packet to the first answer, microseconds; 0 if unknown.
    pub rtt_us: u32,
    /// 1: its end has been reported. A byte of its own: written by whoever sees the end, while
    /// others write `flags`.
    pub reported: u8,
    /// With [`FLAG_REVOKED`]: the [`crate::policy::Direction`] that forbids it, or
    /// [`crate::event::DIRECTION_NONE`].
    pub denied: u8,
    /// By direction the CPU that counts in `own`, as [`owner`] writes it: the one that has brought
    /// the first packet of that direction. Does not change while the entry is in CONNTRACK; in
    /// PENDING everybody counts in `shared`.
    pub owner: [u8; 2],
    /// SCTP: the verification tag of packets to the initiator and to the responder, as the handshake
    /// has set them (RFC 9260, section 5.1); 0 unknown.
    pub sctp_tag: [u32; 2],
    /// With [`FLAG_TRANSLATED`] or [`FLAG_ALIAS`].
    pub service: Translation,
}
crate::assert_size!(CtEntry, 176);

impl CtEntry {
    /// Packets by direction.
    #[inline(always)]
    pub const fn packets(&self) -> [u64; 2] {
        let ([a, b], [c, d]) = (self.own, self.shared);
        [a.packets.wrapping_add(c.packets), b.packets.wrapping_add(d.packets)]
    }

    /// Bytes by direction, from the network header on.
    #[inline(always)]
    pub const fn bytes(&self) -> [u64; 2] {
        let ([a, b], [c, d]) = (self.own, self.shared);
        [a.bytes.wrapping_add(c.bytes), b.bytes.wrapping_add(d.bytes)]
    }
}

/// A CPU as it stands in [`CtEntry::owner`]: its number and one. 0, which is nobody, for those
/// that have no place in eight bits.
#[inline(always)]
pub const fn owner(cpu: u32) -> u8 {
    if cpu < 255 { cpu as u8 + 1 } else { 0 }
}

/// Value of WAITING: how many connections that have not been set up yet one endpoint has in PENDING.
///
/// A connection is its initiator's, if that is local, else its responder's. Those of protocols with
/// a handshake count unless it was done once, others until they are answered. What was pushed out of
/// the table or has aged is found out by the sweep, which counts anew.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Waiting {
    /// How many wait. May be off by what came and went during a sweep, also below zero.
    pub count: i32,
    /// How many may; 0 before the first sweep: any number.
    pub limit: i32,
    /// The sweep's: `count` when it began.
    pub before: i32,
    /// The sweep's: found so far.
    pub found: i32,
}
crate::assert_size!(Waiting, 16);

/// How long an entry lives without a packet, in seconds. Defaults as in the kernel's own
/// conntrack (Documentation/networking/nf_conntrack-sysctl.rst) unless noted.
pub mod timeout {
    /// TCP before the answer (`nf_conntrack_tcp_timeout_syn_sent`).
    pub const TCP_NEW_S: u32 = 120;
    /// TCP between SYN-ACK and ACK (`nf_conntrack_tcp_timeout_syn_recv`).
    pub const TCP_SYN_RECEIVED_S: u32 = 60;
    /// TCP established: RFC 5382 REQ-5 asks for 2 h 4 min at least; Linux's keepalive is 2 h.
    pub const TCP_ESTABLISHED_S: u32 = 8000;
    /// TCP half closed (`nf_conntrack_tcp_timeout_fin_wait`).
    pub const TCP_CLOSING_S: u32 = 120;
    /// TCP both closed. Linux keeps TIME_WAIT for 60 s (`TCP_TIMEWAIT_LEN`).
    pub const TCP_TIME_WAIT_S: u32 = 60;
    /// TCP after RST (`nf_conntrack_tcp_timeout_close`).
    pub const TCP_RESET_S: u32 = 10;
    /// UDP and others without an answer (`nf_conntrack_udp_timeout`).
    pub const OTHER_NEW_S: u32 = 30;
    /// UDP and others with packets both ways (`nf_conntrack_udp_timeout_stream`).
    pub const OTHER_ESTABLISHED_S: u32 = 120;
    /// ICMP echo (`nf_conntrack_icmp_timeout`).
    pub const ICMP_S: u32 = 30;
    /// SCTP established (`nf_conntrack_sctp_timeout_established`, 210 s, heartbeats every 30 s).
    pub const SCTP_ESTABLISHED_S: u32 = 210;
    /// SCTP in any other state (`nf_conntrack_sctp_timeout_cookie_wait`).
    pub const SCTP_OTHER_S: u32 = 10;
}
