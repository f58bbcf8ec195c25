//! Bytes to a [`Packet`] description, or the reason why there is none.
//!
//! Written against two small traits, so that the same code reads a slice in a test and a
//! packet pointer in the kernel. One implementation serves IPv4 and IPv6. [`ip`] reads what nearly
//! every packet is made of; what is rarer (options, extension headers, fragments, the packet that
//! an ICMP error quotes) it leaves to [`rare`] and [`quote`].

mod rare;

use datapath_abi::{addr::Addr, reason::DropReason};

pub use self::rare::{MAX_READ, Quoted, overlaps_tcp, quote, rare};

/// Length of an Ethernet header.
pub const ETH_LEN: usize = 14;
/// EtherType of IPv4 (IEEE 802 numbers).
pub const ETH_P_IP: u16 = 0x0800;
/// EtherType of ARP.
pub const ETH_P_ARP: u16 = 0x0806;
/// EtherType of IPv6.
pub const ETH_P_IPV6: u16 = 0x86dd;

/// IANA protocol numbers.
pub mod proto {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// TCP header byte 13 (RFC 9293, section 3.1).
pub mod tcp {
    /// FIN.
    pub const FIN: u8 = 0x01;
    /// SYN.
    pub const SYN: u8 = 0x02;
    /// RST.
    pub const RST: u8 = 0x04;
    /// ACK.
    pub const ACK: u8 = 0x10;
}

/// SCTP chunk types (RFC 9260, section 3.2).
pub mod sctp {
    /// INIT.
    pub const INIT: u8 = 1;
    /// ABORT.
    pub const ABORT: u8 = 6;
    /// SHUTDOWN.
    pub const SHUTDOWN: u8 = 7;
    /// COOKIE ECHO.
    pub const COOKIE_ECHO: u8 = 10;
    /// SHUTDOWN COMPLETE.
    pub const SHUTDOWN_COMPLETE: u8 = 14;
}

/// A stretch of a packet that is known to be there. Reading beyond the length it was asked for
/// is a programming error: a test panics, the kernel's verifier refuses the program.
pub trait View: Copy {
    /// One byte.
    fn u8(self, at: usize) -> u8;
    /// Two bytes in network order, as a number.
    fn u16(self, at: usize) -> u16;
    /// Four bytes in memory order.
    fn u32(self, at: usize) -> u32;
    /// Eight bytes in memory order.
    fn u64(self, at: usize) -> u64;
}

/// A packet that starts with its Ethernet header.
pub trait Bytes {
    /// What [`Bytes::view`] gives.
    type View: View;
    /// `length` bytes from `offset` on, if the packet has them.
    fn view(&self, offset: usize, length: usize) -> Option<Self::View>;
    /// Length of the whole packet, Ethernet header included.
    fn length(&self) -> u32;
}

/// What can be said about a packet's transport header.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Ports known, or a protocol without ports: has a conntrack key.
    Tracked,
    /// Not read yet: [`rare`] has to look.
    Rare,
    /// ICMP or ICMPv6 error.
    IcmpError,
    /// Has the key of a connection that it can belong to and cannot open: an ICMP error with that of
    /// the packet it quotes (see [`quote`]), a later fragment with that of its first one.
    Related,
    /// ICMP or ICMPv6 that is neither echo, error nor neighbour discovery.
    IcmpOther,
    /// Neighbour solicitation or advertisement, router solicitation, MLD.
    Neighbour,
    /// Router advertisement or redirect, of either family.
    Router,
    /// A later fragment whose first one is not known: no ports.
    Fragment,
    /// The way to the transport header could not be read to its end, or the packet goes to
    /// another destination first: IPv6 extension headers, IPv4 source routes.
    Extension,
    /// Multicast or broadcast destination.
    Multicast,
}

/// Whether a packet is a fragment.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// It is not.
    Whole,
    /// The first of several: has the transport header.
    First,
    /// Any other: has no transport header.
    Later,
}

