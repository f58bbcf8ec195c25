//! `cargo xtask verifier`: what the kernel's verifier says of each program, on the running kernel and on those of
//! tests/kernels.toml, compared with what is written down in tests/verifier.json. The measuring and the comparing is
//! done by a program of the package `tests`.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};

use crate::{
    programs, repo,
    run::{self, Privilege},
    setup::{self, Purpose},
    vm,
};

/// Options of `cargo xtask verifier`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    /// Also on this kernel of tests/kernels.toml, or on `all` of them
    #[arg(long, value_name = "NAME")]
    kernel: Option<String>,

    /// Write the figures into tests/verifier.json
    #[arg(long)]
    write: bool,
}

/// Where figures are written down.
const BASELINE: &str = "tests/verifier.json";

/// `cargo xtask verifier`.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    setup::run(if options.kernel.is_some() { Purpose::Vm } else { Purpose::Build })?;
    let root = Privilege::find()?;
    root.keep_alive();
    programs::ebpf()?;
    let built = vm::build_verifier()?;
    let mut found = measure(&built, root)?;
    if let Some(name) = &options.kernel {
        programs::userland(false)?;
        for line in vm::verifier(name)? {
            found += &(line + "\n");
        }
    }
    compare(&built, &found, options.write)
}

/// On the running kernel, with what `cargo xtask test` has built.
pub(crate) fn running(root: Privilege) -> anyhow::Result<()> {
    let built = vm::built_verifier()?;
    compare(&built, &measure(&built, root)?, false)
}

fn measure(verifier: &Path, root: Privilege) -> anyhow::Result<String> {
    let mut command = root.command(&verifier.to_string_lossy());
    run::capture(command.arg("measure").arg(repo::root().join("target/ebpf").join(repo::OBJECT_IN_TARGET)))
}

/// Compares lines that the verifier's measurements have given.
pub(crate) fn compare(verifier: &Path, found: &str, write: bool) -> anyhow::Result<()> {
    let mut command = Command::new(verifier);
    command.arg("compare").arg(repo::root().join(BASELINE)).stdin(Stdio::piped());
    if write {
        command.arg("--write");
    }
    let mut child = command.spawn().context("starting the comparison")?;
    child.stdin.take().context("standard input is piped")?.write_all(found.as_bytes())?;
    ensure!(child.wait()?.success(), "the programs come too near to the verifier's limits, or cannot be measured");
    Ok(())
}
