//! Per-CPU counters by hook and reason.

use datapath_abi::{event::Hook, reason::DropReason};

use crate::bpf::maps;

/// A packet that goes on.
#[inline(always)]
pub(crate) fn passed(hook: Hook, bytes: u32) {
    maps::count(hook, 0, bytes);
}

/// A packet that does not.
#[inline(always)]
pub(crate) fn dropped(hook: Hook, reason: DropReason, bytes: u32) {
    maps::count(hook, reason as u8, bytes);
}
