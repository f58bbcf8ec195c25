//! Packets whose ports are not where one looks first, or not there at all: options, fragments,
//! extension headers, ICMP errors, multicast, headers cut short. Between open pods they pass;
//! where an isolated one is concerned, what can't be judged is denied with its own reason. What one packet
//! and one line can say is in the table of `packets`.

use std::net::Ipv4Addr;

use datapath_abi::{addr::Addr, conntrack::CtState, identity::CLASS_ANY, maps, policy::Direction, reason::DropReason};
use tests::{
    host::{A, B, C, FAMILIES, Family, Host, NODE, REMOTE, ROUTER, WORLD},
    lab::{At, Lab},
    packet::{ACK, Body, Packet, SCTP_INIT, SYN, TCP, UDP, error_about},
    rules::{Rule, allow},
};

const PORTS: [u16; 2] = [40_000, 80];

/// A packet that can't be judged by its ports. From A to B and to the outside, from the outside
/// to B: with every end open, and with one isolated although a rule admits everybody.
fn unjudgeable(make: impl Fn(&Host, &Host) -> Packet, reason: DropReason) {
    let all = [Rule::identity(CLASS_ANY, allow(1, 1))];
    let mut lab = Lab::new();
    lab.send(At::From(A), &make(&A, &B)).reaches(&B);
    lab.send(At::From(A), &make(&A, &WORLD)).passes();
    lab.send(At::To(B, WORLD), &make(&WORLD, &B)).passes();
    lab.send(At::To(B, A), &make(&A, &B)).passes();
    assert_eq!(lab.sizes(), (0, 0), "not tracked");

    lab.isolate(&A, Direction::Egress, &all);
    for to in [B, WORLD, REMOTE, NODE] {
        lab.send(At::From(A), &make(&A, &to)).drops(reason, None).with(|event| {
            assert_eq!(event.identity, [A.identity, to.identity]);
        });
    }
    // The other direction of A, and the others, are as open as before.
    lab.send(At::To(A, WORLD), &make(&WORLD, &A)).passes();
    lab.send(At::From(C), &make(&C, &A)).reaches(&A);

    lab.open(&A, Direction::Egress);
    lab.isolate(&B, Direction::Ingress, &all);
    lab.send(At::From(A), &make(&A, &B)).drops(reason, None);
    for from in [WORLD, REMOTE] {
        lab.send(At::To(B, from), &make(&from, &B)).drops(reason, None);
    }
    lab.send(At::To(B, A), &make(&A, &B)).drops(reason, None);
    lab.send(At::From(A), &make(&A, &C)).reaches(&C);
    // The node's own packets always enter.
    lab.send(At::To(B, NODE), &make(&NODE, &B)).passes();
    // A pod with rules that is not isolated is under policy as well.
    lab.open(&B, Direction::Ingress);
    lab.restrict(&B, Direction::Ingress, &all);
    lab.send(At::From(A), &make(&A, &B)).drops(reason, None);
    // Who sends in another's name does so in any form.
    lab.send(
        At::From(A),
        &make(&A, &B).from_addr(if make(&A, &B).addr[0].is_ipv4() { C.v4.into() } else { C.v6.into() }),
    )
    .drops(DropReason::InvalidSourceIp, None);
}

#[test]
fn fragments_without_their_first() {
    for family in FAMILIES {
        for (offset, more) in [(3, true), (185, true), (185, false), (0x1fff, false)] {
            unjudgeable(|from, to| from.udp(to, family, PORTS).fragment(offset, more), DropReason::Fragment);
            unjudgeable(|from, to| from.tcp(to, family, PORTS, SYN).fragment(offset, more), DropReason::Fragment);
        }
        unjudgeable(|from, to| from.udp(to, family, PORTS).fragment(1, true), DropReason::Fragment);
    }
}

