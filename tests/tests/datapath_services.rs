//! Packets to Services, byte by byte: who gets them, as what, and what comes back.

use datapath_abi::{
    addr::Addr,
    conntrack::{CtEntry, CtKey, FLAG_ALIAS},
    control::Sweep,
    event::{EndReason, FlowEvent},
    maps::{self, Scalar},
    policy::Direction,
    reason::DropReason,
    service::{GoneKey, HAIRPIN_V4, HAIRPIN_V6},
};
use tests::{
    host::{A, B, C, FAMILIES, Family, Host, NODE, REMOTE, ROUTER, SERVICE, WORLD},
    lab::{At, Lab},
    packet::{
        self, ACK, Body, FIN, Packet, RST, SCTP, SCTP_COOKIE_ECHO, SCTP_DATA, SCTP_INIT, SCTP_INIT_ACK, SYN, TCP, UDP,
    },
    rules::{Rule, allow},
};

/// Another one's.
const OTHER: Host = Host { name: "OTHER", v4: std::net::Ipv4Addr::new(10, 96, 0, 11), ..SERVICE };
/// What a pod's packets to itself come from.
const HAIRPIN: Host = Host {
    name: "HAIRPIN",
    v4: std::net::Ipv4Addr::new(192, 0, 0, 8),
    v6: std::net::Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1),
    ..WORLD
};
const CLIENT: u16 = 40_000;
const PORT: u16 = 80;
const THERE: u16 = 8080;
const HZ: Sweep = Sweep { active_interval_ns: u64::MAX, hz: 1000, share: 0 };

/// As the packets of a pod look on their way: its addresses in the MAC header, whoever they are for.
fn from(pod: &Host, to: &Host, family: Family, body: Body) -> Packet {
    pod.packet(to, family, body)
}

fn tcp(port: [u16; 2], flags: u8) -> Body {
    Body::Tcp { port, flags }
}

/// What was chosen, if a packet of A went to it.
fn of_service(event: &FlowEvent, family: Family, port: u16) {
    assert_eq!((event.service.addr, event.service.port), (SERVICE.addr(family).into(), port), "{event:?}");
}

/// A packet of A to the Service, as one to `host`.
fn forward(lab: &mut Lab, host: &Host, family: Family, there: Body, said: Body) -> tests::seen::Seen {
    let becomes = from(&A, host, family, there);
    lab.send(At::From(A), &from(&A, &SERVICE, family, said)).becomes(&becomes)
}

/// A packet of `host`, a pod of this node, to A, as one of the Service.
fn back(lab: &mut Lab, host: &Host, family: Family, there: Body, said: Body) -> tests::seen::Seen {
    let mut becomes = SERVICE.packet(&A, family, said);
    becomes.mac = [host.mac, packet_mac()];
    lab.send(At::From(*host), &host.packet(&A, family, there)).becomes(&becomes)
}

/// Destination of what a pod sends.
fn packet_mac() -> [u8; 6] {
    A.tcp(&B, Family::V4, [1, 2], SYN).mac[1]
}

fn establish(lab: &mut Lab, host: &Host, family: Family, there: u16) {
    let (out, to) = ([CLIENT, PORT], [CLIENT, there]);
    let (answer, said) = ([there, CLIENT], [PORT, CLIENT]);
    forward(lab, host, family, tcp(to, SYN), tcp(out, SYN))
        .reaches(host)
        .opens()
        .with(|event| of_service(event, family, PORT));
    back(lab, host, family, tcp(answer, SYN | ACK), tcp(said, SYN | ACK)).reaches(&A);
    forward(lab, host, family, tcp(to, ACK), tcp(out, ACK)).reaches(host);
}

/// Whatever the port.
fn only(host: &Host) -> Rule {
    Rule::identity(host.identity, allow(1, 1))
}

fn aliases(lab: &mut Lab, table: &str) -> Vec<(CtKey, CtEntry)> {
    lab.connections(table).into_iter().filter(|(_, entry)| entry.flags & FLAG_ALIAS != 0).collect()
}

