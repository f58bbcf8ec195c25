//! The last N entries, one writer at a time, many readers. A reader that is too slow is told how
//! many entries it has lost; the writer never waits for one: a reader holds the lock of a single
//! slot, and only while it clones an `Arc`.
//!
//! Positions count entries since the start and never wrap (2^64). The entry at position `p` lies
//! in slot `p % capacity` until `p + capacity` overwrites it.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::{Notify, futures::Notified};

use crate::record::FlowRecord;

/// What lies in the ring.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A record.
    Flow(Arc<FlowRecord>),
    /// Events that never became records.
    Lost(Lost),
}

/// Events lost between the kernel and the daemon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lost {
    /// How many.
    pub count: u64,
    /// The CPU they were lost on, if that is known.
    pub cpu: Option<u32>,
    /// When the daemon noticed.
    pub time_unix_ns: u64,
}

#[derive(Debug, Default)]
struct Slot {
    /// Position of `entry` plus one; 0: never written.
    stamp: u64,
    entry: Option<Entry>,
}

/// The ring.
#[derive(Debug)]
pub struct Ring {
    slots: Box<[Mutex<Slot>]>,
    /// Position of the next entry.
    head: AtomicU64,
    /// Serialises writers.
    writer: Mutex<()>,
    changed: Notify,
}

/// What is at a position.
#[derive(Debug)]
pub enum Found {
    /// This.
    Entry(Entry),
    /// Nothing yet.
    NotYet,
    /// It has been overwritten.
    Gone,
}

impl Ring {
    /// An empty ring that holds `capacity` entries.
    pub fn new(capacity: NonZeroUsize) -> Self {
        Self {
            slots: (0..capacity.get()).map(|_| Mutex::default()).collect(),
            head: AtomicU64::new(0),
            writer: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// How many entries it can hold.
    pub fn capacity(&self) -> u64 {
        self.slots.len() as u64
    }

    /// Position of the next entry: how many were ever written.
    pub fn head(&self) -> u64 {
        self.head.load(Ordering::Acquire)
    }

    /// Position of the oldest entry still held.
    pub fn tail(&self) -> u64 {
        self.head().saturating_sub(self.capacity())
    }

    /// How many entries it holds.
    pub fn len(&self) -> u64 {
        self.head().min(self.capacity())
    }

    /// Whether nothing was ever written.
    pub fn is_empty(&self) -> bool {
        self.head() == 0
    }

    /// What is at `position`.
    pub fn get(&self, position: u64) -> Found {
        if position >= self.head() {
            return Found::NotYet;
        }
        let slot = lock(&self.slots[(position % self.capacity()) as usize]);
        match &slot.entry {
            Some(entry) if slot.stamp == position + 1 => Found::Entry(entry.clone()),
            _ => Found::Gone,
        }
    }

    /// A future that ends at the next publication after its creation. Create it, look at the
    /// ring, then await it: nothing is missed.
    pub fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// The right to write. Readers are woken when it is dropped.
    pub fn writer(&self) -> Writer<'_> {
        let guard = lock(&self.writer);
        Writer { head: self.head(), ring: self, _guard: guard }
    }
}

/// Writes into the ring; see [`Ring::writer`].
#[derive(Debug)]
pub struct Writer<'a> {
    ring: &'a Ring,
    head: u64,
    _guard: MutexGuard<'a, ()>,
}

impl Writer<'_> {
    /// Adds an entry, over the oldest one if the ring is full.
    pub fn push(&mut self, entry: Entry) {
        let position = self.head;
        let mut slot = lock(&self.ring.slots[(position % self.ring.capacity()) as usize]);
        let old = slot.entry.replace(entry);
        slot.stamp = position + 1;
        drop(slot);
        self.head = position + 1;
        self.ring.head.store(self.head, Ordering::Release);
        // Outside the lock: this may free the record.
        drop(old);
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        self.ring.changed.notify_waiters();
    }
}

/// Nothing that holds one of these locks can panic half way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a cursor comes to next.
#[derive(Debug)]
pub enum Next {
    /// This entry.
    Entry(Entry),
    /// So many entries were overwritten before the reader came.
    Overrun(u64),
    /// The newest has been read.
    End,
}

/// A reader's place in the ring.
#[derive(Clone, Debug)]
pub struct Cursor {
    ring: Arc<Ring>,
    position: u64,
}

impl Cursor {
    /// Starts at `position`.
    pub fn new(ring: Arc<Ring>, position: u64) -> Self {
        Self { ring, position }
    }

    /// Position of the next entry.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The ring it reads.
    pub fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    /// Goes on by one entry, or over a gap.
    pub fn advance(&mut self) -> Next {
        match self.ring.get(self.position) {
            Found::Entry(entry) => {
                self.position += 1;
                Next::Entry(entry)
            }
            Found::NotYet => Next::End,
            Found::Gone => {
                // Some way ahead of the edge, else the next step would be lost as well. Always
                // beyond `position`, which lies behind the tail, and never beyond the head.
                let head = self.ring.head();
                let start = (self.ring.tail() + self.ring.capacity() / 16).clamp(self.position + 1, head);
                let lost = start - self.position;
                self.position = start;
                Next::Overrun(lost)
            }
        }
    }
}

#[cfg(test)]
mod tests;
