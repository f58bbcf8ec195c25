//! `bulkhead`, for operators: asks the daemon over its API socket and renders the answer.
//! Reads only. What the daemon has to know as well (filters, policy, explanations) is decided
//! there; here are arguments, rendering, errors with their fix, and exit codes.
//!
//! ```text
//! args -> commands/X -> connect (gRPC over a unix socket) -> view (own types) -> render (table, json)
//!                   `-> failure (message, fix, exit code)
//! ```

mod args;
mod commands;
mod connect;
mod failure;
mod parse;
mod render;
mod view;

use std::process::ExitCode;

use clap::Parser;

use crate::{args::Args, failure::Exit};

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Nobody is left to tell when this cannot be printed.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Success.into() };
        }
    };
    match commands::run(args) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.report();
            failure.exit().into()
        }
    }
}
