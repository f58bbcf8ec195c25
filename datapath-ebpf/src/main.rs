//! The programs: entry points only. Each is a list of named steps and one `match` that turns
//! the outcome into what the kernel wants to hear.
//!
//! ```text
//! from_pod   tc ingress of the host side of a pod's link: the pod has sent it
//! to_pod     tc egress of the same: the host's stack is about to give it to the pod
//! from_overlay  tc ingress of the overlay's device: it came from another node
//! to_overlay    tc egress of the same: it goes to another node
//! from_uplink   XDP of an interface to the world: what is malformed or not wanted gets no further
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

use aya_ebpf::{
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use datapath_abi::{
    addr::Addr,
    conntrack::{CtEntry, CtKey},
    event::Hook,
    reason::DropReason,
};
use datapath_ebpf::{
    ct,
    parse::{self, Bytes, ETH_LEN, ETH_P_ARP, Kind, Packet, Part},
};

use crate::bpf::{
    conntrack::{self, Slow},
    count, dns,
    forward::{self, DROP, NEXT},
    maps::{self, EndpointRef},
    overlay,
    packet::Skb,
    rare,
    service::{self, Exchange, Way},
    steps,
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
    /// 1: it is an ICMP error by an end of the connection that it is about.
    pub(crate) by_end: u8,
    pub(crate) pad: u8,
}
datapath_abi::assert_size!(Seen, 120);

/// What the slow path knows about its packet: one for each CPU, in a map, for the kernel's stack of 512 bytes is that of all
/// nested calls together. Nobody else uses it meanwhile: see [`maps::scratch`].
#[repr(C)]
pub(crate) struct Scratch {
    pub(crate) seen: Seen,
    /// `ends` are the packet's, or those of the connection that is judged; the rest is used when a new entry
    /// is put into PENDING, and what is zero there in each of them is never written.
    pub(crate) entry: CtEntry,
    /// Addresses of the connection that is judged, where they are not the packet's: initiator, responder.
    pub(crate) addr: [Addr; 2],
    /// When its first packet came, or when it was refused.
    pub(crate) now_ns: u64,
    /// What the rules with the staged policies would say of it, by direction: bits of a [`bpf::policy::Staged`].
    pub(crate) staged: [u64; 2],
    /// What is to be reported: bits of a [`bpf::policy::Judgement`].
    pub(crate) judgement: u32,
    /// Not zero: the packet is to be reported.
    pub(crate) tell: u32,
    /// Not zero: it is a packet of a connection that is known, by one of its own ends.
    pub(crate) heard: u64,
    /// Whether and how the packet is translated.
    pub(crate) exchange: Exchange,
}

impl Seen {
    /// What was read of a packet that was put in order.
    #[inline(always)]
    pub(crate) fn take(&mut self, skb: &Skb, packet: &Packet, greater: bool) {
        self.key.addr = packet.addr;
        self.key.port = packet.port;
        self.key.proto = packet.proto;
        self.key.pad = packet.pad;
        self.packet = *packet;
        if greater {
            self.packet.addr = [packet.addr[1], packet.addr[0]];
            self.packet.port = [packet.port[1], packet.port[0]];
        }
        self.mac = match skb.view(0, ETH_LEN) {
            Some(ethernet) => parse::mac_word(ethernet, 6),
            None => 0,
        };
        self.greater = greater;
        self.came(skb);
    }

    /// What is known without its headers.
    #[inline(always)]
    fn came(&mut self, skb: &Skb) {
        self.ifindex = skb.ifindex();
        self.ingress_ifindex = skb.ingress_ifindex();
        self.bytes = skb.network_bytes();
        self.hook = skb.hook;
        self.by_end = 0;
        self.pad = 0;
    }

    /// Reads a packet; one that is rare not to its end.
    #[inline(always)]
    pub(crate) fn read(&mut self, skb: &Skb) -> Result<(), DropReason> {
        // One by one, or it would be made on the stack and copied.
        self.packet = Packet::EMPTY;
        self.key = CtKey { addr: [Addr::ZERO; 2], port: [0; 2], proto: 0, pad: [0; 3] };
        self.mac = 0;
        self.greater = false;
        self.came(skb);
        let ethernet = skb.view(0, ETH_LEN).ok_or(DropReason::TruncatedHeader)?;
        self.mac = parse::mac_word(ethernet, 6);
        if skb.is_tagged() {
            return Err(DropReason::UnsupportedL3);
        }
        parse::ip(skb, parse::View::u16(ethernet, 12), &mut self.packet)?;
        if !rare::is_rare(self) {
            self.greater = ct::key(&self.packet, &mut self.key);
        }
        Ok(())
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
#[inline(always)]
pub(crate) fn from_pod(context: TcContext) -> i32 {
    run(&Skb::new(&context, Hook::FromPod))
}

#[classifier]
#[inline(always)]
pub(crate) fn to_pod(context: TcContext) -> i32 {
    run(&Skb::new(&context, Hook::ToPod))
}

#[classifier]
pub(crate) fn from_overlay(context: TcContext) -> i32 {
    overlay::from_overlay(&Skb::new(&context, Hook::ToPod))
}

#[classifier]
pub(crate) fn to_overlay(context: TcContext) -> i32 {
    overlay::to_overlay(&Skb::new(&context, Hook::FromPod))
}

#[xdp]
pub(crate) fn from_uplink(context: XdpContext) -> u32 {
    bpf::uplink::from_uplink(&context)
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

/// The fast path, and what it leaves to [`slow`]. Has one packet on the stack, which is its key as well.
#[inline(always)]
fn run(skb: &Skb) -> i32 {
    let Some(ethernet) = skb.view(0, ETH_LEN) else { return dropped(skb, DropReason::TruncatedHeader) };
    let ethertype = parse::View::u16(ethernet, 12);
    if ethertype == ETH_P_ARP {
        return arp(skb);
    }
    let mut packet = Packet::EMPTY;
    if skb.is_tagged() || parse::ip(skb, ethertype, &mut packet).is_err() {
        packet.kind = Kind::Rare;
    }
    let (mut greater, mut established) = (false, false);
    if packet.kind as u8 == Kind::Tracked as u8 {
        greater = ct::put_in_order(&mut packet);
        if let Some(entry) = maps::established_of(&packet) {
            established = true;
            if let Some(outcome) = conntrack::fast(skb, &packet, greater, entry, Way::None) {
                return carry_out(skb, packet.v4, packet.ttl, outcome);
            }
            if service::is_by_service(&packet, entry) {
                if let Some(outcome) = service::fast(skb, &mut packet, greater, entry) {
                    return carry_out(skb, packet.v4, packet.ttl, outcome);
                }
                // What was read may have become another packet.
                packet.kind = Kind::Rare;
                established = false;
            }
        }
    }
    let read = if packet.kind as u8 == Kind::Tracked as u8 { Some((&packet, greater)) } else { None };
    slow(skb, read, established)
}

/// Everything that is no packet in the middle of an established connection under the rules it was decided by.
///
/// `read`: the packet, put in order, and whether its source is the greater end; `None` if it has to be read once more.
/// `established`: the fast path has found its connection in CONNTRACK.
#[inline(always)]
fn slow(skb: &Skb, read: Option<(&Packet, bool)>, established: bool) -> i32 {
    let Some(at) = maps::scratch() else { return dropped(skb, DropReason::Invalid) };
    at.tell = 0;
    at.heard = 0;
    at.exchange.way = Way::None;
    let whole = match read {
        Some((packet, greater)) => {
            steps::take(skb, at, packet, greater);
            Ok(())
        }
        None => steps::read(skb, at),
    };
    // Who had to be read again had no key to look for.
    let mut established = established || read.is_none() && maps::established(&at.seen.key).is_some();
    let mut decided = match whole {
        Ok(()) => Slow::Service,
        Err(reason) => conntrack::unreadable(at, reason),
    };
    // Twice where it goes to a Service: as it came, and as what it was made.
    let most = if skb.hook as u8 == Hook::FromPod as u8 { 2 } else { 1 };
    let mut looks = 0;
    while looks < most && matches!(decided, Slow::Service) {
        decided = decide(at, established);
        if skb.hook as u8 == Hook::FromPod as u8 && matches!(decided, Slow::Service) {
            decided = match steps::translate(at) {
                Ok(found) => {
                    established = found;
                    Slow::Service
                }
                Err(reason) => steps::no_service(at, reason),
            };
        }
        looks += 1;
    }
    if matches!(decided, Slow::Service) {
        decided = steps::no_service(at, DropReason::NoBackend);
    }
    if at.tell != 0 {
        steps::report_packet(at);
    }
    let passes = !matches!(decided, Slow::Dropped(_));
    if at.heard != 0 && passes && dns::listens() {
        steps::heard(skb, at);
    }
    if at.seen.packet.part as u8 == Part::First as u8 && passes {
        steps::remember(at);
    }
    if !at.exchange.is(Way::None) && passes && !steps::exchange(skb, at) {
        decided = Slow::Dropped(DropReason::Fragment as u8);
    }
    let outcome = match decided {
        Slow::Deliver(slot) => match maps::endpoint(slot) {
            Some(target) => Outcome::Deliver(target),
            None => Outcome::Stack,
        },
        Slow::Dropped(reason) => Outcome::Drop(DropReason::try_from(reason).unwrap_or(DropReason::Invalid)),
        _ => Outcome::Stack,
    };
    carry_out(skb, at.seen.packet.v4, at.seen.packet.ttl, outcome)
}

/// By what kind of packet it is.
#[inline(always)]
fn decide(at: &mut Scratch, established: bool) -> Slow {
    match at.seen.packet.kind {
        Kind::Tracked => steps::slow(at, established),
        Kind::Neighbour | Kind::Router => steps::neighbour(at),
        Kind::Related => match steps::related(at) {
            Some(slow) => slow,
            None => {
                let later = at.seen.packet.part as u8 == Part::Later as u8;
                at.seen.packet.kind = if later { Kind::Fragment } else { Kind::IcmpError };
                steps::untracked(at)
            }
        },
        _ => steps::untracked(at),
    }
}

/// Counts a packet, and does with it what was decided.
#[inline(always)]
fn carry_out(skb: &Skb, v4: bool, ttl: u8, outcome: Outcome) -> i32 {
    match outcome {
        Outcome::Stack => {
            count::passed(skb.hook, skb.network_bytes());
            NEXT
        }
        Outcome::Deliver(target) => {
            count::passed(skb.hook, skb.network_bytes());
            forward::to_endpoint(skb, v4, ttl, target)
        }
        Outcome::Drop(reason) => dropped(skb, reason),
    }
}

/// ARP: a pod speaks for its own address only. No flow record: there is no flow.
#[inline(always)]
fn arp(skb: &Skb) -> i32 {
    skb.pull();
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
