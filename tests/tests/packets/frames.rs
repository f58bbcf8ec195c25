//! Frames that are no IP packets, headers that are cut or contradict each other, large packets, checksums.

use std::net::IpAddr;

use datapath_abi::reason::DropReason::{Invalid, TruncatedHeader, UnsupportedL3};
use tests::{
    host::{A, Family, Host, WORLD},
    packet::{Body, Packet, SYN},
    scene::{FIRST, IN, OPEN, OUT, REFUSED, Scene},
    table::{Frame, OPENS, Table, drops},
};

use crate::{beginnings, ports};

/// One of each whose headers are worth cutting.
fn whole(scene: &Scene, family: Family) -> Vec<Packet> {
    let mut all = beginnings(scene, family, 0, |it| it);
    let tcp = scene.from.tcp(&scene.to, family, ports(0), SYN);
    let udp = scene.from.udp(&scene.to, family, ports(0));
    match family {
        Family::V4 => all.extend([tcp.clone().options(&[1; 12]), udp.clone().options(&[1; 40])]),
        Family::V6 => all.extend([tcp.clone().extension(60, &[0; 7]), udp.clone().extension(0, &[1; 15])]),
    }
    all.extend([tcp.fragment(0, true), udp.fragment(0, true)]);
    all
}

/// The network header's end.
fn network(frame: &[u8], v4: bool) -> usize {
    if v4 { 14 + usize::from(frame[14] & 0x0f) * 4 } else { 54 }
}

/// Says in the network header how long the packet is.
fn shortened(mut frame: Vec<u8>, length: usize, v4: bool) -> Vec<u8> {
    frame.truncate(length);
    if v4 {
        frame[16..18].copy_from_slice(&((length - 14) as u16).to_be_bytes());
    } else {
        frame[18..20].copy_from_slice(&((length - 54) as u16).to_be_bytes());
    }
    frame
}

fn altered(frame: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    frame
}

pub(crate) fn write(table: &mut Table) {
    ethernet(table);
    cuts(table);
    large(table);
    checksums(table);
}

fn ethernet(table: &mut Table) {
    table.group(
        "Frames",
        "A pod is on no VLAN. A tag that the kernel keeps beside the packet, as VLAN devices have it, counts like one in the \
         frame.",
    );
    table
        .packet("in a VLAN: 802.1Q, 802.1ad, two tags", |scene, family| {
            let plain = scene.from.tcp(&scene.to, family, ports(0), SYN).bytes();
            let tags: [&[u8]; 3] = [&[0x81, 0, 0, 7], &[0x88, 0xa8, 0, 7], &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 8]];
            tags.map(|tag| [&plain[..12], tag, &plain[12..]].concat()).to_vec()
        })
        .fate(&FIRST, drops(UnsupportedL3));
    table
        .packet("MPLS, PPPoE, EAPOL, LLDP, IEEE 802.3 lengths, any other EtherType", |scene, family| {
            let plain = scene.from.tcp(&scene.to, family, ports(0), SYN).bytes();
            [0x8847u16, 0x8864, 0x888e, 0x88cc, 0x002e, 0x0000, 0xffff]
                .map(|ethertype| altered(&plain, 12, &ethertype.to_be_bytes()))
                .to_vec()
        })
        .fate(&FIRST, drops(UnsupportedL3));
    table
        .packet("the other family's EtherType", |scene, family| {
            let plain = scene.from.tcp(&scene.to, family, ports(0), SYN).bytes();
            vec![altered(&plain, 12, if family == Family::V4 { &[0x86, 0xdd] } else { &[0x08, 0x00] })]
        })
        .fate(&FIRST, drops(TruncatedHeader));
}

