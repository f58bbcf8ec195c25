//! Which packets the programs tell of as DNS: those of connections that a pod of the node has opened to a port that is listened
//! to, each once, and only what is let through. What is told of each is e2e_dns's matter.

use daemon::datapath::load::Capacities;
use datapath_abi::{
    maps::{self, Scalar},
    policy::Direction,
    reason::DropReason,
};
use tests::{
    host::{A, B, Family, Host, NODE, WORLD},
    lab::{At, Lab},
    packet::Packet,
    seen::Seen,
};

const V4: Family = Family::V4;
/// UDP.
const UDP: u8 = 17;
const WRITTEN: Scalar = Scalar::DnsWritten;

fn lab(bytes: u32) -> Lab {
    let mut capacities = Capacities::default();
    for (map, size) in [(maps::CONNTRACK, 256), (maps::PENDING, 256), (maps::ADDRESSES, 256), (maps::DNS, bytes)] {
        capacities.set(map, size).unwrap();
    }
    capacities.listen_to_dns([53, 1053, 0, 0]);
    Lab::with(&capacities)
}

fn udp(from: &Host, to: &Host, family: Family, ports: [u16; 2]) -> Packet {
    from.udp(to, family, ports).payload(b"0123456789abcdef")
}

/// The first packet, its answer, and one each in the middle of the connection.
fn talk(lab: &mut Lab, client: [At; 2], packets: [&Packet; 2], told: bool, reach: impl Fn(Seen, usize) -> Seen) {
    for round in 0..3 {
        for side in 0..2 {
            let mut seen = reach(lab.send(client[side], packets[side]), side);
            if round == 0 && side == 0 {
                seen = seen.opens();
            }
            if told {
                seen.bumps(WRITTEN);
            }
        }
    }
}

#[test]
fn questions_and_answers_between_pods_are_told_once_each() {
    for (family, port) in [(V4, 53), (Family::V6, 53), (V4, 1053)] {
        let mut lab = lab(1 << 16);
        let (there, back) = (udp(&A, &B, family, [4000, port]), udp(&B, &A, family, [port, 4000]));
        talk(&mut lab, [At::From(A), At::From(B)], [&there, &back], true, |seen, side| {
            seen.reaches(if side == 0 { &B } else { &A })
        });
    }
}

#[test]
fn servers_outside_are_heard_through_the_hosts_stack() {
    for server in [WORLD, NODE] {
        let mut lab = lab(1 << 16);
        let (there, back) = (udp(&A, &server, V4, [4000, 53]), udp(&server, &A, V4, [53, 4000]));
        talk(&mut lab, [At::From(A), At::To(A, server)], [&there, &back], true, |seen, _| seen.passes());
    }
}

#[test]
fn what_pods_are_asked_from_outside_is_not_told() {
    let mut lab = lab(1 << 16);
    let (there, back) = (udp(&WORLD, &B, V4, [4000, 53]), udp(&B, &WORLD, V4, [53, 4000]));
    talk(&mut lab, [At::To(B, WORLD), At::From(B)], [&there, &back], false, |seen, _| seen.passes());
}

#[test]
fn it_is_the_responders_port_that_counts() {
    let mut lab = lab(1 << 16);
    let (there, back) = (udp(&A, &B, V4, [53, 4000]), udp(&B, &A, V4, [4000, 53]));
    talk(&mut lab, [At::From(A), At::From(B)], [&there, &back], false, |seen, side| {
        seen.reaches(if side == 0 { &B } else { &A })
    });
    // Nothing is said where nothing is in it.
    lab.send(At::From(A), &A.tcp(&B, V4, [4001, 53], 2).payload(b"")).reaches(&B).opens();
}

#[test]
fn what_is_dropped_is_not_told() {
    let mut lab = lab(1 << 16);
    lab.isolate(&B, Direction::Ingress, &[]);
    lab.send(At::From(A), &udp(&A, &B, V4, [4000, 53])).drops(DropReason::DefaultDeny, Some(Direction::Ingress));
}

#[test]
fn a_service_is_listened_to_at_its_own_port() {
    let mut lab = lab(1 << 16);
    lab.service(&WORLD, V4, UDP, 53, &[(B, 5353)]);
    let (there, back) = (udp(&A, &WORLD, V4, [4000, 53]), udp(&B, &A, V4, [5353, 4000]));
    for round in 0..3 {
        let seen = lab.send(At::From(A), &there).becomes(&udp(&A, &B, V4, [4000, 5353])).reaches(&B).bumps(WRITTEN);
        if round == 0 {
            seen.opens()
        } else {
            seen
        };
        lab.send(At::From(B), &back).becomes(&udp(&WORLD, &A, V4, [53, 4000])).reaches(&A).bumps(WRITTEN);
    }
    lab.send(At::From(A), &udp(&A, &B, V4, [4001, 5353])).reaches(&B).opens();
}

#[test]
fn what_finds_no_room_is_counted() {
    let mut lab = lab(4096);
    let fill = udp(&A, &B, V4, [4000, 53]).payload(&[7; 1000]);
    lab.send(At::From(A), &fill).reaches(&B).opens().bumps(WRITTEN);
    for _ in 0..2 {
        lab.send(At::From(A), &fill).reaches(&B).bumps(WRITTEN);
    }
    for _ in 0..3 {
        lab.send(At::From(A), &fill).reaches(&B).bumps(Scalar::DnsLost);
    }
}

#[test]
fn nobody_listens_who_was_not_told_to() {
    let mut lab = Lab::new();
    let (there, back) = (udp(&A, &B, V4, [4000, 53]), udp(&B, &A, V4, [53, 4000]));
    talk(&mut lab, [At::From(A), At::From(B)], [&there, &back], false, |seen, side| {
        seen.reaches(if side == 0 { &B } else { &A })
    });
}
