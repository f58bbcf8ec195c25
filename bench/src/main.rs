//! `bulkhead-bench`: measures what the design has budgets for. One subcommand for each thing
//! that is measured; each prints a table for people and writes JSON with `--json`, see README.md
//! beside this crate.

mod budget;
mod cni;
mod machine;
mod path;
mod policy;
mod stats;

use clap::{Parser, Subcommand};

#[derive(Parser, Debug)]
#[command(name = "bulkhead-bench", about = "Measures Bulkhead against its budgets")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// What one packet costs in the programs, beside a floor program in the same run
    Path(path::Args),
    /// What ADD and DEL take, beside the reference plugins in the same run
    Cni(cni::Args),
    /// What a policy costs until it is map entries: all of it, and one change
    Policy(policy::Args),
    /// One world of `policy`, in a process of its own for its memory to be known
    #[command(hide = true)]
    PolicyCell(policy::Cell),
}

fn main() -> anyhow::Result<()> {
    match Args::parse().command {
        Command::Path(args) => path::run(&args),
        Command::Cni(args) => cni::run(&args),
        Command::Policy(args) => policy::run(&args),
        Command::PolicyCell(cell) => policy::run_cell(cell),
    }
}