#[test]
fn tcp_goes_to_a_backend_and_comes_back_from_the_service() {
    for family in FAMILIES {
        for there in [PORT, THERE] {
            let mut lab = Lab::new();
            lab.service(&SERVICE, family, TCP, PORT, &[(B, there)]);
            establish(&mut lab, &B, family, there);
            assert_eq!(lab.sizes(), (2, 0), "the connection and its alias");
            for _ in 0..3 {
                forward(&mut lab, &B, family, tcp([CLIENT, there], ACK), tcp([CLIENT, PORT], ACK)).reaches(&B);
                back(&mut lab, &B, family, tcp([there, CLIENT], ACK), tcp([PORT, CLIENT], ACK)).reaches(&A);
            }
            forward(&mut lab, &B, family, tcp([CLIENT, there], FIN | ACK), tcp([CLIENT, PORT], FIN | ACK)).reaches(&B);
            back(&mut lab, &B, family, tcp([there, CLIENT], FIN | ACK), tcp([PORT, CLIENT], FIN | ACK)).reaches(&A);
            forward(&mut lab, &B, family, tcp([CLIENT, there], ACK), tcp([CLIENT, PORT], ACK)).reaches(&B);
            // The same port again, for a new connection.
            forward(&mut lab, &B, family, tcp([CLIENT, there], SYN), tcp([CLIENT, PORT], SYN))
                .reaches(&B)
                .closes(EndReason::Fin)
                .with(|event| of_service(event, family, PORT))
                .opens();
        }
    }
}

#[test]
fn udp_goes_to_a_backend_and_comes_back_from_the_service() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        lab.service(&SERVICE, family, UDP, 53, &[(B, 5353)]);
        let udp = |port| Body::Udp { port };
        forward(&mut lab, &B, family, udp([CLIENT, 5353]), udp([CLIENT, 53])).reaches(&B).opens();
        back(&mut lab, &B, family, udp([5353, CLIENT]), udp([53, CLIENT])).reaches(&A);
        forward(&mut lab, &B, family, udp([CLIENT, 5353]), udp([CLIENT, 53])).reaches(&B);
        assert_eq!(lab.sizes(), (2, 0));
        back(&mut lab, &B, family, udp([5353, CLIENT]), udp([53, CLIENT])).reaches(&A);
        // Without a checksum there is none to mend (RFC 768).
        if family == Family::V4 {
            let mut frame = from(&A, &SERVICE, family, udp([CLIENT, 53])).bytes();
            frame[40..42].copy_from_slice(&[0, 0]);
            let seen = lab.send_bytes(At::From(A), &frame);
            assert_eq!(seen.bytes()[40..42], [0, 0]);
            seen.whatever();
        }
    }
}

#[test]
fn sctp_goes_to_a_backend_and_comes_back_from_the_service() {
    for family in FAMILIES {
        for there in [PORT, THERE] {
            let mut lab = Lab::new();
            lab.service(&SERVICE, family, SCTP, PORT, &[(B, there)]);
            let (out, to) = ([CLIENT, PORT], [CLIENT, there]);
            let (answer, said) = ([there, CLIENT], [PORT, CLIENT]);
            let sctp = |port, chunk| Body::Sctp { port, chunk };
            forward(&mut lab, &B, family, sctp(to, SCTP_INIT), sctp(out, SCTP_INIT)).reaches(&B).opens();
            back(&mut lab, &B, family, sctp(answer, SCTP_INIT_ACK), sctp(said, SCTP_INIT_ACK)).reaches(&A);
            forward(&mut lab, &B, family, sctp(to, SCTP_COOKIE_ECHO), sctp(out, SCTP_COOKIE_ECHO)).reaches(&B);
            for length in [0, 1, 8, 1000, 1400] {
                let payload = vec![0xa5; length];
                let becomes = from(&A, &B, family, sctp(to, SCTP_DATA)).payload(&payload);
                lab.send(At::From(A), &from(&A, &SERVICE, family, sctp(out, SCTP_DATA)).payload(&payload))
                    .becomes(&becomes)
                    .reaches(&B);
            }
            back(&mut lab, &B, family, sctp(answer, SCTP_DATA), sctp(said, SCTP_DATA)).reaches(&A);
        }
    }
}

