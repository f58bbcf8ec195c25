//! Tables that fill up: what is established stays, what can't be tracked is not let through
//! where it matters, and everything that is lost is counted.

use daemon::datapath::load::Capacities;
use datapath_abi::{
    conntrack::{CtEntry, CtKey, CtState, Waiting},
    control::Sweep,
    event::{EventKind, FlowEvent},
    maps::{self, Scalar},
    policy::Direction,
    reason::DropReason,
};
use tests::{
    count::Count,
    full,
    host::{A, B, C, FAMILIES, Family, Host, WORLD},
    lab::{At, Lab},
    packet::{ACK, FIN, RST, SYN, TCP},
    rules::{Rule, allow},
};

const PORTS: [u16; 2] = [40_000, 80];
const BACK: [u16; 2] = [80, 40_000];

fn small(changes: &[(&str, u32)]) -> Lab {
    let mut capacities = Capacities::default();
    for (map, entries) in [(maps::CONNTRACK, 256), (maps::PENDING, 256), (maps::EVENTS, 1 << 16)] {
        capacities.set(map, entries).unwrap();
    }
    for (map, entries) in changes {
        capacities.set(map, *entries).unwrap();
    }
    Lab::with(&capacities)
}

fn establish(lab: &mut Lab, port: [u16; 2]) {
    lab.send(At::From(A), &A.tcp(&B, Family::V4, port, SYN)).reaches(&B).opens();
    lab.send(At::From(B), &B.tcp(&A, Family::V4, [port[1], port[0]], SYN | ACK)).reaches(&A);
    lab.send(At::From(A), &A.tcp(&B, Family::V4, port, ACK)).reaches(&B);
}

#[test]
fn a_flood_of_requests_evicts_only_its_like() {
    let mut lab = small(&[(maps::PENDING, 64)]);
    lab.isolate(&B, Direction::Egress, &[]);
    establish(&mut lab, PORTS);
    for port in 1..=1000u16 {
        lab.send(At::From(C), &C.tcp(&B, Family::V4, [port, 80], SYN)).reaches(&B).opens();
        lab.send(At::To(B, WORLD), &WORLD.udp(&B, Family::V6, [port, 53])).passes().opens();
    }
    let (established, pending) = lab.sizes();
    assert_eq!(established, 1);
    assert!((1..=64).contains(&pending), "{pending} pending");
    // Answers need the entry, as B may begin nothing: it is there.
    lab.send(At::From(B), &B.tcp(&A, Family::V4, BACK, ACK)).reaches(&A);
    lab.send(At::From(A), &A.tcp(&B, Family::V4, PORTS, ACK)).reaches(&B);
    // And the last one can still be answered: the table works on. (Which one goes next is the kernel's choice: 6.1 takes the
    // last but one of so small a table.)
    lab.send(At::From(C), &C.tcp(&B, Family::V4, [1001, 80], SYN)).reaches(&B).opens();
    lab.send(At::From(B), &B.tcp(&C, Family::V4, [80, 1001], SYN | ACK)).reaches(&C);
}

/// Requests that are answered but not confirmed stay in the small table as well.
#[test]
fn a_flood_with_answers_evicts_only_its_like() {
    let mut lab = small(&[(maps::PENDING, 64)]);
    establish(&mut lab, PORTS);
    for port in 1..=500u16 {
        lab.send(At::From(C), &C.tcp(&B, Family::V4, [port, 80], SYN)).reaches(&B).opens();
        lab.send(At::From(B), &B.tcp(&C, Family::V4, [80, port], SYN | ACK)).reaches(&C);
    }
    assert_eq!(lab.sizes().0, 1);
}

