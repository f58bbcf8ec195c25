//! States and transitions against the RFCs' tables, and what the fast path relies on.

use std::vec::Vec;

use datapath_abi::addr::Addr;
use proptest::prelude::*;

use super::{From, *};
use CtState::{Closing, Established, New, Reset, SynReceived, TimeWait};
use From::{Initiator, Responder};

const STATES: [CtState; 6] = [New, SynReceived, Established, Closing, TimeWait, Reset];
const PROTOS: [u8; 6] = [proto::TCP, proto::UDP, proto::SCTP, proto::ICMP, proto::ICMPV6, 47];

fn packet(proto: u8, flags: u8) -> Packet {
    Packet { proto, flags, ..Packet::EMPTY }
}

/// Runs a conversation; keeps track of FINs as the caller does.
fn talk(proto: u8, steps: &[(From, u8, CtState)]) {
    let (mut state, mut fins) = (New, 0);
    for (number, (from, flags, wanted)) in steps.iter().enumerate() {
        state = next(state, &packet(proto, *flags), *from, fins);
        if proto == proto::TCP && flags & tcp::FIN != 0 {
            fins |= 1 << *from as u8;
        }
        assert_eq!(state, *wanted, "step {number} of {steps:?}");
    }
}

/// RFC 9293, section 3.5 (opening) and 3.6 (closing), seen from the middle.
#[test]
fn tcp_conversations() {
    let (syn, ack, fin, rst) = (tcp::SYN, tcp::ACK, tcp::FIN, tcp::RST);
    let open = [(Responder, syn | ack, SynReceived), (Initiator, ack, Established)];
    let after = |rest: &[(From, u8, CtState)]| {
        let steps: Vec<_> = open.iter().chain(rest).copied().collect();
        talk(proto::TCP, &steps);
    };
    after(&[(Responder, ack, Established), (Initiator, ack, Established)]);
    // Figure 12: one closes, then the other.
    after(&[(Initiator, fin | ack, Closing), (Responder, ack, Closing), (Responder, fin | ack, TimeWait)]);
    after(&[(Responder, fin | ack, Closing), (Initiator, ack, Closing), (Initiator, fin | ack, TimeWait)]);
    // Figure 13: both at once.
    after(&[(Initiator, fin | ack, Closing), (Responder, fin | ack, TimeWait), (Initiator, ack, TimeWait)]);
    // A FIN that is sent again is one FIN.
    after(&[(Initiator, fin | ack, Closing), (Initiator, fin | ack, Closing), (Responder, ack, Closing)]);
    // Half open, and reset in every state.
    after(&[(Initiator, rst, Reset), (Responder, ack, Reset)]);
    // Who goes on after its RST has not ended the connection with it.
    let said = RST_OF << Initiator as u8;
    assert_eq!(next(Reset, &packet(proto::TCP, ack), Initiator, said), Closing);
    assert_eq!(next(Reset, &packet(proto::TCP, ack), Responder, said), Reset);
    after(&[(Initiator, fin | ack, Closing), (Responder, rst | ack, Reset)]);
    // A FIN that was under way when the other end reset the connection.
    after(&[(Initiator, rst, Reset), (Responder, fin | ack, Reset)]);
    after(&[(Initiator, fin | ack, Closing), (Initiator, rst, Reset), (Responder, fin | ack, Reset)]);
    assert_eq!(next(Reset, &packet(proto::TCP, fin | ack), Initiator, said), Closing);
    talk(proto::TCP, &[(Responder, rst | ack, Reset)]);
    // A SYN again, an answer again, data before the handshake is done.
    talk(proto::TCP, &[(Initiator, syn, New), (Initiator, ack, New), (Responder, syn | ack, SynReceived)]);
    talk(proto::TCP, &[(Responder, syn | ack, SynReceived), (Responder, syn | ack, SynReceived)]);
    talk(proto::TCP, &[(Responder, syn | ack, SynReceived), (Initiator, syn, SynReceived)]);
    // Figure 7: both open at once.
    talk(proto::TCP, &[(Responder, syn, SynReceived), (Initiator, syn | ack, Established)]);
    // Picked up in the middle: an answer and one more.
    talk(proto::TCP, &[(Initiator, ack, New), (Responder, ack, SynReceived), (Initiator, ack, Established)]);
    // A FIN with the SYN (RFC 1644 allowed it; scanners send it) closes its side.
    talk(proto::TCP, &[(Initiator, fin, Closing), (Responder, rst, Reset)]);
}

