//! Where in the ring a request starts:
//!
//! 1. `first` without `since`: at the oldest entry.
//! 2. `follow` without number and `since`: behind the newest.
//! 3. `since`: at the oldest entry of the newest run that is not older; the number then only
//!    limits how many are sent.
//! 4. else so many matching records back from the newest.

use crate::{
    record::FlowRecord,
    ring::{Entry, Found, Ring},
};

use super::request::Query;

/// Entries looked at before other tasks get their turn.
const TURN: u64 = 512;

/// Position of the first entry to look at; where a number of the newest is asked for, also how many of them there are.
pub(super) async fn start(ring: &Ring, query: &Query) -> (u64, u64) {
    let range = &query.range;
    let (head, tail) = (ring.head(), ring.tail());
    match range.since_unix_ns {
        None if range.first => (tail, 0),
        None if range.follow && range.number == 0 => (head, 0),
        None if range.number == 0 || range.number > head - tail => (tail, 0),
        None => {
            let mut left = range.number;
            let position = back_while(ring, |record| {
                left -= u64::from(query.filters.matches(record));
                if left == 0 { Step::LastOne } else { Step::On }
            })
            .await;
            (position, range.number - left)
        }
        Some(since) => {
            let wanted = |record: &FlowRecord| if record.time_unix_ns < since { Step::TooFar } else { Step::On };
            (back_while(ring, wanted).await, 0)
        }
    }
}

enum Step {
    On,
    /// This record is wanted, none before it.
    LastOne,
    /// This record is not wanted, nor any before it.
    TooFar,
}

/// Walks from the newest entry back to the oldest; the position to start at.
async fn back_while(ring: &Ring, mut step: impl FnMut(&FlowRecord) -> Step) -> u64 {
    let mut position = ring.head();
    while position > 0 {
        if position.is_multiple_of(TURN) {
            tokio::task::yield_now().await;
        }
        match ring.get(position - 1) {
            Found::Entry(Entry::Flow(record)) => match step(&record) {
                Step::On => {}
                Step::LastOne => return position - 1,
                Step::TooFar => return position,
            },
            // Losses have no place in the count, nor an order in time.
            Found::Entry(Entry::Lost(_)) | Found::NotYet => {}
            Found::Gone => return position,
        }
        position -= 1;
    }
    position
}
