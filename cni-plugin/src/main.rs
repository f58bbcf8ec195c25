//! `bulkhead-cni`: the binary that container runtimes call.
//!
//! This file hands the real environment, streams, clock and daemon to `dispatch` and nothing else;
//! everything below can be run with strings. The plugin holds no privilege and touches no network:
//! it checks what the runtime says, asks the daemon over a unix socket, and prints the answer.
#![forbid(unsafe_code)]

mod args;
mod chain;
mod client;
mod conf;
mod dispatch;
mod error;
#[cfg(test)]
mod golden;
mod json;
mod netns;
mod result;
mod tombstone;
mod version;

use std::{io, process::ExitCode, time::SystemTime};

fn main() -> ExitCode {
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