/// RFC 9260, section 5.1 (association), 9.1 (abort), 9.2 (shutdown).
#[test]
fn sctp_conversations() {
    const DATA: u8 = 0;
    const INIT_ACK: u8 = 2;
    const COOKIE_ECHO: u8 = 10;
    const COOKIE_ACK: u8 = 11;
    const SHUTDOWN_ACK: u8 = 8;
    let open = [
        (Initiator, sctp::INIT, New),
        (Responder, INIT_ACK, SynReceived),
        (Initiator, COOKIE_ECHO, Established),
        (Responder, COOKIE_ACK, Established),
        (Initiator, DATA, Established),
    ];
    let after = |rest: &[(From, u8, CtState)]| {
        let steps: Vec<_> = open.iter().chain(rest).copied().collect();
        talk(proto::SCTP, &steps);
    };
    after(&[
        (Responder, sctp::SHUTDOWN, Closing),
        (Initiator, DATA, Closing),
        (Initiator, SHUTDOWN_ACK, Closing),
        (Responder, sctp::SHUTDOWN_COMPLETE, TimeWait),
    ]);
    after(&[(Initiator, sctp::ABORT, Reset), (Responder, DATA, Reset)]);
    // A restart (section 5.2.2) goes on as the same association.
    after(&[(Initiator, sctp::INIT, Established), (Responder, INIT_ACK, Established)]);
    // An INIT that is sent again is no part of the handshake's end.
    talk(proto::SCTP, &[(Responder, INIT_ACK, SynReceived), (Initiator, sctp::INIT, SynReceived)]);
    // Before it is established there is nothing to shut down.
    talk(proto::SCTP, &[(Initiator, sctp::INIT, New), (Initiator, sctp::SHUTDOWN, New)]);
    talk(proto::SCTP, &[(Responder, sctp::ABORT, Reset)]);
}

#[test]
fn others_are_established_by_an_answer_and_one_more() {
    for proto in [proto::UDP, proto::ICMP, proto::ICMPV6, 47] {
        talk(
            proto,
            &[
                (Initiator, 0, New),
                (Initiator, 0, New),
                (Responder, 0, SynReceived),
                (Responder, 0, SynReceived),
                (Initiator, 0, Established),
                (Responder, 0, Established),
            ],
        );
    }
}

/// What an endpoint's share of PENDING is for: not what was agreed on, however it ended.
#[test]
fn only_what_was_never_agreed_on_waits() {
    let (syn, ack, fin, rst) = (tcp::SYN, tcp::ACK, tcp::FIN, tcp::RST);
    let over = [Closing, TimeWait, Reset];
    for (flags, midstream, wanted) in [
        ([syn, 0], false, true),
        ([syn, syn | ack], false, true),
        ([syn | ack, syn | ack | fin], false, false),
        ([syn | rst, syn | ack], false, true),
        // A closed port's answer, and what its asker may send afterwards.
        ([syn, rst | ack], false, true),
        ([syn | ack, rst | ack], false, true),
        ([ack, 0], true, true),
        ([ack, rst], true, true),
        ([ack | fin, ack | fin], true, false),
        ([ack, ack | rst], true, false),
    ] {
        let agreed = agreed(proto::TCP, flags, midstream, 0);
        assert!(over.iter().all(|state| waits(proto::TCP, *state, agreed) == wanted), "{flags:?} {midstream}");
        assert!(!waits(proto::TCP, Established, agreed));
    }
    assert!(waits(proto::SCTP, Reset, agreed(proto::SCTP, [0; 2], false, 0)));
    assert!(!waits(proto::SCTP, TimeWait, agreed(proto::SCTP, [0; 2], false, 7)));
    assert!(waits(proto::UDP, New, false) && !waits(proto::UDP, SynReceived, false));
}

#[test]
fn what_can_begin_a_connection() {
    for flags in 0..=255u8 {
        let bits = flags & (tcp::SYN | tcp::ACK | tcp::RST | tcp::FIN);
        assert_eq!(opens(&packet(proto::TCP, flags)), bits == tcp::SYN, "{flags:#x}");
        assert_eq!(opens(&packet(proto::SCTP, flags)), flags == sctp::INIT);
    }
    for kind in 0..=255u8 {
        assert_eq!(opens(&Packet { icmp: [kind, 0], ..packet(proto::ICMP, 0) }), kind == 8);
        assert_eq!(opens(&Packet { icmp: [kind, 0], ..packet(proto::ICMPV6, 0) }), kind == 128);
    }
    assert!(opens(&packet(proto::UDP, 0)) && opens(&packet(47, 0)));
}

/// The fast path looks at no state: what it takes must not change one, or it would be missed.
#[test]
fn what_is_not_notable_leaves_an_established_connection_as_it_is() {
    for proto in PROTOS {
        for flags in 0..=255u8 {
            let packet = packet(proto, flags);
            for from in [Initiator, Responder] {
                let after = next(Established, &packet, from, 0);
                assert!(notable(&packet) || after == Established, "{proto} {flags:#x} {from:?}");
            }
            // What opens a connection anew has to be looked at as well.
            assert!(notable(&packet) || !opens(&packet) || !matches!(proto, proto::TCP | proto::SCTP));
        }
    }
}

