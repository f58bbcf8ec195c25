//! Many worlds, several at a time, until enough packets were sent or the sides differ.

use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use crate::{
    differ::Difference,
    generate::{self, Shape},
    node::Node,
    play::play,
    random::Random,
    scenario::Scenario,
    shrink::shrink,
};

/// How much is to be played.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Packets, about: the worlds that have begun are played to their end.
    pub packets: u64,
    /// Everything depends on it.
    pub seed: u64,
    /// Worlds at a time, each with programs and maps of its own.
    pub workers: usize,
    /// Number of the first world.
    pub first: u64,
    /// How long worlds are.
    pub shape: Shape,
    /// How long to look for a smaller scenario.
    pub patience: Duration,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            packets: 200_000,
            seed: 1,
            workers: thread::available_parallelism().map_or(1, Into::into),
            first: 0,
            shape: Shape::default(),
            patience: Duration::from_secs(60),
        }
    }
}

/// How far a run is.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Progress {
    /// Packets that were sent.
    pub packets: u64,
    /// How many of them passed.
    pub passed: u64,
    /// Worlds that were played.
    pub worlds: u64,
    /// Since when.
    pub took: Duration,
}

impl Progress {
    /// Packets in a minute.
    pub fn per_minute(&self) -> f64 {
        self.packets as f64 * 60.0 / self.took.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { packets, passed, worlds, took } = self;
        let percent = 100.0 * *passed as f64 / (*packets).max(1) as f64;
        write!(
            f,
            "{packets} packets ({percent:.0} % passed) in {worlds} worlds, {:.1} s, {:.2} million packets a minute",
            took.as_secs_f64(),
            self.per_minute() / 1e6
        )
    }
}

/// Where the sides differ.
#[derive(Clone, Debug)]
pub struct Found {
    /// Number of the world.
    pub world: u64,
    /// Its seed.
    pub seed: u64,
    /// What was seen first.
    pub first: Difference,
    /// The smallest scenario that was found.
    pub scenario: Scenario,
    /// What is seen in it.
    pub difference: Difference,
    /// How far the run was.
    pub progress: Progress,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { world, seed, first, scenario, difference, progress } = self;
        writeln!(f, "the sides differ in world {world} of seed {seed}, step {}, after {progress}", first.step)?;
        writeln!(f, "\nthe smallest scenario that shows it:\n\n{scenario}")?;
        writeln!(f, "in step {}: {}", difference.step, difference.text)?;
        write!(f, "again: cargo xtask differential --seed {seed} --world {world}, or --file with the text above")
    }
}

/// Plays worlds; tells of the progress every two seconds.
///
/// # Errors
/// There is no node to play on: we are not root, or the kernel refuses a program.
pub fn run(run: &Run, mut tell: impl FnMut(&Progress)) -> anyhow::Result<Result<Progress, Box<Found>>> {
    let began = Instant::now();
    let shared = Shared::default();
    shared.next.store(run.first, Ordering::Relaxed);
    let trouble = Mutex::new(None);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..run.workers.max(1))
            .map(|_| {
                scope.spawn(|| {
                    if let Err(error) = worker(run, &shared, began) {
                        shared.stop.store(true, Ordering::Relaxed);
                        *trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    }
                })
            })
            .collect();
        let mut told = Instant::now();
        while workers.iter().any(|worker| !worker.is_finished()) {
            thread::sleep(Duration::from_millis(20));
            if told.elapsed() >= Duration::from_secs(2) {
                told = Instant::now();
                tell(&shared.progress(began));
            }
        }
    });
    if let Some(error) = trouble.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let progress = shared.progress(began);
    Ok(match shared.found.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(found) => Err(found),
        None => Ok(progress),
    })
}

#[derive(Debug, Default)]
struct Shared {
    next: AtomicU64,
    packets: AtomicU64,
    passed: AtomicU64,
    worlds: AtomicU64,
    stop: AtomicBool,
    found: Mutex<Option<Box<Found>>>,
}

impl Shared {
    fn progress(&self, began: Instant) -> Progress {
        Progress {
            packets: self.packets.load(Ordering::Relaxed),
            passed: self.passed.load(Ordering::Relaxed),
            worlds: self.worlds.load(Ordering::Relaxed),
            took: began.elapsed(),
        }
    }
}

fn worker(run: &Run, shared: &Shared, began: Instant) -> anyhow::Result<()> {
    let mut node = Node::new().context("a node to play on")?;
    while !shared.stop.load(Ordering::Relaxed) && shared.packets.load(Ordering::Relaxed) < run.packets {
        let world = shared.next.fetch_add(1, Ordering::Relaxed);
        let scenario = generate::scenario(&mut Random::new(run.seed, world), &run.shape);
        match play(&mut node, &scenario) {
            Ok(played) => {
                shared.packets.fetch_add(played.packets, Ordering::Relaxed);
                shared.passed.fetch_add(played.passed, Ordering::Relaxed);
                shared.worlds.fetch_add(1, Ordering::Relaxed);
            }
            Err(first) => {
                if shared.stop.swap(true, Ordering::Relaxed) {
                    return Ok(());
                }
                let progress = shared.progress(began);
                let (scenario, difference) = smallest(&mut node, scenario, &first, run.patience);
                let found = Found { world, seed: run.seed, first: *first, scenario, difference, progress };
                *shared.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(found));
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The smallest scenario in which the same side stands alone, and what is seen in it.
pub fn smallest(
    node: &mut Node,
    mut scenario: Scenario,
    first: &Difference,
    patience: Duration,
) -> (Scenario, Difference) {
    // Nothing after it matters.
    scenario.steps.truncate(first.step + 1);
    let small = shrink(scenario, patience, |candidate| {
        play(node, candidate).is_err_and(|difference| difference.alone == first.alone)
    });
    match play(node, &small) {
        Err(difference) => (small, *difference),
        Ok(_) => (small, Difference { text: format!("{}\n(not every time)\n", first.text), ..first.clone() }),
    }
}
