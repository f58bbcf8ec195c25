//! `path`: what one packet costs in the programs, in nanoseconds, by `BPF_PROG_TEST_RUN`.
//!
//! Every case runs behind a wrapper that writes the packet's header back (the programs rewrite
//! it), next to the same wrapper in front of an empty program:
//!
//! ```text
//! cost = (wrapper + program) - (wrapper + empty program)     "net"
//! shown = cost + empty program alone                         what a plain test run would show
//! ```
//!
//! All cases take turns within a round; each figure is the median over the rounds. Verdict,
//! packet, counters and events are checked in every round: a figure of something else than what
//! its name says is an error.

mod cases;
mod report;
mod scene;
mod wrapper;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use tests::host::{A, B, C};

use crate::machine::Machine;

use self::{
    cases::{CROWD, Case, Node},
    report::Report,
    scene::Scene,
    wrapper::Wrapper,
};

/// Rules and identities of the small scene.
const FEW: u32 = 100;
/// Rules and identities of the large scene.
const MANY: u32 = 100_000;

/// Arguments of `path`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Write the figures to this file as JSON (schema: bench/README.md)
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
    /// Runs of each case, over all rounds
    #[arg(long, value_name = "N", default_value_t = 2_000_000, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Rounds in which the cases take turns
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Measure the programs in this object file instead of the built-in one, to compare builds
    #[arg(long, value_name = "PATH")]
    object: Option<PathBuf>,
    /// Measure each case also with the programs in this object file, in turn with the others
    #[arg(long, value_name = "PATH")]
    against: Option<PathBuf>,
    /// Measure only the cases whose id contains this, and the floors
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Run on this CPU only
    #[arg(long, value_name = "CPU", default_value_t = 1)]
    cpu: usize,
}

/// Measures and reports.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    // Before the scenes: in their network namespace some of it can't be read.
    let machine = Machine::read();
    pin(args.cpu)?;
    let repeat = args.repeat.div_ceil(args.rounds);
    eprintln!("Preparing {FEW} and {MANY} rules and identities");
    let mut wrapper = Wrapper::load()?;
    let mut scenes = Scenes::new(args.object.as_deref())?;
    let mut cases = scenes.cases(&mut wrapper)?;
    let mut others = match &args.against {
        Some(object) => {
            let mut scenes = Scenes::new(Some(object))?;
            scenes.cases(&mut wrapper)?;
            Some(scenes)
        }
        None => None,
    };
    if let Some(only) = &args.only {
        cases.retain(|case| case.id.starts_with("floor") || case.id.contains(only));
    }

    let mut empty = Vec::new();
    let mut found: Vec<Series> = cases.into_iter().map(Series::of).collect();
    for round in 0..args.rounds {
        eprint!("\rRound {} of {}, {repeat} runs of each case", round + 1, args.rounds);
        empty.push(wrapper.alone(wrapper::EMPTY, &found[0].case, repeat)?);
        for Series { case, net, against } in &mut found {
            net.push(measure(&mut wrapper, scenes.of(case), case, repeat).with_context(|| case.name.clone())?);
            if let Some(others) = &mut others {
                against.push(measure(&mut wrapper, others.of(case), case, repeat).with_context(|| case.name.clone())?);
            }
        }
    }
    eprintln!();

    let report = Report::new(machine, args, repeat, &empty, &found);
    print!("{}", report.table());
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&report)? + "\n";
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// What was measured of a case, by round: net nanoseconds.
struct Series {
    case: Case,
    net: Vec<f64>,
    /// With the other object; empty without one.
    against: Vec<f64>,
}

impl Series {
    fn of(case: Case) -> Self {
        Self { case, net: Vec::new(), against: Vec::new() }
    }
}

/// One build of the programs, on few and on many rules.
pub(crate) struct Scenes {
    // Dropped in this order: each leaves the network namespace that it has entered last.
    pub(super) staged: Scene,
    pub(super) staged_elsewhere: Scene,
    pub(super) crowded: Scene,
    pub(super) many: Scene,
    pub(super) few: Scene,
}

impl Scenes {
    fn new(object: Option<&Path>) -> anyhow::Result<Self> {
        let few = Scene::new(FEW, 0, object)?;
        let many = Scene::new(MANY, 0, object)?;
        let crowded = Scene::new(MANY, CROWD, object)?;
        let mut staged_elsewhere = Scene::new(FEW, 0, object)?;
        staged_elsewhere.stage(&[C]);
        let mut staged = Scene::new(FEW, 0, object)?;
        staged.stage(&[A, B]);
        Ok(Self { staged, staged_elsewhere, crowded, many, few })
    }

    fn cases(&mut self, wrapper: &mut Wrapper) -> anyhow::Result<Vec<Case>> {
        cases::all(wrapper, self)
    }

    fn of(&mut self, case: &Case) -> &mut Scene {
        match case.node {
            Node::Few => &mut self.few,
            Node::Many => &mut self.many,
            Node::Crowded => &mut self.crowded,
            Node::StagedElsewhere => &mut self.staged_elsewhere,
            Node::Staged => &mut self.staged,
        }
    }
}

/// Net nanoseconds of one case.
fn measure(wrapper: &mut Wrapper, scene: &mut Scene, case: &Case, repeat: u32) -> anyhow::Result<f64> {
    let mut left = repeat;
    let mut sum = 0.0;
    while left > 0 {
        scene.prepare(case)?;
        let batch = left.min(case.batch);
        let before = scene.counts();
        let (with, ran) = wrapper.in_front_of(&scene.lab.programs, case, batch)?;
        case.check(&ran, &scene.counts().since(&before), &mut scene.lab.programs, batch)?;
        let (without, ran) = wrapper.in_front_of_empty(case, batch)?;
        ensure!(ran.verdict == tests::seen::NEXT, "the wrapper did not reach the empty program");
        sum += (with - without) * f64::from(batch);
        left -= batch;
    }
    Ok(sum / f64::from(repeat))
}

/// Stays on one CPU: per-CPU maps stay warm, and no figure holds a migration.
fn pin(cpu: usize) -> anyhow::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    ensure!(
        cpu < rustix::thread::CpuSet::MAX_CPU,
        "--cpu {cpu}: there are at most {}",
        rustix::thread::CpuSet::MAX_CPU
    );
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).with_context(|| format!("--cpu {cpu}: cannot run there"))
}