#[test]
fn fragments_follow_their_first() {
    let mut lab = Lab::new();
    let rule = || {
        Rule::identity(A.identity, tests::rules::NO_RULE).port(UDP, 80, 16, allow(1, 1)).port(TCP, 80, 16, allow(1, 1))
    };
    lab.isolate(&B, Direction::Ingress, &[rule()]);
    for family in FAMILIES {
        // The first is judged as if it were whole, the others belong to its connection.
        let part = |id, offset, more| A.udp(&B, family, PORTS).part(id, offset, more);
        lab.send(At::From(A), &part(1, 1, true)).drops(DropReason::Fragment, None);
        lab.send(At::From(A), &part(1, 0, true)).reaches(&B).opens();
        for (offset, more) in [(1, true), (2, false), (1, true), (0x1fff, false)] {
            lab.send(At::From(A), &part(1, offset, more)).reaches(&B);
        }
        let key =
            lab.connections(maps::PENDING).into_iter().find(|(key, _)| key.addr[0].is_v4() == (family == Family::V4));
        assert_eq!(key.map(|(_, entry)| entry.packets()), Some([5, 0]), "each is counted where it belongs");
        // Answers in pieces, the last of which establishes nothing by itself.
        let answer = |offset, more| B.udp(&A, family, [PORTS[1], PORTS[0]]).part(1, offset, more);
        lab.send(At::From(B), &answer(0, true)).reaches(&A);
        lab.send(At::From(B), &answer(1, false)).reaches(&A);
        lab.send(At::From(A), &part(2, 0, true)).reaches(&B);
        lab.send(At::From(A), &part(2, 5, false)).reaches(&B);

        // Others: no first one, another packet, another sender, another protocol.
        lab.send(At::From(A), &part(3, 1, true)).drops(DropReason::Fragment, None);
        let denied = |offset| A.udp(&B, family, [40_000, 81]).part(4, offset, true);
        lab.send(At::From(A), &denied(0)).drops(DropReason::DefaultDeny, Some(Direction::Ingress));
        lab.send(At::From(A), &denied(1)).drops(DropReason::Fragment, None);
        lab.send(At::From(C), &C.udp(&B, family, PORTS).part(1, 1, true)).drops(DropReason::Fragment, None);
        lab.send(At::From(C), &part(1, 1, true).from_mac(C.mac)).drops(DropReason::InvalidSourceIp, None);
        // A whole packet's identification leaves nothing behind, nor does an atomic fragment's (RFC 6946).
        lab.send(At::From(A), &part(5, 0, false)).reaches(&B);
        lab.send(At::From(A), &part(5, 1, false)).drops(DropReason::Fragment, None);

        // TCP: the middle of a connection, with its flags in the first piece.
        let tcp = |flags| A.tcp(&B, family, PORTS, flags);
        lab.send(At::From(A), &tcp(SYN)).reaches(&B).opens();
        lab.send(At::From(B), &B.tcp(&A, family, [PORTS[1], PORTS[0]], SYN | ACK)).reaches(&A);
        lab.send(At::From(A), &tcp(ACK).part(6, 0, true)).reaches(&B);
        lab.send(At::From(A), &tcp(ACK).part(6, 3, false)).reaches(&B);
        assert_eq!(
            lab.connections(maps::CONNTRACK).iter().filter(|(key, _)| key.proto == TCP).count(),
            if family == FAMILIES[0] { 1 } else { 2 }
        );
        // What would put other flags over those (RFC 3128), or hide them from us (RFC 1858).
        for offset in [1, 2] {
            lab.send(At::From(A), &tcp(ACK).part(6, offset, true)).drops(DropReason::TruncatedHeader, None);
        }
    }
    // When the connection is cut, so are its fragments, and those of packets that began before.
    lab.isolate(&B, Direction::Ingress, &[]);
    for family in FAMILIES {
        let part = |id, offset| A.udp(&B, family, PORTS).part(id, offset, true);
        let seen = lab.send(At::From(A), &part(2, 6));
        seen.whatever();
        lab.send(At::From(A), &part(2, 7)).drops(DropReason::PolicyChange, Some(Direction::Ingress));
    }
}