#[test]
fn a_full_table_of_established_ones_keeps_them_and_serves_others_from_the_small_one() {
    let mut lab = small(&[(maps::CONNTRACK, 2)]);
    establish(&mut lab, PORTS);
    establish(&mut lab, [40_001, 80]);
    assert_eq!(lab.sizes(), (2, 0));
    let third = [40_002, 80];
    lab.send(At::From(A), &A.tcp(&B, Family::V4, third, SYN)).reaches(&B).opens();
    lab.send(At::From(B), &B.tcp(&A, Family::V4, [80, 40_002], SYN | ACK)).reaches(&A);
    lab.send(At::From(A), &A.tcp(&B, Family::V4, third, ACK)).reaches(&B).bumps(Scalar::ConntrackFull);
    lab.send(At::From(B), &B.tcp(&A, Family::V4, [80, 40_002], ACK)).reaches(&A).bumps(Scalar::ConntrackFull);
    assert_eq!(lab.sizes(), (2, 1));
    assert_eq!(lab.connection(maps::PENDING).1.packets(), [2, 2], "counted where it is");
    assert_eq!(lab.connection(maps::PENDING).1.state, CtState::Established as u8);
    // The first two are as they were.
    lab.send(At::From(B), &B.tcp(&A, Family::V4, BACK, ACK)).reaches(&A);
    // One goes: the third takes its place with its next packet.
    let (key, _) = lab.connections(maps::CONNTRACK).remove(0);
    lab.programs.hash::<CtKey, CtEntry>(maps::CONNTRACK).remove(&key).unwrap();
    lab.send(At::From(A), &A.tcp(&B, Family::V4, third, ACK)).reaches(&B);
    assert_eq!(lab.sizes(), (2, 0));
}

/// A sweep that gives each endpoint so many places in PENDING.
fn sweep(share: u32) -> Sweep {
    // A tick in a nanosecond: nothing ages.
    Sweep { active_interval_ns: u64::MAX, hz: 1_000_000, share }
}

fn waiting(lab: &mut Lab, pod: &Host) -> i32 {
    lab.programs.array::<Waiting>(maps::WAITING).get(&pod.slot, 0).expect("WAITING has the slot").count
}

/// One pod's flood takes its own share of the small table, and what others wait for stays.
#[test]
fn a_flood_does_not_evict_what_other_pods_wait_for() {
    const SHARE: u16 = 16;
    for family in FAMILIES {
        // Some of an LRU table's places are kept ready on each CPU.
        let mut lab = small(&[(maps::PENDING, 1024)]);
        lab.isolate(&A, Direction::Ingress, &[]);
        let _ = lab.sweep(sweep(SHARE.into()));
        // Open, from a pod and from the outside; neither is answered for now.
        lab.send(At::From(A), &A.tcp(&B, family, PORTS, SYN)).reaches(&B).opens();
        lab.send(At::To(B, WORLD), &WORLD.udp(&B, family, [7, 53])).passes().opens();
        assert_eq!([&A, &B, &C].map(|pod| waiting(&mut lab, pod)), [1, 1, 0]);

        // Of SYNs that are not answered, or answered by SYN-ACK or RST, and of datagrams.
        for port in 1..=SHARE {
            let seen = match port % 4 {
                0 => lab.send(At::From(C), &C.udp(&B, family, [port, 53])),
                _ => lab.send(At::From(C), &C.tcp(&B, family, [port, 80], SYN)),
            };
            seen.reaches(&B).opens();
            match port % 4 {
                1 => lab.send(At::From(B), &B.tcp(&C, family, [80, port], SYN | ACK)).reaches(&C),
                2 => lab.send(At::From(B), &B.tcp(&C, family, [80, port], RST | ACK)).reaches(&C),
                _ => continue,
            };
        }
        assert_eq!(waiting(&mut lab, &C), i32::from(SHARE));
        for port in 1000..3000u16 {
            // Between open pods nothing depends on an entry.
            lab.send(At::From(C), &C.tcp(&B, family, [port, 80], SYN)).reaches(&B).opens().bumps(Scalar::PendingShare);
        }
        assert_eq!(lab.sizes(), (0, 2 + usize::from(SHARE)));
        // Sent again it is known, though the share is taken.
        lab.send(At::From(C), &C.tcp(&B, family, [3, 80], SYN)).reaches(&B);
        lab.send(At::From(B), &B.tcp(&A, family, BACK, SYN | ACK)).reaches(&A);
        lab.send(At::From(A), &A.tcp(&B, family, PORTS, ACK)).reaches(&B);
        assert_eq!(lab.sizes(), (1, 1 + usize::from(SHARE)), "promoted");
        assert_eq!([&A, &B, &C].map(|pod| waiting(&mut lab, pod)), [0, 1, i32::from(SHARE)]);
        // Under a policy it is refused what cannot be tracked.
        lab.isolate(&C, Direction::Egress, &[Rule::identity(B.identity, allow(1, 1))]);
        lab.send(At::From(C), &C.tcp(&B, family, [5000, 80], SYN))
            .bumps(Scalar::PendingShare)
            .drops(DropReason::ConntrackFull, None);
    }
}

