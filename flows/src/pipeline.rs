//! Where events come in: reads them, enriches them, puts the records into the ring and keeps the
//! ledger. The daemon's reader of the kernel's ring buffer holds a [`Batch`] for as long as there
//! is something to read; dropping it wakes the readers once.

use std::{
    collections::{BTreeMap, HashMap},
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use datapath_abi::event::FlowEvent;
use dns::Told;
use zerocopy::FromBytes;

use crate::{
    enrich::{Context, Malformed, WallClock, enrich, enrich_lookup},
    ledger::{Ledger, Loss},
    record::{FlowRecord, Node},
    ring::{Entry, Lost, Ring, Writer},
};

/// Records that the ring holds unless told otherwise: about 8 MiB.
pub const DEFAULT_CAPACITY: NonZeroUsize = NonZeroUsize::new(16_384).expect("not zero");

/// How long a namespace counts as seen.
pub const NAMESPACE_SEEN_NS: u64 = 3600 * 1_000_000_000;

/// From events to records in the ring.
#[derive(Debug)]
pub struct Pipeline {
    node: Arc<Node>,
    ring: Arc<Ring>,
    ledger: Arc<Ledger>,
    state: Mutex<State>,
    /// When each namespace was last seen, nanoseconds since 1970.
    namespaces: Mutex<HashMap<String, u64>>,
}

#[derive(Debug)]
struct State {
    /// Number of the last record.
    sequence: u64,
    /// The node with the labels that it has now.
    node: Arc<Node>,
}

impl Pipeline {
    /// With an empty ring of `capacity` records.
    pub fn new(node: Arc<Node>, capacity: NonZeroUsize) -> Self {
        Self {
            state: Mutex::new(State { sequence: 0, node: node.clone() }),
            node,
            ring: Arc::new(Ring::new(capacity)),
            ledger: Arc::default(),
            namespaces: Mutex::default(),
        }
    }

    /// The node that makes the records, with the labels that it had at the start.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// The node has these labels from now on.
    pub fn set_node_labels(&self, labels: &BTreeMap<String, String>) {
        let mut state = lock(&self.state);
        if state.node.labels != *labels {
            state.node = Arc::new(Node { labels: labels.clone(), ..(*state.node).clone() });
        }
    }

    /// The ring that the records go into.
    pub fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    /// What became of every event.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// How many records there were since the start.
    pub fn recorded(&self) -> u64 {
        lock(&self.state).sequence
    }

    /// Namespaces seen since `since_unix_ns`, sorted.
    pub fn namespaces(&self, since_unix_ns: u64) -> Vec<String> {
        let seen = lock(&self.namespaces);
        let mut names: Vec<String> =
            seen.iter().filter(|&(_, &time)| time >= since_unix_ns).map(|(name, _)| name.clone()).collect();
        drop(seen);
        names.sort();
        names
    }

    /// Takes events in, with one clock and one view of the cluster for all of them.
    pub fn batch<'a, C: Context + ?Sized>(&'a self, clock: WallClock, context: &'a C) -> Batch<'a, C> {
        Batch {
            state: lock(&self.state),
            writer: self.ring.writer(),
            pipeline: self,
            clock,
            context,
            observed: 0,
            kept: 0,
        }
    }

    /// Takes one event in.
    ///
    /// # Errors
    /// See [`Batch::push`].
    pub fn push<C: Context + ?Sized>(&self, event: &FlowEvent, clock: WallClock, context: &C) -> Result<(), Malformed> {
        self.batch(clock, context).push(event)
    }

    /// Tells that the kernel could not hand over `count` events (the increase of its counter),
    /// to the ledger and to every reader.
    pub fn kernel_lost(&self, count: u64, cpu: Option<u32>, time_unix_ns: u64) {
        if count == 0 {
            return;
        }
        self.ledger.dropped(Loss::KernelRingFull, count);
        self.ledger.observed(count, 0);
        self.ring.writer().push(Entry::Lost(Lost { count, cpu, time_unix_ns }));
    }

    fn saw_namespaces(&self, record: &FlowRecord) {
        let mut seen = lock(&self.namespaces);
        for end in [&record.source, &record.destination] {
            let name = end.namespace();
            if name.is_empty() {
                continue;
            }
            match seen.get_mut(name) {
                Some(time) => *time = record.time_unix_ns,
                None => {
                    let oldest = record.time_unix_ns.saturating_sub(NAMESPACE_SEEN_NS);
                    seen.retain(|_, time| *time >= oldest);
                    seen.insert(name.to_owned(), record.time_unix_ns);
                }
            }
        }
    }
}

/// Takes events in; see [`Pipeline::batch`]. Must not be held across an `await`.
#[derive(Debug)]
pub struct Batch<'a, C: ?Sized> {
    pipeline: &'a Pipeline,
    state: MutexGuard<'a, State>,
    writer: Writer<'a>,
    clock: WallClock,
    context: &'a C,
    observed: u64,
    kept: u64,
}

impl<C: Context + ?Sized> Batch<'_, C> {
    /// Takes one event in, as it lies in the kernel's ring buffer.
    ///
    /// # Errors
    /// It does not follow the contract. It is counted; the next one may be fine.
    pub fn push_bytes(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        match FlowEvent::read_from_bytes(bytes) {
            Ok(event) => self.push(&event),
            Err(_) => self.refuse(Malformed::Size(bytes.len())),
        }
    }

    /// Takes one event in.
    ///
    /// # Errors
    /// It does not follow the contract. It is counted; the next one may be fine.
    pub fn push(&mut self, event: &FlowEvent) -> Result<(), Malformed> {
        let sequence = self.state.sequence + 1;
        let record = enrich(event, sequence, &self.state.node, self.clock, self.context);
        self.keep(sequence, record)
    }

    fn keep(&mut self, sequence: u64, record: Result<FlowRecord, Malformed>) -> Result<(), Malformed> {
        let record = match record {
            Ok(record) => record,
            Err(error) => return self.refuse(error),
        };
        self.state.sequence = sequence;
        self.observed += 1;
        self.kept += 1;
        self.pipeline.saw_namespaces(&record);
        self.writer.push(Entry::Flow(Arc::new(record)));
        Ok(())
    }

    /// Takes a lookup in.
    ///
    /// # Errors
    /// As [`Batch::push`].
    pub fn push_lookup(&mut self, told: Told) -> Result<(), Malformed> {
        let sequence = self.state.sequence + 1;
        let record = enrich_lookup(told, sequence, &self.state.node, self.clock, self.context);
        self.keep(sequence, record)
    }

    fn refuse(&mut self, error: Malformed) -> Result<(), Malformed> {
        self.observed += 1;
        self.pipeline.ledger.dropped(Loss::Malformed, 1);
        Err(error)
    }
}

impl<C: ?Sized> Drop for Batch<'_, C> {
    fn drop(&mut self) {
        self.pipeline.ledger.observed(self.observed, self.kept);
    }
}

/// Nothing that holds one of these locks can panic half way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
