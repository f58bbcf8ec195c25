//! What needs no test to run: style, lints, who imports whom, and that generated files are fresh.

use clap::Subcommand;

use crate::{edges, generate, run};

/// One of the checks.
#[derive(Subcommand, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Part {
    /// Code is formatted as rustfmt.toml says
    Fmt,
    /// No warnings from clippy, in any crate, test or example
    Clippy,
    /// Nobody imports what the house rules forbid, and each crate builds on its own
    Edges,
    /// What is generated matches what it is generated from
    Gen,
}

/// All of them, cheap ones first.
pub(crate) const PARTS: [Part; 4] = [Part::Fmt, Part::Edges, Part::Gen, Part::Clippy];

/// `cargo xtask check`: all parts, or one. Goes on after a failure, so that one run shows all.
pub(crate) fn run(part: Option<Part>) -> anyhow::Result<()> {
    let Some(part) = part else {
        let failed: Vec<String> =
            PARTS.into_iter().filter_map(|part| one(part).err()).map(|e| format!("{e:#}")).collect();
        if !failed.is_empty() {
            anyhow::bail!("{}", failed.join("\n"));
        }
        return Ok(());
    };
    one(part)
}

/// One part.
pub(crate) fn one(part: Part) -> anyhow::Result<()> {
    println!("check: {}", part.name());
    match part {
        Part::Fmt => run::go(run::cargo().args(["fmt", "--all", "--check"])),
        Part::Clippy => clippy(),
        Part::Edges => edges::check().and_then(|()| edges::each_alone()),
        Part::Gen => generate::run(true),
    }
}

impl Part {
    /// As on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fmt => "fmt",
            Self::Clippy => "clippy",
            Self::Edges => "edges",
            Self::Gen => "gen",
        }
    }
}

/// Examples want the features of their crates. Not all features: those of the kernel's programs
/// are for another target.
fn clippy() -> anyhow::Result<()> {
    run::go(run::cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--features",
        "policy/test-util,flows/test-util,datapath-abi/user",
        "--",
        "--deny",
        "warnings",
    ]))
}
