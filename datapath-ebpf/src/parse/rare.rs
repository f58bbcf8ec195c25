//! The long way to a packet's transport header: IPv4 options, IPv6 extension headers, fragments.
//! And the packet that an ICMP error quotes.
//!
//! Bounded, as the kernel's verifier wants it and as hostile packets ask for: what goes beyond
//! a bound is [`Kind::Extension`], which no isolated endpoint sends or receives.

use datapath_abi::{addr::Addr, conntrack::CtKey, reason::DropReason};

use super::{Bytes, ETH_LEN, Kind, Packet, Part, View, group_v6, is_extension, is_group_v4, mapped, proto, transport};
use crate::ct;

/// Most extension headers that are read: RFC 8200 names five that occur once each, and destination
/// options that occur twice.
const MAX_EXTENSIONS: usize = 8;
/// The same of a packet that an ICMP error quotes.
const MAX_QUOTED_EXTENSIONS: usize = 4;
/// Most IPv4 options that are read, paddings included.
const MAX_OPTIONS: usize = 12;
/// Farthest place of a transport header, from the start of the frame: 512 bytes of extensions.
const MAX_OFFSET: usize = ETH_LEN + 40 + 512;
/// How much of a packet [`rare`] and [`quote`] look at, at most: see the kernel half, which has to
/// make it linear.
pub const MAX_READ: usize = MAX_OFFSET + 8 + 40 + 8 + 8;

/// Bits of an offset that count: what the verifier needs to be told about a number that was
/// compared long ago.
const OFFSET_MASK: usize = 0x7ff;
const _: () = assert!(MAX_READ <= OFFSET_MASK);

/// Reads the rest of a packet of [`Kind::Rare`]. Returns the place of its transport header from
/// the start of the frame, 0 if it has none or none was found.
#[inline(always)]
pub fn rare<B: Bytes>(bytes: &B, packet: &mut Packet) -> Result<usize, DropReason> {
    packet.kind = Kind::Tracked;
    if packet.v4 { rare_v4(bytes, packet) } else { rare_v6(bytes, packet) }
}

#[inline(always)]
fn rare_v4<B: Bytes>(bytes: &B, packet: &mut Packet) -> Result<usize, DropReason> {
    let header = bytes.view(ETH_LEN, 20).ok_or(DropReason::TruncatedHeader)?;
    let words = (header.u8(0) & 0x0f) as usize;
    // A number of its own from here on, which no comparison of `words` says anything about: see `options`.
    let end = core::hint::black_box(ETH_LEN + words * 4);
    let ip_end = ETH_LEN + header.u16(2) as usize;
    let fragment = header.u16(6);
    let first_octet = header.u8(16);
    packet.id = header.u16(4) as u32;
    if fragment & 0x1fff != 0 {
        later(packet, (fragment & 0x1fff) << 3)?;
    } else if fragment & 0x2000 != 0 {
        packet.part = Part::First;
    }
    if words > 5 && !options(bytes, words)? {
        packet.kind = Kind::Extension;
        return Ok(0);
    }
    if packet.part as u8 == Part::Later as u8 {
        return Ok(0);
    }
    if is_group_v4(first_octet) {
        packet.kind = Kind::Multicast;
    }
    let at = end & OFFSET_MASK;
    transport(bytes, at, packet)?;
    first(packet, at, ip_end)?;
    Ok(at)
}

/// A fragment without transport header, `offset` bytes into its packet. Of IPv6, what it says of the transport header
/// counts for nothing, the first fragment's word holds (RFC 8200, section 4.5): see [`overlaps_tcp`].
#[inline(always)]
fn later(packet: &mut Packet, offset: u16) -> Result<(), DropReason> {
    packet.part = Part::Later;
    packet.kind = Kind::Fragment;
    packet.icmp = offset.to_be_bytes();
    if overlaps_tcp(packet, packet.proto) { Err(DropReason::TruncatedHeader) } else { Ok(()) }
}

/// Whether a later fragment would put other flags into the TCP header that the first one has shown (RFC 3128). `proto`:
/// what that has shown.
#[inline(always)]
pub fn overlaps_tcp(later: &Packet, proto: u8) -> bool {
    proto == proto::TCP && u16::from_be_bytes(later.icmp) < TCP_HEADER
}

