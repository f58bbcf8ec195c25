//! Bytes written down by hand and cut, bent and drawn at random: the parser says what is there,
//! or why not, and never reads what is not.

use std::{vec, vec::Vec};

use proptest::prelude::*;

use super::*;

const SRC4: [u8; 4] = [10, 1, 2, 3];
const DST4: [u8; 4] = [10, 4, 5, 6];
const SRC6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const DST6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

fn ethernet(ethertype: u16) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    frame.extend(ethertype.to_be_bytes());
    frame
}

/// `fragment` is the word with the flags.
fn frame4(proto: u8, options: &[u8], fragment: u16, transport: &[u8]) -> Vec<u8> {
    let mut frame = ethernet(ETH_P_IP);
    let header_len = 20 + options.len();
    frame.extend([0x40 | (header_len / 4) as u8, 0]);
    frame.extend(((header_len + transport.len()) as u16).to_be_bytes());
    frame.extend([0, 1]);
    frame.extend(fragment.to_be_bytes());
    frame.extend([64, proto, 0, 0]);
    frame.extend(SRC4);
    frame.extend(DST4);
    frame.extend(options);
    frame.extend(transport);
    frame
}

fn frame6(next: u8, hop_limit: u8, dst: [u8; 16], payload: &[u8]) -> Vec<u8> {
    let mut frame = ethernet(ETH_P_IPV6);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend((payload.len() as u16).to_be_bytes());
    frame.extend([next, hop_limit]);
    frame.extend(SRC6);
    frame.extend(dst);
    frame.extend(payload);
    frame
}

fn tcp_header(src: u16, dst: u16, flags: u8) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(src.to_be_bytes());
    header.extend(dst.to_be_bytes());
    header.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    header
}

fn udp_header(src: u16, dst: u16) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(src.to_be_bytes());
    header.extend(dst.to_be_bytes());
    header.extend([0, 8, 0, 0]);
    header
}

fn sctp_header(src: u16, dst: u16, chunk: u8) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(src.to_be_bytes());
    header.extend(dst.to_be_bytes());
    header.extend([0, 0, 0, 1, 0, 0, 0, 0, chunk, 0, 0, 4]);
    header
}

fn icmp_header(kind: u8, code: u8, identifier: u16) -> Vec<u8> {
    let [high, low] = identifier.to_be_bytes();
    vec![kind, code, 0, 0, high, low, 0, 1]
}

fn parsed(frame: &[u8]) -> Result<Packet, DropReason> {
    let bytes = Slice(frame);
    let ethernet = bytes.view(0, ETH_LEN).ok_or(DropReason::TruncatedHeader)?;
    let mut packet = Packet::EMPTY;
    ip(&bytes, View::u16(ethernet, 12), &mut packet)?;
    Ok(packet)
}

/// One of every kind that has a transport header, of both families.
fn whole() -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for (proto, header) in [
        (proto::TCP, tcp_header(1, 2, tcp::SYN)),
        (proto::UDP, udp_header(1, 2)),
        (proto::SCTP, sctp_header(1, 2, sctp::INIT)),
    ] {
        frames.push(frame4(proto, &[], 0x4000, &header));
        frames.push(frame4(proto, &[1; 8], 0, &header));
        frames.push(frame4(proto, &[1; 40], 0, &header));
        frames.push(frame6(proto, 64, DST6, &header));
    }
    frames.push(frame4(proto::ICMP, &[], 0, &icmp_header(8, 0, 7)));
    frames.push(frame6(proto::ICMPV6, 64, DST6, &icmp_header(128, 0, 7)));
    // A listener report: hop-by-hop options with a router alert, then the report.
    let mut report = vec![proto::ICMPV6, 0, 5, 2, 0, 0, 1, 0];
    report.extend(icmp_header(143, 0, 0));
    frames.push(frame6(0, 1, DST6, &report));
    frames
}

