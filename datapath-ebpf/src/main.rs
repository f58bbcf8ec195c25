//! The programs: entry points only. Each is a list of named steps and one `match` that turns
//! the outcome into what the kernel wants to hear.
//!
//! ```text
//! from_pod   tc ingress of the host side of a pod's veth: the pod has sent it
//! to_pod     tc egress of the same: the host's stack is about to give it to the pod
//! swing      run by the daemon: points endpoints at other rules
//! sweep      run by the daemon: ages conntrack, reports ends
//! clock      run by the daemon: the time in both clocks
//! probe      attached for a moment to see how one can attach: lets everything pass
//! ```
//!
//! Ingress and egress elsewhere mean policy direction, seen from the pod.
#![no_std]
#![no_main]
#![deny(unsafe_code)]
#![allow(internal_features)]
#![feature(core_intrinsics, asm_experimental_arch)]

mod bpf;

use aya_ebpf::{macros::classifier, programs::TcContext};
use datapath_abi::{addr::Addr, conntrack::CtKey, event::Hook, reason::DropReason};
use datapath_ebpf::{
    ct,
    parse::{self, Bytes, ETH_LEN, ETH_P_ARP, Kind, Packet, Part},
};

use crate::bpf::{
    conntrack::{self, Slow},
    count,
    forward::{self, DROP, NEXT},
    kernel,
    maps::{self, EndpointRef},
    packet::Skb,
    policy::Judgement,
    rare, steps,
};

/// Everything the later steps need to know about a packet. Without padding: see `bpf::steps`.
#[repr(C)]
pub(crate) struct Seen {
    pub(crate) packet: Packet,
    pub(crate) key: CtKey,
    /// Ethernet source: see [`parse::mac_word`].
    pub(crate) mac: u64,
    pub(crate) ifindex: u32,
    pub(crate) ingress_ifindex: u32,
    /// From the network header on.
    pub(crate) bytes: u32,
    /// The packet's source is `key.addr[1]`.
    pub(crate) greater: bool,
    pub(crate) hook: Hook,
    pub(crate) pad: [u8; 2],
}
datapath_abi::assert_size!(Seen, 112);

impl Seen {
    /// What is known before the headers are read.
    #[inline(always)]
    fn of(skb: &Skb) -> Self {
        Self {
            packet: Packet::EMPTY,
            key: CtKey { addr: [Addr::ZERO; 2], port: [0; 2], proto: 0, pad: [0; 3] },
            ifindex: skb.ifindex(),
            ingress_ifindex: skb.ingress_ifindex(),
            bytes: skb.network_bytes(),
            mac: 0,
            greater: false,
            hook: skb.hook,
            pad: [0; 2],
        }
    }
}

/// What becomes of a packet.
#[must_use]
pub(crate) enum Outcome {
    /// On to the host's stack, or through it to the pod.
    Stack,
    /// Into this pod.
    Deliver(EndpointRef),
    /// Nowhere.
    Drop(DropReason),
}

#[classifier]
pub(crate) fn from_pod(context: TcContext) -> i32 {
    run(&Skb::new(&context, Hook::FromPod))
}

#[classifier]
pub(crate) fn to_pod(context: TcContext) -> i32 {
    run(&Skb::new(&context, Hook::ToPod))
}

#[classifier]
pub(crate) fn swing(context: TcContext) -> i32 {
    bpf::control::swing(&context)
}

#[classifier]
pub(crate) fn sweep(context: TcContext) -> i32 {
    bpf::control::sweep(&context)
}

#[classifier]
pub(crate) fn clock(context: TcContext) -> i32 {
    bpf::control::clock(&context)
}

#[classifier]
pub(crate) fn probe(_context: TcContext) -> i32 {
    NEXT
}