/// A first fragment has the transport header in it (RFC 1858, RFC 7112): itself, and not what
/// follows the IP packet in its frame and goes no further.
#[inline(always)]
fn first(packet: &Packet, at: usize, ip_end: usize) -> Result<(), DropReason> {
    let length = match packet.proto {
        proto::TCP => TCP_HEADER as usize,
        proto::UDP | proto::ICMP | proto::ICMPV6 => 8,
        proto::SCTP => 16,
        _ => 0,
    };
    if packet.part as u8 == Part::First as u8 && at + length > ip_end {
        return Err(DropReason::TruncatedHeader);
    }
    Ok(())
}

/// Least length of a TCP header (RFC 9293, section 3.1).
const TCP_HEADER: u16 = 20;

/// RFC 791, section 3.1. False: a source route, by which the packet goes to other places than its
/// destination (RFC 7126, section 4.3 and 4.4), or more options than we read. `words` is the header's length.
///
/// Places are compared with the end in words, not bytes, and by a number that no place is made of. Verifiers up to
/// 6.12 follow branches that cannot be, and make a number of which comparisons say the impossible useless for pointers:
/// 6.1 because it does not compare a constant with a range, 6.12 because it does not see that nothing is left of a
/// range in which the number is a multiple of four ("REG INVARIANTS VIOLATION").
#[inline(always)]
fn options<B: Bytes>(bytes: &B, words: usize) -> Result<bool, DropReason> {
    let is_over = |at: usize| (at - ETH_LEN) >> 2 >= words;
    let mut at = ETH_LEN + 20;
    for _ in 0..MAX_OPTIONS {
        if is_over(at) {
            return Ok(true);
        }
        let option = bytes.view(at & OFFSET_MASK, 1).ok_or(DropReason::TruncatedHeader)?;
        match option.u8(0) {
            // End of options.
            0 => return Ok(true),
            // No operation.
            1 => at += 1,
            // Loose and strict source route.
            131 | 137 => return Ok(false),
            _ => {
                let option = bytes.view(at & OFFSET_MASK, 2).ok_or(DropReason::TruncatedHeader)?;
                let length = option.u8(1) as usize;
                if length < 2 {
                    return Err(DropReason::TruncatedHeader);
                }
                at += length;
            }
        }
    }
    Ok(is_over(at))
}

#[inline(always)]
fn rare_v6<B: Bytes>(bytes: &B, packet: &mut Packet) -> Result<usize, DropReason> {
    let header = bytes.view(ETH_LEN, 40).ok_or(DropReason::TruncatedHeader)?;
    let first_octet = header.u8(24);
    let ip_end = ETH_LEN + 40 + header.u16(4) as usize;
    let mut next = packet.proto;
    let mut at = ETH_LEN + 40;
    let mut by_hop = false;
    let mut in_parts = false;
    for place in 0..MAX_EXTENSIONS {
        if !is_extension(next) {
            break;
        }
        let readable = match next {
            // Hop-by-hop options come first or not at all (RFC 8200, section 4.1).
            0 => place == 0,
            // With segments left the packet goes somewhere else than its header says.
            43 => bytes.view(at & OFFSET_MASK, 4).ok_or(DropReason::TruncatedHeader)?.u8(3) == 0,
            60 => true,
            44 => {
                let fragment = bytes.view(at & OFFSET_MASK, 8).ok_or(DropReason::TruncatedHeader)?;
                let word = fragment.u16(2);
                if in_parts {
                    packet.kind = Kind::Extension;
                    return Ok(0);
                }
                in_parts = true;
                packet.id = fragment.u32(4);
                next = fragment.u8(0);
                at += 8;
                if word & 0xfff8 != 0 {
                    packet.proto = next;
                    later(packet, word & 0xfff8)?;
                    return Ok(0);
                }
                // Neither offset nor more: an atomic fragment, which is whole (RFC 6946).
                if word & 1 != 0 {
                    packet.part = Part::First;
                }
                continue;
            }
            _ => false,
        };
        if !readable {
            packet.kind = Kind::Extension;
            return Ok(0);
        }
        let extension = bytes.view(at & OFFSET_MASK, 2).ok_or(DropReason::TruncatedHeader)?;
        by_hop |= next == 0;
        next = extension.u8(0);
        at += (extension.u8(1) as usize + 1) * 8;
        if at > MAX_OFFSET {
            packet.kind = Kind::Extension;
            return Ok(0);
        }
    }
    if is_extension(next) {
        packet.kind = Kind::Extension;
        return Ok(0);
    }
    packet.proto = next;
    let at = at & OFFSET_MASK;
    transport(bytes, at, packet)?;
    first(packet, at, ip_end)?;
    // Listener reports carry a router alert by hop (RFC 2710, section 3; RFC 3810, section 5).
    if by_hop
        && packet.kind as u8 == Kind::IcmpOther as u8
        && packet.icmp[1] == 0
        && matches!(packet.icmp[0], 130..=132 | 143)
    {
        packet.kind = Kind::Neighbour;
    }
    if packet.part as u8 != Part::Whole as u8 && matches!(packet.kind, Kind::Neighbour | Kind::Router) {
        // RFC 6980: in pieces it would get past whoever looks at it.
        return Err(DropReason::ForgedNeighbourDiscovery);
    }
    group_v6(packet, first_octet);
    Ok(at)
}