/// What waits is counted until it is answered or set up; what was pushed out is found out by the sweep.
#[test]
fn room_for_what_waits_comes_back() {
    for family in FAMILIES {
        let mut lab = small(&[(maps::PENDING, 1024)]);
        let _ = lab.sweep(sweep(4));
        for port in 1..=4 {
            lab.send(At::From(A), &A.udp(&B, family, [port, 53])).reaches(&B).opens();
        }
        lab.send(At::From(A), &A.udp(&B, family, [5, 53])).reaches(&B).opens().bumps(Scalar::PendingShare);
        // Answered: it waits no more, though it stays in PENDING. As many as there is room for.
        for port in 1..=4 {
            lab.send(At::From(B), &B.udp(&A, family, [53, port])).reaches(&A);
        }
        assert_eq!((waiting(&mut lab, &A), lab.sizes()), (0, (0, 4)));
        for port in 11..=14u16 {
            lab.send(At::From(A), &A.tcp(&B, family, [port, 80], SYN)).reaches(&B).opens();
        }
        lab.send(At::From(A), &A.tcp(&B, family, [15, 80], SYN)).reaches(&B).opens().bumps(Scalar::PendingShare);
        // Gone without the programs' doing, as when others push it out.
        for (key, _) in lab.connections(maps::PENDING) {
            if key.proto == TCP && key.port.iter().any(|port| [11, 12, 13].contains(port)) {
                lab.forget(maps::PENDING, &key);
            }
        }
        assert_eq!(waiting(&mut lab, &A), 4);
        let _ = lab.sweep(sweep(4));
        assert_eq!(waiting(&mut lab, &A), 1);
        lab.send(At::From(A), &A.tcp(&B, family, [16, 80], SYN)).reaches(&B).opens();
        // Any number.
        let _ = lab.sweep(sweep(0));
        for port in 101..=120u16 {
            lab.send(At::From(A), &A.tcp(&B, family, [port, 80], SYN)).reaches(&B).opens();
        }
    }
}

/// With CONNTRACK full, connections live and end in PENDING, where they stay for as long as TIME_WAIT lasts: nobody's share
/// is used up by what is over.
#[test]
fn what_is_over_takes_no_share() {
    const SHARE: u16 = 4;
    for family in FAMILIES {
        let mut lab = small(&[(maps::CONNTRACK, 1), (maps::PENDING, 1024)]);
        establish(&mut lab, PORTS);
        lab.isolate(&B, Direction::Ingress, &[Rule::identity(A.identity, allow(1, 1))]);
        let _ = lab.sweep(sweep(SHARE.into()));
        for port in 1..=4 * SHARE {
            lab.send(At::From(A), &A.tcp(&B, family, [port, 80], SYN)).reaches(&B).opens();
            lab.send(At::From(B), &B.tcp(&A, family, [80, port], SYN | ACK)).reaches(&A);
            // Where the initiator ends it, its FIN may be what ends the handshake.
            if port % 2 == 0 || port % 3 == 2 {
                let seen = lab.send(At::From(A), &A.tcp(&B, family, [port, 80], ACK));
                seen.reaches(&B).bumps(Scalar::ConntrackFull);
            }
            let ends = [FIN | ACK, FIN | ACK, RST | ACK][usize::from(port % 3)];
            if port % 3 != 2 {
                lab.send(At::From(A), &A.tcp(&B, family, [port, 80], FIN | ACK)).reaches(&B);
            }
            lab.send(At::From(B), &B.tcp(&A, family, [80, port], ends)).reaches(&A);
        }
        // Of these the end alone was seen, as when others have pushed out what was before.
        for port in 101..=100 + 2 * SHARE {
            lab.send(At::From(A), &A.tcp(&B, family, [port, 80], FIN | ACK)).reaches(&B).opens();
            lab.send(At::From(B), &B.tcp(&A, family, [80, port], FIN | ACK)).reaches(&A);
        }
        assert_eq!((waiting(&mut lab, &A), lab.sizes()), (0, (1, 6 * usize::from(SHARE))));
        let _ = lab.sweep(sweep(SHARE.into()));
        assert_eq!(waiting(&mut lab, &A), 0);
        lab.send(At::From(A), &A.tcp(&B, family, [1000, 80], SYN)).reaches(&B).opens();
    }
}