/// One IP packet. Laid out without padding, as the kernel's verifier wants it, and so that it begins with what
/// a [`datapath_abi::conntrack::CtKey`] is made of: see [`crate::ct::put_in_order`].
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    /// Source and destination address.
    pub addr: [Addr; 2],
    /// Source and destination port in host order; ICMP echo: see [`echo_request`].
    pub port: [u16; 2],
    /// IANA protocol number.
    pub proto: u8,
    /// Zero.
    pub pad: [u8; 3],
    /// Of a fragment: the header's identification, which all parts share. Of SCTP that is whole, in memory order: the
    /// verification tag, of INIT the initiate tag.
    pub id: u32,
    /// TCP flags; SCTP: type of the first chunk.
    pub flags: u8,
    /// ICMP type and code. SCTP: 0, flags of the first chunk. A later fragment: its offset in bytes, big-endian.
    pub icmp: [u8; 2],
    /// What kind of packet it is.
    pub kind: Kind,
    /// Whether it is IPv4.
    pub v4: bool,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Whether it is a fragment.
    pub part: Part,
    /// Zero.
    pub end: u8,
    /// Place of the transport header from the start of the frame, where that is not behind a plain IP header: 0 there.
    pub transport: u16,
    /// Place of the transport header of the packet that an ICMP error quotes; 0 none.
    pub quoted: u16,
}
datapath_abi::assert_size!(Packet, 56);

const _: () = {
    use core::mem::offset_of;

    use datapath_abi::conntrack::CtKey;
    assert!(offset_of!(Packet, addr) == offset_of!(CtKey, addr));
    assert!(offset_of!(Packet, port) == offset_of!(CtKey, port));
    assert!(offset_of!(Packet, proto) == offset_of!(CtKey, proto));
    assert!(offset_of!(Packet, pad) == offset_of!(CtKey, pad));
};

impl Packet {
    /// Nothing yet.
    pub const EMPTY: Packet = Packet {
        addr: [Addr::ZERO; 2],
        port: [0; 2],
        proto: 0,
        pad: [0; 3],
        flags: 0,
        icmp: [0; 2],
        kind: Kind::Tracked,
        v4: false,
        ttl: 0,
        part: Part::Whole,
        end: 0,
        transport: 0,
        quoted: 0,
        id: 0,
    };
}

/// Reads an IP packet into `packet`, which must be [`Packet::EMPTY`] and is of no use after an
/// error. `ethertype` is the Ethernet header's. Filled in place: the kernel's stack is small.
/// A packet of [`Kind::Rare`] is not read to its end.
#[inline(always)]
pub fn ip<B: Bytes>(bytes: &B, ethertype: u16, packet: &mut Packet) -> Result<(), DropReason> {
    match ethertype {
        ETH_P_IP => v4(bytes, packet),
        ETH_P_IPV6 => v6(bytes, packet),
        _ => Err(DropReason::UnsupportedL3),
    }
}

/// IPv4, RFC 791.
#[inline(always)]
fn v4<B: Bytes>(bytes: &B, packet: &mut Packet) -> Result<(), DropReason> {
    let header = bytes.view(ETH_LEN, 20).ok_or(DropReason::TruncatedHeader)?;
    let version_ihl = header.u8(0);
    let header_len = ((version_ihl & 0x0f) as usize) * 4;
    let total_len = header.u16(2) as u32;
    let fragment = header.u16(6);
    if version_ihl >> 4 != 4 || header_len < 20 {
        return Err(DropReason::TruncatedHeader);
    }
    // A total length of zero is what a GSO packet beyond 64 KiB carries (BIG TCP).
    if total_len != 0
        && ((total_len as usize) < header_len || total_len > bytes.length().saturating_sub(ETH_LEN as u32))
    {
        return Err(DropReason::TruncatedHeader);
    }
    packet.addr[0] = mapped(header.u32(12));
    packet.addr[1] = mapped(header.u32(16));
    packet.proto = header.u8(9);
    packet.v4 = true;
    packet.ttl = header.u8(8);
    // More-fragments or an offset; the reserved bit and don't-fragment are no concern of ours.
    if fragment & 0x3fff != 0 || header_len != 20 {
        packet.kind = Kind::Rare;
        return Ok(());
    }
    if is_group_v4(header.u8(16)) {
        packet.kind = Kind::Multicast;
    }
    transport(bytes, ETH_LEN + 20, packet)
}

/// By the first octet of the destination: 224.0.0.0/4 (RFC 5771) and 255.255.255.255 (RFC 919);
/// 240.0.0.0/4 is reserved.
#[inline(always)]
fn is_group_v4(first: u8) -> bool {
    first >= 224
}

