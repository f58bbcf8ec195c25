//! `cargo xtask demo`: the main job, told on the terminal for people, and checked line by line. A node
//! of its own, the daemon on a folder of YAML, a shop of three tiers, a prober and a stranger; what policy
//! allows and denies, the flow records that say why, and a policy edit that cuts one live
//! connection and not another. Here are only the arguments and the end, however it comes.
//!
//! ```text
//! play    the story          shop    its manifests        site    servers and clients of the pods
//! teller  lines, and whether they came true                follow  flow records as they happen
//! kept    what --keep leaves, and taking it away
//! ```

mod follow;
mod kept;
mod play;
mod shop;
mod site;
mod teller;

use std::{process::ExitCode, sync::mpsc, thread};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use teller::Teller;

/// See pods wired, policy enforced by identity, and every flow explained.
///
/// Everything happens in network namespaces of its own, so nothing of this machine changes, and all
/// of it is gone afterwards. Takes about ten seconds. Needs root.
#[derive(Parser, Debug)]
#[command(name = "cargo xtask demo", max_term_width = 100)]
#[command(
    after_help = "Exit status: 0 if every line of the story came true, 1 if not, 77 without root, 130 after Ctrl-C, 64 for wrong usage."
)]
struct Args {
    /// Leave it running afterwards, and print commands to try
    #[arg(long, conflicts_with = "clean")]
    keep: bool,
    /// Take away what an earlier --keep has left, and do nothing else
    #[arg(long)]
    clean: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

/// What the demo starts itself as.
#[derive(Subcommand, Debug)]
enum Part {
    /// The server of a pod
    #[command(hide = true)]
    Serve {
        /// The pod's name
        name: String,
        /// Where it listens
        ports: Vec<u16>,
    },
}

/// How it ended.
enum End {
    /// The story was told.
    Told(Result<bool, anyhow::Error>),
    /// Somebody wants it to stop.
    Signal,
}

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(said) => {
            // Help is no error. EX_USAGE of sysexits.h, as the product's own binaries.
            let code = if said.use_stderr() { 64 } else { 0 };
            let _ = said.print();
            return ExitCode::from(code);
        }
    };
    let result = match args.part {
        Some(Part::Serve { name, ports }) => site::serve(&name, &ports).map(|()| ExitCode::SUCCESS),
        None if !rustix::process::geteuid().is_root() => {
            eprintln!(
                "error: the demo needs root, for network namespaces and eBPF: run `cargo xtask demo`, which asks sudo"
            );
            // EX_NOPERM of sysexits.h.
            return ExitCode::from(77);
        }
        None if args.clean => kept::clean().map(|()| ExitCode::SUCCESS),
        None => tell(args.keep),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// Tells the story in a thread of its own and waits for its end, or for a signal, after which the
/// story stops at its next line. Either way everything is cleaned up when this returns.
fn tell(keep: bool) -> anyhow::Result<ExitCode> {
    kept::refuse_second(keep)?;
    let teller = Teller::new();
    let (ends, end) = mpsc::channel();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let signals = ends.clone();
    {
        let _context = runtime.enter();
        for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
            let mut signal = signal(kind).context("listening for signals")?;
            let signals = signals.clone();
            runtime.spawn(async move {
                while signal.recv().await.is_some() {
                    let _ = signals.send(End::Signal);
                }
            });
        }
    }
    let told = teller.clone();
    let story = thread::spawn(move || {
        let result = play::play(&told, keep);
        let _ = ends.send(End::Told(result));
    });
    let mut interrupted = false;
    loop {
        match end.recv().context("the story's thread has panicked")? {
            End::Signal if !interrupted => {
                interrupted = true;
                teller.stop();
                eprintln!("\ncleaning up");
            }
            End::Signal => {}
            End::Told(result) => {
                let _ = story.join();
                // 128 and the number of SIGINT, as shells do it.
                return if interrupted { Ok(ExitCode::from(130)) } else { result.map(code) };
            }
        }
    }
}

fn code(came_true: bool) -> ExitCode {
    if came_true { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
