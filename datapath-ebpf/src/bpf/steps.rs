//! Steps that the verifier checks once, on their own, instead of once for every path that leads
//! to them: BPF "global functions" (kernel 5.6; with pointers to structs 5.12).
//!
//! Their arguments are numbers and pointers to structs without padding, their results numbers.
//! The verifier takes such a pointer for one that may be null, hence the checks. Each only
//! forwards to the code where the step is written.
#![allow(unsafe_code)]

use datapath_abi::{
    addr::Addr,
    conntrack::{CtEntry, CtKey, Ends},
    endpoint::RulesPtr,
    policy::Decision,
    reason::DropReason,
};

use crate::{
    Seen,
    bpf::{
        conntrack::{self, Slow},
        event,
        maps::EntryRef,
        policy::{self, Judgement},
    },
};

/// A packet that the fast path has left over.
#[inline(always)]
pub(crate) fn slow(seen: &Seen) -> Slow {
    match Slow::unpack(step_known(seen)) {
        Slow::Unknown => Slow::unpack(step_first(seen)),
        Slow::Stranger => untracked(seen),
        done => done,
    }
}

/// A packet that has no conntrack entry, or must not touch it.
#[inline(always)]
pub(crate) fn untracked(seen: &Seen) -> Slow {
    Slow::unpack(step_untracked(seen))
}

/// Neighbour discovery.
#[inline(always)]
pub(crate) fn neighbour(seen: &Seen) -> Slow {
    Slow::unpack(step_neighbour(seen))
}

/// Asks the rules of both ends. `addr` and `port` are those of the connection.
#[inline(always)]
pub(crate) fn judge(ends: &mut Ends, seen: &Seen, addr: &[Addr; 2], port: u16) -> Judgement {
    Judgement::from_bits(step_judge(ends, seen, addr, port as u32))
}

/// Asks the rules of one direction.
#[inline(always)]
pub(crate) fn ask(ptr: RulesPtr, identity: u32, addr: &Addr, proto: u8, port: u16) -> Decision {
    let packed = step_ask(ptr.0, identity, addr, (proto as u32) << 16 | port as u32);
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

/// For a null pointer, which no caller passes.
const NOTHING: Slow = Slow::Dropped(DropReason::Invalid as u8);

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_known(seen: *const Seen) -> u64 {
    // SAFETY: the verifier admits only a pointer to a whole `Seen`, or null.
    match unsafe { seen.as_ref() } {
        Some(seen) => conntrack::known(seen),
        None => NOTHING.pack(),
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_first(seen: *const Seen) -> u64 {
    // SAFETY: as above.
    match unsafe { seen.as_ref() } {
        Some(seen) => conntrack::first(seen).pack(),
        None => NOTHING.pack(),
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_untracked(seen: *const Seen) -> u64 {
    // SAFETY: as above.
    match unsafe { seen.as_ref() } {
        Some(seen) => conntrack::untracked(seen).pack(),
        None => NOTHING.pack(),
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_neighbour(seen: *const Seen) -> u64 {
    // SAFETY: as above.
    match unsafe { seen.as_ref() } {
        Some(seen) => conntrack::neighbour(seen).pack(),
        None => NOTHING.pack(),
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_judge(ends: *mut Ends, seen: *const Seen, addr: *const [Addr; 2], port: u32) -> u32 {
    // SAFETY: as above.
    match unsafe { (ends.as_mut(), seen.as_ref(), addr.as_ref()) } {
        (Some(ends), Some(seen), Some(addr)) => policy::judge(ends, &seen.packet, addr, port as u16).bits(),
        _ => Judgement::invalid(DropReason::Invalid).bits(),
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_ask(rules: u64, identity: u32, addr: *const Addr, proto_port: u32) -> u64 {
    // SAFETY: as above.
    let Some(addr) = (unsafe { addr.as_ref() }) else { return 0 };
    let decision = policy::ask(RulesPtr(rules), identity, addr, (proto_port >> 16) as u8, proto_port as u16);
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
