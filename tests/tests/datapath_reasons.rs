//! No dead metric: every reason and every scalar is moved by some packet, here. A new one does
//! not compile until it has its packet.

use aya::maps::lpm_trie::Key;
use datapath_abi::{
    addr::Addr,
    control::Sweep,
    identity::CLASS_ANY,
    maps::{self, Scalar},
    overlay::Origin,
    policy::Direction,
    reason::DropReason,
};
use tests::{
    full,
    host::{A, B, Family, Host, REMOTE, WORLD},
    lab::{At, Lab, STRAY},
    packet::{ACK, Packet, SYN, TCP},
    rules::{Rule, allow, deny},
    seen::Seen,
};

const PORTS: [u16; 2] = [40_000, 80];
const V4: Family = Family::V4;

/// Drops one packet for this reason, and says so.
fn provoke(reason: DropReason) -> Seen {
    let mut lab = Lab::new();
    let admit_all = [Rule::identity(CLASS_ANY, allow(1, 1))];
    let syn = A.tcp(&B, V4, PORTS, SYN);
    let to_isolated = |packet: Packet| {
        let mut lab = Lab::new();
        lab.isolate(&B, Direction::Ingress, &admit_all);
        lab.send(At::From(A), &packet).drops(reason, None)
    };
    match reason {
        DropReason::DefaultDeny => {
            lab.isolate(&A, Direction::Egress, &[]);
            lab.send(At::From(A), &syn).drops(reason, Some(Direction::Egress))
        }
        DropReason::DenyRule => {
            lab.restrict(&B, Direction::Ingress, &[Rule::identity(A.identity, deny(1, 1))]);
            lab.send(At::From(A), &syn).drops(reason, Some(Direction::Ingress))
        }
        DropReason::PolicyChange => {
            lab.send(At::From(A), &syn).reaches(&B).opens();
            lab.isolate(&B, Direction::Ingress, &[]);
            lab.send(At::From(A), &A.tcp(&B, V4, PORTS, ACK)).whatever();
            lab.send(At::From(A), &A.tcp(&B, V4, PORTS, ACK)).drops(reason, Some(Direction::Ingress))
        }
        DropReason::InvalidSourceIp => lab.send(At::From(A), &syn.from_addr(WORLD.v4.into())).drops(reason, None),
        DropReason::InvalidSourceMac => lab.send(At::From(A), &syn.from_mac(B.mac)).drops(reason, None),
        DropReason::TruncatedHeader => lab.send_bytes(At::From(A), &syn.bytes()[..50]).drops(reason, None),
        DropReason::UnsupportedL3 => {
            let mut frame = syn.bytes();
            frame[12..14].copy_from_slice(&[0x81, 0x00]);
            lab.send_bytes(At::From(A), &frame).drops(reason, None)
        }
        DropReason::Fragment => to_isolated(syn.fragment(8, false)),
        DropReason::ExtensionHeader => to_isolated(A.udp(&B, Family::V6, PORTS).extension(139, &[0; 7])),
        DropReason::ForgedNeighbourDiscovery => {
            lab.send(At::From(A), &A.icmp(&B, Family::V6, 134, 0).ttl(255)).drops(reason, None)
        }
        DropReason::NoEndpoint => {
            let nobody = Host { slot: 9, ifindex: STRAY, ..A };
            lab.send(At::From(nobody), &syn).drops(reason, None)
        }
        DropReason::ConntrackFull => {
            drop(lab);
            let mut lab = Lab::of(full::strict_pending(1).expect("a table that refuses"));
            lab.send(At::From(A), &A.udp(&B, V4, [1, 2])).reaches(&B).opens();
            lab.isolate(&B, Direction::Ingress, &admit_all);
            lab.send(At::From(A), &syn).bumps(Scalar::PendingFull).drops(reason, None)
        }
        DropReason::Midstream => {
            lab.isolate(&B, Direction::Ingress, &[]);
            lab.send(At::From(B), &B.tcp(&A, V4, PORTS, ACK)).drops(reason, None)
        }
        DropReason::UnrelatedIcmpError => to_isolated(A.icmp(&B, V4, 3, 1)),
        DropReason::Multicast => {
            lab.isolate(&A, Direction::Egress, &admit_all);
            let group = Host { v4: "224.0.0.1".parse().unwrap(), ..WORLD };
            lab.send(At::From(A), &A.udp(&group, V4, PORTS)).drops(reason, None)
        }
        DropReason::Invalid => {
            let mapped = A.v4.to_ipv6_mapped().into();
            lab.send_bytes(At::From(A), &A.udp(&B, Family::V6, PORTS).from_addr(mapped).bytes()).drops(reason, None)
        }
        DropReason::Martian => lab.send(At::To(B, WORLD), &syn).drops(reason, None),
        DropReason::OverlaySource => {
            let node = Addr::from(std::net::IpAddr::from(WORLD.v4));
            let origin = Origin { node, ifindex: STRAY, flags: Origin::ONLY_THERE };
            let key = Key::new(128, Addr::from(REMOTE.addr(V4)).octets());
            lab.programs.trie(maps::ORIGINS).insert(&key, origin, 0).unwrap();
            lab.send(At::To(B, REMOTE), &REMOTE.tcp(&B, V4, PORTS, SYN)).drops(reason, None)
        }
        DropReason::NoBackend => {
            lab.service(&WORLD, V4, TCP, PORTS[1], &[]);
            lab.send(At::From(A), &A.tcp(&WORLD, V4, PORTS, SYN)).drops(reason, None)
        }
        DropReason::ServicePorts => {
            lab.service(&WORLD, V4, TCP, PORTS[1], &[(B, PORTS[1])]);
            lab.send(At::From(A), &A.tcp(&WORLD, V4, PORTS, SYN)).becomes(&syn).reaches(&B).opens();
            lab.send(At::From(A), &syn).drops(reason, None)
        }
        DropReason::TcpFlags | DropReason::DenyList => unreachable!("{reason:?} is of the uplink's program"),
    }
}

