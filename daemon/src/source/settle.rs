//! When a file that is being changed is complete enough to be read. No clock: times come in.
//!
//! A write is over when its file is closed. Until then what lies there may be half of it, which
//! often parses and would delete the objects of the other half. A file that is written without
//! being closed is read when it has been quiet for a while, or at last when it never gets quiet.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How long to wait for what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Delays {
    /// After any change, so that the steps of one (rename and write, several files) come together.
    pub settle: Duration,
    /// After the last write to a file that has not been closed.
    pub open: Duration,
    /// After the first of writes that do not end.
    pub longest: Duration,
}

impl Default for Delays {
    fn default() -> Self {
        Self { settle: Duration::from_millis(50), open: Duration::from_secs(2), longest: Duration::from_secs(10) }
    }
}

/// What happened, as far as it matters for when to look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hint {
    /// Its content is being written.
    Written,
    /// A writer has closed it, or it came by a rename: it is complete.
    Closed,
    /// Anything else: created, renamed, removed, a symlink swapped.
    Other,
}

/// What is known of the writers of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Readiness {
    /// One may still be at it: do not read.
    Open,
    /// None, or it has been waited for long enough: read.
    Complete,
    /// Nothing.
    Unknown,
}

/// What is waited for.
#[derive(Debug)]
pub struct Settle {
    delays: Delays,
    /// First and last change since the last look.
    pending: Option<(Instant, Instant)>,
    /// Files that are being written: first and last write.
    open: BTreeMap<String, (Instant, Instant)>,
    /// Files that were completed since the last look.
    closed: BTreeSet<String>,
}

impl Settle {
    /// Waiting for nothing.
    pub fn new(delays: Delays) -> Self {
        Self { delays, pending: None, open: BTreeMap::new(), closed: BTreeSet::new() }
    }

    /// Something happened to a file or folder.
    pub fn note(&mut self, name: &str, hint: Hint, now: Instant) {
        match hint {
            Hint::Written => {
                self.closed.remove(name);
                let (_, last) = self.open.entry(name.to_owned()).or_insert((now, now));
                *last = now;
            }
            Hint::Closed => {
                self.open.remove(name);
                self.closed.insert(name.to_owned());
            }
            Hint::Other => {}
        }
        let (_, last) = self.pending.get_or_insert((now, now));
        *last = now;
    }

    /// When to look next, if nothing else happens.
    pub fn due(&self) -> Option<Instant> {
        let pending = self.pending.map(|(first, last)| {
            // Ten times the pause, so that a steady stream of changes is not waited out.
            (last + self.delays.settle).min(first + self.delays.settle * 10)
        });
        let open = self.open.values().map(|times| self.deadline(times)).min();
        pending.into_iter().chain(open).min()
    }

    /// Whether a file may be read.
    pub fn readiness(&self, name: &str, now: Instant) -> Readiness {
        match self.open.get(name) {
            Some(times) if now < self.deadline(times) => Readiness::Open,
            Some(_) => Readiness::Complete,
            None if self.closed.contains(name) => Readiness::Complete,
            None => Readiness::Unknown,
        }
    }

    /// A file was found that was written at `written`, and nobody says whether that was all.
    pub fn suspect(&mut self, name: &str, written: Instant) {
        self.open.entry(name.to_owned()).or_insert((written, written));
    }

    /// The pause after a write to a file that has not been closed.
    pub fn open_delay(&self) -> Duration {
        self.delays.open
    }

    /// A look has been taken.
    pub fn looked(&mut self, now: Instant) {
        self.pending = None;
        self.closed.clear();
        let delays = self.delays;
        self.open.retain(|_, times| now < deadline(delays, times));
    }

    /// Events were lost: nothing is known about writers.
    pub fn lost_track(&mut self, now: Instant) {
        self.open.clear();
        self.pending.get_or_insert((now, now));
    }

    fn deadline(&self, times: &(Instant, Instant)) -> Instant {
        deadline(self.delays, times)
    }
}

fn deadline(delays: Delays, (first, last): &(Instant, Instant)) -> Instant {
    (*last + delays.open).min(*first + delays.longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn start() -> (Settle, Instant) {
        (Settle::new(Delays::default()), Instant::now())
    }

    #[test]
    fn nothing_is_due_before_anything_happened() {
        assert_eq!(start().0.due(), None);
    }

    #[test]
    fn changes_that_come_together_are_looked_at_together() {
        let (mut settle, t) = start();
        settle.note("a", Hint::Other, t);
        settle.note("b", Hint::Closed, t + 30 * MS);
        assert_eq!(settle.due(), Some(t + 80 * MS));
        settle.looked(t + 80 * MS);
        assert_eq!(settle.due(), None);
    }

    #[test]
    fn a_steady_stream_of_changes_is_not_waited_out() {
        let (mut settle, t) = start();
        for i in 0..100 {
            settle.note("a", Hint::Other, t + i * 20 * MS);
        }
        assert_eq!(settle.due(), Some(t + 500 * MS));
    }

    #[test]
    fn a_file_is_not_read_before_its_writer_closes_it() {
        let (mut settle, t) = start();
        settle.note("a", Hint::Written, t);
        settle.looked(t + 50 * MS);
        assert_eq!(settle.readiness("a", t + 1999 * MS), Readiness::Open);
        assert_eq!(settle.readiness("b", t + 50 * MS), Readiness::Unknown);
        assert_eq!(settle.due(), Some(t + 2000 * MS));
        settle.note("a", Hint::Closed, t + 100 * MS);
        assert_eq!(settle.readiness("a", t + 100 * MS), Readiness::Complete);
        assert_eq!(settle.due(), Some(t + 150 * MS));
        settle.looked(t + 150 * MS);
        assert_eq!(settle.readiness("a", t + 150 * MS), Readiness::Unknown);
    }

    #[test]
    fn a_file_that_is_never_closed_is_read_when_quiet_or_at_last() {
        let (mut settle, t) = start();
        for second in 0..30 {
            settle.note("a", Hint::Written, t + second * 1000 * MS);
        }
        assert_eq!(settle.readiness("a", t + 9999 * MS), Readiness::Open);
        assert_eq!(settle.readiness("a", t + 10_000 * MS), Readiness::Complete);
        settle.looked(t + 10_000 * MS);
        assert_eq!(settle.due(), None);
    }

    #[test]
    fn a_file_that_nobody_announced_is_read_when_it_is_old_enough() {
        let (mut settle, t) = start();
        settle.suspect("a", t);
        settle.suspect("a", t + 1000 * MS);
        assert_eq!(settle.readiness("a", t + 1999 * MS), Readiness::Open);
        assert_eq!(settle.due(), Some(t + 2000 * MS));
        assert_eq!(settle.readiness("a", t + 2000 * MS), Readiness::Complete);
    }

    #[test]
    fn after_a_loss_of_events_everything_is_looked_at() {
        let (mut settle, t) = start();
        settle.note("a", Hint::Written, t);
        settle.lost_track(t + MS);
        assert_eq!(settle.readiness("a", t + MS), Readiness::Unknown);
        assert!(settle.due().is_some());
    }
}