#[test]
fn a_backend_of_another_node_is_reached_through_the_stack() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        lab.service(&SERVICE, family, TCP, PORT, &[(REMOTE, THERE)]);
        let answer = |lab: &mut Lab, flags| {
            let becomes = SERVICE.packet(&A, family, tcp([PORT, CLIENT], flags));
            lab.send(At::To(A, REMOTE), &REMOTE.packet(&A, family, tcp([THERE, CLIENT], flags))).becomes(&becomes)
        };
        forward(&mut lab, &REMOTE, family, tcp([CLIENT, THERE], SYN), tcp([CLIENT, PORT], SYN)).passes().opens();
        answer(&mut lab, SYN | ACK).passes();
        forward(&mut lab, &REMOTE, family, tcp([CLIENT, THERE], ACK), tcp([CLIENT, PORT], ACK)).passes();
        answer(&mut lab, ACK).passes();
        // What is headed for the backend itself is left alone.
        lab.send(At::From(A), &A.tcp(&REMOTE, family, [CLIENT + 1, THERE], SYN)).passes().opens();
    }
}

#[test]
fn rules_are_asked_about_the_backend() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        lab.service(&SERVICE, family, TCP, PORT, &[(B, THERE)]);
        lab.isolate(&A, Direction::Egress, &[only(&C)]);
        forward(&mut lab, &B, family, tcp([CLIENT, THERE], SYN), tcp([CLIENT, PORT], SYN))
            .drops(DropReason::DefaultDeny, Some(Direction::Egress))
            .with(|event| {
                assert_eq!(event.identity, [A.identity, B.identity]);
                of_service(event, family, PORT);
            });
        assert_eq!(lab.sizes(), (0, 0), "what was refused leaves no alias");
        lab.isolate(&A, Direction::Egress, &[only(&B)]);
        lab.isolate(&B, Direction::Ingress, &[only(&A)]);
        establish(&mut lab, &B, family, THERE);
        // The rules change: cut in both directions.
        lab.isolate(&B, Direction::Ingress, &[only(&C)]);
        forward(&mut lab, &B, family, tcp([CLIENT, THERE], ACK), tcp([CLIENT, PORT], ACK))
            .bumps(Scalar::Redecided)
            .closes(EndReason::PolicyChange)
            .drops(DropReason::PolicyChange, Some(Direction::Ingress));
        back(&mut lab, &B, family, tcp([THERE, CLIENT], ACK), tcp([PORT, CLIENT], ACK)).whatever();
        // By address: the Service's is none that a rule can name.
        lab.isolate(&A, Direction::Egress, &[]);
        lab.send(At::From(A), &from(&A, &SERVICE, family, tcp([CLIENT + 1, PORT], SYN))).whatever();
    }
}

#[test]
fn without_a_backend_it_goes_nowhere_and_another_port_is_no_service() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        lab.service(&SERVICE, family, TCP, PORT, &[]);
        lab.send(At::From(A), &from(&A, &SERVICE, family, tcp([CLIENT, PORT], SYN))).drops(DropReason::NoBackend, None);
        lab.send(At::From(A), &from(&A, &SERVICE, family, tcp([CLIENT, PORT + 1], SYN))).passes().opens();
        lab.send(At::From(A), &from(&A, &SERVICE, family, Body::Udp { port: [CLIENT, PORT] })).passes().opens();
        // A connection that was there before us is the host's.
        lab.send(At::From(A), &from(&A, &SERVICE, family, tcp([CLIENT + 2, PORT], ACK))).passes().opens();
    }
}

