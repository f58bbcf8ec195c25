//! The part of an answer that is older than the ring: read from whoever keeps records for longer, up to the newest that
//! lies there; the ring goes on behind the last record's number, so that none comes twice.

use std::{collections::VecDeque, sync::Arc};

use tokio::{sync::OwnedSemaphorePermit, task::spawn_blocking};
use tonic::Status;

use crate::{
    FlowRecord,
    past::{self, Past, Walk},
    ring::{Entry, Found, Ring},
};

use super::request::Query;

/// Clients that may read what is older than the ring at the same time.
pub(super) const MOST_WALKS: usize = 4;

/// Whether the ring does not hold all that is asked for; `matches` of the newest records that are asked for were
/// found in it.
pub(super) fn is_needed(ring: &Ring, query: &Query, matches: u64) -> bool {
    let range = &query.range;
    match range.since_unix_ns {
        Some(since) => oldest(ring).is_none_or(|time| time >= since),
        None if range.first => true,
        None if range.until_unix_ns.is_some() && range.number == 0 => true,
        None => range.number > 0 && matches < range.number,
    }
}

/// Time of the oldest record in the ring.
fn oldest(ring: &Ring) -> Option<u64> {
    (ring.tail()..ring.head()).find_map(|position| match ring.get(position) {
        Found::Entry(Entry::Flow(record)) => Some(record.time_unix_ns),
        Found::Entry(Entry::Lost(_)) | Found::NotYet | Found::Gone => None,
    })
}

/// A walk through what is older.
#[derive(Debug)]
pub(super) struct Before {
    /// `None` while a thread has it.
    walk: Option<Box<dyn Walk>>,
    ready: VecDeque<FlowRecord>,
    done: bool,
    _permit: OwnedSemaphorePermit,
}

/// What comes next.
pub(super) enum Step {
    /// A record that is wanted.
    Record(Box<FlowRecord>),
    /// So many that are not.
    LeftOut(u64),
    /// Nothing: the ring goes on behind this epoch and sequence.
    End(Option<(u64, u64)>),
}

impl Before {
    pub(super) async fn start(
        past: Arc<dyn Past>,
        query: &Query,
        permit: OwnedSemaphorePermit,
    ) -> Result<Self, Status> {
        let range = &query.range;
        let newest = range.since_unix_ns.is_none() && !range.first && range.number > 0;
        let wanted = past::Wanted {
            since: range.since_unix_ns.unwrap_or(0),
            until: range.until_unix_ns.unwrap_or(u64::MAX),
            filters: query.filters.clone(),
            last: newest.then_some(range.number).filter(|number| *number < u64::MAX),
        };
        let walk =
            spawn_blocking(move || past.walk(wanted)).await.map_err(|error| Status::internal(error.to_string()))?;
        let walk = walk.map_err(|problem| Status::unavailable(format!("history: {problem}")))?;
        Ok(Self { walk: Some(walk), ready: VecDeque::new(), done: false, _permit: permit })
    }

    pub(super) async fn next(&mut self) -> Step {
        if let Some(record) = self.ready.pop_front() {
            return Step::Record(Box::new(record));
        }
        match self.walk.take() {
            Some(walk) if self.done => Step::End(walk.after()),
            None => Step::End(None),
            Some(mut walk) => {
                let Ok((walk, batch)) = spawn_blocking(move || {
                    let batch = walk.next();
                    (walk, batch)
                })
                .await
                else {
                    return Step::End(None);
                };
                self.walk = Some(walk);
                self.done = batch.done;
                self.ready = batch.records.into();
                Step::LeftOut(batch.left_out)
            }
        }
    }
}

/// Position of the first entry behind the record of that number.
pub(super) async fn position_behind(ring: &Ring, sequence: u64) -> u64 {
    let mut position = ring.head();
    while position > 0 {
        if position.is_multiple_of(512) {
            tokio::task::yield_now().await;
        }
        match ring.get(position - 1) {
            Found::Entry(Entry::Flow(record)) if record.sequence <= sequence => break,
            Found::Entry(_) | Found::NotYet => position -= 1,
            Found::Gone => break,
        }
    }
    position
}
