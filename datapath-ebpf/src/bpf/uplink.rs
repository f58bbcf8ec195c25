//! XDP of an interface by which the world reaches the node: what is dropped has a counter, and a record as long as there
//! are not too many of them. Nothing here keeps a packet of this cluster's nodes away: see [`is_refused`].

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS},
    programs::XdpContext,
};
use datapath_abi::{
    addr::Addr,
    endpoint::NO_SLOT,
    event::{DIRECTION_NONE, EventKind, Hook, STAGED_NOT_ASKED},
    identity::{self, CLASS_NODE},
    maps::Scalar,
    reason::DropReason,
};
use datapath_ebpf::{
    parse::{Bytes, ETH_LEN},
    uplink::{self, Look},
};

use crate::bpf::{count, kernel, maps, packet::Frame, service::NO_SERVICE};

/// XDP.
#[inline(always)]
pub(crate) fn from_uplink(context: &XdpContext) -> u32 {
    let frame = Frame::new(context);
    let mut look = Look::EMPTY;
    let bytes = frame.length().saturating_sub(ETH_LEN as u32);
    match uplink::judge(&frame, &mut look, is_refused) {
        Ok(()) => {
            count::passed(Hook::FromUplink, bytes);
            XDP_PASS
        }
        Err(reason) => {
            count::dropped(Hook::FromUplink, reason, bytes);
            record(&look, reason, bytes, frame.ifindex());
            XDP_DROP
        }
    }
}

/// Whether a source is in the deny list. Nodes never are, whatever the list says: ADDRESSES knows them by exact address.
#[inline(always)]
fn is_refused(source: Addr) -> bool {
    maps::is_denied(source) && !maps::owner(source).is_some_and(|entry| identity::class(entry.identity) == CLASS_NODE)
}

/// Who it says it is, for the record.
#[inline(always)]
fn whose(addr: Addr) -> u32 {
    if addr == Addr::ZERO {
        // Nothing was read of it.
        return identity::UNKNOWN;
    }
    maps::address(addr).map_or(identity::WORLD, |entry| entry.identity)
}

/// A flood must not take the ring buffer away from the records of pods.
#[inline(always)]
fn record(look: &Look, reason: DropReason, bytes: u32, ifindex: u32) {
    let now_ns = kernel::now_ns();
    if !maps::may_record(now_ns) {
        return maps::bump(Scalar::UplinkUnrecorded);
    }
    let identities = [whose(look.addr[0]), whose(look.addr[1])];
    maps::emit(|event| {
        event.time_ns = now_ns;
        event.addr = look.addr;
        event.rules = [0; 2];
        event.packets = [1, 0];
        event.bytes = [bytes as u64, 0];
        event.identity = identities;
        event.slot = [NO_SLOT; 2];
        event.cookie = [0; 2];
        event.staged_cookie = [0; 2];
        event.created_ns = now_ns;
        event.rtt_us = 0;
        event.ifindex = ifindex;
        event.port = look.port;
        event.proto = look.proto;
        event.kind = EventKind::Dropped as u8;
        event.reason = reason as u8;
        event.end = 0;
        event.direction = DIRECTION_NONE;
        event.hook = Hook::FromUplink as u8;
        event.tcp_flags = [look.flags, 0];
        event.reply = 0;
        event.staged = [STAGED_NOT_ASKED; 2];
        event.pad = 0;
        event.service = NO_SERVICE;
    });
}