#[test]
fn extension_headers_that_cannot_be_read() {
    // Eight bytes each.
    let options = [0, 1, 4, 0, 0, 0, 0];
    for number in [135, 139, 140] {
        unjudgeable(
            |from, to| from.udp(to, Family::V6, PORTS).extension(number, &options),
            DropReason::ExtensionHeader,
        );
        unjudgeable(
            |from, to| from.tcp(to, Family::V6, PORTS, SYN).extension(60, &options).extension(number, &options),
            DropReason::ExtensionHeader,
        );
    }
    unjudgeable(|from, to| from.packet(to, Family::V6, Body::Raw { proto: 59 }), DropReason::ExtensionHeader);
    // Hop-by-hop options in second place; a route with a stop left.
    unjudgeable(
        |from, to| from.udp(to, Family::V6, PORTS).extension(60, &options).extension(0, &options),
        DropReason::ExtensionHeader,
    );
    unjudgeable(
        |from, to| from.udp(to, Family::V6, PORTS).extension(43, &[0, 0, 1, 0, 0, 0, 0]),
        DropReason::ExtensionHeader,
    );
    // IPv4's routes: loose and strict (RFC 791, section 3.1).
    for option in [131, 137] {
        unjudgeable(
            |from, to| from.udp(to, Family::V4, PORTS).options(&[1, option, 7, 4, 192, 0, 2, 1]),
            DropReason::ExtensionHeader,
        );
    }
}

#[test]
fn extension_headers_hide_nothing() {
    let mut lab = Lab::new();
    let rule =
        Rule::identity(A.identity, tests::rules::NO_RULE).port(TCP, 80, 16, allow(1, 1)).port(UDP, 80, 16, allow(1, 1));
    lab.isolate(&B, Direction::Ingress, &[rule]);
    let pad: &[u8] = &[0, 1, 4, 0, 0, 0, 0];
    let long: &[u8] = &[&[15][..], &[0; 126]].concat();
    let route: &[u8] = &[0, 0, 0, 0, 0, 0, 0];
    let chains: [&[(u8, &[u8])]; 7] = [
        &[(0, pad)],
        &[(60, pad)],
        &[(43, route)],
        &[(60, long), (60, long), (60, long), (60, pad)],
        &[(0, pad), (60, pad), (43, route), (60, pad)],
        &[(43, route), (60, pad), (60, pad), (60, pad), (60, pad), (60, pad), (60, pad), (60, pad)],
        &[(0, long), (60, long)],
    ];
    for (number, chain) in chains.into_iter().enumerate() {
        let source = 41_000 + number as u16;
        let with = |packet: Packet| chain.iter().fold(packet, |packet, (kind, rest)| packet.extension(*kind, rest));
        for (allowed, denied) in [
            (A.tcp(&B, Family::V6, [source, 80], SYN), A.tcp(&B, Family::V6, [source, 81], SYN)),
            (A.udp(&B, Family::V6, [source, 80]), A.udp(&B, Family::V6, [source, 81])),
        ] {
            lab.send(At::From(A), &with(allowed.clone())).reaches(&B).opens();
            lab.send(At::From(A), &with(denied)).drops(DropReason::DefaultDeny, Some(Direction::Ingress));
            // The same connection without them.
            lab.send(At::From(A), &allowed).reaches(&B);
        }
        lab.send(At::From(A), &with(A.ping(&B, Family::V6, source)))
            .drops(DropReason::DefaultDeny, Some(Direction::Ingress));
        // Router advertisements are recognised behind them (RFC 7113).
        lab.send(At::From(A), &with(A.icmp(&B, Family::V6, 134, 0).ttl(255)))
            .drops(DropReason::ForgedNeighbourDiscovery, None);
    }
}