#[test]
fn both_families_say_the_same() {
    let v4 = parsed(&frame4(proto::TCP, &[], 0x4000, &tcp_header(40_000, 80, tcp::SYN | tcp::ACK))).unwrap();
    assert_eq!(
        v4,
        Packet {
            addr: [Addr::from_v4(SRC4), Addr::from_v4(DST4)],
            port: [40_000, 80],
            proto: proto::TCP,
            flags: tcp::SYN | tcp::ACK,
            kind: Kind::Tracked,
            v4: true,
            ttl: 64,
            ..Packet::EMPTY
        }
    );
    let v6 = parsed(&frame6(proto::TCP, 33, DST6, &tcp_header(40_000, 80, tcp::FIN))).unwrap();
    assert_eq!(
        v6,
        Packet { addr: [Addr::from_octets(SRC6), Addr::from_octets(DST6)], flags: tcp::FIN, v4: false, ttl: 33, ..v4 }
    );
}

#[test]
fn what_is_cut_is_truncated_at_every_byte() {
    for frame in whole() {
        assert!(parsed(&frame).is_ok());
        for length in 0..frame.len() {
            assert_eq!(parsed(&frame[..length]), Err(DropReason::TruncatedHeader), "{length} of {frame:02x?}");
        }
    }
}

/// The same with length fields that agree with the cut.
#[test]
fn what_ends_within_its_transport_header_is_truncated() {
    for frame in whole() {
        let v4 = frame[12] == 0x08;
        let network = if v4 { usize::from(frame[14] & 15) * 4 } else { 40 };
        for length in ETH_LEN + network..frame.len() {
            let mut cut = frame[..length].to_vec();
            if v4 {
                cut[16..18].copy_from_slice(&((length - ETH_LEN) as u16).to_be_bytes());
            } else {
                cut[18..20].copy_from_slice(&((length - ETH_LEN - 40) as u16).to_be_bytes());
            }
            // Of a listener report the parser wants the first nine bytes, to tell it by.
            let enough = !v4 && frame[20] == 0 && length >= ETH_LEN + 40 + 9;
            assert_eq!(parsed(&cut).err(), (!enough).then_some(DropReason::TruncatedHeader), "{length}");
        }
    }
}

#[test]
fn icmp_by_type() {
    // IANA ICMP type numbers; RFC 792, RFC 4443.
    for kind in 0..=255 {
        let v4 = parsed(&frame4(proto::ICMP, &[], 0, &icmp_header(kind, 5, 700))).unwrap();
        assert_eq!(v4.icmp, [kind, 5]);
        let (wanted, port) = match kind {
            8 => (Kind::Tracked, [700, 701]),
            0 => (Kind::Tracked, [701, 700]),
            3 | 4 | 11 | 12 => (Kind::IcmpError, [0, 0]),
            _ => (Kind::IcmpOther, [0, 0]),
        };
        assert_eq!((v4.kind, v4.port), (wanted, port), "ICMP {kind}");

        let v6 = parsed(&frame6(proto::ICMPV6, 255, DST6, &icmp_header(kind, 5, 700))).unwrap();
        let (wanted, port) = match kind {
            128 => (Kind::Tracked, [700, 701]),
            129 => (Kind::Tracked, [701, 700]),
            0..=127 => (Kind::IcmpError, [0, 0]),
            133 | 135 | 136 => (Kind::Neighbour, [0, 0]),
            134 | 137 => (Kind::Router, [0, 0]),
            _ => (Kind::IcmpOther, [0, 0]),
        };
        assert_eq!((v6.kind, v6.port), (wanted, port), "ICMPv6 {kind}");
        // Neighbour discovery has a hop limit of 255 (RFC 4861, 4.1 to 4.5).
        let far = parsed(&frame6(proto::ICMPV6, 254, DST6, &icmp_header(kind, 5, 700)));
        match kind {
            133 | 135 | 136 => assert_eq!(far, Err(DropReason::ForgedNeighbourDiscovery)),
            _ => assert_eq!(far.map(|packet| packet.kind), Ok(wanted)),
        }
        // Each protocol belongs to its family.
        assert_eq!(
            parsed(&frame4(proto::ICMPV6, &[], 0, &icmp_header(kind, 5, 7))).map(|p| (p.kind, p.port)),
            Ok((Kind::Tracked, [0, 0]))
        );
        assert_eq!(
            parsed(&frame6(proto::ICMP, 255, DST6, &icmp_header(kind, 5, 7))).map(|p| (p.kind, p.port)),
            Ok((Kind::Tracked, [0, 0]))
        );
    }
    // The greatest identifier has a number after it as well.
    let last = parsed(&frame4(proto::ICMP, &[], 0, &icmp_header(8, 0, u16::MAX))).unwrap();
    assert_eq!(last.port, [u16::MAX, 0]);
}