#[test]
fn a_pod_reaches_itself() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        let dummy = if family == Family::V4 { HAIRPIN_V4 } else { HAIRPIN_V6 };
        assert_eq!(Addr::from(HAIRPIN.addr(family)), dummy);
        lab.service(&SERVICE, family, TCP, PORT, &[(A, THERE)]);
        // Whatever its rules say.
        lab.isolate(&A, Direction::Egress, &[]);
        lab.isolate(&A, Direction::Ingress, &[]);
        let there = |body: Body| {
            let mut packet = HAIRPIN.packet(&A, family, body.clone());
            packet.mac = from(&A, &SERVICE, family, body).mac;
            packet
        };
        let back = |body: Body| {
            let mut packet = SERVICE.packet(&A, family, body.clone());
            packet.mac = from(&A, &SERVICE, family, body).mac;
            packet
        };
        for (flags, opens) in [(SYN, true), (ACK, false), (ACK, false)] {
            let seen = lab
                .send(At::From(A), &from(&A, &SERVICE, family, tcp([CLIENT, PORT], flags)))
                .becomes(&there(tcp([CLIENT, THERE], flags)))
                .reaches(&A);
            if opens {
                let _ = seen.opens().with(|event| of_service(event, family, PORT));
            }
            let flags = if flags == SYN { SYN | ACK } else { ACK };
            lab.send(At::From(A), &from(&A, &HAIRPIN, family, tcp([THERE, CLIENT], flags)))
                .becomes(&back(tcp([PORT, CLIENT], flags)))
                .reaches(&A);
        }
        assert_eq!(lab.sizes(), (2, 0));
        // Nobody else is reached in that way.
        let mut forged = HAIRPIN.packet(&B, family, tcp([CLIENT, THERE], SYN));
        forged.mac = from(&A, &B, family, tcp([1, 2], SYN)).mac;
        lab.send(At::From(A), &forged).drops(DropReason::InvalidSourceIp, None);
    }
}

#[test]
fn connections_that_would_look_alike_are_told_apart() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        // First straight to the backend, then by the Service: from another port.
        let straight = A.packet(&B, family, tcp([CLIENT, THERE], SYN));
        lab.send(At::From(A), &straight).reaches(&B).opens();
        lab.service(&SERVICE, family, TCP, PORT, &[(B, THERE)]);
        let seen = lab.send(At::From(A), &from(&A, &SERVICE, family, tcp([CLIENT, PORT], SYN)));
        let at = if family == Family::V4 { 34 } else { 54 };
        let port = u16::from_be_bytes([seen.bytes()[at], seen.bytes()[at + 1]]);
        assert!(port >= 49_152 && port != CLIENT, "from port {port}");
        let becomes = from(&A, &B, family, tcp([port, THERE], SYN));
        let _ = seen.becomes(&becomes).reaches(&B).opens();
        back(&mut lab, &B, family, tcp([THERE, port], SYN | ACK), tcp([PORT, CLIENT], SYN | ACK)).reaches(&A);
        let becomes = from(&A, &B, family, tcp([port, THERE], ACK));
        lab.send(At::From(A), &from(&A, &SERVICE, family, tcp([CLIENT, PORT], ACK))).becomes(&becomes).reaches(&B);
        // The one that was there first goes on.
        lab.send(At::From(B), &B.packet(&A, family, tcp([THERE, CLIENT], SYN | ACK))).reaches(&A);
        lab.send(At::From(A), &A.packet(&B, family, tcp([CLIENT, THERE], ACK))).reaches(&B);

        // First by the Service, then straight: nothing can be done for what is not translated.
        let mut lab = Lab::new();
        lab.service(&SERVICE, family, TCP, PORT, &[(B, THERE)]);
        establish(&mut lab, &B, family, THERE);
        lab.send(At::From(A), &straight).drops(DropReason::ServicePorts, None);
        forward(&mut lab, &B, family, tcp([CLIENT, THERE], ACK), tcp([CLIENT, PORT], ACK)).reaches(&B);
    }
}

#[test]
fn a_connection_stays_with_its_backend_and_new_ones_go_to_those_there_are() {
    let family = Family::V4;
    let mut lab = Lab::new();
    lab.service(&SERVICE, family, TCP, PORT, &[(B, THERE)]);
    establish(&mut lab, &B, family, THERE);
    lab.service(&SERVICE, family, TCP, PORT, &[(C, PORT)]);
    forward(&mut lab, &B, family, tcp([CLIENT, THERE], ACK), tcp([CLIENT, PORT], ACK)).reaches(&B);
    for port in 1..20 {
        forward(&mut lab, &C, family, tcp([port, PORT], SYN), tcp([port, PORT], SYN)).reaches(&C).opens();
        // Again, as nobody has answered: to the same one.
        forward(&mut lab, &C, family, tcp([port, PORT], SYN), tcp([port, PORT], SYN)).reaches(&C);
    }
    // Each of several gets some.
    lab.service(&SERVICE, family, TCP, PORT, &[(B, THERE), (C, PORT), (REMOTE, 9090)]);
    let mut got = [0; 3];
    for port in 1000..1090 {
        let seen = lab.send(At::From(A), &from(&A, &SERVICE, family, tcp([port, PORT], SYN)));
        let to = u16::from_be_bytes([seen.bytes()[36], seen.bytes()[37]]);
        got[[THERE, PORT, 9090].iter().position(|it| *it == to).expect("a backend")] += 1;
        seen.whatever();
    }
    assert!(got.iter().all(|count| *count > 10), "{got:?}");
}

