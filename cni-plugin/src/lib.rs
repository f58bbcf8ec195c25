//! What `bulkhead-cni` does, as a library: so that a fuzzer can reach it. Nobody else needs to:
//! [`run`] is the whole plugin.
//!
//! The real environment, streams, clock and daemon go into `dispatch`; everything below it can be
//! run with strings. The plugin holds no privilege and touches no network: it checks what the
//! runtime says, asks the daemon over a unix socket, and prints the answer.
#![forbid(unsafe_code)]

mod args;
mod chain;
mod client;
mod conf;
mod dispatch;
mod error;
pub mod fuzz;
#[cfg(test)]
mod golden;
mod json;
mod netns;
mod result;
mod tombstone;
mod version;

use std::{io, process::ExitCode, time::SystemTime};

/// Runs one command of the runtime: environment and stdin in, stdout and exit status out.
pub fn run() -> ExitCode {
    let world = dispatch::World {
        env: &|name| std::env::var_os(name),
        netns: &netns::look,
        now: SystemTime::now(),
        daemon: &client::Grpc,
    };
    let streams = dispatch::Streams {
        stdin: &mut io::stdin().lock(),
        stdout: &mut io::stdout().lock(),
        stderr: &mut io::stderr().lock(),
    };
    ExitCode::from(dispatch::run(&world, streams))
}