#[test]
fn fragments_have_no_ports() {
    let header = udp_header(1, 2);
    // Reserved bit and "don't fragment" alone are no fragment (RFC 791, 3.1).
    for (word, fragment) in
        [(0, false), (0x4000, false), (0x8000, false), (0x2000, true), (1, true), (0x1fff, true), (0x6001, true)]
    {
        let packet = parsed(&frame4(proto::UDP, &[], word, &header)).unwrap();
        assert_eq!((packet.kind == Kind::Fragment, packet.port == [0, 0]), (fragment, fragment), "{word:#x}");
    }
    // A fragment need not hold a transport header.
    assert_eq!(parsed(&frame4(proto::TCP, &[], 0x2000, &[])).map(|packet| packet.kind), Ok(Kind::Fragment));
    assert_eq!(parsed(&frame6(44, 64, DST6, &[0; 8])).map(|packet| packet.kind), Ok(Kind::Fragment));
}

#[test]
fn extension_headers_and_what_is_none() {
    for next in 0..=255 {
        let packet = parsed(&frame6(next, 255, DST6, &[next; 40]));
        match next {
            // IANA IPv6 extension header types, without fragments, ESP and AH.
            0 | 43 | 59 | 60 | 135 | 139 | 140 => {
                assert_eq!(packet.map(|p| (p.kind, p.proto)), Ok((Kind::Extension, next)), "{next}");
            }
            44 => assert_eq!(packet.map(|p| p.kind), Ok(Kind::Fragment)),
            // Judged by what stands there, which is tested elsewhere.
            58 | 6 => {}
            _ => assert_eq!(packet.map(|p| (p.kind, p.proto)), Ok((Kind::Tracked, next)), "{next}"),
        }
    }
    // Hop-by-hop options before other ICMPv6, or before more than one header of options.
    for (payload, kind) in [
        ([58, 0, 5, 2, 0, 0, 1, 0, 143], Kind::Neighbour),
        ([58, 0, 5, 2, 0, 0, 1, 0, 130], Kind::Neighbour),
        ([58, 0, 5, 2, 0, 0, 1, 0, 128], Kind::Extension),
        ([58, 1, 5, 2, 0, 0, 1, 0, 143], Kind::Extension),
        ([17, 0, 5, 2, 0, 0, 1, 0, 143], Kind::Extension),
    ] {
        let mut payload = payload.to_vec();
        payload.resize(40, 0);
        assert_eq!(parsed(&frame6(0, 1, DST6, &payload)).map(|packet| packet.kind), Ok(kind));
    }
}

#[test]
fn groups_keep_their_ports() {
    for first in [223, 224, 239, 240, 255] {
        let mut frame = frame4(proto::UDP, &[], 0, &udp_header(1, 5353));
        frame[ETH_LEN + 16] = first;
        let packet = parsed(&frame).unwrap();
        assert_eq!((packet.kind == Kind::Multicast, packet.port), (first >= 224, [1, 5353]));
    }
    let group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfb];
    let packet = parsed(&frame6(proto::UDP, 1, group, &udp_header(1, 5353))).unwrap();
    assert_eq!((packet.kind, packet.port), (Kind::Multicast, [1, 5353]));
    let packet = parsed(&frame6(proto::ICMPV6, 255, group, &icmp_header(135, 0, 0))).unwrap();
    assert_eq!(packet.kind, Kind::Neighbour, "neighbour discovery goes to groups");
    for kind in [0, 3, 8, 13] {
        let mut frame = frame4(proto::ICMP, &[], 0, &icmp_header(kind, 0, 7));
        frame[ETH_LEN + 16] = 224;
        assert_eq!(parsed(&frame).map(|packet| packet.kind), Ok(Kind::Multicast));
    }
}

