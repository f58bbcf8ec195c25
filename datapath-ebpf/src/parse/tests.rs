//! Bytes written down by hand and cut, bent and drawn at random: the parser says what is there,
//! or why not, and never reads what is not.

use std::{vec, vec::Vec};

use proptest::prelude::*;

use datapath_abi::conntrack::CtKey;

use super::*;
use crate::ct;

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
    if packet.kind == Kind::Rare {
        rare(&bytes, &mut packet)?;
    }
    assert_ne!(packet.kind, Kind::Rare);
    Ok(packet)
}

/// Extension headers before `transport`, each a type and its bytes without the two first.
fn chain(headers: &[(u8, &[u8])], proto: u8, transport: &[u8]) -> (u8, Vec<u8>) {
    let mut payload = Vec::new();
    for (place, (_, rest)) in headers.iter().enumerate() {
        let next = headers.get(place + 1).map_or(proto, |(kind, _)| *kind);
        assert_eq!((rest.len() + 2) % 8, 0);
        payload.extend([next, ((rest.len() + 2) / 8 - 1) as u8]);
        payload.extend(*rest);
    }
    payload.extend(transport);
    (headers.first().map_or(proto, |(kind, _)| *kind), payload)
}

/// Six bytes of padding options.
const PAD: &[u8] = &[1, 4, 0, 0, 0, 0];

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
        // Record route, and the end of options.
        let mut route = [0; 40];
        route[..3].copy_from_slice(&[7, 39, 4]);
        frames.push(frame4(proto, &route, 0, &header));
        frames.push(frame4(proto, &[], 0x2000, &header));
        frames.push(frame6(proto, 64, DST6, &header));
        let (next, payload) =
            chain(&[(0, PAD), (60, PAD), (43, &[0; 6]), (44, &[0, 1, 0, 0, 0, 9]), (60, PAD)], proto, &header);
        frames.push(frame6(next, 64, DST6, &payload));
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
            assert_eq!(parsed(&cut).err(), Some(DropReason::TruncatedHeader), "{length}");
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
            5 | 9 => (Kind::Router, [0, 0]),
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
fn the_first_fragment_has_the_ports_and_later_ones_have_none() {
    let header = udp_header(1, 2);
    // Reserved bit and "don't fragment" alone are no fragment (RFC 791, 3.1).
    for (word, part) in [
        (0, Part::Whole),
        (0x4000, Part::Whole),
        (0x8000, Part::Whole),
        (0x2000, Part::First),
        (1, Part::Later),
        (0x1fff, Part::Later),
        (0x6001, Part::Later),
    ] {
        let packet = parsed(&frame4(proto::UDP, &[], word, &header)).unwrap();
        let (kind, port, id) = match part {
            Part::Whole => (Kind::Tracked, [1, 2], 0),
            Part::First => (Kind::Tracked, [1, 2], 1),
            Part::Later => (Kind::Fragment, [0, 0], 1),
        };
        assert_eq!((packet.part, packet.kind, packet.port, packet.id), (part, kind, port, id), "{word:#x}");
    }
    // The same in IPv6; without offset and without "more" it is whole (RFC 6946).
    for (word, part) in [(0u16, Part::Whole), (1, Part::First), (8, Part::Later), (0xfff9, Part::Later)] {
        let mut payload = vec![proto::UDP, 0];
        payload.extend(word.to_be_bytes());
        payload.extend(0x0102_0304_u32.to_ne_bytes());
        payload.extend(&header);
        let packet = parsed(&frame6(44, 64, DST6, &payload)).unwrap();
        let (kind, port) = if part == Part::Later { (Kind::Fragment, [0, 0]) } else { (Kind::Tracked, [1, 2]) };
        assert_eq!((packet.part, packet.kind, packet.port), (part, kind, port), "{word:#x}");
        assert_eq!((packet.proto, packet.id), (proto::UDP, 0x0102_0304));
    }
}