#[test]
fn what_a_service_has_lost_is_ended_where_any_packet_can_begin_anew() {
    let family = Family::V4;
    let mut lab = Lab::new();
    let udp = |port| Body::Udp { port };
    let set = lab.service(&SERVICE, family, UDP, 53, &[(B, 53)]);
    lab.service(&SERVICE, family, TCP, PORT, &[(B, THERE)]);
    establish(&mut lab, &B, family, THERE);
    forward(&mut lab, &B, family, udp([CLIENT, 53]), udp([CLIENT, 53])).reaches(&B).opens();
    back(&mut lab, &B, family, udp([53, CLIENT]), udp([53, CLIENT])).reaches(&A);
    forward(&mut lab, &B, family, udp([CLIENT, 53]), udp([CLIENT, 53])).reaches(&B);
    lab.service(&SERVICE, family, UDP, 53, &[(C, 53)]);
    forward(&mut lab, &B, family, udp([CLIENT, 53]), udp([CLIENT, 53])).reaches(&B);
    for (port, set) in [(53, set), (THERE, set + 1)] {
        let gone = GoneKey { addr: B.addr(family).into(), port, pad: [0; 2], set };
        lab.programs.hash::<GoneKey, u32>(maps::GONE).insert(gone, 0, 0).unwrap();
    }
    let (report, _seen) = lab.sweep(HZ);
    assert_eq!(report.removed, 1, "the alias of UDP: {report:?}");
    forward(&mut lab, &C, family, udp([CLIENT, 53]), udp([CLIENT, 53])).reaches(&C).opens();
    forward(&mut lab, &B, family, tcp([CLIENT, THERE], ACK), tcp([CLIENT, PORT], ACK)).reaches(&B);
}

#[test]
fn an_alias_goes_with_its_connection() {
    let mut lab = Lab::new();
    lab.service(&SERVICE, Family::V4, TCP, PORT, &[(B, THERE), (B, THERE)]);
    establish(&mut lab, &B, Family::V4, THERE);
    let (report, _seen) = lab.sweep(HZ);
    assert_eq!((report.removed, aliases(&mut lab, maps::CONNTRACK).len()), (0, 1));
    let all = lab.connections(maps::CONNTRACK);
    let (key, _) = all.iter().find(|(_, entry)| entry.flags & FLAG_ALIAS == 0).expect("the connection");
    lab.forget(maps::CONNTRACK, key);
    let (report, _seen) = lab.sweep(HZ);
    assert_eq!((report.removed, lab.sizes()), (1, (0, 0)));
}

#[test]
fn nobody_speaks_for_another_pod() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        lab.service(&SERVICE, family, TCP, PORT, &[(B, THERE)]);
        let forged = |port: u16, flags| from(&C, &SERVICE, family, tcp([port, PORT], flags)).from_addr(A.addr(family));
        lab.send(At::From(C), &forged(CLIENT, SYN)).drops(DropReason::InvalidSourceIp, None);
        establish(&mut lab, &B, family, THERE);
        // With the ports of a connection that is there: known by what it would be.
        let would_be = from(&C, &B, family, tcp([CLIENT, THERE], ACK)).from_addr(A.addr(family));
        lab.send(At::From(C), &forged(CLIENT, ACK)).becomes(&would_be).drops(DropReason::InvalidSourceIp, None);
        // And nobody speaks for the Service.
        let mut answer = SERVICE.packet(&A, family, tcp([PORT, CLIENT], RST | ACK));
        answer.mac = from(&B, &A, family, tcp([1, 2], SYN)).mac;
        lab.send(At::From(B), &answer).drops(DropReason::InvalidSourceIp, None);
        forward(&mut lab, &B, family, tcp([CLIENT, THERE], ACK), tcp([CLIENT, PORT], ACK)).reaches(&B);
        // What the node itself sends with the pod's address has nothing to do with it.
        lab.send(At::To(A, NODE), &NODE.packet(&A, family, tcp([PORT, CLIENT], SYN))).passes().opens();
    }
}