#[inline(always)]
fn run(skb: &Skb) -> i32 {
    let Some(ethernet) = skb.view(0, ETH_LEN) else { return dropped(skb, DropReason::TruncatedHeader) };
    let ethertype = parse::View::u16(ethernet, 12);
    if ethertype == ETH_P_ARP {
        return arp(skb);
    }
    let mut seen = Seen::of(skb);
    seen.mac = parse::mac_word(ethernet, 6);
    if skb.is_tagged() {
        return unreadable(skb, &seen, DropReason::UnsupportedL3);
    }
    if let Err(reason) = parse::ip(skb, ethertype, &mut seen.packet) {
        return unreadable(skb, &seen, reason);
    }
    if rare::is_rare(&seen) {
        if let Err(reason) = steps::rare(skb, &mut seen) {
            return unreadable(skb, &seen, reason);
        }
    } else {
        seen.greater = ct::key(&seen.packet, &mut seen.key);
    }
    let outcome = step(&mut seen);
    if seen.packet.part as u8 == Part::First as u8 && !matches!(outcome, Outcome::Drop(_)) {
        steps::remember(&seen);
    }
    match outcome {
        Outcome::Stack => {
            count::passed(skb.hook, seen.bytes);
            NEXT
        }
        Outcome::Deliver(target) => {
            count::passed(skb.hook, seen.bytes);
            forward::to_endpoint(skb, &seen.packet, target)
        }
        Outcome::Drop(reason) => dropped(skb, reason),
    }
}

#[inline(always)]
fn step(seen: &mut Seen) -> Outcome {
    let slow = match seen.packet.kind {
        Kind::Tracked => {
            let established = maps::established(&seen.key);
            if let Some(entry) = established
                && let Some(outcome) = conntrack::fast(seen, entry)
            {
                return outcome;
            }
            steps::slow(seen, established.is_some())
        }
        Kind::Neighbour | Kind::Router => steps::neighbour(seen),
        Kind::Related => match steps::related(seen) {
            Some(slow) => slow,
            None => {
                let later = seen.packet.part as u8 == Part::Later as u8;
                seen.packet.kind = if later { Kind::Fragment } else { Kind::IcmpError };
                steps::untracked(seen)
            }
        },
        _ => steps::untracked(seen),
    };
    match slow {
        Slow::Deliver(slot) => match maps::endpoint(slot) {
            Some(target) => Outcome::Deliver(target),
            None => Outcome::Stack,
        },
        Slow::Dropped(reason) => Outcome::Drop(DropReason::try_from(reason).unwrap_or(DropReason::Invalid)),
        Slow::Stack | Slow::Unknown | Slow::Stranger | Slow::Reopen | Slow::Changed | Slow::Taken => Outcome::Stack,
    }
}

/// ARP: a pod speaks for its own address only. No flow record: there is no flow.
#[inline(always)]
fn arp(skb: &Skb) -> i32 {
    let reason = match parse::arp(skb) {
        _ if skb.is_tagged() => DropReason::UnsupportedL3,
        Err(reason) => reason,
        Ok(_) if skb.hook as u8 == Hook::ToPod as u8 => return NEXT,
        Ok(arp) => {
            let owner = maps::slot_of(skb.ifindex()).and_then(maps::endpoint);
            match owner {
                None => DropReason::NoEndpoint,
                Some(owner) if owner.mac() != arp.mac => DropReason::InvalidSourceMac,
                // 0.0.0.0 asks whether an address is free.
                Some(owner) if !owner.owns(arp.addr) && arp.addr != PROBE => DropReason::InvalidSourceIp,
                Some(_) => return NEXT,
            }
        }
    };
    dropped(skb, reason)
}

const PROBE: Addr = Addr::from_v4([0; 4]);

/// A packet whose headers make no sense: dropped for everybody, with an event that says where, and
/// what could be read before the sense was lost.
#[inline(never)]
fn unreadable(skb: &Skb, seen: &Seen, reason: DropReason) -> i32 {
    let mut ends = conntrack::NOBODY;
    if let Some(slot) = maps::slot_of(skb.ifindex()) {
        if let Some(endpoint) = maps::endpoint(slot) {
            let side = if skb.hook as u8 == Hook::FromPod as u8 { 0 } else { 1 };
            ends.slot[side] = slot;
            ends.identity[side] = endpoint.identity();
        }
    }
    steps::report_packet(seen, &ends, Judgement::invalid(reason), kernel::now_ns());
    dropped(skb, reason)
}

#[inline(always)]
fn dropped(skb: &Skb, reason: DropReason) -> i32 {
    count::dropped(skb.hook, reason, skb.network_bytes());
    DROP
}

/// Reached by no path the verifier admits.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// "Dual MIT/GPL" is the kernel's word for a licence that may call GPL-only helpers; ours is
/// Apache-2.0 or GPL-2.0, see LICENSE and LICENSE-GPL.
#[allow(unsafe_code)]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
