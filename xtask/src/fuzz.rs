//! `cargo xtask fuzz`: hostile input for everything that reads some, made by libFuzzer, which keeps what
//! reaches new code. See docs/adr/0013; the targets are in `fuzz/`.
//!
//! ```text
//! target/fuzz/start/TARGET   seeds, dictionary and options, written by the engine
//! target/fuzz/corpus/TARGET  what has reached new code, kept from run to run
//! target/fuzz/found/TARGET   what broke the target
//! target/fuzz/log/TARGET     what libFuzzer said
//! ```

mod engine;
mod find;
mod run;

use std::{path::PathBuf, thread, time::Duration};

use anyhow::bail;

use self::{engine::Engine, run::Run};
use crate::{
    programs, repo,
    setup::{self, Purpose},
};

/// Options of `cargo xtask fuzz`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    /// Only this target; the list is in fuzz/src/lib.rs
    target: Option<String>,

    /// How long each target runs: 30s, 10m, 1h
    #[arg(long = "for", value_name = "TIME", default_value = "30s", value_parser = duration)]
    time: Duration,

    /// Targets at the same time [default: as many as there are processors]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,

    /// Run the target on this file instead, once
    #[arg(long, value_name = "FILE", requires = "target")]
    input: Option<PathBuf>,
}

/// How long each target runs in `cargo xtask test`: enough to see that it runs and finds nothing near the surface. What it
/// has found is tried there as well (fuzz/tests/finds.rs); a search takes hours, by `cargo xtask fuzz --for 1h`.
const IN_TESTS: Duration = Duration::from_secs(10);

/// How often a run that goes on is told of.
const PROGRESS: Duration = Duration::from_secs(10);

/// `cargo xtask fuzz`.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    setup::run(Purpose::Fuzz)?;
    programs::ebpf()?;
    let engine = Engine::build()?;
    if let (Some(target), Some(input)) = (&options.target, &options.input) {
        return engine.replay(&chosen(&engine, Some(target))?[0], &std::env::current_dir()?.join(input));
    }
    let targets = chosen(&engine, options.target.as_deref())?;
    fuzz(&engine, &targets, options.time, options.jobs.unwrap_or_else(processors))
}

/// Every target for a short time, on a machine that is set up and has the programs built.
pub(crate) fn shortly() -> anyhow::Result<()> {
    let engine = Engine::build()?;
    let targets = chosen(&engine, None)?;
    fuzz(&engine, &targets, IN_TESTS, processors())
}

fn processors() -> usize {
    thread::available_parallelism().map_or(1, Into::into)
}

/// All targets, or the one that is named.
fn chosen(engine: &Engine, target: Option<&str>) -> anyhow::Result<Vec<String>> {
    let all = engine.targets()?;
    match target {
        None => Ok(all),
        Some(name) if all.iter().any(|it| it == name) => Ok(vec![name.to_owned()]),
        Some(name) => bail!("there is no target {name:?}: choose one of {}", all.join(", ")),
    }
}

/// Runs the targets, `jobs` at a time. Goes on after a find, so that one run shows all.
fn fuzz(engine: &Engine, targets: &[String], time: Duration, jobs: usize) -> anyhow::Result<()> {
    println!("Fuzzing {} for {} s each, {jobs} at a time", targets.join(", "), time.as_secs());
    let mut waiting = targets.iter();
    let mut running: Vec<Run> = Vec::new();
    let mut found = Vec::new();
    loop {
        while running.len() < jobs.max(1)
            && let Some(target) = waiting.next()
        {
            running.push(Run::start(engine, target, time)?);
        }
        if running.is_empty() {
            break;
        }
        thread::sleep(Duration::from_millis(100));
        let mut still = Vec::new();
        for mut run in running {
            match run.ended()? {
                None => {
                    run.progress(PROGRESS);
                    still.push(run);
                }
                Some(None) => {}
                Some(Some(find)) => {
                    println!("{}", find.told());
                    found.push(find.line());
                }
            }
        }
        running = still;
    }
    if !found.is_empty() {
        bail!("the fuzzer has found: {}", found.join("; "));
    }
    Ok(())
}

/// `30s`, `10m`, `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    let wanted = || format!("{text:?} is no time: write 30s, 10m or 1h");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wanted)?;
    let number: u64 = number.parse().map_err(|_| wanted())?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(wanted()),
    };
    match number.checked_mul(unit) {
        Some(seconds @ 1..) => Ok(Duration::from_secs(seconds)),
        _ => Err(wanted()),
    }
}

/// The folder of everything that is not committed.
fn folder() -> PathBuf {
    repo::target_dir().join("fuzz")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_number_and_a_unit() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3600)));
        for text in ["", "s", "30", "0s", "-1s", "1d", "1 h", "1ß", "99999999999999999999h", "18446744073709551615h"] {
            assert!(duration(text).unwrap_err().contains("30s"), "{text}");
        }
    }
}