fn cuts(table: &mut Table) {
    table.group(
        "Headers cut short",
        "Dropped for everybody: what the receiver would make of them nobody can know. The record names the pod.",
    );
    table
        .packet("cut at any byte, without and with options, extension headers, fragmentation", |scene, family| {
            let all = whole(scene, family).into_iter().map(|packet| packet.bytes());
            all.flat_map(|frame| (14..frame.len()).map(move |length| frame[..length].to_vec())).collect::<Vec<_>>()
        })
        .fate(&[OPEN, REFUSED, OUT, IN], drops(TruncatedHeader));
    table
        .packet("transport header cut at any byte, lengths that agree with it", |scene, family| {
            let v4 = family == Family::V4;
            let mut all = Vec::new();
            for packet in beginnings(scene, family, 0, |it| it) {
                let least = match packet.body {
                    Body::Tcp { .. } => 20,
                    Body::Sctp { .. } => 16,
                    _ => 8,
                };
                let frame = packet.bytes();
                let start = network(&frame, v4);
                all.extend((0..least).map(|kept| shortened(frame.clone(), start + kept, v4)));
            }
            all
        })
        .fate(&[OPEN, REFUSED, OUT, IN], drops(TruncatedHeader));
    table
        .packet("version, header lengths, total length, TCP data offset that contradict the packet", |scene, family| {
            let good = scene.from.tcp(&scene.to, family, ports(0), SYN).bytes();
            let length = good.len() as u16;
            match family {
                Family::V4 => [0x40, 0x44, 0x05, 0x55, 0x65, 0xf5]
                    .map(|first| altered(&good, 14, &[first]))
                    .into_iter()
                    .chain([1, 19, length - 14 + 1, u16::MAX].map(|total| altered(&good, 16, &total.to_be_bytes())))
                    .chain([altered(&good, 46, &[0x40])])
                    .collect::<Vec<_>>(),
                Family::V6 => [0x40, 0x00, 0xf0]
                    .map(|first| altered(&good, 14, &[first]))
                    .into_iter()
                    .chain([length - 54 + 1, u16::MAX].map(|payload| altered(&good, 18, &payload.to_be_bytes())))
                    .chain([altered(&good, 66, &[0x40])])
                    .collect(),
            }
        })
        .fate(&[OPEN, REFUSED, OUT, IN], drops(TruncatedHeader));
    table
        .packet("a short frame, padded by Ethernet", |scene, family| {
            let mut frame = scene.from.udp(&scene.to, family, ports(0)).payload(b"").bytes();
            frame.resize(frame.len() + 18, 0);
            vec![frame]
        })
        .usual(&FIRST);
    table
        .packet("IPv4-mapped addresses in IPv6 (RFC 4291, 2.5.5.2)", |scene, family| {
            let source = IpAddr::from(scene.from.v4.to_ipv6_mapped());
            let target = Host { v6: WORLD.v4.to_ipv6_mapped(), ..scene.to };
            vec![
                scene.from.udp(&scene.to, family, ports(0)).from_addr(source).bytes(),
                scene.from.udp(&target, family, ports(0)).bytes(),
            ]
        })
        .v6()
        .fate(&[OPEN, OUT, IN], drops(Invalid));
    table
        .packet("to the loopback or the unspecified address", |scene, family| {
            let targets = match family {
                Family::V4 => ["127.0.0.1", "127.1.2.3", "0.0.0.0", "0.1.2.3"].as_slice(),
                Family::V6 => &["::1", "::"],
            };
            let to = |target: &&str| {
                let mut packet = scene.from.udp(&scene.to, family, ports(0));
                packet.addr[1] = target.parse().expect("an address");
                packet
            };
            targets.iter().map(to).collect::<Vec<_>>()
        })
        .fate(&[OPEN, OUT], drops(Invalid));
    table
        .packet("from the loopback or the unspecified address", |scene, family| {
            let sources = match family {
                Family::V4 => ["127.0.0.1", "0.0.0.0"],
                Family::V6 => ["::1", "::"],
            };
            sources
                .map(|source| {
                    scene.from.udp(&scene.to, family, ports(0)).from_addr(source.parse().expect("an address"))
                })
                .to_vec()
        })
        .fate(&[IN], drops(Invalid));
}

fn large(table: &mut Table) {
    table.group(
        "Large packets",
        "Judged once, as one packet, and counted with all their bytes: as the kernel hands them over, before it cuts them.",
    );
    table
        .packet("jumbo frame of 3000 bytes", |scene, family| beginnings(scene, family, 0, |it| it.payload(&[0; 2950])))
        .usual(&FIRST);
    table
        .packet("TCP and UDP that will be cut into segments (GSO)", |scene, family| {
            let whole = beginnings(scene, family, 0, |it| it.payload(&[0; 3000])).into_iter();
            whole.take(2).map(|packet| Frame::Gso(packet, 1000)).collect()
        })
        .usual(&FIRST);
    table
        .packet("beyond 64 KiB: total length 0 (BIG TCP)", |scene, family| {
            let frame = scene.from.tcp(&scene.to, family, ports(0), SYN).payload(&[0; 3000]).bytes();
            match family {
                Family::V4 => {
                    let frame = altered(&frame, 16, &[0, 0, frame[18], frame[19], frame[20], frame[21], 64, 6, 0, 0]);
                    let sum = tests::packet::checksum(&[&frame[14..34]]);
                    vec![altered(&frame, 24, &sum.to_be_bytes())]
                }
                Family::V6 => vec![altered(&frame, 18, &[0, 0])],
            }
        })
        .usual(&FIRST);
    table
        .packet("jumbogram: payload length 0 and the jumbo option (RFC 2675)", |scene, family| {
            let option = [0, 194, 4, 0, 1, 0x11, 0x70];
            let packet = scene.from.tcp(&scene.to, family, ports(0), SYN).payload(&[0; 3000]).extension(0, &option);
            vec![altered(&packet.bytes(), 18, &[0, 0])]
        })
        .v6()
        .usual(&FIRST);
    table
        .packet("TCP without payload, UDP with a length of its own", |scene, family| {
            let mut datagram = scene.from.udp(&scene.to, family, ports(0)).bytes();
            let start = network(&datagram, family == Family::V4);
            datagram[start + 4..start + 6].copy_from_slice(&[0, 0]);
            vec![scene.from.tcp(&scene.to, family, ports(0), SYN).payload(b"").bytes(), datagram]
        })
        .usual(&FIRST);
}

fn checksums(table: &mut Table) {
    table.group(
        "Checksums",
        "Not ours to judge: what is wrong stays as wrong, what hardware is to fill in stays empty.",
    );
    table
        .packet("transport checksum wrong, zero, or only the pseudo header's (offloaded)", |scene, family| {
            let mut all = Vec::new();
            for (packet, at) in [
                (scene.from.tcp(&scene.to, family, ports(0), SYN), 16),
                (scene.from.udp(&scene.to, family, ports(0)), 6),
            ] {
                let frame = packet.bytes();
                let place = network(&frame, family == Family::V4) + at;
                for (sum, source) in [[0xde, 0xad], [0, 0], [0x12, 0x34]].into_iter().zip(1u16..) {
                    let mut other = altered(&frame, place, &sum);
                    // A port of its own, so that each begins a connection.
                    other[place - at..place - at + 2].copy_from_slice(&(42_000 + source).to_be_bytes());
                    all.push(other);
                }
            }
            all
        })
        .usual(&FIRST);
    table
        .packet("IPv4 header checksum wrong, to the node's stack, which drops it", |_, _| {
            let frame = A.udp(&WORLD, Family::V4, ports(0)).bytes();
            vec![altered(&frame, 24, &[0xde, 0xad])]
        })
        .v4()
        .fate(&[OUT], OPENS);
}
