//! Programs that the daemon runs (`BPF_PROG_TEST_RUN`): they do in the kernel what would cost
//! many system calls or could not be done atomically from outside.
#![allow(unsafe_code)]

use core::ffi::c_void;

use aya_ebpf::{helpers::generated::bpf_for_each_map_elem, programs::TcContext};
use datapath_abi::{
    conntrack::{CtEntry, CtKey, CtState, FLAG_REVOKED},
    control::{Clock, SWINGS_AT, Sweep, SweepReport},
    endpoint::{NO_SLOT, Swing},
    event::EndReason,
};
use datapath_ebpf::ct;

use crate::bpf::{
    conntrack, event,
    maps::{self, CONNTRACK, EntryRef, PENDING},
    steps,
};

/// Most orders in one run.
const MAX_ORDERS: usize = datapath_abi::control::MAX_SWINGS;

/// The packet's bytes from `offset` on, as a `T`.
#[inline(always)]
fn at<T: Copy>(context: &TcContext, offset: usize) -> Option<*mut T> {
    let start = context.data() + offset;
    if start + core::mem::size_of::<T>() > context.data_end() {
        return None;
    }
    Some(start as *mut T)
}

/// Points endpoints at other rules. Returns how many orders were carried out.
#[inline(always)]
pub(crate) fn swing(context: &TcContext) -> i32 {
    // Every identity before any rules: what is decided under the new rules of one end must be
    // decided with the new identity of the other, and is remembered for good. Packets read in
    // the opposite order.
    for i in 0..MAX_ORDERS {
        let Some(order) = at::<Swing>(context, SWINGS_AT + i * core::mem::size_of::<Swing>()) else { break };
        // SAFETY: `at` compared with data_end.
        let (slot, identity) = unsafe { ((*order).slot, (*order).identity) };
        if slot != NO_SLOT
            && let Some(endpoint) = maps::endpoint(slot)
        {
            endpoint.set_identity(identity);
        }
    }
    let mut done = 0;
    for i in 0..MAX_ORDERS {
        let Some(order) = at::<Swing>(context, SWINGS_AT + i * core::mem::size_of::<Swing>()) else { break };
        // SAFETY: `at` compared with data_end.
        let (slot, rules) = unsafe { ((*order).slot, (*order).rules) };
        if slot != NO_SLOT {
            if let Some(endpoint) = maps::endpoint(slot) {
                endpoint.swing(rules);
                done += 1;
            }
        }
    }
    done
}

/// Tells the time in both clocks the programs use.
#[inline(always)]
pub(crate) fn clock(context: &TcContext) -> i32 {
    let Some(clock) = at::<Clock>(context, 0) else { return -1 };
    // SAFETY: `at` compared with data_end.
    unsafe {
        (*clock).jiffies = conntrack::jiffies();
        (*clock).monotonic_ns = event::now_ns();
    }
    0
}

/// What the callback needs to know, and what it counts.
struct Pass {
    now_ns: u64,
    active_interval_ns: u64,
    now: u32,
    hz: u32,
    entries: u32,
    removed: u32,
    reported: u32,
}

/// Goes through both conntrack tables: reports ends and long lives, removes what is over.
#[inline(always)]
pub(crate) fn sweep(context: &TcContext) -> i32 {
    let Some(order) = at::<Sweep>(context, 0) else { return -1 };
    // SAFETY: `at` compared with data_end.
    let (hz, active_interval_ns) = unsafe { ((*order).hz, (*order).active_interval_ns) };
    let mut pass = Pass {
        now_ns: event::now_ns(),
        active_interval_ns,
        now: conntrack::jiffies(),
        hz,
        entries: 0,
        removed: 0,
        reported: 0,
    };
    let visit = visit as extern "C" fn(*mut c_void, *const CtKey, *mut CtEntry, *mut Pass) -> i64;
    let mut established = 0;
    // SAFETY: map, callback and context are what the helper asks for; the verifier checks.
    unsafe {
        bpf_for_each_map_elem(
            (&raw const CONNTRACK).cast_mut().cast(),
            visit as *mut c_void,
            (&raw mut pass).cast(),
            0,
        );
        established += pass.entries;
        bpf_for_each_map_elem((&raw const PENDING).cast_mut().cast(), visit as *mut c_void, (&raw mut pass).cast(), 0);
    }
    let Some(report) = at::<SweepReport>(context, core::mem::size_of::<Sweep>()) else { return -1 };
    // SAFETY: `at` compared with data_end.
    unsafe {
        (*report).established = established;
        (*report).pending = pass.entries.wrapping_sub(established);
        (*report).removed = pass.removed;
        (*report).reported = pass.reported;
    }
    0
}

/// One entry. 0: go on.
extern "C" fn visit(_map: *mut c_void, key: *const CtKey, value: *mut CtEntry, pass: *mut Pass) -> i64 {
    // SAFETY: the kernel calls this with the key, the value and the context it was given.
    let (key, pass) = unsafe { (&*key, &mut *pass) };
    let entry = EntryRef::from_value(value);
    pass.entries += 1;
    let state = CtState::try_from(entry.state()).unwrap_or(CtState::Established);
    let idle = pass.now.wrapping_sub(entry.last_seen());
    // The clock of another CPU may be a tick ahead.
    let idle = if idle > u32::MAX / 2 { 0 } else { idle };
    let slot = entry.slot();
    let ifindex = entry.ifindex();
    let gone = elsewhere(slot[0], ifindex[0]) || elsewhere(slot[1], ifindex[1]);
    let revoked = entry.flags() & FLAG_REVOKED != 0;
    // What was cut stays until nobody sends any more, whatever state it was in: forgotten, it
    // could be taken for a connection that the other end opens.
    let lives_as = if revoked { CtState::Established } else { state };
    let over = idle > ct::timeout_s(key.proto, lives_as) * pass.hz;
    let ended = !revoked && state as u8 >= CtState::TimeWait as u8 && idle > pass.hz;

    if gone || over || ended {
        if !entry.reported() {
            let end = if gone {
                EndReason::EndpointGone
            } else if state as u8 == CtState::Reset as u8 {
                EndReason::Rst
            } else if state as u8 == CtState::TimeWait as u8 {
                EndReason::Fin
            } else {
                EndReason::Idle
            };
            let owned = *key;
            steps::report_connection(&owned, entry, end as u32, pass.now_ns);
            entry.set_reported(true);
            pass.reported += 1;
        }
        if gone || over {
            maps::remove(key);
            pass.removed += 1;
        }
        return 0;
    }
    let since = if entry.reported_ns() != 0 { entry.reported_ns() } else { entry.created_ns() };
    if !entry.reported() && pass.now_ns.saturating_sub(since) > pass.active_interval_ns {
        let owned = *key;
        steps::report_connection(&owned, entry, event::LIVES, pass.now_ns);
        entry.set_reported_ns(pass.now_ns);
        pass.reported += 1;
    }
    0
}

/// Whether the endpoint that was in this slot is gone.
#[inline(always)]
fn elsewhere(slot: u32, ifindex: u32) -> bool {
    if slot == NO_SLOT {
        return false;
    }
    match maps::endpoint(slot) {
        Some(endpoint) => endpoint.ifindex() != ifindex,
        None => true,
    }
}