#[test]
fn no_header_is_shown_in_one_fragment_and_written_in_another() {
    // The first fragment ends before its header does: RFC 1858. What follows it in the frame is no part of it.
    let header = tcp_header(1, 2, tcp::SYN);
    for shown in 0..20u16 {
        let mut frame = frame4(proto::TCP, &[], 0x2000, &header);
        frame[16..18].copy_from_slice(&(20 + shown).to_be_bytes());
        assert_eq!(parsed(&frame), Err(DropReason::TruncatedHeader), "{shown}");
        let mut payload = vec![proto::TCP, 0, 0, 1, 0, 0, 0, 9];
        payload.extend(&header);
        let mut frame = frame6(44, 64, DST6, &payload);
        frame[18..20].copy_from_slice(&(8 + shown).to_be_bytes());
        assert_eq!(parsed(&frame), Err(DropReason::TruncatedHeader), "{shown}");
    }
    // A later one lies over it: RFC 3128.
    for (offset, fine) in [(1u16, false), (2, false), (3, true), (6, true)] {
        let wanted = if fine { Ok(Kind::Fragment) } else { Err(DropReason::TruncatedHeader) };
        assert_eq!(parsed(&frame4(proto::TCP, &[], offset, &[0; 24])).map(|packet| packet.kind), wanted);
        let mut payload = vec![proto::TCP, 0];
        payload.extend((offset << 3).to_be_bytes());
        payload.extend([0; 20]);
        assert_eq!(parsed(&frame6(44, 64, DST6, &payload)).map(|packet| packet.kind), wanted);
        assert!(parsed(&frame4(proto::UDP, &[], offset, &[0; 24])).is_ok(), "ports come first");
    }
}

#[test]
fn neighbour_discovery_comes_in_one_piece() {
    for kind in [133, 134, 135, 136, 137] {
        let mut payload = vec![proto::ICMPV6, 0, 0, 1, 0, 0, 0, 9];
        payload.extend(icmp_header(kind, 0, 0));
        assert_eq!(parsed(&frame6(44, 255, DST6, &payload)), Err(DropReason::ForgedNeighbourDiscovery), "RFC 6980");
        // Behind other headers it is still recognised: RFC 7113.
        let (next, payload) = chain(&[(60, PAD), (60, PAD)], proto::ICMPV6, &icmp_header(kind, 0, 0));
        let wanted = if matches!(kind, 134 | 137) { Kind::Router } else { Kind::Neighbour };
        assert_eq!(parsed(&frame6(next, 255, DST6, &payload)).map(|packet| packet.kind), Ok(wanted));
    }
}

#[test]
fn options_that_send_a_packet_elsewhere() {
    let header = tcp_header(1, 2, tcp::SYN);
    let kind = |options: &[u8]| parsed(&frame4(proto::TCP, options, 0, &header)).map(|packet| packet.kind);
    // IANA IP option numbers: record route, timestamp, router alert, security; loose and strict source route.
    for (option, wanted) in [(7, Kind::Tracked), (68, Kind::Tracked), (148, Kind::Tracked), (130, Kind::Tracked)]
        .into_iter()
        .chain([(131, Kind::Extension), (137, Kind::Extension)])
    {
        assert_eq!(kind(&[option, 4, 4, 0]), Ok(wanted), "{option}");
        assert_eq!(kind(&[1, 1, 148, 4, 0, 0, option, 4, 4, 0, 0, 0]), Ok(wanted), "{option} after others");
        assert_eq!(kind(&[0, option, 4, 4]), Ok(Kind::Tracked), "{option} after the end");
    }
    assert_eq!(kind(&[1; 12]), Ok(Kind::Tracked));
    assert_eq!(kind(&[1; 16]), Ok(Kind::Extension), "more options than anybody needs");
    for length in [0, 1] {
        assert_eq!(kind(&[7, length, 0, 0]), Err(DropReason::TruncatedHeader));
    }
}

