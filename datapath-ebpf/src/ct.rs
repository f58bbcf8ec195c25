//! Conntrack: which key a packet has, and (state, packet, direction) to the next state.

use datapath_abi::{
    addr::Addr,
    conntrack::{CtKey, CtState, timeout},
};

use crate::parse::{Packet, Part, proto, sctp, tcp};

/// Which end of a connection a packet comes from.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum From {
    /// The end that sent the first packet.
    Initiator = 0,
    /// The other one.
    Responder = 1,
}

/// Writes a packet's key, and says whether the packet's source is the greater end (`addr[1]`).
#[inline(always)]
pub fn key(packet: &Packet, key: &mut CtKey) -> bool {
    key_of(&packet.addr, packet.port, packet.proto, key)
}

/// The same for ends (source, destination) and a protocol.
#[inline(always)]
pub fn key_of(addr: &[Addr; 2], port: [u16; 2], proto: u8, key: &mut CtKey) -> bool {
    let greater = is_greater(addr, port);
    if greater {
        key.addr = [addr[1], addr[0]];
        key.port = [port[1], port[0]];
    } else {
        key.addr = *addr;
        key.port = port;
    }
    key.proto = proto;
    key.pad = [0; 3];
    greater
}

/// Whether the first of two ends is the greater one.
#[inline(always)]
fn is_greater(addr: &[Addr; 2], port: [u16; 2]) -> bool {
    let (src, dst) = (addr[0].words, addr[1].words);
    // For IPv4 the first words are equal, and one comparison of the second ones decides.
    if src[0] != dst[0] {
        src[0] > dst[0]
    } else if src[1] != dst[1] {
        src[1] > dst[1]
    } else {
        port[0] > port[1]
    }
}

/// Turns the beginning of a packet into its key, in place: the packet is then of use for nothing but what comes behind. Says whether
/// its source is the greater end, as [`key`] does.
#[inline(always)]
pub fn put_in_order(packet: &mut Packet) -> bool {
    let greater = is_greater(&packet.addr, packet.port);
    if greater {
        packet.addr = [packet.addr[1], packet.addr[0]];
        packet.port = [packet.port[1], packet.port[0]];
    }
    greater
}

/// Whether a packet can be the first of a connection, as opposed to one from its middle.
#[inline(always)]
pub fn opens(packet: &Packet) -> bool {
    if packet.part as u8 == Part::Later as u8 {
        return false;
    }
    match packet.proto {
        proto::TCP => packet.flags & (tcp::SYN | tcp::ACK | tcp::RST | tcp::FIN) == tcp::SYN,
        proto::SCTP => packet.flags == sctp::INIT,
        proto::ICMP => packet.icmp[0] == 8,
        proto::ICMPV6 => packet.icmp[0] == 128,
        _ => true,
    }
}

/// The state after the first packet that is seen. A FIN is that of a connection that was there before, so half of it is over.
#[inline(always)]
pub fn begins(packet: &Packet) -> CtState {
    if packet.proto == proto::TCP && packet.flags & tcp::FIN != 0 { CtState::Closing } else { CtState::New }
}

/// Whether a packet must be looked at for a change of state although its connection is
/// established. For all others the fast path has nothing to do.
#[inline(always)]
pub fn notable(packet: &Packet) -> bool {
    match packet.proto {
        proto::TCP => packet.flags & (tcp::SYN | tcp::FIN | tcp::RST) != 0,
        proto::SCTP => matches!(packet.flags, sctp::INIT | sctp::ABORT | sctp::SHUTDOWN | sctp::SHUTDOWN_COMPLETE),
        _ => false,
    }
}

/// Bit of `said` in [`next`]: the initiator has sent a FIN before; one higher for the responder.
pub const FIN_OF: u8 = 1 << 0;
/// The same for RST.
pub const RST_OF: u8 = 1 << 2;

/// The next state, seen from the middle. `said`: what the ends have sent before, bits [`FIN_OF`]
/// and [`RST_OF`].
#[inline(always)]
pub fn next(state: CtState, packet: &Packet, from: From, said: u8) -> CtState {
    match packet.proto {
        proto::TCP => next_tcp(state, packet.flags, from, said),
        proto::SCTP => match packet.flags {
            sctp::ABORT => CtState::Reset,
            sctp::SHUTDOWN_COMPLETE => CtState::TimeWait,
            sctp::SHUTDOWN if state == CtState::Established => CtState::Closing,
            // Sent again, as the answer was lost behind us (RFC 9260, section 5.1): no part of the
            // handshake's end.
            sctp::INIT if state as u8 == CtState::SynReceived as u8 => state,
            _ => answered(state, from),
        },
        _ => answered(state, from),
    }
}

