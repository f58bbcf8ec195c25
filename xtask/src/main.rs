//! `cargo xtask`: the one way to build, test, generate and measure. See `--help`.

mod generate;

use clap::{Parser, Subcommand};

#[derive(Parser, Debug)]
#[command(name = "cargo xtask", about = "The one way to build, test, generate and measure Bulkhead")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Write what is generated from a source in the repository (or, with --check, compare)
    Gen {
        /// Fail on a difference instead of writing
        #[arg(long)]
        check: bool,
    },
}

fn main() -> anyhow::Result<()> {
    match Args::parse().command {
        Command::Gen { check } => generate::run(check),
    }
}
