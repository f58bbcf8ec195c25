//! DNS messages of pods, as a ring buffer of their own carries them: what a pod has asked, and what has come back on the
//! connection that it has opened for it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{addr::Addr, service::Translation};

/// Ports that one can have listened to.
pub const PORTS: usize = 4;

/// Most bytes of one packet that are taken: what DNS over UDP should not exceed (DNS flag day 2020), and so few that a packet
/// of it is never split.
pub const MOST_BYTES: usize = 1232;

/// The ports as one word, which the programs are loaded with: the first in the lowest bits, 0 where there is none.
pub const fn ports(ports: [u16; PORTS]) -> u64 {
    ports[0] as u64 | (ports[1] as u64) << 16 | (ports[2] as u64) << 32 | (ports[3] as u64) << 48
}

/// What is known of a packet. Pairs are `[initiator, responder]` of the connection, whoever has sent it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct DnsPacket {
    /// `bpf_ktime_get_ns`: CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// Of the connection: with the five-tuple it names the connection.
    pub created_ns: u64,
    /// Addresses.
    pub addr: [Addr; 2],
    /// What the initiator sees in the responder's place: a Service's address and port; zero if it is no Service's.
    pub service: Translation,
    /// Identities.
    pub identity: [u32; 2],
    /// Slots, 0 where not local. The initiator always is.
    pub slot: [u32; 2],
    /// Ports in host order.
    pub port: [u16; 2],
    /// Bytes behind the transport header.
    pub length: u32,
    /// TCP: the sequence number of the first of them.
    pub seq: u32,
    /// Interface the packet was seen at.
    pub ifindex: u32,
    /// How many of them follow here: at most [`MOST_BYTES`].
    pub taken: u16,
    /// IANA protocol number: UDP or TCP.
    pub proto: u8,
    /// 1: from the responder to the initiator.
    pub reply: u8,
    /// A [`crate::event::Hook`].
    pub hook: u8,
    /// 1: the first fragment of a packet; the rest is not told.
    pub fragment: u8,
    /// Zero.
    pub pad: [u8; 2],
}
crate::assert_size!(DnsPacket, 112);

/// A packet with its bytes. In the ring buffer only those are there that were taken.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct DnsEvent {
    /// What is known of it.
    pub packet: DnsPacket,
    /// What stands behind the transport header.
    pub bytes: [u8; MOST_BYTES],
}
crate::assert_size!(DnsEvent, 1344);
