//! Writes other addresses and ports into a packet, and mends its checksums: by what has changed (RFC 1624), as nobody
//! has all of it at hand.

use aya_ebpf::bindings::{__sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR};
use datapath_abi::service::Translation;
use datapath_ebpf::{
    csum,
    parse::{Bytes, ETH_LEN, Kind, Packet, Part, View, proto},
};

use crate::{
    Scratch,
    bpf::{
        kernel::{self, Place},
        packet::Skb,
        service::{Exchange, Way},
        steps,
    },
};

/// Writes one end of a packet of TCP or UDP that is whole, has no options, and is neither a pod's to itself nor from there: on its
/// way to the Service the destination, and both ports, which are in `stands_for`; on its way back the source.
#[inline(always)]
pub(crate) fn in_the_middle(skb: &Skb, stands_for: &Translation, way: Way) -> bool {
    let Some(header) = skb.view(ETH_LEN, 20) else { return false };
    // With places that are numbers in the program, or the verifier does not know them.
    match (header.u8(0) >> 4 == 4, way as u32 == Way::Forward as u32) {
        (true, true) => one_end::<4>(skb, stands_for, way, ETH_LEN + 16, header.u8(9)),
        (true, false) => one_end::<4>(skb, stands_for, way, ETH_LEN + 12, header.u8(9)),
        (false, true) => one_end::<16>(skb, stands_for, way, ETH_LEN + 24, header.u8(6)),
        (false, false) => one_end::<16>(skb, stands_for, way, ETH_LEN + 8, header.u8(6)),
    }
}

/// The end whose address is at `at`, of so many bytes.
#[inline(always)]
fn one_end<const LENGTH: usize>(skb: &Skb, stands_for: &Translation, way: Way, at: usize, proto: u8) -> bool {
    let forward = way as u32 == Way::Forward as u32;
    let v4 = LENGTH == 4;
    let transport = if v4 { 20 } else { 40 };
    let new = stands_for.addr.quarters();
    let Some(view) = skb.view(ETH_LEN, transport + 4) else { return false };
    let old_port = [view.u16(transport), view.u16(transport + 2)];
    let port = if forward { [stands_for.from_port, stands_for.port] } else { [stands_for.port, stands_for.from_port] };
    let Some(old) = skb.view(at, LENGTH) else { return false };
    let difference = if v4 {
        csum::difference([old.u32(0)], [new[3]])
    } else {
        csum::difference([old.u32(0), old.u32(4), old.u32(8), old.u32(12)], new)
    };
    let (csum, mangled) = sum_of(proto, (ETH_LEN + transport) as u32);
    let context = skb.context();
    kernel::mend(context, csum, difference, BPF_F_PSEUDO_HDR as u64 | mangled);
    if !v4 {
        kernel::mend_sum_of_device(context, difference);
    }
    if port != old_port {
        kernel::mend(context, csum, csum::difference([word(old_port)], [word(port)]), mangled);
    }
    skb.write_end(at, new, v4, transport, word(port), difference)
}

/// Where the checksum of a header of TCP or UDP is, which begins at `transport`, and how it is mended: that of UDP may be none.
#[inline(always)]
fn sum_of(proto: u8, transport: u32) -> (u32, u64) {
    if proto == proto::TCP { (transport + 16, 0) } else { (transport + 6, BPF_F_MARK_MANGLED_0 as u64) }
}

/// Both ports as they stand in a header, in memory order.
#[inline(always)]
fn word(port: [u16; 2]) -> u32 {
    let [[a, b], [c, d]] = port.map(u16::to_be_bytes);
    u32::from_ne_bytes([a, b, c, d])
}

/// Writes the packet's own addresses. `packet` is the one in `seen`, as it was read or made.
#[inline(always)]
pub(crate) fn addresses(context: *mut __sk_buff, at: &Scratch) {
    let (x, packet) = (&at.exchange, &at.seen.packet);
    let source = source(x);
    let transport = place_of(packet);
    let (csum, mangled) = match packet.proto {
        proto::TCP | proto::UDP => sum_of(packet.proto, transport),
        proto::ICMPV6 => (transport + 2, 0),
        _ => (0, 0),
    };
    let csum = if packet.part as u8 == Part::Later as u8 { 0 } else { csum };
    let flags = BPF_F_PSEUDO_HDR as u64 | mangled;
    let (from, to) = if packet.v4 { (ETH_LEN + 12, ETH_LEN + 16) } else { (ETH_LEN + 8, ETH_LEN + 24) };
    let header = if packet.v4 { Some(ETH_LEN as u32) } else { None };
    // A router that tells of an error speaks for itself.
    if !is_error(packet) || at.seen.by_end != 0 {
        address(context, x, source, Place { at: from as u32, csum, flags }, header);
    }
    address(context, x, 1 - source, Place { at: to as u32, csum, flags }, header);
}