/// What an ICMP error says about a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quoted {
    /// The end that the error comes from, as far as the connection is concerned, is `addr[1]` of
    /// its key: whom the quoted packet was sent to.
    pub greater: bool,
    /// That end is who has sent the error. If not, a router on the way has.
    pub by_end: bool,
    /// Place of the quoted packet's transport header from the start of the frame.
    pub place: usize,
}

/// Reads the packet that an ICMP error at `at` quotes (RFC 792; RFC 4443, section 2.4) into `key`,
/// the key of its connection. `None`: not enough is quoted, or the error goes to somebody else than
/// the quoted packet's sender.
#[inline(always)]
pub fn quote<B: Bytes>(bytes: &B, at: usize, packet: &Packet, key: &mut CtKey) -> Option<Quoted> {
    let inner = (at + 8) & OFFSET_MASK;
    let (addr, proto, inner) = if packet.v4 {
        let header = bytes.view(inner, 20)?;
        let header_len = ((header.u8(0) & 0x0f) as usize) * 4;
        // A later fragment quotes no ports.
        if header.u8(0) >> 4 != 4 || header_len < 20 || header.u16(6) & 0x1fff != 0 {
            return None;
        }
        ([mapped(header.u32(12)), mapped(header.u32(16))], header.u8(9), inner + header_len)
    } else {
        let header = bytes.view(inner, 40)?;
        if header.u8(0) >> 4 != 6 {
            return None;
        }
        let addr = [Addr { words: [header.u64(8), header.u64(16)] }, Addr { words: [header.u64(24), header.u64(32)] }];
        let mut next = header.u8(6);
        let mut end = inner + 40;
        for _ in 0..MAX_QUOTED_EXTENSIONS {
            match next {
                // Options of both kinds, routes: the key is of who sent it and whom it was going to, as read above.
                0 | 43 | 60 => {
                    let extension = bytes.view(end & OFFSET_MASK, 4)?;
                    // With segments left, its destination is not the connection's.
                    if next == 43 && extension.u8(3) != 0 {
                        return None;
                    }
                    next = extension.u8(0);
                    end += (extension.u8(1) as usize + 1) * 8;
                }
                // Path MTU discovery of fragmented packets: the first fragment is quoted.
                44 => {
                    let fragment = bytes.view(end & OFFSET_MASK, 8)?;
                    if fragment.u16(2) & 0xfff8 != 0 {
                        return None;
                    }
                    next = fragment.u8(0);
                    end += 8;
                }
                _ => break,
            }
            if end > MAX_OFFSET {
                return None;
            }
        }
        if is_extension(next) {
            return None;
        }
        (addr, next, end)
    };
    if addr[0] != packet.addr[1] {
        return None;
    }
    let port = match proto {
        proto::TCP | proto::UDP | proto::SCTP => {
            let header = bytes.view(inner & OFFSET_MASK, 8)?;
            [header.u16(0), header.u16(2)]
        }
        proto::ICMP | proto::ICMPV6 => {
            let header = bytes.view(inner & OFFSET_MASK, 8)?;
            let id = header.u16(4);
            // As in `echo_request` and `echo_reply`.
            match (packet.v4, header.u8(0)) {
                (true, 8) | (false, 128) => [id, id.wrapping_add(1)],
                (true, 0) | (false, 129) => [id.wrapping_add(1), id],
                _ => return None,
            }
        }
        _ => [0; 2],
    };
    let greater = !ct::key_of(&addr, port, proto, key);
    Some(Quoted { greater, by_end: addr[1] == packet.addr[0], place: inner & OFFSET_MASK })
}
