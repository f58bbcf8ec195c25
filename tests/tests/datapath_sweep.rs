//! The sweep over both conntrack tables: what is over goes, what ended is told once, what lives
//! long is told now and then. And the clock.

use std::time::{Duration, Instant};

use datapath_abi::{
    addr::Addr,
    conntrack::{CtEntry, CtKey, CtState, Ends, FLAG_INITIATOR_HIGH, Tally},
    control::Sweep,
    event::{DIRECTION_NONE, EndReason, FlowEvent},
    maps,
    policy::Direction,
};
use tests::{
    host::{A, B, FAMILIES, Family, Host},
    lab::{At, Lab},
    packet::{ACK, FIN, ICMP, ICMPV6, RST, SCTP, SYN, TCP, UDP},
};

/// Jiffies per second, as the sweep is told. Any number will do: tests set when an entry was
/// last seen.
const HZ: u32 = 1000;
/// Seconds on both sides of a timeout, wide enough for a slow machine.
const MARGIN_S: u32 = 4;
const NEVER_NS: u64 = u64::MAX;

const SWEEP: Sweep = Sweep { active_interval_ns: NEVER_NS, hz: HZ, share: 0 };

/// A connection from A to B that was last seen `idle_s` ago.
fn entry(lab: &mut Lab, proto: u8, state: CtState, idle_s: u32) -> (CtKey, CtEntry) {
    let key = CtKey {
        addr: [Addr::from(A.addr(Family::V4)), Addr::from(B.addr(Family::V4))],
        port: [40_000, 80],
        proto,
        pad: [0; 3],
    };
    let clock = lab.clock();
    let entry = CtEntry {
        ends: Ends {
            rules: [11, 12],
            slot: [A.slot, B.slot],
            ifindex: [A.ifindex, B.ifindex],
            identity: [A.identity, B.identity],
            cookie: [21, 22],
        },
        last_seen: clock.jiffies.wrapping_sub(idle_s * HZ),
        state: state as u8,
        flags: 0,
        tcp_flags: [SYN | ACK, SYN],
        own: [Tally { packets: 1, bytes: 100 }, Tally { packets: 4, bytes: 600 }],
        shared: [Tally { packets: 2, bytes: 400 }, Tally::default()],
        created_ns: clock.monotonic_ns - 1_000_000_000,
        reported_ns: 0,
        rtt_us: 77,
        reported: 0,
        denied: 0,
        owner: [1; 2],
        sctp_tag: [0; 2],
        service: datapath_abi::service::Translation::default(),
    };
    (key, entry)
}

/// The event of such a connection holds all of it.
fn complete(event: &FlowEvent) {
    assert_eq!(event.addr, [Addr::from(A.addr(Family::V4)), Addr::from(B.addr(Family::V4))]);
    assert_eq!((event.rules, event.cookie), ([11, 12], [21, 22]));
    assert_eq!((event.slot, event.identity), ([A.slot, B.slot], [A.identity, B.identity]));
    assert_eq!((event.packets, event.bytes), ([3, 4], [500, 600]));
    assert_eq!((event.rtt_us, event.tcp_flags), (77, [SYN | ACK, SYN]));
    assert_eq!((event.reason, event.direction, event.reply), (0, DIRECTION_NONE, 0));
    assert_eq!(event.ifindex, A.ifindex);
    assert!(event.created_ns + 1_000_000_000 <= event.time_ns);
}

#[test]
fn each_state_of_each_protocol_has_its_timeout() {
    use CtState::{Closing, Established, New, Reset, SynReceived, TimeWait};
    // Seconds, as RFC 5382, RFC 5508 and the kernel's own conntrack have them.
    let cases = [
        (TCP, New, 120),
        (TCP, SynReceived, 60),
        (TCP, Established, 8000),
        (TCP, Closing, 120),
        (TCP, TimeWait, 60),
        (TCP, Reset, 10),
        (UDP, New, 30),
        (UDP, SynReceived, 30),
        (UDP, Established, 120),
        (47, Established, 120),
        (ICMP, New, 30),
        (ICMP, Established, 30),
        (ICMPV6, Established, 30),
        (SCTP, New, 10),
        (SCTP, SynReceived, 10),
        (SCTP, Established, 210),
        (SCTP, Closing, 10),
        (SCTP, Reset, 10),
    ];
    let mut lab = Lab::new();
    for table in [maps::CONNTRACK, maps::PENDING] {
        for (proto, state, timeout_s) in cases {
            let end = match state {
                TimeWait => EndReason::Fin,
                Reset => EndReason::Rst,
                _ => EndReason::Idle,
            };
            let closed = matches!(state, TimeWait | Reset);

            let (key, young) = entry(&mut lab, proto, state, timeout_s - MARGIN_S);
            lab.put(table, key, young);
            let (report, seen) = lab.sweep(SWEEP);
            assert_eq!((report.removed, report.reported), (0, u32::from(closed)), "{proto} {state:?} is young");
            // The end of one that has closed is told at once, although it waits for late packets.
            if closed {
                seen.closes(end).with(complete_but_ports);
            }
            assert_eq!(lab.connection(table).0, key);

            let (key, old) = entry(&mut lab, proto, state, timeout_s + MARGIN_S);
            lab.put(table, key, old);
            let (report, seen) = lab.sweep(SWEEP);
            assert_eq!((report.removed, report.reported), (1, 1), "{proto} {state:?} is old");
            seen.closes(end).with(complete_but_ports);
            assert_eq!(lab.sizes(), (0, 0));
        }
    }
}

