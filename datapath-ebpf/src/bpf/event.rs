//! Flow events: what is in them.

use datapath_abi::{
    conntrack::{CtEntry, CtKey, FLAG_INITIATOR_HIGH, FLAG_TRANSLATED},
    event::{DIRECTION_NONE, EventKind, STAGED_NOT_ASKED},
};
use datapath_ebpf::parse::proto;

use crate::{
    Scratch,
    bpf::{
        maps,
        policy::{Judgement, Staged},
        service::NO_SERVICE,
    },
};

/// The first packet of a connection was let through, or a packet was dropped.
#[inline(always)]
pub(crate) fn packet(at: &Scratch) {
    let Scratch { seen, entry: CtEntry { ends, .. }, now_ns, .. } = at;
    let judgement = Judgement::from_bits(at.judgement);
    let [egress, ingress] = [Staged::from_bits(at.staged[0]), Staged::from_bits(at.staged[1])];
    let p = &seen.packet;
    let icmp = p.proto == proto::ICMP || p.proto == proto::ICMPV6;
    let service = at.exchange.service();
    let (kind, direction) = if judgement.passes() {
        (EventKind::Opened, DIRECTION_NONE)
    } else {
        (EventKind::Dropped, judgement.direction())
    };
    maps::emit(|event| {
        event.time_ns = *now_ns;
        event.addr = p.addr;
        event.rules = ends.rules;
        event.packets = [1, 0];
        event.bytes = [seen.bytes as u64, 0];
        event.identity = ends.identity;
        event.slot = ends.slot;
        event.cookie = ends.cookie;
        event.staged_cookie = [egress.cookie(), ingress.cookie()];
        event.created_ns = *now_ns;
        event.rtt_us = 0;
        event.ifindex = seen.ifindex;
        event.port = if icmp { [p.icmp[0] as u16, p.icmp[1] as u16] } else { p.port };
        event.proto = p.proto;
        event.kind = kind as u8;
        event.reason = judgement.reason();
        event.end = 0;
        event.direction = direction;
        event.hook = seen.hook as u8;
        event.tcp_flags = [if p.proto == proto::TCP { p.flags } else { 0 }, 0];
        event.reply = judgement.is_reply() as u8;
        event.staged = [egress.said(), ingress.said()];
        event.pad = 0;
        event.service = service;
    });
}

/// A connection lives on.
pub(crate) const LIVES: u32 = 0;

/// A connection ended (`end` is an [`datapath_abi::event::EndReason`]), or lives on ([`LIVES`]).
#[inline(always)]
pub(crate) fn connection(key: &CtKey, entry: &CtEntry, end: u32, now_ns: u64) {
    let icmp = key.proto == proto::ICMP || key.proto == proto::ICMPV6;
    let high = entry.flags & FLAG_INITIATOR_HIGH != 0;
    let (addr, port) =
        if high { ([key.addr[1], key.addr[0]], [key.port[1], key.port[0]]) } else { (key.addr, key.port) };
    maps::emit(|event| {
        event.time_ns = now_ns;
        event.addr = addr;
        event.rules = entry.ends.rules;
        event.packets = entry.packets();
        event.bytes = entry.bytes();
        event.identity = entry.ends.identity;
        event.slot = entry.ends.slot;
        event.cookie = entry.ends.cookie;
        event.staged_cookie = [0; 2];
        event.created_ns = entry.created_ns;
        event.rtt_us = entry.rtt_us;
        event.ifindex = if entry.ends.ifindex[0] != 0 { entry.ends.ifindex[0] } else { entry.ends.ifindex[1] };
        event.port = if icmp { [if key.proto == proto::ICMP { 8 } else { 128 }, 0] } else { port };
        event.proto = key.proto;
        event.kind = if end != LIVES { EventKind::Closed as u8 } else { EventKind::Active as u8 };
        event.reason = 0;
        event.end = end as u8;
        event.direction = DIRECTION_NONE;
        event.hook = 0;
        event.tcp_flags = entry.tcp_flags;
        event.reply = 0;
        event.staged = [STAGED_NOT_ASKED; 2];
        event.pad = 0;
        event.service = if entry.flags & FLAG_TRANSLATED != 0 { entry.service } else { NO_SERVICE };
    });
}