#[test]
fn timeouts_are_ordered_and_never_zero() {
    for proto in 0..=255u8 {
        for state in STATES {
            let seconds = timeout_s(proto, state);
            assert!((1..=8000).contains(&seconds), "{proto} {state:?}");
            // An entry of a flood must not outlive what is established.
            assert!(seconds <= timeout_s(proto, Established));
        }
    }
    // RFC 5382 REQ-5: established at least 2 h 4 min, others at least 4 min or closed; RFC 5508
    // REQ-1: ICMP echo at least 60 s is for translators; ours may be found again by any packet.
    assert!(timeout_s(proto::TCP, Established) >= 2 * 3600 + 4 * 60);
    // RFC 9260, 15: heartbeats every 30 s.
    assert!(timeout_s(proto::SCTP, Established) > 30);
}

fn any_addr() -> impl Strategy<Value = Addr> {
    // Few values, so that ends are equal now and then.
    prop_oneof![
        any::<[u8; 4]>().prop_map(Addr::from_v4),
        any::<[u8; 16]>().prop_map(Addr::from_octets),
        (0..3u8).prop_map(|last| Addr::from_v4([10, 0, 0, last])),
        (0..3u8).prop_map(|last| Addr::from_octets([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last])),
    ]
}

prop_compose! {
    fn any_packet()(
        src in any_addr(),
        dst in any_addr(),
        port in prop_oneof![any::<[u16; 2]>(), (0..3u16, 0..3u16).prop_map(|(a, b)| [a, b])],
        proto in prop::sample::select(&PROTOS[..]),
    ) -> Packet {
        Packet { addr: [src, dst], port, proto, ..Packet::EMPTY }
    }
}

fn key_of(packet: &Packet) -> (CtKey, bool) {
    let mut found = CtKey::default();
    let greater = key(packet, &mut found);
    (found, greater)
}

proptest! {
    #[test]
    fn both_directions_have_one_key(packet in any_packet()) {
        let reply = Packet {
            addr: [packet.addr[1], packet.addr[0]],
            port: [packet.port[1], packet.port[0]],
            ..packet
        };
        let ((there, greater), (back, reply_greater)) = (key_of(&packet), key_of(&reply));
        prop_assert_eq!(there, back);
        // Which direction it is can be told, but for a packet from an end to itself.
        let itself = packet.addr[0] == packet.addr[1] && packet.port[0] == packet.port[1];
        prop_assert_eq!(greater == reply_greater, itself);
        // Nothing is lost on the way.
        let at = usize::from(greater);
        prop_assert_eq!([there.addr[at], there.addr[1 - at]], packet.addr);
        prop_assert_eq!([there.port[at], there.port[1 - at]], packet.port);
        prop_assert_eq!((there.proto, there.pad), (packet.proto, [0; 3]));
    }

    #[test]
    fn different_connections_have_different_keys(a in any_packet(), b in any_packet()) {
        let same = a.proto == b.proto
            && (a.addr == b.addr && a.port == b.port
                || a.addr == [b.addr[1], b.addr[0]] && a.port == [b.port[1], b.port[0]]);
        prop_assert_eq!(key_of(&a).0 == key_of(&b).0, same);
    }

    /// An echo request the other way, with whatever identifier, is another connection.
    #[test]
    fn an_echo_request_is_never_an_answer(addr in (any_addr(), any_addr()), asked in any::<u16>(), other in any::<u16>()) {
        prop_assume!(addr.0 != addr.1);
        let echo = |from, to, ports| Packet { addr: [from, to], port: ports, proto: proto::ICMP, ..Packet::EMPTY };
        let request = echo(addr.0, addr.1, [asked, asked.wrapping_add(1)]);
        let answer = echo(addr.1, addr.0, [asked.wrapping_add(1), asked]);
        let counter = echo(addr.1, addr.0, [other, other.wrapping_add(1)]);
        prop_assert_eq!(key_of(&request).0, key_of(&answer).0);
        prop_assert_ne!(key_of(&request).0, key_of(&counter).0);
    }

    /// From every state, by every packet: a reset stays, a closed connection does not live again.
    #[test]
    fn ends_are_final(
        state in prop::sample::select(&STATES[..]),
        proto in prop::sample::select(&PROTOS[..]),
        flags in any::<u8>(),
        responder in any::<bool>(),
        fins in 0..4u8,
    ) {
        let from = if responder { Responder } else { Initiator };
        let after = next(state, &packet(proto, flags), from, fins);
        if state as u8 >= Closing as u8 {
            prop_assert!(after as u8 >= Closing as u8, "{state:?} {after:?}");
        }
        // Nobody promotes a connection alone: it takes the other end's answer first.
        if after == Established {
            prop_assert!(state == Established || state == SynReceived && from == Initiator);
        }
    }
}