fn complete_but_ports(event: &FlowEvent) {
    complete(event);
    let ports = match event.proto {
        ICMP => [8, 0],
        ICMPV6 => [128, 0],
        _ => [40_000, 80],
    };
    assert_eq!(event.port, ports);
}

#[test]
fn an_end_is_told_once() {
    let mut lab = Lab::new();
    let (key, mut closed) = entry(&mut lab, TCP, CtState::TimeWait, 60 - MARGIN_S);
    lab.put(maps::CONNTRACK, key, closed);
    let (_, seen) = lab.sweep(SWEEP);
    seen.closes(EndReason::Fin);
    let (report, _quiet) = lab.sweep(SWEEP);
    assert_eq!((report.established, report.removed, report.reported), (1, 0, 0));
    // Not a second time when it goes.
    closed = lab.connection(maps::CONNTRACK).1;
    assert_eq!(closed.reported, 1);
    closed.last_seen = closed.last_seen.wrapping_sub(2 * MARGIN_S * HZ);
    lab.put(maps::CONNTRACK, key, closed);
    let (report, _quiet) = lab.sweep(SWEEP);
    assert_eq!((report.removed, report.reported), (1, 0));
}

/// A FIN's answer may still be under way.
#[test]
fn an_end_is_told_a_second_after_the_last_packet() {
    let mut lab = Lab::new();
    let (key, mut closed) = entry(&mut lab, TCP, CtState::TimeWait, 0);
    // In the future, as another CPU's clock may be a tick ahead.
    closed.last_seen = closed.last_seen.wrapping_add(HZ * 1000);
    lab.put(maps::CONNTRACK, key, closed);
    let (report, _quiet) = lab.sweep(SWEEP);
    assert_eq!((report.established, report.removed, report.reported), (1, 0, 0));
}

#[test]
fn a_connection_of_a_pod_that_is_gone_goes_at_once() {
    for (pod, other) in [(A, B), (B, A)] {
        for heir in [false, true] {
            let mut lab = Lab::new();
            let (key, young) = entry(&mut lab, TCP, CtState::Established, 0);
            lab.put(maps::CONNTRACK, key, young);
            lab.remove(&pod);
            if heir {
                lab.add(&Host { ifindex: tests::lab::SPARE, ..pod });
            }
            let (report, seen) = lab.sweep(SWEEP);
            assert_eq!((report.removed, report.reported), (1, 1), "{} went, {} stayed", pod.name, other.name);
            seen.closes(EndReason::EndpointGone).with(complete_but_ports);
        }
    }
    // One that is not local can't go.
    let mut lab = Lab::new();
    let (key, mut young) = entry(&mut lab, TCP, CtState::Established, 0);
    (young.ends.slot[1], young.ends.ifindex[1]) = (0, 0);
    lab.put(maps::CONNTRACK, key, young);
    let (report, _quiet) = lab.sweep(SWEEP);
    assert_eq!((report.removed, report.reported), (0, 0));
}

#[test]
fn a_long_life_is_told_now_and_then() {
    let mut lab = Lab::new();
    let (key, young) = entry(&mut lab, TCP, CtState::Established, 0);
    lab.put(maps::CONNTRACK, key, young);
    // It began a second ago.
    let (report, _quiet) = lab.sweep(Sweep { active_interval_ns: 3_600_000_000_000, ..SWEEP });
    assert_eq!(report.reported, 0);
    let often = Sweep { active_interval_ns: 900_000_000, ..SWEEP };
    let (report, seen) = lab.sweep(often);
    assert_eq!((report.removed, report.reported), (0, 1));
    seen.lives().with(complete_but_ports);
    let reported_ns = lab.connection(maps::CONNTRACK).1.reported_ns;
    assert!(reported_ns > young.created_ns);
    // The interval begins anew.
    let (report, _quiet) = lab.sweep(Sweep { active_interval_ns: 3_600_000_000_000, ..SWEEP });
    assert_eq!(report.reported, 0);
    std::thread::sleep(Duration::from_millis(5));
    let (_, seen) = lab.sweep(Sweep { active_interval_ns: 1_000_000, ..SWEEP });
    seen.lives();
    assert!(lab.connection(maps::CONNTRACK).1.reported_ns > reported_ns);
    // What has been told to have ended does not live.
    let (key, mut ended) = lab.connection(maps::CONNTRACK);
    ended.reported = 1;
    lab.put(maps::CONNTRACK, key, ended);
    let (report, _quiet) = lab.sweep(Sweep { active_interval_ns: 0, ..SWEEP });
    assert_eq!(report.reported, 0);
}