/// Writes the ports of TCP and UDP.
#[inline(always)]
pub(crate) fn ports(context: *mut __sk_buff, at: &Scratch) {
    let (x, packet) = (&at.exchange, &at.seen.packet);
    let source = source(x);
    let transport = place_of(packet);
    let (csum, flags) = sum_of(packet.proto, transport);
    port(context, x, source, Place { at: transport, csum, flags });
    port(context, x, 1 - source, Place { at: transport + 2, csum, flags });
}

/// Writes addresses and ports of the packet that an ICMP error quotes. It has come back: its source is whom the error
/// goes to.
#[inline(always)]
pub(crate) fn quoted(context: *mut __sk_buff, at: &Scratch) {
    let (x, packet) = (&at.exchange, &at.seen.packet);
    let source = source(x);
    let transport = place_of(packet);
    let inner = transport + 8;
    let quoted = packet.quoted as u32;
    let csum = transport + 2;
    let (from, to) = if packet.v4 { (inner + 12, inner + 16) } else { (inner + 8, inner + 24) };
    // The header of IPv4 has a sum of its own, with which it comes out as before.
    let (covered, header) = if packet.v4 { (0, Some(inner)) } else { (csum, None) };
    address(context, x, 1 - source, Place { at: from, csum: covered, flags: 0 }, header);
    address(context, x, source, Place { at: to, csum: covered, flags: 0 }, header);
    port(context, x, 1 - source, Place { at: quoted, csum, flags: 0 });
    port(context, x, source, Place { at: quoted + 2, csum, flags: 0 });
}

/// Who is the packet's source: 0 the client, 1 the Service or the backend.
#[inline(always)]
fn source(x: &Exchange) -> usize {
    if x.is(Way::Forward) { 0 } else { 1 }
}

/// Whether it is an ICMP error about the connection, and no packet of it.
#[inline(always)]
pub(crate) fn is_error(packet: &Packet) -> bool {
    packet.kind as u8 == Kind::Related as u8 && packet.part as u8 != Part::Later as u8
}

/// Place of the transport header.
#[inline(always)]
fn place_of(packet: &Packet) -> u32 {
    if packet.transport != 0 {
        packet.transport as u32
    } else if packet.v4 {
        ETH_LEN as u32 + 20
    } else {
        ETH_LEN as u32 + 40
    }
}

#[inline(always)]
fn address(context: *mut __sk_buff, x: &Exchange, end: usize, place: Place, header: Option<u32>) {
    let (old, new) = if end == 0 { (&x.old[0], &x.new[0]) } else { (&x.old[1], &x.new[1]) };
    if old != new {
        kernel::exchange_address(context, old, new, place, header);
    }
}

#[inline(always)]
fn port(context: *mut __sk_buff, x: &Exchange, end: usize, place: Place) {
    let (old, new) = if end == 0 { (x.old_port[0], x.new_port[0]) } else { (x.old_port[1], x.new_port[1]) };
    if old != new {
        kernel::exchange_port(context, old, new, place);
    }
}

/// Writes SCTP's ports. Its sum (RFC 9260, section 6.8) covers no addresses, but is none of ones' complements. False: it
/// cannot be mended, as not all of what it covers is here.
#[inline(always)]
pub(crate) fn sctp(skb: &Skb, at: &Scratch) -> bool {
    let (x, packet) = (&at.exchange, &at.seen.packet);
    let from = source(x);
    let changed = |end: usize| if end == 0 { x.old_port[0] ^ x.new_port[0] } else { x.old_port[1] ^ x.new_port[1] };
    let [a, b] = changed(from).to_be_bytes();
    let [c, d] = changed(1 - from).to_be_bytes();
    let change = u32::from_le_bytes([a, b, c, d]);
    if change == 0 {
        return true;
    }
    if packet.part as u8 != Part::Whole as u8 {
        return false;
    }
    let transport = place_of(packet);
    let Some(header) = skb.view(ETH_LEN, 20) else { return false };
    let end = if packet.v4 { header.u16(2) as u32 } else { header.u16(4) as u32 + 40 } + ETH_LEN as u32;
    let length = end.wrapping_sub(transport) & 0xffff;
    let context = skb.context();
    let Some(sum) = kernel::load_word(context, transport + 8) else { return false };
    // Nothing there yet: the sum is made when it leaves, by the device or for it.
    if sum != 0 {
        let delta = csum::crc32c_of_change(change, length, steps::multiply);
        kernel::store_word(context, transport + 8, (u32::from_le(sum) ^ delta).to_le());
    }
    port(context, x, from, Place { at: transport, csum: 0, flags: 0 });
    port(context, x, 1 - from, Place { at: transport + 2, csum: 0, flags: 0 });
    true
}