#[test]
fn two_services_of_one_pod_are_told_apart() {
    let family = Family::V4;
    let mut lab = Lab::new();
    lab.service(&SERVICE, family, TCP, PORT, &[(B, THERE)]);
    lab.service(&OTHER, family, TCP, PORT, &[(B, THERE)]);
    establish(&mut lab, &B, family, THERE);
    let seen = lab.send(At::From(A), &from(&A, &OTHER, family, tcp([CLIENT, PORT], SYN)));
    let port = u16::from_be_bytes([seen.bytes()[34], seen.bytes()[35]]);
    assert_ne!(port, CLIENT);
    let becomes = from(&A, &B, family, tcp([port, THERE], SYN));
    let _ = seen.becomes(&becomes).reaches(&B).opens();
    let mut becomes = OTHER.packet(&A, family, tcp([PORT, CLIENT], SYN | ACK));
    becomes.mac = B.packet(&A, family, tcp([1, 2], SYN)).mac;
    lab.send(At::From(B), &B.packet(&A, family, tcp([THERE, port], SYN | ACK))).becomes(&becomes).reaches(&A);
}

#[test]
fn fragments_go_the_way_of_their_first_one() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        let udp = |port| Body::Udp { port };
        lab.service(&SERVICE, family, UDP, 53, &[(B, 53), (B, 53)]);
        for offset in [0, 2, 4] {
            let part = |packet: Packet| packet.part(77, offset, offset < 4).payload(&[7; 16 - 8]);
            let seen = lab
                .send(At::From(A), &part(from(&A, &SERVICE, family, udp([CLIENT, 53]))))
                .becomes(&part(from(&A, &B, family, udp([CLIENT, 53]))))
                .reaches(&B);
            if offset == 0 {
                let _ = seen.opens();
            }
        }
    }
}

#[test]
fn errors_about_a_connection_are_about_the_service() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        let udp = |port| Body::Udp { port };
        lab.service(&SERVICE, family, UDP, 53, &[(REMOTE, 5353)]);
        forward(&mut lab, &REMOTE, family, udp([CLIENT, 5353]), udp([CLIENT, 53])).passes().opens();
        let (unreachable, too_big) = if family == Family::V4 { ([3, 3], [3, 4]) } else { ([1, 4], [2, 0]) };
        let sent = from(&A, &REMOTE, family, udp([CLIENT, 5353])).bytes();
        let meant = from(&A, &SERVICE, family, udp([CLIENT, 53])).bytes();
        let quote = if family == Family::V4 { 28 } else { 48 };
        for (by, as_who, message) in [(&REMOTE, &SERVICE, unreachable), (&ROUTER, &ROUTER, too_big)] {
            let mac = REMOTE.packet(&A, family, udp([1, 2])).mac;
            // The quoted checksum stays as it was sent: nobody checks it.
            let error = packet::error_about(&sent, mac, by.addr(family), message, [0, 0, 5, 0], quote);
            let mut quoted = meant.clone();
            let sum = if family == Family::V4 { 40 } else { 60 };
            quoted[sum..sum + 2].copy_from_slice(&sent[sum..sum + 2]);
            let becomes = packet::error_about(&quoted, mac, as_who.addr(family), message, [0, 0, 5, 0], quote);
            lab.send(At::To(A, REMOTE), &error).becomes(&becomes).passes();
        }
        // And the other way: the client has closed its port.
        let answer = SERVICE.packet(&A, family, udp([53, CLIENT])).bytes();
        let sent_back = REMOTE.packet(&A, family, udp([5353, CLIENT])).bytes();
        let mac = from(&A, &SERVICE, family, udp([1, 2])).mac;
        let error = packet::error_about(&answer, mac, A.addr(family), unreachable, [0; 4], quote);
        let mut quoted = sent_back;
        let sum = if family == Family::V4 { 40 } else { 60 };
        quoted[sum..sum + 2].copy_from_slice(&answer[sum..sum + 2]);
        let becomes = packet::error_about(&quoted, mac, A.addr(family), unreachable, [0; 4], quote);
        lab.send(At::From(A), &error).becomes(&becomes).passes();
    }
}