#[test]
fn the_initiator_comes_first_whichever_end_it_is() {
    let mut lab = Lab::new();
    let (key, mut old) = entry(&mut lab, UDP, CtState::Established, 1000);
    old.flags = FLAG_INITIATOR_HIGH;
    lab.put(maps::CONNTRACK, key, old);
    let (_, seen) = lab.sweep(SWEEP);
    seen.closes(EndReason::Idle).with(|event| {
        assert_eq!(event.addr, [key.addr[1], key.addr[0]]);
        assert_eq!(event.port, [80, 40_000]);
        assert_eq!(event.packets, [3, 4]);
    });
}

#[test]
fn a_sweep_counts_both_tables_and_takes_all_that_is_over() {
    let mut lab = Lab::new();
    for number in 0..100u16 {
        let (mut key, entry) = entry(&mut lab, UDP, CtState::Established, if number % 2 == 0 { 1000 } else { 0 });
        key.port[0] = number;
        lab.put(if number < 60 { maps::CONNTRACK } else { maps::PENDING }, key, entry);
    }
    let (report, mut seen) = lab.sweep(SWEEP);
    assert_eq!((report.established, report.pending), (60, 40));
    assert_eq!((report.removed, report.reported), (50, 50));
    for _ in 0..50 {
        seen = seen.closes(EndReason::Idle);
    }
    drop(seen);
    assert_eq!(lab.sizes(), (30, 20));
    let (report, _quiet) = lab.sweep(SWEEP);
    assert_eq!((report.established, report.pending, report.removed, report.reported), (30, 20, 0, 0));
}

/// From real packets to the record of their connection.
#[test]
fn a_connection_from_its_first_packet_to_its_record() {
    for family in FAMILIES {
        for (last, end) in [(FIN, EndReason::Fin), (RST, EndReason::Rst)] {
            let mut lab = Lab::new();
            lab.isolate(&B, Direction::Ingress, &[tests::rules::Rule::identity(A.identity, tests::rules::allow(9, 1))]);
            let there = |flags| A.tcp(&B, family, [40_000, 80], flags);
            let back = |flags| B.tcp(&A, family, [80, 40_000], flags);
            let mut opened = FlowEvent::default();
            lab.send(At::From(A), &there(SYN)).reaches(&B).opens().with(|event| opened = *event);
            std::thread::sleep(Duration::from_millis(3));
            lab.send(At::From(B), &back(SYN | ACK)).reaches(&A);
            lab.send(At::From(A), &there(ACK)).reaches(&B);
            lab.send(At::From(B), &back(ACK)).reaches(&A);
            lab.send(At::From(B), &back(last | ACK)).reaches(&A);
            if last == FIN {
                lab.send(At::From(A), &there(FIN | ACK)).reaches(&B);
            }
            let (key, mut entry) = lab.connection(maps::CONNTRACK);
            entry.last_seen = entry.last_seen.wrapping_sub(2 * HZ);
            lab.put(maps::CONNTRACK, key, entry);
            let (_, seen) = lab.sweep(SWEEP);
            seen.closes(end).with(|event| {
                assert_eq!(event.created_ns, opened.created_ns, "the same connection");
                assert_eq!((event.addr, event.port, event.proto), (opened.addr, opened.port, TCP));
                assert_eq!((event.identity, event.cookie), ([A.identity, B.identity], [0, 9]));
                assert_eq!(event.packets, if last == FIN { [3, 3] } else { [2, 3] });
                assert!((3_000..10_000_000).contains(&event.rtt_us), "{} us", event.rtt_us);
                assert_eq!(event.tcp_flags, [SYN | ACK | if last == FIN { FIN } else { 0 }, SYN | ACK | last]);
            });
        }
    }
}

#[test]
fn the_clock_tells_both_times() {
    let mut lab = Lab::new();
    let (first, started) = (lab.clock(), Instant::now());
    std::thread::sleep(Duration::from_millis(300));
    let (second, elapsed) = (lab.clock(), started.elapsed());
    let ns = Duration::from_nanos(second.monotonic_ns - first.monotonic_ns);
    assert!(ns >= Duration::from_millis(300) && ns <= elapsed + Duration::from_millis(200), "{ns:?} in {elapsed:?}");
    let jiffies = f64::from(second.jiffies.wrapping_sub(first.jiffies));
    let hz = jiffies / ns.as_secs_f64();
    assert!((80.0..=1200.0).contains(&hz), "{hz} jiffies a second");
    // What is too short is refused.
    let short = lab.programs.run("clock", &[0; 15], Default::default(), 1).unwrap();
    assert_eq!(short.verdict, -1);
    let short = lab.programs.run("sweep", &[0; 31], Default::default(), 1).unwrap();
    assert_eq!(short.verdict, -1);
}