/// Frames of connections A has with B, and the errors that B, the node, a router and C send about them.
#[test]
fn icmp_errors_belong_to_the_connection_they_quote() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        let all = [Rule::identity(B.identity, allow(1, 1)), Rule::identity(WORLD.identity, allow(1, 1))];
        lab.isolate(&A, Direction::Egress, &all);
        lab.isolate(&A, Direction::Ingress, &[]);
        let (unreachable, too_big) = if family == Family::V4 { ([3, 3], [3, 4]) } else { ([1, 4], [2, 0]) };
        let icmp = |from: &Host, to: &Host, frame: &[u8], message, quote| {
            error_about(frame, [from.mac, to.mac], from.addr(family), message, [0, 0, 5, 0], quote)
        };
        let connections = [
            A.udp(&B, family, PORTS),
            A.tcp(&B, family, PORTS, SYN),
            A.sctp(&B, family, PORTS, SCTP_INIT),
            A.ping(&B, family, 7),
            A.udp(&B, family, PORTS).part(9, 0, true),
        ];
        for packet in connections {
            let frame = packet.bytes();
            // Network header and eight bytes.
            let least = match (family, packet.fragment) {
                (Family::V4, _) => 28,
                (Family::V6, None) => 48,
                (Family::V6, Some(_)) => 56,
            };
            // Before there is such a connection.
            lab.send(At::From(B), &icmp(&B, &A, &frame, unreachable, 500)).drops(DropReason::UnrelatedIcmpError, None);
            lab.send(At::From(A), &packet).reaches(&B).opens();
            // From the other end itself, with as much as it likes to quote; it has to be enough to tell.
            for quote in [500, least] {
                lab.send(At::From(B), &icmp(&B, &A, &frame, unreachable, quote)).reaches(&A);
            }
            lab.send(At::From(B), &icmp(&B, &A, &frame, unreachable, least - 1))
                .drops(DropReason::UnrelatedIcmpError, None);
            // From another pod, which is no router and no end of it.
            lab.send(At::From(C), &icmp(&C, &A, &frame, too_big, 500)).drops(DropReason::UnrelatedIcmpError, None);
            lab.send(At::To(A, C), &icmp(&C, &A, &frame, too_big, 500)).drops(DropReason::UnrelatedIcmpError, None);
            // In another's name.
            let forged = icmp(&B, &A, &frame, unreachable, 500).from_mac(C.mac);
            lab.send(At::From(C), &forged).drops(DropReason::InvalidSourceIp, None);
            // The connection has not moved by any of that.
            let (key, entry) = lab.connection(maps::PENDING);
            assert_eq!((entry.state, entry.packets()), (CtState::New as u8, [1, 0]));
            lab.forget(maps::PENDING, &key);
        }
        // To the outside: routers on the way, and the node itself.
        let packet = A.udp(&WORLD, family, PORTS);
        let frame = packet.bytes();
        lab.send(At::To(A, ROUTER), &icmp(&ROUTER, &A, &frame, too_big, 500))
            .drops(DropReason::UnrelatedIcmpError, None);
        lab.send(At::From(A), &packet).passes().opens();
        lab.send(At::To(A, ROUTER), &icmp(&ROUTER, &A, &frame, too_big, 500)).passes();
        lab.send(At::To(A, WORLD), &icmp(&WORLD, &A, &frame, unreachable, 500)).passes();
        // A pod of another node is no router.
        lab.send(At::To(A, REMOTE), &icmp(&REMOTE, &A, &frame, too_big, 500))
            .drops(DropReason::UnrelatedIcmpError, None);
        lab.send(At::To(A, NODE), &icmp(&NODE, &A, &frame, too_big, 500)).passes();
        // Other ports are another connection.
        let other = A.udp(&WORLD, family, [PORTS[0], 81]).bytes();
        lab.send(At::To(A, ROUTER), &icmp(&ROUTER, &A, &other, too_big, 500))
            .drops(DropReason::UnrelatedIcmpError, None);
        // Nor does an error get through about what has been cut.
        lab.isolate(&A, Direction::Egress, &[]);
        lab.send(At::To(A, ROUTER), &icmp(&ROUTER, &A, &frame, too_big, 500)).whatever();
        lab.send(At::To(A, ROUTER), &icmp(&ROUTER, &A, &frame, too_big, 500))
            .drops(DropReason::PolicyChange, Some(Direction::Egress));
    }
}

#[test]
fn icmp_errors_of_no_connection() {
    for kind in [3, 4, 11, 12] {
        unjudgeable(|from, to| from.icmp(to, Family::V4, kind, 1), DropReason::UnrelatedIcmpError);
    }
    for kind in [1, 2, 3, 4, 0, 100, 127] {
        unjudgeable(|from, to| from.icmp(to, Family::V6, kind, 0), DropReason::UnrelatedIcmpError);
    }
}

