//! Steps that the verifier checks once, on their own, instead of once for every path that leads
//! to them: BPF "global functions" (kernel 5.6; with pointers to structs 5.12).
//!
//! Their arguments are numbers and pointers to structs without padding, their results numbers.
//! The verifier takes such a pointer for one that may be null, hence the checks. Each only
//! forwards to the code where the step is written.
#![allow(unsafe_code)]

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use datapath_abi::{
    addr::Addr,
    conntrack::{CtEntry, CtKey, Ends},
    endpoint::RulesPtr,
    policy::{Decision, Direction},
    reason::DropReason,
};
use datapath_ebpf::{ct, parse::proto};

use crate::{
    Seen,
    bpf::{
        conntrack::{self, Slow},
        event,
        maps::{self, EntryRef, Put},
        packet::{Deep, Skb},
        policy::{self, Judgement, Staged},
        rare,
    },
};

/// A packet that the fast path has left over. The steps are called from here, one after the other,
/// and not by each other: the kernel's stack of 512 bytes is that of all nested calls together.
///
/// `established`: the fast path has found the connection in CONNTRACK.
#[inline(always)]
pub(crate) fn slow(seen: &Seen, established: bool) -> Slow {
    // Nearly always it is one, and PENDING says so when it gets the entry: one look less into that table.
    if !established && seen.packet.proto == proto::TCP && ct::opens(&seen.packet) {
        let guessed = Slow::unpack(step_first(seen, true));
        if !matches!(guessed, Slow::Taken) {
            return guessed;
        }
    }
    let mut known = Slow::unpack(step_known(seen, established));
    if matches!(known, Slow::Changed) {
        step_redecide(seen);
        known = Slow::unpack(step_known(seen, true));
    }
    match known {
        Slow::Unknown if conntrack::is_midstream(seen) => match Slow::unpack(step_midstream(seen)) {
            Slow::Dropped(reason) => Slow::Dropped(reason),
            _ => Slow::unpack(step_first(seen, false)),
        },
        Slow::Unknown => Slow::unpack(step_first(seen, false)),
        Slow::Reopen => match Slow::unpack(step_first(seen, false)) {
            Slow::Dropped(reason) => Slow::Dropped(reason),
            // The new one is in PENDING, where CONNTRACK would hide it.
            allowed => {
                maps::remove_established(&seen.key);
                allowed
            }
        },
        // Changed again, within these nanoseconds: the next packet finds out.
        Slow::Stranger | Slow::Changed | Slow::Taken => untracked(seen),
        done => done,
    }
}

/// A packet that has no conntrack entry, or must not touch it.
#[inline(always)]
pub(crate) fn untracked(seen: &Seen) -> Slow {
    Slow::unpack(step_untracked(seen))
}

/// A packet that can belong to a connection and cannot open one: `None` if there is no such
/// connection, or it does not belong to it.
#[inline(always)]
pub(crate) fn related(seen: &Seen) -> Option<Slow> {
    let mut known = Slow::unpack(step_known(seen, true));
    if matches!(known, Slow::Changed) {
        step_redecide(seen);
        known = Slow::unpack(step_known(seen, true));
    }
    match known {
        Slow::Stack | Slow::Deliver(_) | Slow::Dropped(_) => Some(known),
        _ => None,
    }
}

/// Reads the rest of a packet: see [`rare::read`].
#[inline(always)]
pub(crate) fn rare(skb: &Skb, seen: &mut Seen) -> Result<(), DropReason> {
    match step_rare(skb.context(), seen) {
        0 => Ok(()),
        reason => Err(DropReason::try_from(reason as u8).unwrap_or(DropReason::Invalid)),
    }
}

/// Notes a first fragment: see [`rare::remember`].
#[inline(always)]
pub(crate) fn remember(seen: &Seen) {
    step_remember(seen);
}

/// Neighbour discovery.
#[inline(always)]
pub(crate) fn neighbour(seen: &Seen) -> Slow {
    Slow::unpack(step_neighbour(seen))
}

/// Finds out who is at the ends: see [`policy::ends`].
#[inline(always)]
pub(crate) fn ends(seen: &Seen, ends: &mut Ends) -> Result<(), DropReason> {
    match step_ends(seen, ends) {
        0 => Ok(()),
        reason => Err(DropReason::try_from(reason as u8).unwrap_or(DropReason::Invalid)),
    }
}

/// Asks the rules of both ends. `addr` and `port` are those of the connection.
#[inline(always)]
pub(crate) fn judge(ends: &mut Ends, seen: &Seen, addr: &[Addr; 2], port: u16) -> Judgement {
    Judgement::from_bits(step_judge(ends, seen, addr, port as u32))
}

/// What the rules with the staged policies would say in one direction: see [`policy::staged`].
#[inline(always)]
pub(crate) fn staged(seen: &Seen, ends: &Ends, direction: Direction, reply: bool) -> Staged {
    Staged::from_bits(step_staged(seen, ends, direction as u32, reply as u32))
}

