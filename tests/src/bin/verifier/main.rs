//! What the kernel's verifier says of each program: `cargo xtask verifier` (docs/kernels.md).
//!
//! ```text
//! verifier measure OBJECT           one line of JSON about the running kernel; needs root
//! verifier compare BASELINE         reads such a line, says what has changed; fails beyond the budget
//! verifier compare BASELINE --write and writes it down
//! ```

mod compare;
mod measure;
mod stack;

use std::{fs, io, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Parser;

/// What the kernel's verifier says of each program.
#[derive(Parser, Debug)]
#[command(name = "verifier")]
enum Command {
    /// Load each program of an object file; say in a line of JSON what that took
    Measure {
        /// The object file with the programs
        object: PathBuf,
    },
    /// Read lines of `measure`, say what has changed, fail beyond the budget
    Compare {
        /// The figures that are written down
        baseline: PathBuf,
        /// Write the new ones in their place
        #[arg(long)]
        write: bool,
    },
}

fn main() -> ExitCode {
    match run(Command::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("verifier: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Measure { object } => {
            let object = fs::read(&object).with_context(|| format!("reading {}", object.display()))?;
            println!("{}", measure::kernel(&object)?);
            Ok(())
        }
        Command::Compare { baseline, write } => {
            let found = io::read_to_string(io::stdin()).context("reading the measurements")?;
            compare::run(&baseline, &found, write)
        }
    }
}