#[test]
fn multicast_and_broadcast() {
    let all = [Rule::identity(CLASS_ANY, allow(1, 1))];
    let groups: [(Family, Host); 6] = [
        (Family::V4, Host { v4: Ipv4Addr::new(224, 0, 0, 251), ..WORLD }),
        (Family::V4, Host { v4: Ipv4Addr::new(239, 255, 255, 255), ..WORLD }),
        (Family::V4, Host { v4: Ipv4Addr::BROADCAST, ..WORLD }),
        (Family::V4, Host { v4: Ipv4Addr::new(240, 0, 0, 1), ..WORLD }),
        (Family::V6, Host { v6: "ff02::fb".parse().unwrap(), ..WORLD }),
        (Family::V6, Host { v6: "ff0e::1".parse().unwrap(), ..WORLD }),
    ];
    for (family, group) in groups {
        for packet in [A.udp(&group, family, PORTS), A.ping(&group, family, 7)] {
            let mut lab = Lab::new();
            lab.send(At::From(A), &packet).passes();
            lab.send(At::To(B, A), &packet).passes();
            lab.send(At::To(B, WORLD), &packet.clone().from_addr(WORLD.addr(family))).passes();
            lab.isolate(&A, Direction::Egress, &all);
            lab.send(At::From(A), &packet).drops(DropReason::Multicast, None);
            lab.isolate(&B, Direction::Ingress, &all);
            lab.send(At::To(B, WORLD), &packet.clone().from_addr(WORLD.addr(family)))
                .drops(DropReason::Multicast, None);
            lab.send(At::To(B, NODE), &packet.clone().from_addr(NODE.addr(family))).passes();
            assert_eq!(lab.sizes(), (0, 0));
        }
    }
}

/// ICMP that is neither echo, error nor neighbour discovery has no connection; rules are asked.
#[test]
fn other_icmp_follows_the_rules_of_its_protocol() {
    for (family, kind, proto) in
        [(Family::V4, 13, 1), (Family::V4, 17, 1), (Family::V6, 139, 58), (Family::V6, 200, 58)]
    {
        let mut lab = Lab::new();
        let packet = A.icmp(&B, family, kind, 0);
        lab.send(At::From(A), &packet).reaches(&B);
        lab.isolate(
            &B,
            Direction::Ingress,
            &[Rule::identity(A.identity, tests::rules::NO_RULE).port(TCP, 0, 0, allow(1, 1))],
        );
        lab.send(At::From(A), &packet).drops(DropReason::DefaultDeny, Some(Direction::Ingress));
        lab.isolate(
            &B,
            Direction::Ingress,
            &[Rule::identity(A.identity, tests::rules::NO_RULE).port(proto, 0, 0, allow(1, 1))],
        );
        lab.send(At::From(A), &packet).reaches(&B);
        assert_eq!(lab.sizes(), (0, 0));
    }
}

#[test]
fn protocols_without_ports_are_tracked_by_address() {
    for family in FAMILIES {
        for proto in [4, 41, 47, 50, 51, 115, 253] {
            let mut lab = Lab::new();
            let (there, back) = (Body::Raw { proto }, Body::Raw { proto });
            lab.isolate(&B, Direction::Egress, &[]);
            lab.isolate(&B, Direction::Ingress, &[Rule::identity(A.identity, allow(5, 1))]);
            lab.send(At::From(B), &B.packet(&A, family, back.clone()))
                .drops(DropReason::DefaultDeny, Some(Direction::Egress));
            lab.send(At::From(A), &A.packet(&B, family, there.clone())).reaches(&B).opens().with(|event| {
                assert_eq!((event.proto, event.port, event.cookie), (proto, [0, 0], [0, 5]));
            });
            lab.send(At::From(B), &B.packet(&A, family, back)).reaches(&A);
            lab.send(At::From(A), &A.packet(&B, family, there)).reaches(&B);
            assert_eq!(lab.sizes(), (1, 0));
        }
    }
}

