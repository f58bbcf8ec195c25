//! What may come in from outside the node: bytes to a [`Look`], or the reason to drop the frame before the host's stack
//! has seen it. Only what is plainly wrong, or from somebody who is not wanted, is refused; whatever is not understood
//! goes on to those who know more.

use datapath_abi::{addr::Addr, reason::DropReason};

use crate::parse::{Bytes, ETH_LEN, ETH_P_IP, ETH_P_IPV6, View, proto, tcp};

/// EtherTypes of a VLAN tag: IEEE 802.1Q, and the outer one of two.
const ETH_P_8021Q: u16 = 0x8100;
const ETH_P_8021AD: u16 = 0x88a8;
/// Length of a tag.
const TAG_LEN: usize = 4;
/// URG, ACK, PSH, RST, SYN, FIN: without the bits of congestion control, which say nothing of what a segment is for.
const CONTROL: u8 = 0x3f;

/// What was read of a frame before it was decided; what was not is zero.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Look {
    /// Source and destination.
    pub addr: [Addr; 2],
    /// Ports in host order; ICMP: type and code.
    pub port: [u16; 2],
    /// IANA protocol number; of IPv6 what the fixed header says comes next.
    pub proto: u8,
    /// TCP flags.
    pub flags: u8,
    /// Zero.
    pub pad: [u8; 2],
}
datapath_abi::assert_size!(Look, 40);

impl Look {
    /// Nothing yet.
    pub const EMPTY: Look = Look { addr: [Addr::ZERO; 2], port: [0; 2], proto: 0, flags: 0, pad: [0; 2] };
}

/// Decides about a frame. `look` must be [`Look::EMPTY`]; `denied` says whether a source is in the deny list, and is
/// asked once at most.
///
/// # Errors
/// Why the frame is dropped. The IPv4 header's checksum is not verified: the host's stack does so for what it takes.
#[inline(always)]
pub fn judge<B: Bytes>(bytes: &B, look: &mut Look, denied: impl Fn(Addr) -> bool) -> Result<(), DropReason> {
    let ethernet = bytes.view(0, ETH_LEN).ok_or(DropReason::TruncatedHeader)?;
    let (mut at, mut ethertype) = (ETH_LEN, ethernet.u16(12));
    if is_tag(ethertype) {
        ethertype = bytes.view(at, TAG_LEN).ok_or(DropReason::TruncatedHeader)?.u16(2);
        at += TAG_LEN;
        if is_tag(ethertype) {
            ethertype = bytes.view(at, TAG_LEN).ok_or(DropReason::TruncatedHeader)?.u16(2);
            at += TAG_LEN;
        }
    }
    let segment = match ethertype {
        ETH_P_IP => v4(bytes, at, look)?,
        ETH_P_IPV6 => v6(bytes, at, look)?,
        _ => return Ok(()),
    };
    if let Some(segment) = &segment {
        ports(bytes, segment, look);
    }
    if denied(look.addr[0]) {
        return Err(DropReason::DenyList);
    }
    if look.proto != proto::TCP {
        return Ok(());
    }
    // The land attack. Not for other protocols: BFD's echo (RFC 5881) may come back to whom it is from.
    if look.addr[0] == look.addr[1] {
        return Err(DropReason::Invalid);
    }
    match segment {
        Some(segment) => transmission(bytes, &segment, look),
        None => Ok(()),
    }
}

#[inline(always)]
fn is_tag(ethertype: u16) -> bool {
    ethertype == ETH_P_8021Q || ethertype == ETH_P_8021AD
}

/// Where a packet that is no fragment has its transport header, and how many bytes there are from there on.
#[derive(Clone, Copy)]
struct Segment {
    at: usize,
    length: u32,
}

