//! The node agent's binary: arguments, exit code, nothing else.

use std::process::ExitCode;

use clap::{CommandFactory, Parser, error::ErrorKind};
use daemon::{
    args::{Args, Command},
    commands, words,
};

/// Gives back what a busy moment has taken, which the C library's does not (docs/scale.md). How: `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Wrong usage (EX_USAGE of sysexits.h).
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            let harmless = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return ExitCode::from(if harmless { 0 } else { USAGE });
        }
    };
    let result = match &args.command {
        Command::Run(args) => commands::run::run(args),
        Command::Uninstall(args) => commands::uninstall::uninstall(args),
        Command::Version => {
            print!("{}", commands::version::text());
            Ok(())
        }
        Command::Completion { shell } => {
            clap_complete::generate(*shell, &mut Args::command(), "bulkhead-daemon", &mut std::io::stdout());
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bulkhead-daemon: {}", words::of(&error));
            ExitCode::from(if error.is::<daemon::config::ConfigError>() { USAGE } else { 1 })
        }
    }
}