#[test]
fn extension_headers_and_what_is_none() {
    let header = tcp_header(7, 8, tcp::SYN);
    for next in 0..=255 {
        let packet = parsed(&frame6(next, 255, DST6, &[[next; 8], [0; 8], [0; 8], [0; 8], [0; 8]].concat()));
        match next {
            // What they are followed by is themselves, and hop-by-hop options come first only.
            0 | 43 | 59 | 60 | 135 | 139 | 140 => {
                assert!(packet.is_err() || packet.is_ok_and(|p| p.kind == Kind::Extension), "{next}");
            }
            // Judged by what stands there, which is tested elsewhere.
            44 | 58 | 6 => {}
            _ => assert_eq!(packet.map(|p| (p.kind, p.proto)), Ok((Kind::Tracked, next)), "{next}"),
        }
    }
    // IANA extension header types that we read, in every order, and those that we don't.
    let fragment: &[u8] = &[0, 0, 0, 0, 0, 9];
    let routing: &[u8] = &[0, 0, 0, 0, 0, 0];
    let known: [(u8, &[u8]); 3] = [(43, routing), (44, fragment), (60, PAD)];
    for a in known {
        for b in known {
            for c in known {
                let (next, payload) = chain(&[a, b, c], proto::TCP, &header);
                let packet = parsed(&frame6(next, 64, DST6, &payload)).unwrap();
                let fragments = [a, b, c].iter().filter(|(kind, _)| *kind == 44).count();
                let wanted = if fragments > 1 { (Kind::Extension, [0, 0]) } else { (Kind::Tracked, [7, 8]) };
                assert_eq!((packet.kind, packet.port), wanted, "{} {} {}", a.0, b.0, c.0);
            }
        }
        for unknown in [59, 135, 139, 140] {
            let (next, payload) = chain(&[a, (unknown, PAD)], proto::TCP, &header);
            assert_eq!(parsed(&frame6(next, 64, DST6, &payload)).map(|p| p.kind), Ok(Kind::Extension));
        }
        let (next, payload) = chain(&[(0, PAD), a], proto::TCP, &header);
        assert_eq!(parsed(&frame6(next, 64, DST6, &payload)).map(|p| p.kind), Ok(Kind::Tracked));
        let (next, payload) = chain(&[a, (0, PAD)], proto::TCP, &header);
        assert_eq!(parsed(&frame6(next, 64, DST6, &payload)).map(|p| p.kind), Ok(Kind::Extension), "RFC 8200, 4.1");
    }
    // Segments left: it goes somewhere else first.
    let (next, payload) = chain(&[(43, &[0, 1, 0, 0, 0, 0])], proto::TCP, &header);
    assert_eq!(parsed(&frame6(next, 64, DST6, &payload)).map(|p| p.kind), Ok(Kind::Extension));
    // Up to the bounds, and beyond them.
    for (headers, wanted) in [(8, Kind::Tracked), (9, Kind::Extension)] {
        let (next, payload) = chain(&vec![(60, PAD); headers], proto::TCP, &header);
        assert_eq!(parsed(&frame6(next, 64, DST6, &payload)).map(|p| p.kind), Ok(wanted), "{headers} headers");
    }
    for (bytes, wanted) in [(512, Kind::Tracked), (520, Kind::Extension)] {
        let options = vec![0; bytes - 2];
        let (next, payload) = chain(&[(60, &options)], proto::TCP, &header);
        assert_eq!(parsed(&frame6(next, 64, DST6, &payload)).map(|p| p.kind), Ok(wanted), "{bytes} bytes");
    }
    // Listener discovery has a router alert before it; without, it is any ICMPv6.
    for kind in [130, 131, 132, 143] {
        for (headers, wanted) in [(&[(0, PAD)][..], Kind::Neighbour), (&[(60, PAD)], Kind::IcmpOther)] {
            let (next, payload) = chain(headers, proto::ICMPV6, &icmp_header(kind, 0, 0));
            assert_eq!(parsed(&frame6(next, 1, DST6, &payload)).map(|p| p.kind), Ok(wanted));
        }
    }
}

/// A frame with an ICMP error that quotes the IP packet in `quoted`, from its destination or from a
/// router on the way.
fn error_about(quoted: &[u8], from_end: bool) -> Vec<u8> {
    let v4 = quoted[12] == 0x08;
    let inner = &quoted[ETH_LEN..];
    let mut message = if v4 { icmp_header(3, 4, 0) } else { icmp_header(2, 0, 0) };
    message.extend(inner);
    let mut frame = if v4 { frame4(proto::ICMP, &[], 0, &message) } else { frame6(proto::ICMPV6, 64, SRC6, &message) };
    if v4 {
        frame[26..30].copy_from_slice(if from_end { &DST4 } else { &[192, 0, 2, 1] });
        frame[30..34].copy_from_slice(&SRC4);
    } else {
        frame[22..38].copy_from_slice(&DST6);
        if !from_end {
            frame[30] = 99;
        }
    }
    frame
}

fn quoted(frame: &[u8]) -> Option<(Quoted, CtKey)> {
    let bytes = Slice(frame);
    let packet = parsed(frame).unwrap();
    assert_eq!(packet.kind, Kind::IcmpError);
    let at = if packet.v4 { ETH_LEN + 20 } else { ETH_LEN + 40 };
    let mut key = CtKey::default();
    quote(&bytes, at, &packet, &mut key).map(|quoted| (quoted, key))
}