/// Puts the entry of a new connection into PENDING: see [`conntrack::open`]. A function of its own for the sake of the
/// stack, on which the entry is while nothing else is called.
#[inline(always)]
pub(crate) fn open(seen: &Seen, ends: &Ends, now_ns: u64, replace: bool) -> Put {
    match step_open(seen, ends, now_ns, replace) {
        0 => Put::Done,
        1 => Put::Full,
        _ => Put::Taken,
    }
}

/// What one rule set says.
#[inline(always)]
pub(crate) fn look(ptr: RulesPtr, identity: u32, addr: &Addr, proto: u8, port: u16) -> Decision {
    let packed = step_look(ptr.0, identity, addr, (proto as u32) << 16 | port as u32);
    Decision { cookie: packed as u32, precedence: (packed >> 32) as u16, verdict: (packed >> 48) as u8, pad: 0 }
}

/// Reports a packet.
#[inline(always)]
pub(crate) fn report_packet(seen: &Seen, ends: &Ends, judgement: Judgement, now_ns: u64) {
    step_report_packet(seen, ends, judgement.bits(), now_ns);
}

/// Reports a connection.
#[inline(always)]
pub(crate) fn report_connection(key: &CtKey, entry: EntryRef, end: u32, now_ns: u64) {
    step_report_connection(key, entry.value(), end, now_ns);
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_rare(context: *mut __sk_buff, seen: *mut Seen) -> u32 {
    // SAFETY: as above.
    let Some(seen) = (unsafe { seen.as_mut() }) else { return DropReason::Invalid as u32 };
    let context = TcContext::new(context);
    match rare::read(&Deep::new(&context, seen.hook), seen) {
        Ok(()) => 0,
        Err(reason) => reason as u32,
    }
}

#[inline(never)]
fn step_remember(seen: &Seen) {
    rare::remember(seen);
}

#[inline(never)]
fn step_known(seen: &Seen, established: bool) -> u64 {
    conntrack::known(seen, established)
}

#[inline(never)]
fn step_redecide(seen: &Seen) -> u32 {
    conntrack::redecide(seen);
    0
}

#[inline(never)]
fn step_ends(seen: &Seen, ends: &mut Ends) -> u32 {
    match policy::ends(seen, ends) {
        Ok(()) => 0,
        Err(reason) => reason as u32,
    }
}

#[inline(never)]
fn step_midstream(seen: &Seen) -> u64 {
    conntrack::midstream(seen).pack()
}

#[inline(never)]
fn step_first(seen: &Seen, guess: bool) -> u64 {
    conntrack::first(seen, guess).pack()
}

#[inline(never)]
fn step_open(seen: &Seen, ends: &Ends, now_ns: u64, replace: bool) -> u32 {
    match conntrack::open(seen, ends, now_ns, replace) {
        Put::Done => 0,
        Put::Full => 1,
        Put::Taken => 2,
    }
}

#[inline(never)]
fn step_untracked(seen: &Seen) -> u64 {
    conntrack::untracked(seen).pack()
}

#[inline(never)]
fn step_neighbour(seen: &Seen) -> u64 {
    conntrack::neighbour(seen).pack()
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_judge(ends: *mut Ends, seen: *const Seen, addr: *const [Addr; 2], port: u32) -> u32 {
    // SAFETY: as above.
    match unsafe { (ends.as_mut(), seen.as_ref(), addr.as_ref()) } {
        (Some(ends), Some(seen), Some(addr)) => policy::judge(ends, seen, addr, port as u16).bits(),
        _ => Judgement::invalid(DropReason::Invalid).bits(),
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_staged(seen: *const Seen, ends: *const Ends, direction: u32, reply: u32) -> u64 {
    // SAFETY: as above.
    let (Some(seen), Some(ends)) = (unsafe { (seen.as_ref(), ends.as_ref()) }) else { return 0 };
    let direction = if direction == Direction::Egress as u32 { Direction::Egress } else { Direction::Ingress };
    policy::staged(seen, ends, direction, reply != 0).bits()
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_look(rules: u64, identity: u32, addr: *const Addr, proto_port: u32) -> u64 {
    // SAFETY: as above.
    let Some(addr) = (unsafe { addr.as_ref() }) else { return 0 };
    let decision = policy::look(RulesPtr(rules), identity, addr, (proto_port >> 16) as u8, proto_port as u16);
    decision.cookie as u64 | (decision.precedence as u64) << 32 | (decision.verdict as u64) << 48
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_report_packet(seen: *const Seen, ends: *const Ends, judgement: u32, now_ns: u64) -> u32 {
    // SAFETY: as above.
    if let (Some(seen), Some(ends)) = unsafe { (seen.as_ref(), ends.as_ref()) } {
        event::packet(seen, ends, Judgement::from_bits(judgement), now_ns);
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_report_connection(key: *const CtKey, entry: *const CtEntry, end: u32, now_ns: u64) -> u32 {
    // SAFETY: as above.
    if let (Some(key), Some(entry)) = unsafe { (key.as_ref(), entry.as_ref()) } {
        event::connection(key, entry, end, now_ns);
    }
    0
}
