//! Programs that the daemon runs (`BPF_PROG_TEST_RUN`): they do in the kernel what would cost
//! many system calls or could not be done atomically from outside.

use aya_ebpf::programs::TcContext;
use datapath_abi::{
    conntrack::{CtKey, CtState, FLAG_ALIAS, FLAG_REVOKED},
    control::{Clock, SWINGS_AT, Sweep, SweepReport},
    endpoint::{NO_SLOT, Swing},
    event::EndReason,
};
use datapath_ebpf::ct;

use crate::bpf::{
    conntrack, event,
    kernel::{self, Visit, jiffies, now_ns},
    maps::{self, EntryRef},
    packet::Orders,
    steps,
};

/// Most orders in one run.
const MAX_ORDERS: usize = datapath_abi::control::MAX_SWINGS;

/// Points endpoints at other rules. Returns how many orders were carried out.
#[inline(always)]
pub(crate) fn swing(context: &TcContext) -> i32 {
    let orders = Orders::new(context);
    // Every identity before any rules: what is decided under the new rules of one end must be
    // decided with the new identity of the other, and is remembered for good. Packets read in
    // the opposite order.
    for i in 0..MAX_ORDERS {
        let Some(order) = orders.get::<Swing>(swing_at(i)) else { break };
        if order.slot != NO_SLOT
            && let Some(endpoint) = maps::endpoint(order.slot)
        {
            endpoint.set_identity(order.identity);
        }
    }
    let mut done = 0;
    for i in 0..MAX_ORDERS {
        let Some(order) = orders.get::<Swing>(swing_at(i)) else { break };
        if order.slot != NO_SLOT
            && let Some(endpoint) = maps::endpoint(order.slot)
        {
            endpoint.swing(order.rules);
            done += 1;
        }
    }
    done
}

#[inline(always)]
const fn swing_at(order: usize) -> usize {
    SWINGS_AT + order * core::mem::size_of::<Swing>()
}

/// Tells the time in both clocks the programs use.
#[inline(always)]
pub(crate) fn clock(context: &TcContext) -> i32 {
    let orders = Orders::new(context);
    let Some(clock) = orders.get::<Clock>(0) else { return -1 };
    if orders.set(0, Clock { jiffies: jiffies(), monotonic_ns: now_ns(), ..clock }) { 0 } else { -1 }
}

/// What a pass over a table needs to know, and what it counts.
struct Pass {
    now_ns: u64,
    active_interval_ns: u64,
    now: u32,
    hz: u32,
    entries: u32,
    removed: u32,
    reported: u32,
    /// In PENDING.
    pending: bool,
}

/// Goes through both conntrack tables: reports ends and long lives, removes what is over.
#[inline(always)]
pub(crate) fn sweep(context: &TcContext) -> i32 {
    let orders = Orders::new(context);
    let Some(order) = orders.get::<Sweep>(0) else { return -1 };
    let mut pass = Pass {
        now_ns: now_ns(),
        active_interval_ns: order.active_interval_ns,
        now: jiffies(),
        hz: order.hz,
        entries: 0,
        removed: 0,
        reported: 0,
        pending: false,
    };
    kernel::each_established(&mut pass);
    let established = pass.entries;
    kernel::count_waiting_anew();
    pass.pending = true;
    kernel::each_pending(&mut pass);
    kernel::waiting_counted(if order.share > i32::MAX as u32 { i32::MAX } else { order.share as i32 });
    let report = SweepReport {
        established,
        pending: pass.entries.wrapping_sub(established),
        removed: pass.removed,
        reported: pass.reported,
    };
    if orders.set(core::mem::size_of::<Sweep>(), report) { 0 } else { -1 }
}

impl Visit for Pass {
    #[inline(always)]
    fn visit(&mut self, key: &CtKey, entry: EntryRef) {
        self.entries += 1;
        if entry.flags() & FLAG_ALIAS != 0 {
            let owned = *key;
            if steps::alias_is_over(&owned, entry) {
                maps::remove(key);
                self.removed += 1;
            }
            return;
        }
        let state = CtState::try_from(entry.state()).unwrap_or(CtState::Established);
        let idle = self.now.wrapping_sub(entry.last_seen());
        // The clock of another CPU may be a tick ahead.
        let idle = if idle > u32::MAX / 2 { 0 } else { idle };
        let slot = entry.slot();
        let ifindex = entry.ifindex();
        let gone = elsewhere(slot[0], ifindex[0]) || elsewhere(slot[1], ifindex[1]);
        let revoked = entry.flags() & FLAG_REVOKED != 0;
        // What was cut stays until nobody sends any more, whatever state it was in: forgotten, it
        // could be taken for a connection that the other end opens.
        let lives_as = if revoked { CtState::Established } else { state };
        let over = idle > ct::timeout_s(key.proto, lives_as) * self.hz;
        let ended = !revoked && state as u8 >= CtState::TimeWait as u8 && idle > self.hz;

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
                steps::report_connection(&owned, entry, end as u32, self.now_ns);
                entry.set_reported(true);
                self.reported += 1;
            }
            if gone || over {
                maps::remove(key);
                self.removed += 1;
                return;
            }
        }
        if self.pending && ct::waits(key.proto, state, conntrack::agreed(key.proto, entry)) {
            maps::found_waiting(conntrack::waiting_slot(slot));
        }
        if ended {
            return;
        }
        let since = if entry.reported_ns() != 0 { entry.reported_ns() } else { entry.created_ns() };
        if !entry.reported() && self.now_ns.saturating_sub(since) > self.active_interval_ns {
            let owned = *key;
            steps::report_connection(&owned, entry, event::LIVES, self.now_ns);
            entry.set_reported_ns(self.now_ns);
            self.reported += 1;
        }
    }
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