/// IPv6, RFC 8200.
#[inline(always)]
fn v6<B: Bytes>(bytes: &B, packet: &mut Packet) -> Result<(), DropReason> {
    let header = bytes.view(ETH_LEN, 40).ok_or(DropReason::TruncatedHeader)?;
    if header.u8(0) >> 4 != 6 {
        return Err(DropReason::TruncatedHeader);
    }
    let payload_len = header.u16(4) as u32;
    // Zero is a jumbogram or BIG TCP.
    if payload_len != 0 && payload_len > bytes.length().saturating_sub(ETH_LEN as u32 + 40) {
        return Err(DropReason::TruncatedHeader);
    }
    let next = header.u8(6);
    packet.addr[0] = Addr { words: [header.u64(8), header.u64(16)] };
    packet.addr[1] = Addr { words: [header.u64(24), header.u64(32)] };
    packet.proto = next;
    packet.ttl = header.u8(7);
    // An IPv4-mapped address is not to be seen on the wire (RFC 4291, 2.5.5.2) and would be
    // taken for the IPv4 address here.
    if packet.addr[0].is_v4() || packet.addr[1].is_v4() {
        return Err(DropReason::Invalid);
    }
    if is_extension(next) {
        packet.kind = Kind::Rare;
        return Ok(());
    }
    transport(bytes, ETH_LEN + 40, packet)?;
    group_v6(packet, header.u8(24));
    Ok(())
}

/// Hop-by-hop options, routing, fragment, no next header, destination options, mobility, HIP, shim6
/// (IANA, IPv6 extension header types). ESP and AH are protocols of their own here, as in IPv4.
#[inline(always)]
fn is_extension(next: u8) -> bool {
    matches!(next, 0 | 43 | 44 | 59 | 60 | 135 | 139 | 140)
}

/// By the first octet of the destination: ff00::/8 (RFC 4291, 2.7). Neighbour discovery goes there
/// too and has been recognised.
#[inline(always)]
fn group_v6(packet: &mut Packet, first: u8) {
    if first == 0xff && !matches!(packet.kind, Kind::Neighbour | Kind::Router) {
        packet.kind = Kind::Multicast;
    }
}

/// The transport header at `offset`.
#[inline(always)]
fn transport<B: Bytes>(bytes: &B, offset: usize, packet: &mut Packet) -> Result<(), DropReason> {
    match packet.proto {
        proto::TCP => {
            // Twenty bytes are the least a TCP header has (RFC 9293, section 3.1).
            let header = bytes.view(offset, 20).ok_or(DropReason::TruncatedHeader)?;
            if header.u8(12) >> 4 < 5 {
                return Err(DropReason::TruncatedHeader);
            }
            packet.port[0] = header.u16(0);
            packet.port[1] = header.u16(2);
            packet.flags = header.u8(13);
        }
        proto::UDP => {
            let header = bytes.view(offset, 8).ok_or(DropReason::TruncatedHeader)?;
            packet.port[0] = header.u16(0);
            packet.port[1] = header.u16(2);
        }
        proto::SCTP => {
            // Common header and the first chunk's (RFC 9260, section 3).
            let header = bytes.view(offset, 16).ok_or(DropReason::TruncatedHeader)?;
            packet.port[0] = header.u16(0);
            packet.port[1] = header.u16(2);
            packet.flags = header.u8(12);
            if packet.part as u8 == Part::Whole as u8 {
                packet.id = header.u32(4);
                // The T bit of a chunk that ends an association (section 8.5.1).
                packet.icmp[1] = header.u8(13);
                if packet.flags == sctp::INIT {
                    // Section 3.3.2. Cut short it begins nothing that the ends would know of.
                    packet.id = match bytes.view(offset + 16, 4) {
                        Some(tag) => tag.u32(0),
                        None => 0,
                    };
                }
            }
        }
        proto::ICMP if packet.v4 => {
            let header = bytes.view(offset, 8).ok_or(DropReason::TruncatedHeader)?;
            packet.icmp = [header.u8(0), header.u8(1)];
            match packet.icmp[0] {
                // Echo reply and echo (RFC 792).
                8 => echo_request(packet, header.u16(4)),
                0 => echo_reply(packet, header.u16(4)),
                _ if packet.kind as u8 == Kind::Multicast as u8 => {}
                // Unreachable, source quench, time exceeded, parameter problem.
                3 | 4 | 11 | 12 => packet.kind = Kind::IcmpError,
                // Redirect (RFC 792), router advertisement (RFC 1256).
                5 | 9 => packet.kind = Kind::Router,
                _ => packet.kind = Kind::IcmpOther,
            }
        }
        proto::ICMPV6 if !packet.v4 => {
            let header = bytes.view(offset, 8).ok_or(DropReason::TruncatedHeader)?;
            packet.icmp = [header.u8(0), header.u8(1)];
            match packet.icmp[0] {
                // Echo request and reply (RFC 4443, section 4).
                128 => echo_request(packet, header.u16(4)),
                129 => echo_reply(packet, header.u16(4)),
                // 0 to 127 are errors (RFC 4443, section 2.1).
                0..=127 => packet.kind = Kind::IcmpError,
                // RFC 4861, section 4: valid only with hop limit 255, that is from this link.
                133 | 135 | 136 if packet.ttl == 255 => packet.kind = Kind::Neighbour,
                134 | 137 => packet.kind = Kind::Router,
                133 | 135 | 136 => return Err(DropReason::ForgedNeighbourDiscovery),
                _ => packet.kind = Kind::IcmpOther,
            }
        }
        // Protocols without ports we know: tracked by addresses and protocol.
        _ => {}
    }
    Ok(())
}