#[inline(always)]
fn next_tcp(state: CtState, flags: u8, from: From, said: u8) -> CtState {
    if flags & tcp::RST != 0 {
        return CtState::Reset;
    }
    let reset = state as u8 == CtState::Reset as u8;
    // What the other end had under way when it was reset. Who has sent the RST and goes on has
    // sent it out of the window, which only the ends know.
    if reset && said & RST_OF << from as u8 == 0 {
        return state;
    }
    if reset || flags & tcp::FIN != 0 {
        let mut fins = said & (FIN_OF | FIN_OF << 1);
        if flags & tcp::FIN != 0 {
            fins |= FIN_OF << from as u8;
        }
        return if fins == FIN_OF | FIN_OF << 1 { CtState::TimeWait } else { CtState::Closing };
    }
    match state {
        // The answer to a SYN: SYN-ACK, or a SYN that crossed (RFC 9293, section 3.5).
        CtState::New if from as u8 == From::Responder as u8 => CtState::SynReceived,
        CtState::SynReceived if from as u8 == From::Initiator as u8 && flags & tcp::ACK != 0 => CtState::Established,
        other => other,
    }
}

/// Protocols without a handshake that we know: an answer, then a packet of the initiator again.
/// The same rule puts a connection into the big table, so that a flood of requests, answered
/// or not, stays in the small one.
#[inline(always)]
fn answered(state: CtState, from: From) -> CtState {
    match (state, from) {
        (CtState::New, From::Responder) => CtState::SynReceived,
        (CtState::SynReceived, From::Initiator) => CtState::Established,
        (other, _) => other,
    }
}

/// Whether both ends have agreed on a connection, however it has ended since. `flags`: the TCP flags that initiator and
/// responder have sent; `midstream`: its beginning was not seen, so that a SYN cannot be asked for; `tag`: SCTP's tag of
/// packets to the responder, which is there when INIT ACK was answered.
///
/// An RST with ACK is how a closed port answers a SYN: that alone is no agreement.
#[inline(always)]
pub const fn agreed(proto: u8, flags: [u8; 2], midstream: bool, tag: u32) -> bool {
    match proto {
        proto::TCP => flags[0] & flags[1] & tcp::ACK != 0 && (midstream || flags[1] & tcp::SYN != 0),
        proto::SCTP => tag != 0,
        _ => false,
    }
}

/// Whether a connection in PENDING takes part of its endpoint's share of that table: one whose
/// handshake was never done, or of a protocol without one that has no answer. One that is over after a
/// handshake takes none: it may be there only because CONNTRACK is full, and it stays for minutes.
#[inline(always)]
pub const fn waits(proto: u8, state: CtState, agreed: bool) -> bool {
    match proto {
        proto::TCP | proto::SCTP => state as u8 != CtState::Established as u8 && !agreed,
        _ => state as u8 == CtState::New as u8,
    }
}

/// Whether an SCTP packet is one of its association, as far as its tag tells, so that what it says counts: whoever does not
/// see the association cannot end it (RFC 9260, section 8.5). `tags`: of packets to the initiator and to the
/// responder, 0 for unknown.
#[inline(always)]
pub const fn tag_fits(packet: &Packet, from: From, tags: [u32; 2]) -> bool {
    // In pieces it would need a place for the tag beside that of the identification: nobody cuts what is so small.
    let whole = packet.part as u8 == Part::Whole as u8;
    let tag = packet.id;
    let (to_receiver, to_sender) =
        if from as u8 == From::Initiator as u8 { (tags[1], tags[0]) } else { (tags[0], tags[1]) };
    match packet.flags {
        sctp::SHUTDOWN => to_receiver == 0 || whole && tag == to_receiver,
        // With the T bit the sender knows no association, and sends back the tag that it was sent (section 8.5.1).
        sctp::ABORT | sctp::SHUTDOWN_COMPLETE => {
            let right = if packet.icmp[1] & 1 != 0 { to_sender } else { to_receiver };
            right == 0 || whole && tag == right
        }
        _ => true,
    }
}

/// Seconds without a packet after which an entry is dropped.
#[inline(always)]
pub const fn timeout_s(proto: u8, state: CtState) -> u32 {
    match proto {
        proto::TCP => match state {
            CtState::New => timeout::TCP_NEW_S,
            CtState::SynReceived => timeout::TCP_SYN_RECEIVED_S,
            CtState::Established => timeout::TCP_ESTABLISHED_S,
            CtState::Closing => timeout::TCP_CLOSING_S,
            CtState::TimeWait => timeout::TCP_TIME_WAIT_S,
            CtState::Reset => timeout::TCP_RESET_S,
        },
        proto::SCTP => match state {
            CtState::Established => timeout::SCTP_ESTABLISHED_S,
            _ => timeout::SCTP_OTHER_S,
        },
        proto::ICMP | proto::ICMPV6 => timeout::ICMP_S,
        _ => match state {
            CtState::Established => timeout::OTHER_ESTABLISHED_S,
            CtState::SynReceived => timeout::OTHER_NEW_S,
            _ => timeout::OTHER_NEW_S,
        },
    }
}

#[cfg(test)]
mod tests;