#[test]
fn without_room_for_a_connection_an_isolated_pod_gets_none() {
    for family in FAMILIES {
        let mut lab = Lab::of(full::strict_pending(1).expect("a table that refuses"));
        // Between open pods an answer is judged as the request is: no entry is needed.
        lab.send(At::From(A), &A.udp(&C, family, [1, 53])).reaches(&C).opens();
        lab.send(At::From(A), &A.udp(&C, family, [2, 53])).reaches(&C).opens().bumps(Scalar::PendingFull);
        lab.isolate(&B, Direction::Ingress, &[Rule::identity(A.identity, allow(1, 1))]);
        lab.send(At::From(A), &A.udp(&B, family, [3, 53]))
            .bumps(Scalar::PendingFull)
            .drops(DropReason::ConntrackFull, None);
        lab.isolate(&A, Direction::Egress, &[Rule::identity(WORLD.identity, allow(2, 1))]);
        lab.send(At::From(A), &A.udp(&WORLD, family, [4, 53]))
            .bumps(Scalar::PendingFull)
            .drops(DropReason::ConntrackFull, None);
        assert_eq!(lab.sizes(), (0, 1));
        // Room again: it works again.
        let (key, _) = lab.connection(maps::PENDING);
        lab.programs.hash::<CtKey, CtEntry>(maps::PENDING).remove(&key).unwrap();
        lab.send(At::From(A), &A.udp(&WORLD, family, [4, 53])).passes().opens();
    }
}

#[test]
fn events_that_find_no_room_are_counted_and_packets_go_their_way() {
    let size = 4096;
    let mut lab = small(&[(maps::EVENTS, size)]);
    lab.isolate(&B, Direction::Ingress, &[]);
    // Eight bytes of header each (Documentation/bpf/ringbuf.rst).
    let room = u64::from(size) / (size_of::<FlowEvent>() as u64 + 8);
    let at = At::From(A);
    let denied = A.tcp(&B, Family::V4, PORTS, SYN).bytes();
    let before = tests::count::Counts::read(&lab.programs.ebpf);
    for _ in 0..room + 10 {
        let ran = lab.programs.run(at.program(), &denied, at.context(), 1).unwrap();
        assert_eq!(ran.verdict, tests::seen::SHOT);
    }
    for port in 1..=5 {
        let ran = lab.programs.run(at.program(), &A.udp(&C, Family::V4, [port, 53]).bytes(), at.context(), 1).unwrap();
        assert_eq!(ran.verdict, tests::seen::REDIRECT);
    }
    let change = tests::count::Counts::read(&lab.programs.ebpf).since(&before);
    let written = change.of(Count::Scalar(Scalar::EventsWritten));
    let lost = change.of(Count::Scalar(Scalar::EventsLost));
    assert_eq!(written + lost, room + 15, "every event is written or counted as lost");
    assert!(lost >= 15, "{lost} lost");
    let events = lab.programs.events();
    assert_eq!(events.len() as u64, written);
    assert!(events.iter().all(|event| event.kind == EventKind::Dropped as u8), "the first ones, in order");
    // There is room again.
    lab.send(at, &A.udp(&C, Family::V4, [9, 53])).reaches(&C).opens();
}
