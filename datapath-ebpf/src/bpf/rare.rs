//! Packets that [`parse::ip`] does not read to the end: fragments, ICMP errors, and what has its
//! transport header elsewhere than usual.

use datapath_abi::{
    conntrack::{FragmentEntry, FragmentKey},
    endpoint::{NO_SLOT, RulesPtr},
    event::Hook,
    identity,
    reason::DropReason,
};
use datapath_ebpf::{
    ct,
    parse::{self, ETH_LEN, Kind, Part},
};

use crate::{
    Scratch, Seen,
    bpf::{maps, packet::Deep, service::Way},
};

/// Whether a packet needs [`read`].
#[inline(always)]
pub(crate) fn is_rare(seen: &Seen) -> bool {
    matches!(seen.packet.kind, Kind::Rare | Kind::IcmpError)
}

/// An interface that there is not (Linux numbers them by positive `int`s): of a fragment that some interface
/// has brought, and the kernel's `ip6_fragment` has forgotten which.
const FORGOTTEN: u32 = u32::MAX;

/// Reads the rest of a packet, and writes its key: for an ICMP error that of the connection which
/// it is about, if it comes from where such an error can come from.
#[inline(always)]
pub(crate) fn read(packet: &Deep, seen: &mut Seen) -> Result<(), DropReason> {
    let mut at = if seen.packet.v4 { ETH_LEN + 20 } else { ETH_LEN + 40 };
    if seen.packet.kind as u8 == Kind::Rare as u8 {
        at = parse::rare(packet, &mut seen.packet)?;
        seen.packet.transport = at as u16;
    }
    if seen.packet.part as u8 != Part::Whole as u8
        && seen.hook as u8 == Hook::ToPod as u8
        && seen.ingress_ifindex == 0
        && !packet.has_socket()
    {
        seen.ingress_ifindex = FORGOTTEN;
    }
    if seen.packet.kind as u8 == Kind::IcmpError as u8 && seen.packet.part as u8 == Part::Whole as u8 {
        if let Some(quoted) = parse::quote(packet, at, &seen.packet, &mut seen.key) {
            if quoted.by_end || by_router(seen, quoted.greater) {
                seen.packet.kind = Kind::Related;
                seen.greater = quoted.greater;
                seen.by_end = quoted.by_end as u8;
                seen.packet.quoted = quoted.place as u16;
                return Ok(());
            }
        }
    }
    if seen.packet.kind as u8 == Kind::Fragment as u8 {
        if let Some(first) = maps::fragment(&fragment_key(seen)) {
            if parse::overlaps_tcp(&seen.packet, first.proto) {
                return Err(DropReason::TruncatedHeader);
            }
            seen.packet.port = first.port;
            seen.packet.proto = first.proto;
            seen.packet.kind = Kind::Related;
        }
    }
    if seen.packet.part as u8 == Part::Later as u8 {
        // Was its offset: it shows no type.
        seen.packet.icmp = [0; 2];
    }
    seen.greater = ct::key(&seen.packet, &mut seen.key);
    Ok(())
}

/// Whether an ICMP error can be by a router between the ends, of which `greater` names the far one:
/// this node is one; a pod is none, nor is there one between a pod and its node or two pods of it.
#[inline(always)]
fn by_router(seen: &Seen, greater: bool) -> bool {
    if seen.hook as u8 == Hook::FromPod as u8 {
        return false;
    }
    if seen.ingress_ifindex == 0 {
        return true;
    }
    let far = if greater { seen.key.addr[1] } else { seen.key.addr[0] };
    let of_node_or_here = match maps::address(far) {
        Some(end) => end.identity == identity::HOST || end.slot != NO_SLOT,
        None => false,
    };
    let of_node_or_pod = match maps::address(seen.packet.addr[0]) {
        Some(router) => router.identity == identity::HOST || router.identity >= identity::FIRST_POD,
        None => false,
    };
    !of_node_or_here && !of_node_or_pod
}

/// Notes a first fragment that has passed, for those that follow. Between open ends they pass without, unless a Service
/// is in it: whoever is under no policy cannot fill the table by anything else.
#[inline(always)]
pub(crate) fn remember(at: &Scratch) {
    let Scratch { seen, exchange: x, .. } = at;
    let Some((entry, _)) = maps::connection(&seen.key) else { return };
    let [initiator, responder] = entry.rules();
    let under_policy = RulesPtr(initiator).is_ruled() || RulesPtr(responder).is_ruled();
    if (under_policy || !x.is(Way::None)) && seen.packet.kind as u8 == Kind::Tracked as u8 {
        let mut entry = FragmentEntry { port: seen.packet.port, proto: seen.packet.proto, pad: [0; 3] };
        let mut key = fragment_key(seen);
        if x.is(Way::Forward) {
            // They will come as this one came.
            key.addr = x.old;
            entry.port = x.old_port;
        }
        maps::put_fragment(&key, &entry);
    }
}

#[inline(always)]
fn fragment_key(seen: &Seen) -> FragmentKey {
    // In IPv6 later fragments may name another header than the transport's.
    let proto = if seen.packet.v4 { seen.packet.proto } else { 0 };
    FragmentKey { addr: seen.packet.addr, id: seen.packet.id, proto, pad: [0; 3] }
}
