//! Drains the kernel's ring buffers into the flow pipeline, by the clock: no event wakes anybody.
//!
//! What pods were told by DNS is read before each event: a connection is opened after the answer with its address has come.
//! Only so many DNS messages are taken at each turn. What comes faster finds its own ring buffer full, and is counted there by
//! the programs; it can neither keep events waiting nor push other records out of memory at any rate.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use aya::maps::{MapData, RingBuf};
use datapath_abi::{dns::DnsPacket, maps::Scalar};
use dns::Tracker;
use flows::{
    clock::unix_ns,
    enrich::WallClock,
    pipeline::{Batch, Pipeline},
};
use tracing::{error, warn};
use zerocopy::FromBytes as _;

use super::{
    knowledge::{Knowledge, monotonic_ns},
    neighbours::Nodes,
};
use crate::datapath::maps::Counts;

/// Pause between looks. A ring of 4 MiB holds 27,000 events: 2.7 million a second fit.
const PAUSE: Duration = Duration::from_millis(10);
/// Most events in one go, so that readers of the ring get their turn.
const BATCH: usize = 4096;
/// Most DNS messages between two pauses: 20,000 a second.
const MESSAGES: usize = 200;

/// What is read.
#[expect(missing_debug_implementations, reason = "aya's ring buffer has none")]
pub struct Rings {
    /// Flow events.
    pub events: RingBuf<MapData>,
    /// DNS messages.
    pub dns: RingBuf<MapData>,
}

/// DNS messages, and the questions among them that wait for an answer.
struct Listener {
    messages: RingBuf<MapData>,
    tracker: Tracker,
    /// How many more are taken before the next pause.
    left: usize,
}

/// Reads events until `stop` says so.
pub async fn drain(
    rings: Rings,
    counts: Arc<Mutex<Counts>>,
    pipeline: Arc<Pipeline>,
    knowledge: Arc<Knowledge>,
    mut stop: tokio::sync::watch::Receiver<bool>,
) {
    let Rings { mut events, dns } = rings;
    let mut listener = Listener { messages: dns, tracker: Tracker::default(), left: 0 };
    let mut clock = tokio::time::interval(PAUSE);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut lost_before = lost_by_cpu(&counts);
    let mut ticks = 0u64;
    loop {
        listener.left = MESSAGES;
        tokio::select! {
            _ = clock.tick() => {}
            () = super::run::stopped(&mut stop) => {
                read(&mut events, &mut listener, &pipeline, &knowledge);
                return;
            }
        }
        while read(&mut events, &mut listener, &pipeline, &knowledge) == BATCH {
            tokio::task::yield_now().await;
        }
        pipeline.ledger().set_dns(listener.tracker.figures());
        ticks += 1;
        // Twenty times a second is soon enough to tell of a loss.
        if ticks.is_multiple_of(5) {
            let lost = lost_by_cpu(&counts);
            tell_losses(&pipeline, &lost_before, &lost);
            lost_before = lost;
        }
    }
}

/// Keeps the labels of this node in its records as they are.
pub(super) async fn keep_node_labels(
    own: String,
    pipeline: Arc<Pipeline>,
    mut nodes: tokio::sync::watch::Receiver<Option<Nodes>>,
) {
    loop {
        if let Some(node) = nodes.borrow_and_update().as_ref().and_then(|nodes| nodes.get(&own)) {
            pipeline.set_node_labels(&node.labels.map());
        }
        if nodes.changed().await.is_err() {
            return;
        }
    }
}

/// Takes up to [`BATCH`] events out of the ring. Returns how many.
fn read(events: &mut RingBuf<MapData>, listener: &mut Listener, pipeline: &Pipeline, knowledge: &Knowledge) -> usize {
    let now_ns = monotonic_ns();
    let clock = WallClock::new(now_ns, unix_ns());
    let mut batch = pipeline.batch(clock, knowledge);
    let mut taken = 0;
    while taken < BATCH {
        let Some(event) = events.next() else { break };
        listener.read(&mut batch, knowledge);
        if let Err(error) = batch.push_bytes(&event) {
            warn!(%error, "Event refused");
        }
        taken += 1;
    }
    listener.read(&mut batch, knowledge);
    listener.expire(now_ns, &mut batch, knowledge);
    taken
}

impl Listener {
    /// Takes the messages that there are, as many as may be.
    fn read(&mut self, batch: &mut Batch<'_, Knowledge>, knowledge: &Knowledge) {
        while self.left > 0 {
            let Some(message) = self.messages.next() else { return };
            self.left -= 1;
            let Ok((packet, bytes)) = DnsPacket::read_from_prefix(&message) else {
                warn!(bytes = message.len(), "DNS message refused");
                continue;
            };
            self.tracker.push(&packet, bytes, |mut told| {
                knowledge.redaction().lookup(&mut told);
                let mut names = knowledge.names();
                for (address, ttl_s) in &told.resolved {
                    names.learn(told.packet.slot[0], *address, &told.lookup.question.name, told.time_ns, *ttl_s);
                }
                drop(names);
                keep(batch, told);
            });
        }
    }

    /// Tells of the questions that nobody has answered.
    fn expire(&mut self, now_ns: u64, batch: &mut Batch<'_, Knowledge>, knowledge: &Knowledge) {
        self.tracker.expire(now_ns, |mut told| {
            knowledge.redaction().lookup(&mut told);
            keep(batch, told);
        });
    }
}

fn keep(batch: &mut Batch<'_, Knowledge>, told: dns::Told) {
    if let Err(error) = batch.push_lookup(told) {
        warn!(%error, "Lookup refused");
    }
}

fn lost_by_cpu(counts: &Mutex<Counts>) -> Vec<u64> {
    let counts = counts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    counts.scalar_by_cpu(Scalar::EventsLost).unwrap_or_else(|error| {
        error!(%error, "Lost events could not be counted");
        Vec::new()
    })
}

fn tell_losses(pipeline: &Pipeline, before: &[u64], now: &[u64]) {
    for (cpu, (now, before)) in now.iter().zip(before).enumerate() {
        let lost = now.saturating_sub(*before);
        if lost > 0 {
            warn!(cpu, lost, "Ring buffer overrun");
            pipeline.kernel_lost(lost, Some(cpu as u32), unix_ns());
        }
    }
}
