//! Many records that say the same, as one that says of how many it is. What is the same: who speaks to whom (workloads,
//! or identities and addresses of those who are none), protocol and port, what happened, what decided. Pure: the caller
//! says what time it is.
//!
//! Never folded is what somebody may have to answer: denials and drops, what staged policies would deny, connections cut
//! by a policy, lookups that failed.
//!
//! Bounded: of [`Limits::groups`] different things the first are kept apart; what comes beyond them within one window is
//! told by less ([`Detail`]): without ports and addresses, and at last by what happened alone. So neither a port scan nor
//! ten thousand destinations make more records than that, and none is left uncounted.

mod key;
mod merge;

use std::{
    collections::{HashMap, VecDeque},
    hash::BuildHasher as _,
    num::NonZeroUsize,
    time::Duration,
};

use key::{Detail, Key};

use crate::{
    FlowRecord,
    record::{Aggregate, Ruling},
};
use datapath_abi::event::{EndReason, EventKind};
use dns::Outcome;

/// What is held at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// How long records are gathered, from the first on.
    pub window: Duration,
    /// Most groups told by everything; a quarter as many are told by less.
    pub groups: NonZeroUsize,
}

/// Gathers records; see the module.
#[derive(Debug)]
pub struct Aggregator {
    limits: Limits,
    /// By a digest of their keys, which nobody outside can foresee.
    groups: HashMap<u64, Group>,
    /// How many of them are of each detail.
    held: [usize; Detail::ALL.len()],
    /// When the window began, by the caller's clock.
    began_ns: Option<u64>,
    finished: VecDeque<FlowRecord>,
}

#[derive(Debug)]
struct Group {
    record: FlowRecord,
    detail: Detail,
    rtt: merge::Mean,
}

/// Whether a record may be told together with others.
pub fn may_be_folded(record: &FlowRecord) -> bool {
    let alert = [&record.staged_egress, &record.staged_ingress].into_iter().flatten().any(Ruling::blocks);
    let good = match (record.kind, record.end_reason) {
        (EventKind::Dropped, _) | (EventKind::Closed, Some(EndReason::PolicyChange)) => false,
        (EventKind::Dns, _) => record.dns.as_ref().is_some_and(|lookup| match &lookup.outcome {
            Outcome::Answered(answer) => answer.rcode == 0 && !answer.cut,
            Outcome::Unanswered | Outcome::Unfollowed => false,
        }),
        (EventKind::Opened | EventKind::Active | EventKind::Closed, _) => true,
    };
    good && !alert && record.aggregate.is_none()
}

impl Aggregator {
    /// With nothing in it.
    pub fn new(limits: Limits) -> Self {
        Self { limits, groups: HashMap::new(), held: Default::default(), began_ns: None, finished: VecDeque::new() }
    }

    /// Takes a record in at `now_ns` of a clock that does not go back. False: it has to be told by itself.
    pub fn fold(&mut self, record: &FlowRecord, now_ns: u64) -> bool {
        if !may_be_folded(record) {
            return false;
        }
        self.close_if_over(now_ns);
        self.began_ns.get_or_insert(now_ns);
        for detail in Detail::ALL {
            let key = Key::of(record, detail);
            let digest = self.groups.hasher().hash_one(&key);
            if let Some(group) = self.groups.get_mut(&digest) {
                // Two keys of one digest: as good as never, and no reason to mix them up.
                if Key::of(&group.record, group.detail) != key {
                    return false;
                }
                merge::into(&mut group.record, &mut group.rtt, record);
                return true;
            }
            if self.held[detail as usize] < self.room(detail) {
                self.held[detail as usize] += 1;
                let group = Group { record: merge::first(record, detail), detail, rtt: merge::Mean::of(record) };
                self.groups.insert(digest, group);
                return true;
            }
        }
        // The last detail has so few different keys that there is room for all of them.
        false
    }

    fn room(&self, detail: Detail) -> usize {
        match detail {
            Detail::Everything => self.limits.groups.get(),
            Detail::Ends => self.limits.groups.get().div_ceil(4),
            Detail::Event => usize::MAX,
        }
    }

    /// When [`Aggregator::next`] has something, by the caller's clock: 0 if it has, `None` if nothing was taken in.
    pub fn due_ns(&self) -> Option<u64> {
        if self.finished.is_empty() { self.ends_ns() } else { Some(0) }
    }

    /// When the window is over.
    fn ends_ns(&self) -> Option<u64> {
        let window_ns = u64::try_from(self.limits.window.as_nanos()).unwrap_or(u64::MAX);
        self.began_ns.map(|began| began.saturating_add(window_ns))
    }

    /// The next record of a window that is over.
    pub fn next(&mut self, now_ns: u64) -> Option<FlowRecord> {
        self.close_if_over(now_ns);
        self.finished.pop_front()
    }

    fn close_if_over(&mut self, now_ns: u64) {
        if self.ends_ns().is_some_and(|end| end <= now_ns) {
            self.close();
        }
    }

    /// Ends the window, whenever it would have ended.
    pub fn close(&mut self) {
        self.began_ns = None;
        self.held = Default::default();
        let mut records: Vec<FlowRecord> = self.groups.drain().map(|(_, group)| group.finish()).collect();
        records.sort_by_key(|record| record.sequence);
        self.finished.extend(records);
    }

    /// How many records have been taken in and not yet come out in another.
    pub fn held(&self) -> u64 {
        let count = |record: &FlowRecord| record.aggregate.as_ref().map_or(0, |it| it.count);
        let groups = self.groups.values().map(|group| count(&group.record));
        groups.chain(self.finished.iter().map(count)).sum()
    }
}

impl Group {
    fn finish(mut self) -> FlowRecord {
        self.record.rtt_us = self.rtt.value();
        self.record
    }
}

impl Aggregate {
    /// Of one record.
    fn of(record: &FlowRecord) -> Self {
        Self { count: 1, first_unix_ns: record.time_unix_ns, first_sequence: record.sequence }
    }
}

#[cfg(test)]
mod tests;
