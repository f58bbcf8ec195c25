//! The overlay's device: what this node's pods send to others goes out with the number of the sender's identity, and
//! what comes in is believed to be from who it says only if it came from the node where that address is. Whether it
//! may pass is decided later, by `to_pod`; what it needs to know of the number is noted here. See docs/adr/0019.

use datapath_abi::{
    addr::Addr,
    event::Hook,
    identity::{self, FIRST_POD, FIRST_SHARED},
    overlay::BELIEVED,
    reason::DropReason,
};
use datapath_ebpf::parse::{Bytes, ETH_LEN, ETH_P_IP, ETH_P_IPV6, View};

use crate::bpf::{
    conntrack::{self, NOBODY},
    count,
    forward::{DROP, NEXT},
    kernel, maps,
    packet::Skb,
    policy::Judgement,
    service::Way,
    steps,
};

/// tc ingress of the device.
#[inline(always)]
pub(crate) fn from_overlay(skb: &Skb) -> i32 {
    match admit(skb) {
        Ok(()) => NEXT,
        Err(reason) => {
            tell(skb, reason);
            count::dropped(Hook::ToPod, reason, skb.network_bytes());
            DROP
        }
    }
}

/// Reports a packet that was refused: as much as can be read of it, and whom it was for. Who it is from is what is not known.
#[inline(always)]
fn tell(skb: &Skb, reason: DropReason) {
    let Some(at) = maps::scratch() else { return };
    at.exchange.way = Way::None;
    steps::glance(skb, at);
    at.entry.ends = NOBODY;
    if let Some(entry) = maps::owner(at.seen.packet.addr[1]) {
        (at.entry.ends.slot[1], at.entry.ends.identity[1]) = (entry.slot, entry.identity);
    }
    at.now_ns = kernel::now_ns();
    let _ = conntrack::refuse(at, Judgement::invalid(reason));
    steps::report_unasked(at);
}

/// Checks who has sent it, and notes the number it carries.
#[inline(always)]
fn admit(skb: &Skb) -> Result<(), DropReason> {
    let source = source(skb)?;
    let tunnel = kernel::tunnel(skb.context()).ok_or(DropReason::OverlaySource)?;
    let origin = maps::origin(source).ok_or(DropReason::OverlaySource)?;
    if origin.node != tunnel.far || origin.ifindex != skb.ifindex() {
        return Err(DropReason::OverlaySource);
    }
    let known = match maps::address(source) {
        Some(entry) => entry.identity,
        None => identity::WORLD,
    };
    let carried = believed(tunnel.number, known);
    // Most packets say what the map says: nothing is written for them.
    match maps::carried(source) {
        Some(noted) if noted == carried && carried != known => {}
        None if carried == known => {}
        _ if carried == known => maps::forget_carried(source),
        _ => maps::carry(source, carried),
    }
    Ok(())
}

/// Whom to take the sender for: `known` is what its address says.
#[inline(always)]
fn believed(number: u32, known: u32) -> u32 {
    if !identity::is_shared(number) || !maps::believes(BELIEVED) || number == known {
        return known;
    }
    if maps::believes(number) {
        return number;
    }
    // Not heard of yet. A pod whose identity has no shared number here may be known by one of this node's own.
    if known >= FIRST_POD && known < FIRST_SHARED { known } else { identity::UNKNOWN }
}

/// What the last packet from an address has carried, if that is not what the address says.
#[inline(always)]
pub(crate) fn carried(addr: Addr) -> Option<u32> {
    maps::origin(addr)?;
    maps::carried(addr)
}

/// tc egress of the device. Without the number it would arrive all the same: the receiver looks the address up.
#[inline(always)]
pub(crate) fn to_overlay(skb: &Skb) -> i32 {
    if let Ok(source) = source(skb)
        && let Some(entry) = maps::address(source)
        && let Some(pod) = maps::endpoint(entry.slot)
        // Not of a process of this node or of somebody behind it who uses the pod's address.
        && pod.ifindex() != 0
        && pod.ifindex() == skb.ingress_ifindex()
    {
        let number = pod.identity();
        if identity::is_shared(number) && maps::believes(BELIEVED) && maps::believes(number) {
            kernel::number_tunnel(skb.context(), number);
        }
    }
    NEXT
}

/// The address it comes from, by its own header.
#[inline(always)]
fn source(skb: &Skb) -> Result<Addr, DropReason> {
    if skb.view(0, ETH_LEN + 40).is_none() {
        skb.pull();
    }
    let ethernet = skb.view(0, ETH_LEN).ok_or(DropReason::TruncatedHeader)?;
    if skb.is_tagged() {
        return Err(DropReason::UnsupportedL3);
    }
    match ethernet.u16(12) {
        ETH_P_IP => {
            let header = skb.view(ETH_LEN, 20).ok_or(DropReason::TruncatedHeader)?;
            Ok(Addr::from_v4(header.u32(12).to_ne_bytes()))
        }
        ETH_P_IPV6 => {
            let header = skb.view(ETH_LEN, 40).ok_or(DropReason::TruncatedHeader)?;
            Ok(Addr { words: [header.u64(8), header.u64(16)] })
        }
        _ => Err(DropReason::UnsupportedL3),
    }
}