#[test]
fn lengths_and_versions_that_cannot_be() {
    let good = frame4(proto::TCP, &[], 0, &tcp_header(1, 2, 0));
    let with = |at: usize, bytes: &[u8]| {
        let mut frame = good.clone();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        parsed(&frame)
    };
    for first in (0..=255u8).filter(|first| *first >> 4 != 4 || first & 15 < 5) {
        assert_eq!(with(14, &[first]), Err(DropReason::TruncatedHeader), "{first:#x}");
    }
    for total in [1u16, 19, 41, u16::MAX] {
        assert_eq!(with(16, &total.to_be_bytes()), Err(DropReason::TruncatedHeader), "{total}");
    }
    // What a packet beyond 64 KiB carries (BIG TCP).
    assert!(with(16, &[0, 0]).is_ok());
    for offset in 0..5 {
        assert_eq!(with(ETH_LEN + 20 + 12, &[offset << 4]), Err(DropReason::TruncatedHeader));
    }
    assert_eq!(parsed(&ethernet(0x8100)), Err(DropReason::UnsupportedL3));
}

#[test]
fn mapped_addresses_have_no_business_in_ipv6() {
    let mapped = Addr::from_v4(SRC4).octets();
    assert_eq!(parsed(&frame6(proto::UDP, 64, mapped, &udp_header(1, 2))), Err(DropReason::Invalid));
    let mut frame = frame6(proto::UDP, 64, DST6, &udp_header(1, 2));
    frame[22..38].copy_from_slice(&mapped);
    assert_eq!(parsed(&frame), Err(DropReason::Invalid));
}

#[test]
fn arp_and_what_is_none() {
    let mut frame = ethernet(ETH_P_ARP);
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend([2, 0, 0, 0, 0, 1]);
    frame.extend(SRC4);
    frame.extend([0; 6]);
    frame.extend(DST4);
    assert_eq!(arp(&Slice(&frame)), Ok(Arp { mac: [2, 0, 0, 0, 0, 1], addr: Addr::from_v4(SRC4) }));
    for length in 0..frame.len() {
        assert_eq!(arp(&Slice(&frame[..length])), Err(DropReason::TruncatedHeader));
    }
    for at in 14..20 {
        let mut other = frame.clone();
        other[at] ^= 1;
        assert_eq!(arp(&Slice(&other)), Err(DropReason::UnsupportedL3));
    }
}

proptest! {
    #[test]
    fn nothing_makes_it_read_too_far(bytes in prop::collection::vec(any::<u8>(), 0..200), ethertype in any::<u16>()) {
        let mut packet = Packet::EMPTY;
        for ethertype in [ethertype, ETH_P_IP, ETH_P_IPV6] {
            let _ = ip(&Slice(&bytes), ethertype, &mut packet);
        }
        let _ = arp(&Slice(&bytes));
    }

    /// Bytes that are nearly right get further.
    #[test]
    fn nor_does_what_is_bent(
        which in any::<prop::sample::Index>(),
        bends in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        padding in 0..40usize,
    ) {
        let all = whole();
        let mut frame = which.get(&all).clone();
        for (at, value) in bends {
            let at = at.index(frame.len());
            frame[at] = value;
        }
        frame.resize(frame.len() + padding, 0);
        let length = cut.index(frame.len()) + 1;
        // What it accepts of a part it accepts of the whole, and says the same of it: it reads
        // nothing beyond the lengths that it was told.
        if let Ok(part) = parsed(&frame[..length]) {
            prop_assert_eq!(parsed(&frame), Ok(part));
        }
    }

    #[test]
    fn ports_and_addresses_are_where_they_were_put(
        src in any::<[u8; 4]>(),
        dst in any::<[u8; 4]>(),
        port in any::<[u16; 2]>(),
        flags in any::<u8>(),
        options in 0..=10usize,
    ) {
        let mut frame = frame4(proto::TCP, &vec![1; options * 4], 0, &tcp_header(port[0], port[1], flags));
        frame[26..30].copy_from_slice(&src);
        frame[30..34].copy_from_slice(&dst);
        let packet = parsed(&frame).unwrap();
        prop_assert_eq!(packet.addr, [Addr::from_v4(src), Addr::from_v4(dst)]);
        prop_assert_eq!((packet.port, packet.flags), (port, flags));
        prop_assert!(packet.addr[0].is_v4() && packet.addr[1].is_v4());
    }
}
