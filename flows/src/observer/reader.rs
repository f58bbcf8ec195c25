//! One client's way through the ring. It is pulled: when the client does not read, nothing here
//! runs, the ring turns on, and the client is told later how much it has missed.

use std::sync::Arc;

use proto::{
    flow::{LostEvent, LostEventSource},
    observer::{GetFlowsResponse, get_flows_response::ResponseTypes},
};

use tokio::sync::Semaphore;
use tonic::Status;

use crate::{
    clock::unix_ns,
    ledger::Ledger,
    past::Past,
    record::{FlowRecord, Node},
    ring::{Cursor, Entry, Lost, Next, Ring},
};

use super::{
    before::{self, Before, Step},
    convert, position,
    request::Query,
};

/// Entries passed over before other tasks get their turn.
const TURN: u64 = 256;

/// The right to read flows, given back on drop.
#[derive(Debug)]
pub(super) struct Pass {
    ledger: Arc<Ledger>,
}

impl Pass {
    /// `None` if there are `most` readers already.
    pub(super) fn take(ledger: &Arc<Ledger>, most: u64) -> Option<Self> {
        ledger.reader_came(most).then(|| Self { ledger: ledger.clone() })
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.ledger.reader_left();
    }
}

/// What happens to a record on its way to the client.
enum Fate {
    Sent,
    LeftOut,
    /// It is too new: the stream ends before it.
    Ends,
}

/// The state of one GetFlows stream.
#[derive(Debug)]
pub(super) struct Reader {
    cursor: Cursor,
    /// Position where it ends, if it does not follow.
    end: Option<u64>,
    /// How many records may still be sent.
    left: Option<u64>,
    query: Query,
    node: Arc<Node>,
    pass: Pass,
    /// What is older than the ring, while there is more of it.
    before: Option<Before>,
    done: bool,
}

impl Reader {
    /// At the place where the request starts.
    ///
    /// # Errors
    /// What is older than the ring is asked for, and cannot be read now.
    pub(super) async fn start(
        ring: &Arc<Ring>,
        node: Arc<Node>,
        query: Query,
        pass: Pass,
        past: Option<(Arc<dyn Past>, Arc<Semaphore>)>,
    ) -> Result<Self, Status> {
        // First the end, so that what comes while the start is searched for is not left out.
        let end = (!query.range.follow).then(|| ring.head());
        let (position, matches) = position::start(ring, &query).await;
        let mut left = (!query.range.follow && query.range.number > 0).then_some(query.range.number);
        let mut before = None;
        if let Some((past, walks)) = past.filter(|_| before::is_needed(ring, &query, matches)) {
            let permit = walks.try_acquire_owned().map_err(|_| {
                let most = before::MOST_WALKS;
                Status::resource_exhausted(format!("{most} clients read the history already; end one of them"))
            })?;
            before = Some(Before::start(past, &query, permit).await?);
            if query.range.since_unix_ns.is_none() && !query.range.first {
                // The newest are chosen by then; what comes behind them is newer still.
                left = None;
            }
        }
        Ok(Self { cursor: Cursor::new(ring.clone(), position), end, left, query, node, pass, before, done: false })
    }

    /// The next message; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<GetFlowsResponse> {
        while self.left != Some(0)
            && let Some(before) = &mut self.before
        {
            match before.next().await {
                Step::Record(record) => {
                    self.pass.ledger.read(1, 1, 0, 0);
                    self.left = self.left.map(|left| left - 1);
                    return Some(self.flow(&record));
                }
                Step::LeftOut(count) => self.pass.ledger.read(count, 0, count, 0),
                Step::End(after) => {
                    self.before = None;
                    let ring = self.cursor.ring().clone();
                    let position = match after {
                        Some((epoch, sequence)) if epoch == self.node.epoch => {
                            before::position_behind(&ring, sequence).await
                        }
                        _ => self.cursor.position(),
                    };
                    self.cursor = Cursor::new(ring, position);
                }
            }
        }
        let mut steps = 0u64;
        while !self.done && self.left != Some(0) && self.end.is_none_or(|end| self.cursor.position() < end) {
            steps += 1;
            if steps.is_multiple_of(TURN) {
                tokio::task::yield_now().await;
            }
            match self.cursor.advance() {
                Next::Entry(Entry::Flow(record)) => match self.fate(&record) {
                    Fate::Sent => {
                        self.pass.ledger.read(1, 1, 0, 0);
                        self.left = self.left.map(|left| left - 1);
                        return Some(self.flow(&record));
                    }
                    Fate::LeftOut => self.pass.ledger.read(1, 0, 1, 0),
                    Fate::Ends => self.done = true,
                },
                Next::Entry(Entry::Lost(Lost { count, cpu, time_unix_ns })) => {
                    let cpu = cpu.and_then(|cpu| i32::try_from(cpu).ok());
                    return Some(self.lost(LostEventSource::PerfEventRingBuffer, count, cpu, time_unix_ns));
                }
                Next::Overrun(count) => {
                    self.pass.ledger.read(count, 0, 0, count);
                    return Some(self.lost(LostEventSource::HubbleRingBuffer, count, None, unix_ns()));
                }
                Next::End => {
                    let ring = self.cursor.ring().clone();
                    let changed = ring.changed();
                    if ring.head() == self.cursor.position() {
                        changed.await;
                    }
                }
            }
        }
        None
    }

    fn fate(&self, record: &FlowRecord) -> Fate {
        let range = &self.query.range;
        if range.until_unix_ns.is_some_and(|until| record.time_unix_ns > until) {
            return Fate::Ends;
        }
        let too_old = range.since_unix_ns.is_some_and(|since| record.time_unix_ns < since);
        if too_old || !self.query.filters.matches(record) { Fate::LeftOut } else { Fate::Sent }
    }

    fn flow(&self, record: &FlowRecord) -> GetFlowsResponse {
        convert::response(record, &self.query.mask, &self.query.form)
    }

    fn lost(&self, source: LostEventSource, count: u64, cpu: Option<i32>, time_unix_ns: u64) -> GetFlowsResponse {
        let event = LostEvent { source: source as i32, num_events_lost: count, cpu, first: None, last: None };
        GetFlowsResponse {
            node_name: convert::node_name(&self.node),
            time: Some(convert::timestamp(time_unix_ns)),
            response_types: Some(ResponseTypes::LostEvents(event)),
        }
    }
}