#[test]
fn an_error_has_the_key_of_what_it_quotes() {
    let mut fragment = vec![proto::UDP, 0, 0, 1, 0, 0, 0, 9];
    fragment.extend(udp_header(1, 2));
    for frame in [
        frame4(proto::TCP, &[], 0x4000, &tcp_header(40_000, 80, 0)),
        frame4(proto::UDP, &[1; 8], 0, &udp_header(1, 2)),
        frame4(proto::UDP, &[], 0x2000, &udp_header(1, 2)),
        frame4(proto::SCTP, &[], 0, &sctp_header(5, 6, 0)),
        frame4(proto::ICMP, &[], 0, &icmp_header(8, 0, 700)),
        frame4(proto::ICMP, &[], 0, &icmp_header(0, 0, 700)),
        frame4(50, &[], 0, &[1; 8]),
        frame6(proto::TCP, 64, DST6, &tcp_header(40_000, 80, 0)),
        frame6(proto::UDP, 64, DST6, &udp_header(1, 2)),
        frame6(44, 64, DST6, &fragment),
        frame6(60, 64, DST6, &chain(&[(60, PAD)], proto::UDP, &udp_header(1, 2)).1),
        frame6(proto::ICMPV6, 64, DST6, &icmp_header(128, 0, 700)),
    ] {
        let packet = parsed(&frame).unwrap();
        let mut key = CtKey::default();
        let greater = ct::key(&packet, &mut key);
        for by_end in [true, false] {
            let error = error_about(&frame, by_end);
            let read = quoted(&error).map(|(Quoted { greater, by_end, .. }, key)| (greater, by_end, key));
            assert_eq!(read, Some((!greater, by_end, key)), "{frame:02x?}");
            // Eight bytes of the quoted transport header are what any router gives (RFC 792).
            let outer = if packet.v4 { 20 } else { 40 };
            let inner = match (packet.v4, frame[20]) {
                (true, _) => usize::from(frame[14] & 15) * 4,
                (false, 44 | 60) => 48,
                (false, _) => 40,
            };
            let least = ETH_LEN + outer + 8 + inner + 8;
            if packet.proto != 50 {
                for length in 0..error.len() {
                    let mut key = CtKey::default();
                    let at = if packet.v4 { ETH_LEN + 20 } else { ETH_LEN + 40 };
                    let outer = parsed(&error).unwrap();
                    let found = quote(&Slice(&error[..length]), at, &outer, &mut key).is_some();
                    assert_eq!(found, length >= least, "{length} of {least}");
                }
            }
        }
    }
}

#[test]
fn an_error_that_quotes_what_its_target_has_not_sent() {
    let frame = frame4(proto::UDP, &[], 0, &udp_header(1, 2));
    let mut error = error_about(&frame, true);
    error[33] ^= 1;
    assert_eq!(quoted(&error), None, "to somebody else");
    for (what, frame) in [
        ("a later fragment", frame4(proto::UDP, &[], 1, &udp_header(1, 2))),
        ("an error", frame4(proto::ICMP, &[], 0, &icmp_header(3, 0, 0))),
        ("a timestamp request", frame4(proto::ICMP, &[], 0, &icmp_header(13, 0, 0))),
        ("five extension headers", frame6(60, 64, DST6, &chain(&[(60, PAD); 5], proto::UDP, &udp_header(1, 2)).1)),
        ("a route with a stop left", frame6(43, 64, DST6, &[17, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 2, 0, 8, 0, 0])),
        ("a later fragment", frame6(44, 64, DST6, &[17, 0, 0, 9, 0, 0, 0, 1, 0, 1, 0, 2, 0, 8, 0, 0])),
        ("neighbour discovery", frame6(proto::ICMPV6, 255, DST6, &icmp_header(135, 0, 0))),
    ] {
        assert_eq!(quoted(&error_about(&frame, true)), None, "{what}");
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
        for ethertype in [ethertype, ETH_P_IP, ETH_P_IPV6] {
            let mut packet = Packet::EMPTY;
            let _ = ip(&Slice(&bytes), ethertype, &mut packet);
            let _ = rare(&Slice(&bytes), &mut packet);
            let mut key = CtKey::default();
            for at in 0..bytes.len() {
                let _ = quote(&Slice(&bytes), at, &packet, &mut key);
            }
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
        options in 0..=3usize,
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
