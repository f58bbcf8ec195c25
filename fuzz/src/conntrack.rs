//! Hostile conversations: whatever the two ends send, the state is one of the list, lives for a
//! while and not for ever, is not established by one end alone, and does not come back to life.
//! What the RFCs say of ordinary conversations is tested elsewhere (tests/tests/datapath_model.rs).

use datapath_abi::conntrack::CtState;
use datapath_ebpf::{
    ct::{self, FIN_OF, From, RST_OF},
    parse::{Packet, proto, sctp, tcp},
};

const PROTOS: [u8; 6] = [proto::TCP, proto::UDP, proto::SCTP, proto::ICMP, proto::ICMPV6, 47];

/// Plays one connection: the first byte is the protocol, then two bytes a packet, who sends it and
/// its flags (TCP), chunk (SCTP) or type (ICMP). Follows the programs' own steps: see
/// `bpf/conntrack.rs`, `progress` and `found`.
///
/// # Panics
///
/// On a defect.
pub fn packets(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    let protocol = PROTOS[usize::from(*first) % PROTOS.len()];
    let (mut state, mut said, mut spoken) = (CtState::New, 0, [false; 2]);
    let mut first = true;
    for (&[who, what], number) in rest.as_chunks::<2>().0.iter().zip(0..) {
        let from = if who & 1 == 1 && !first { From::Responder } else { From::Initiator };
        let packet = packet(protocol, what);
        let opens = ct::opens(&packet);
        let told = || format!("packet {number}: {state:?} by {what:#04x} of {from:?}, said {said:#x}");
        if first || opens && state >= CtState::Closing {
            // Nothing is known of a new connection, whoever begins it.
            (state, said, spoken) = (CtState::New, flags_of(&packet, From::Initiator), [true, false]);
            first = false;
            continue;
        }
        let after = ct::next(state, &packet, from, said);
        assert_eq!(CtState::try_from(after as u8), Ok(after), "{}", told());
        // Seconds to live: at least one, and less than an established one has.
        let (seconds, most) = (ct::timeout_s(protocol, after), ct::timeout_s(protocol, CtState::Established));
        assert!((1..=most).contains(&seconds), "{seconds} s: {}", told());
        if state != CtState::Established && after == CtState::Established {
            assert_eq!(from, From::Initiator, "established by an answer alone: {}", told());
            assert!(spoken[1], "established without an answer: {}", told());
        }
        if state >= CtState::Closing {
            assert!(after >= CtState::Closing, "alive again as {after:?}: {}", told());
        }
        // The fast path does not ask for the next state of such packets.
        if state == CtState::Established && !ct::notable(&packet) {
            assert_eq!(after, state, "missed by the fast path: {}", told());
        }
        ends(&packet, state, after, from, said, &told());
        (state, said) = (after, said | flags_of(&packet, from));
        spoken[usize::from(from == From::Responder)] = true;
    }
}

/// RST and ABORT end a connection at once, FIN of both ends and SHUTDOWN COMPLETE in order. After a RST
/// only who has sent it can say more.
fn ends(packet: &Packet, before: CtState, after: CtState, from: From, said: u8, told: &str) {
    match (packet.proto, packet.flags) {
        (proto::TCP, flags) if flags & tcp::RST != 0 => assert_eq!(after, CtState::Reset, "{told}"),
        (proto::TCP, _) if before == CtState::Reset && said & RST_OF << from as u8 == 0 => {
            assert_eq!(after, CtState::Reset, "{told}");
        }
        (proto::TCP, flags) if flags & tcp::FIN != 0 => {
            let other = said & FIN_OF << (1 - from as u8) != 0;
            let wanted = if other { CtState::TimeWait } else { CtState::Closing };
            assert_eq!(after, wanted, "{told}");
        }
        (proto::SCTP, sctp::ABORT) => assert_eq!(after, CtState::Reset, "{told}"),
        (proto::SCTP, sctp::SHUTDOWN_COMPLETE) => assert_eq!(after, CtState::TimeWait, "{told}"),
        _ => {}
    }
}

fn packet(proto: u8, what: u8) -> Packet {
    match proto {
        proto::TCP | proto::SCTP => Packet { proto, flags: what, ..Packet::EMPTY },
        proto::ICMP | proto::ICMPV6 => Packet { proto, icmp: [what, 0], ..Packet::EMPTY },
        _ => Packet { proto, ..Packet::EMPTY },
    }
}

/// What the entry remembers of a packet, as bits of `said`.
fn flags_of(packet: &Packet, from: From) -> u8 {
    if packet.proto != proto::TCP {
        return 0;
    }
    let fin = if packet.flags & tcp::FIN != 0 { FIN_OF } else { 0 };
    let rst = if packet.flags & tcp::RST != 0 { RST_OF } else { 0 };
    (fin | rst) << from as u8
}

/// Conversations of the RFCs' figures.
pub fn seeds() -> Vec<Vec<u8>> {
    let conversations: [(u8, &[u8]); 8] = [
        // Opening and closing (RFC 9293, figures 6 and 12), both at once (7, 13), reset, midstream.
        (0, &[0, 0x02, 1, 0x12, 0, 0x10, 1, 0x18, 0, 0x11, 1, 0x10, 1, 0x11, 0, 0x10]),
        (0, &[0, 0x02, 1, 0x02, 0, 0x12, 1, 0x12, 0, 0x11, 1, 0x11, 0, 0x10, 1, 0x10, 0, 0x02]),
        (0, &[0, 0x02, 1, 0x12, 0, 0x10, 1, 0x14, 0, 0x10, 1, 0x10, 0, 0x02]),
        (0, &[0, 0x10, 1, 0x10, 0, 0x10]),
        (1, &[0, 0, 1, 0, 0, 0]),
        // RFC 9260: INIT, INIT ACK, COOKIE ECHO, COOKIE ACK, DATA; SHUTDOWN, its ACK, COMPLETE; ABORT.
        (2, &[0, 1, 1, 2, 0, 10, 1, 11, 0, 0, 1, 3, 0, 7, 1, 8, 0, 14, 0, 1]),
        (2, &[0, 1, 1, 2, 0, 10, 1, 11, 0, 6, 1, 0]),
        (3, &[0, 8, 1, 0, 0, 8]),
    ];
    conversations.into_iter().map(|(proto, packets)| [&[proto], packets].concat()).collect()
}