/// The asker's port is the identifier, the other's the number after it: so a request the other
/// way, whatever its identifier, never has the ports of an answer.
#[inline(always)]
fn echo_request(packet: &mut Packet, identifier: u16) {
    packet.port[0] = identifier;
    packet.port[1] = identifier.wrapping_add(1);
}

/// See [`echo_request`].
#[inline(always)]
fn echo_reply(packet: &mut Packet, identifier: u16) {
    packet.port[0] = identifier.wrapping_add(1);
    packet.port[1] = identifier;
}

/// Four bytes in memory order to a mapped address.
#[inline(always)]
fn mapped(word: u32) -> Addr {
    let [a, b, c, d] = word.to_ne_bytes();
    Addr::from_v4([a, b, c, d])
}

/// An ARP packet's sender, RFC 826 for Ethernet and IPv4.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arp {
    /// Sender hardware address.
    pub mac: [u8; 6],
    /// Sender protocol address; `0.0.0.0` in a probe (RFC 5227, section 1.1).
    pub addr: Addr,
}

/// Reads an ARP packet.
#[inline(always)]
pub fn arp<B: Bytes>(bytes: &B) -> Result<Arp, DropReason> {
    let header = bytes.view(ETH_LEN, 28).ok_or(DropReason::TruncatedHeader)?;
    // Ethernet, IPv4, lengths 6 and 4.
    if header.u16(0) != 1 || header.u16(2) != ETH_P_IP || header.u16(4) != 0x0604 {
        return Err(DropReason::UnsupportedL3);
    }
    Ok(Arp { mac: mac(header, 8), addr: mapped(header.u32(14)) })
}

/// Six bytes from `at`.
#[inline(always)]
pub fn mac<V: View>(view: V, at: usize) -> [u8; 6] {
    let [a, b, c, d] = view.u32(at).to_ne_bytes();
    let [e, f] = view.u16(at + 4).to_be_bytes();
    [a, b, c, d, e, f]
}

/// Six bytes from `at` as one word of memory, zero above; reads eight.
#[inline(always)]
pub fn mac_word<V: View>(view: V, at: usize) -> u64 {
    view.u64(at) & u64::from_ne_bytes([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0])
}

/// A slice as packet, for tests, fuzzing and the model.
#[derive(Clone, Copy, Debug)]
pub struct Slice<'a>(pub &'a [u8]);

impl View for &[u8] {
    fn u8(self, at: usize) -> u8 {
        self[at]
    }

    fn u16(self, at: usize) -> u16 {
        u16::from_be_bytes([self[at], self[at + 1]])
    }

    fn u32(self, at: usize) -> u32 {
        u32::from_ne_bytes([self[at], self[at + 1], self[at + 2], self[at + 3]])
    }

    fn u64(self, at: usize) -> u64 {
        let mut octets = [0; 8];
        octets.copy_from_slice(&self[at..at + 8]);
        u64::from_ne_bytes(octets)
    }
}

impl<'a> Bytes for Slice<'a> {
    type View = &'a [u8];

    fn view(&self, offset: usize, length: usize) -> Option<&'a [u8]> {
        self.0.get(offset..offset + length)
    }

    fn length(&self) -> u32 {
        self.0.len() as u32
    }
}

#[cfg(test)]
mod tests;