#[test]
fn ipv4_options_hide_nothing() {
    let mut lab = Lab::new();
    let rule =
        Rule::identity(A.identity, tests::rules::NO_RULE).port(TCP, 80, 16, allow(1, 1)).port(UDP, 80, 16, allow(1, 1));
    lab.isolate(&B, Direction::Ingress, &[rule]);
    // No-operation, which may be there any number of times; record route, timestamp, router alert (IANA).
    let route = [&[7, 39, 4][..], &[0; 37]].concat();
    let lists: [&[u8]; 6] = [
        &[1; 4],
        &[1; 12],
        &route,
        &[68, 8, 5, 0, 0, 0, 0, 0],
        &[148, 4, 0, 0],
        &[1, 148, 4, 0, 0, 1, 7, 3, 4, 0, 131, 3],
    ];
    for (number, options) in lists.into_iter().enumerate() {
        let source = 40_000 + number as u16;
        for (packet, denied) in [
            (A.tcp(&B, Family::V4, [source, 80], SYN), A.tcp(&B, Family::V4, [source, 81], SYN)),
            (A.udp(&B, Family::V4, [source, 80]), A.udp(&B, Family::V4, [source, 81])),
        ] {
            lab.send(At::From(A), &packet.options(options)).reaches(&B).opens();
            lab.send(At::From(A), &denied.options(options)).drops(DropReason::DefaultDeny, Some(Direction::Ingress));
        }
        let sctp = A.sctp(&B, Family::V4, [source, 80], SCTP_INIT).options(options);
        lab.send(At::From(A), &sctp).drops(DropReason::DefaultDeny, Some(Direction::Ingress));
        lab.send(At::From(A), &A.ping(&B, Family::V4, source).options(options))
            .drops(DropReason::DefaultDeny, Some(Direction::Ingress));
    }
}

/// One of each, with headers that are worth cutting.
fn whole_packets() -> Vec<Packet> {
    let mut packets = Vec::new();
    for family in FAMILIES {
        packets.push(A.tcp(&B, family, PORTS, SYN));
        packets.push(A.udp(&B, family, PORTS));
        packets.push(A.sctp(&B, family, PORTS, SCTP_INIT));
        packets.push(A.ping(&B, family, 7));
    }
    packets.push(A.tcp(&B, Family::V4, PORTS, SYN).options(&[1; 12]));
    packets.push(A.udp(&B, Family::V6, PORTS).extension(60, &[0; 7]));
    packets.push(A.udp(&B, Family::V6, PORTS).fragment(0, true));
    packets
}

/// Where the kernel refuses to run a program on so little, the parser's own tests stand in.
#[test]
fn a_packet_cut_at_any_byte_is_dropped_by_everybody() {
    for packet in whole_packets() {
        let mut lab = Lab::new();
        let whole = packet.bytes();
        for length in 14..whole.len() {
            for at in [At::From(A), At::To(B, WORLD)] {
                if !lab.can_send(at, &whole[..length]) {
                    continue;
                }
                lab.send_bytes(at, &whole[..length]).drops(DropReason::TruncatedHeader, None).with(|event| {
                    // Who was concerned is known all the same.
                    let side = matches!(at, At::To(..)) as usize;
                    assert_eq!(event.slot[side], [A, B][side].slot);
                    assert_eq!(event.identity[side], [A, B][side].identity);
                    assert_eq!(event.addr, [Addr::ZERO; 2]);
                });
            }
        }
        assert_eq!(lab.sizes(), (0, 0));
    }
}

/// A checksum that is wrong, or left to hardware, is not ours to judge: it stays as wrong.
#[test]
fn checksums_are_carried_along() {
    let mut lab = Lab::new();
    lab.isolate(&B, Direction::Ingress, &[Rule::identity(A.identity, allow(1, 1))]);
    let mut frame = A.tcp(&B, Family::V4, PORTS, SYN).bytes();
    frame[14 + 20 + 16] ^= 0xff;
    lab.send_bytes(At::From(A), &frame).reaches(&B).opens();
    let mut frame = A.tcp(&B, Family::V4, PORTS, ACK).bytes();
    let right = u16::from_be_bytes([frame[24], frame[25]]);
    frame[24..26].copy_from_slice(&right.wrapping_add(0x1111).to_be_bytes());
    let seen = lab.send_bytes(At::From(A), &frame);
    assert_eq!(seen.returned(), tests::seen::REDIRECT);
    let after = seen.bytes();
    assert_ne!(tests::packet::checksum(&[&after[14..34]]), 0, "a wrong header checksum must not become right");
    seen.whatever();
}