/// IPv4, RFC 791. `None`: a fragment, of which no transport header is read.
#[inline(always)]
fn v4<B: Bytes>(bytes: &B, at: usize, look: &mut Look) -> Result<Option<Segment>, DropReason> {
    let header = bytes.view(at, 20).ok_or(DropReason::TruncatedHeader)?;
    let available = bytes.length().wrapping_sub(at as u32);
    let header_len = (header.u8(0) & 0x0f) as u32 * 4;
    let total = header.u16(2) as u32;
    look.addr = [mapped(header.u32(12)), mapped(header.u32(16))];
    look.proto = header.u8(9);
    // A total length of zero is what a packet beyond 64 KiB carries inside the kernel (BIG TCP).
    let length = if total == 0 { available } else { total };
    if header.u8(0) >> 4 != 4 || header_len < 20 || length < header_len || length > available {
        return Err(DropReason::TruncatedHeader);
    }
    // 127.0.0.0/8, 224.0.0.0/4 and the broadcast address. 0.0.0.0 asks for an address (RFC 2131), and 240.0.0.0/4 is
    // in use here and there.
    let first = header.u8(12);
    if first == 127 || first & 0xf0 == 0xe0 || header.u32(12) == u32::MAX {
        return Err(DropReason::Invalid);
    }
    // More-fragments or an offset.
    if header.u16(6) & 0x3fff != 0 {
        return Ok(None);
    }
    Ok(Some(Segment { at: at + header_len as usize, length: length - header_len }))
}

/// IPv6, RFC 8200.
#[inline(always)]
fn v6<B: Bytes>(bytes: &B, at: usize, look: &mut Look) -> Result<Option<Segment>, DropReason> {
    let header = bytes.view(at, 40).ok_or(DropReason::TruncatedHeader)?;
    let available = bytes.length().wrapping_sub(at as u32).wrapping_sub(40);
    let payload = header.u16(4) as u32;
    look.addr = [Addr { words: [header.u64(8), header.u64(16)] }, Addr { words: [header.u64(24), header.u64(32)] }];
    look.proto = header.u8(6);
    // A payload length of zero: a jumbogram (RFC 2675), or BIG TCP.
    let length = if payload == 0 { available } else { payload };
    if header.u8(0) >> 4 != 6 || length > available {
        return Err(DropReason::TruncatedHeader);
    }
    // ::1, ff00::/8, and IPv4-mapped addresses, which are for inside a host (RFC 4291, section 2.5.5.2) and would be
    // looked up as the IPv4 address they name. `::` asks whether an address is free.
    let source = look.addr[0];
    if source == LOOPBACK || header.u8(8) == 0xff || source.is_v4() {
        return Err(DropReason::Invalid);
    }
    Ok(Some(Segment { at: at + 40, length }))
}

const LOOPBACK: Addr = Addr::from_octets([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

#[inline(always)]
fn mapped(word: u32) -> Addr {
    Addr::from_v4(word.to_ne_bytes())
}

/// For the record of a drop.
#[inline(always)]
fn ports<B: Bytes>(bytes: &B, segment: &Segment, look: &mut Look) {
    let Some(header) = bytes.view(segment.at, 4) else { return };
    match look.proto {
        proto::TCP => {
            look.port = [header.u16(0), header.u16(2)];
            if let Some(header) = bytes.view(segment.at, 14) {
                look.flags = header.u8(13);
            }
        }
        proto::UDP | proto::SCTP => look.port = [header.u16(0), header.u16(2)],
        proto::ICMP | proto::ICMPV6 => look.port = [header.u8(0) as u16, header.u8(1) as u16],
        _ => {}
    }
}

/// TCP, RFC 9293, section 3.1.
#[inline(always)]
fn transmission<B: Bytes>(bytes: &B, segment: &Segment, look: &Look) -> Result<(), DropReason> {
    let header = bytes.view(segment.at, 20).ok_or(DropReason::TruncatedHeader)?;
    let header_len = (header.u8(12) >> 4) as u32 * 4;
    if header_len < 20 || header_len > segment.length {
        return Err(DropReason::TruncatedHeader);
    }
    let control = look.flags & CONTROL;
    let opens = control & tcp::SYN != 0;
    if control == 0 || opens && control & (tcp::FIN | tcp::RST) != 0 {
        return Err(DropReason::TcpFlags);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