#[test]
fn every_reason_has_a_packet() {
    // Tc programs have no packet for the reasons of the uplink's.
    let of_uplink = |reason: &&DropReason| matches!(reason, DropReason::TcpFlags | DropReason::DenyList);
    for reason in DropReason::ALL.iter().filter(|reason| !of_uplink(reason)) {
        provoke(*reason);
    }
}

/// Moves one scalar, and says so.
fn bump(scalar: Scalar) {
    let mut lab = Lab::new();
    match scalar {
        Scalar::EventsWritten => {
            lab.send(At::From(A), &A.udp(&B, V4, PORTS)).reaches(&B).opens();
        }
        Scalar::EventsLost => {
            let mut capacities = daemon::datapath::load::Capacities::default();
            capacities.set(maps::EVENTS, 4096).unwrap();
            drop(lab);
            let lab = Lab::with(&capacities);
            let at = At::From(A);
            let before = tests::count::Counts::read(&lab.programs.ebpf);
            let spoofed = A.udp(&B, V4, PORTS).from_mac(B.mac).bytes();
            lab.programs.run(at.program(), &spoofed, at.context(), 100).unwrap();
            let change = tests::count::Counts::read(&lab.programs.ebpf).since(&before);
            assert!(change.of(tests::count::Count::Scalar(scalar)) > 0);
        }
        Scalar::ConntrackFull => {
            let mut capacities = daemon::datapath::load::Capacities::default();
            capacities.set(maps::CONNTRACK, 1).unwrap();
            drop(lab);
            let mut lab = Lab::with(&capacities);
            for (port, full) in [(1, false), (2, true)] {
                lab.send(At::From(A), &A.udp(&B, V4, [port, 53])).reaches(&B).opens();
                lab.send(At::From(B), &B.udp(&A, V4, [53, port])).reaches(&A);
                let seen = lab.send(At::From(A), &A.udp(&B, V4, [port, 53])).reaches(&B);
                if full {
                    seen.bumps(scalar);
                }
            }
        }
        Scalar::PendingFull => {
            drop(lab);
            let mut lab = Lab::of(full::strict_pending(1).expect("a table that refuses"));
            lab.send(At::From(A), &A.udp(&B, V4, [1, 2])).reaches(&B).opens();
            lab.send(At::From(A), &A.udp(&B, V4, [2, 2])).reaches(&B).opens().bumps(scalar);
        }
        Scalar::PendingShare => {
            let _ = lab.sweep(Sweep { active_interval_ns: u64::MAX, hz: 1_000_000, share: 1 });
            lab.send(At::From(A), &A.udp(&B, V4, [1, 2])).reaches(&B).opens();
            lab.send(At::From(A), &A.udp(&B, V4, [2, 2])).reaches(&B).opens().bumps(scalar);
        }
        // Of the uplink's program, which no lab runs.
        Scalar::UplinkUnrecorded => {}
        // datapath_dns.rs has theirs.
        Scalar::DnsLost | Scalar::DnsWritten => {}
        Scalar::Redecided => {
            lab.send(At::From(A), &A.udp(&B, V4, PORTS)).reaches(&B).opens();
            lab.open(&B, Direction::Ingress);
            lab.send(At::From(A), &A.udp(&B, V4, PORTS)).reaches(&B).bumps(scalar);
        }
    }
}

#[test]
fn every_scalar_has_a_packet() {
    for (scalar, _) in Scalar::ALL {
        bump(*scalar);
    }
}

/// What a counter is called is part of the interface: no two may share a name or a number.
#[test]
fn names_and_numbers_are_unique() {
    let unique = |mut names: Vec<String>| {
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        names.len() == all
    };
    assert!(unique(DropReason::ALL.iter().map(|reason| reason.name().to_owned()).collect()));
    assert!(unique(Scalar::ALL.iter().map(|(_, name)| (*name).to_owned()).collect()));
    assert!(unique(DropReason::ALL.iter().map(|reason| (*reason as u8).to_string()).collect()));
    assert!(unique(Scalar::ALL.iter().map(|(scalar, _)| (*scalar as u32).to_string()).collect()));
    for reason in DropReason::ALL {
        assert_eq!(DropReason::try_from(*reason as u8), Ok(*reason));
    }
}
