//! What pods ask by DNS, and what they are answered: messages on connections that a pod of this node has opened to one of
//! the ports that are listened to. Read nowhere here: the daemon parses them.
//!
//! An answer is one because conntrack says so: it comes the other way on the connection of the question. What was dropped
//! is not told, nor what has no connection, nor what only has the addresses and ports of one. A packet that is seen twice, as
//! it leaves a pod and as it gets to another one, is told once.

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use datapath_abi::{
    conntrack::{CtKey, FLAG_INITIATOR_HIGH, FLAG_TRANSLATED},
    endpoint::NO_SLOT,
    event::Hook,
};
use datapath_ebpf::parse::{ETH_LEN, Packet, Part, proto};

use crate::bpf::{
    kernel::{self, now_ns},
    maps,
    packet::Skb,
    service::NO_SERVICE,
    steps,
};

/// Bits behind the place of the transport header, in what [`tell`] is told.
const GREATER: u32 = 1 << 16;
const TO_POD: u32 = 1 << 17;
const FRAGMENT: u32 = 1 << 18;

/// Whether the port is one that is listened to. Without any the verifier leaves it out, and with one all but one comparison.
#[inline(always)]
pub(crate) fn is_asked(port: u16) -> bool {
    let ports = maps::dns_ports();
    let one = |place: u32| {
        let listened = (ports >> (16 * place)) as u16;
        listened != 0 && port == listened
    };
    one(0) || one(1) || one(2) || one(3)
}

/// Whether any port is listened to.
#[inline(always)]
pub(crate) fn listens() -> bool {
    maps::dns_ports() != 0
}

/// Tells of a packet of a connection, if an end of it has a port that is listened to. `key` is the connection's; `greater`: its
/// source is `addr[1]` there; `service`: so is that of the Service that it goes to, or that may be.
#[inline(always)]
pub(crate) fn listen(skb: &Skb, packet: &Packet, key: &CtKey, greater: bool, service: bool) {
    if service || is_asked(key.port[0]) || is_asked(key.port[1]) {
        let plain = if packet.v4 { ETH_LEN + 20 } else { ETH_LEN + 40 };
        let mut how = if packet.transport != 0 { packet.transport as u32 } else { plain as u32 };
        if greater {
            how |= GREATER;
        }
        if skb.hook as u8 == Hook::ToPod as u8 {
            how |= TO_POD;
        }
        if packet.part as u8 == Part::First as u8 {
            how |= FRAGMENT;
        }
        steps::dns(skb, key, how);
    }
}

/// Tells of a packet of a connection with such a port, if it is the responder's. `how`: the place of its transport header, and the
/// bits above.
#[inline(always)]
pub(crate) fn tell(context: *mut __sk_buff, key: &CtKey, how: u32) {
    // Kernels before 6.2 take no memory as a key that was handed to a function.
    let key = *key;
    let Some((entry, _)) = maps::connection(&key) else { return };
    let high = entry.flags() & FLAG_INITIATOR_HIGH != 0;
    let translated = entry.flags() & FLAG_TRANSLATED != 0;
    if !is_asked(if high { key.port[0] } else { key.port[1] }) && !(translated && is_asked(entry.service_port())) {
        return;
    }
    let reply = (how & GREATER != 0) != high;
    let slot = entry.slot();
    let sender = if reply { slot[1] } else { slot[0] };
    // The initiator must be ours, and a packet that has left a pod of ours was told there.
    if slot[0] == NO_SLOT || how & TO_POD != 0 && sender != NO_SLOT {
        return;
    }
    let transport = how & 0xffff;
    let Some(word) = kernel::load_word(context, transport + 4) else { return };
    let (start, claimed, seq) = match key.proto {
        // Length and checksum.
        proto::UDP => (transport + 8, (u32::from_be(word) >> 16).wrapping_sub(8), 0),
        proto::TCP => {
            let Some(offset) = kernel::load_word(context, transport + 12) else { return };
            (transport + (u32::from_be(offset) >> 28) * 4, u32::MAX, u32::from_be(word))
        }
        _ => return,
    };
    let there = TcContext::new(context).len().wrapping_sub(start);
    // Nothing, or less than nothing.
    if there as i32 <= 0 || claimed == 0 {
        return;
    }
    let taken = if claimed < there { claimed } else { there };
    let fragment = how & FRAGMENT != 0;
    maps::emit_dns(context, start, taken, |packet| {
        packet.time_ns = now_ns();
        packet.created_ns = entry.created_ns();
        // Each written where it belongs: what is chosen first is kept on the stack.
        if high {
            packet.addr[0] = key.addr[1];
            packet.addr[1] = key.addr[0];
            packet.port[0] = key.port[1];
            packet.port[1] = key.port[0];
        } else {
            packet.addr = key.addr;
            packet.port = key.port;
        }
        if translated {
            packet.service = entry.service();
        } else {
            packet.service = NO_SERVICE;
        }
        packet.identity = entry.identity();
        packet.slot = slot;
        packet.length = if fragment && key.proto == proto::UDP { claimed } else { taken };
        packet.seq = seq;
        packet.ifindex = Skb::new(&TcContext::new(context), Hook::FromPod).ifindex();
        packet.taken = if taken as usize > datapath_abi::dns::MOST_BYTES {
            datapath_abi::dns::MOST_BYTES as u16
        } else {
            taken as u16
        };
        packet.proto = key.proto;
        packet.reply = reply as u8;
        packet.hook = if how & TO_POD != 0 { Hook::ToPod as u8 } else { Hook::FromPod as u8 };
        packet.fragment = fragment as u8;
        packet.pad = [0; 2];
    });
}
