//! `threeway`: the three-way check for as long as one wants. `cargo xtask differential` builds and runs it.

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, anyhow};
use clap::Parser;
use threeway::{
    generate::Shape,
    node::Node,
    play::play,
    run::{Run, run, smallest},
    text,
};

/// The API's text, compiled rules on paper, and the kernel's programs, on the same random worlds and packets.
///
/// Needs root. Exit status: 0 no difference, 1 a difference, 2 the check could not run.
#[derive(Parser, Debug)]
#[command(max_term_width = 100)]
struct Args {
    /// About how many packets
    #[arg(long, default_value = "10_000_000", value_parser = number)]
    packets: u64,

    /// Where the random worlds begin
    #[arg(long, default_value = "1", value_parser = number)]
    seed: u64,

    /// Only this world of the seed
    #[arg(long, value_parser = number)]
    world: Option<u64>,

    /// Worlds at the same time [default: as many as there are processors]
    #[arg(long)]
    workers: Option<usize>,

    /// How often objects change in a world
    #[arg(long, default_value_t = Shape::default().changes)]
    changes: usize,

    /// Packets between two changes
    #[arg(long, default_value_t = Shape::default().packets)]
    burst: usize,

    /// How many seconds to look for a smaller scenario when there is a difference
    #[arg(long, default_value_t = 60)]
    patience: u64,

    /// Play this scenario instead
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// Print the world instead of playing it
    #[arg(long, requires = "world")]
    print: bool,
}

fn main() -> ExitCode {
    match go(&Args::parse()) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(difference)) => {
            println!("{difference}");
            ExitCode::from(1)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn go(args: &Args) -> anyhow::Result<Option<String>> {
    let patience = Duration::from_secs(args.patience);
    let shape = Shape { changes: args.changes, packets: args.burst };
    if let Some(file) = &args.file {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let scenario = text::parse(&text).map_err(|error| anyhow!("{}: {error}", file.display()))?;
        let mut node = Node::new()?;
        return Ok(match play(&mut node, &scenario) {
            Ok(played) => {
                println!("{} packets, {} passed, no difference", played.packets, played.passed);
                None
            }
            Err(first) => {
                let (small, difference) = smallest(&mut node, scenario, &first, patience);
                Some(format!("{small}\nin step {}: {}", difference.step, difference.text))
            }
        });
    }
    if let (Some(world), true) = (args.world, args.print) {
        let mut random = threeway::random::Random::new(args.seed, world);
        print!("{}", threeway::generate::scenario(&mut random, &shape));
        return Ok(None);
    }
    let mut options = Run { packets: args.packets, seed: args.seed, shape, patience, ..Run::default() };
    options.workers = args.workers.unwrap_or(options.workers);
    if let Some(world) = args.world {
        options = Run { first: world, packets: 1, workers: 1, ..options };
    }
    println!("seed {}, {} packets, {} worlds at a time", options.seed, options.packets, options.workers);
    match run(&options, |progress| println!("{progress}"))? {
        Ok(progress) => {
            println!("{progress}\nno difference");
            Ok(None)
        }
        Err(found) => Ok(Some(found.to_string())),
    }
}

/// A number that may have underscores in it.
fn number(text: &str) -> Result<u64, String> {
    text.replace('_', "").parse().map_err(|error| format!("{text:?}: {error}"))
}
