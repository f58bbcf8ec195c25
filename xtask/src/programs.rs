//! Builds the programs for the kernel, and the binaries that load them.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use crate::{repo, run, toolchain};

/// `cargo xtask build`.
pub(crate) fn build(release: bool) -> anyhow::Result<()> {
    ebpf()?;
    userland(release)
}

/// The object files with the programs, in `target/ebpf`. Fast when nothing has changed.
pub(crate) fn ebpf() -> anyhow::Result<()> {
    ebpf_of(&repo::root(), &repo::root().join("target/ebpf"))?;
    Ok(())
}

/// The same of another tree, into another folder. Returns where the object is.
pub(crate) fn ebpf_of(tree: &Path, target: &Path) -> anyhow::Result<PathBuf> {
    let toolchain = toolchain::find()?;
    println!("eBPF programs: {}", toolchain.describe());
    let mut cargo = toolchain.cargo_build();
    cargo.current_dir(tree).env("CARGO_TARGET_DIR", target);
    // This variable goes before every flag that a configuration file may hold. BTF is what the
    // maps and the global functions are described with; it is made from the debug information.
    let linker = format!("linker={}", toolchain.linker().display());
    let mut flags = vec!["-C".into(), linker];
    flags.extend(["-C", "link-arg=--btf", "-C", "debuginfo=2", "-C", "panic=abort"].map(str::to_owned));
    flags.extend(anywhere(tree));
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    cargo.args(["--release", "--package", "datapath-ebpf", "--features", "bpf", "--bins"]);
    // The linker does its own optimisation over all of it, and needs the debug information.
    cargo.args(["--config", "profile.release.lto=false", "--config", "profile.release.strip=\"none\""]);
    run::go(&mut cargo).context("building the eBPF programs")?;
    let object = target.join(repo::OBJECT_IN_TARGET);
    let size = std::fs::metadata(&object).with_context(|| format!("no object at {}", object.display()))?.len();
    let shown = object.strip_prefix(repo::root()).unwrap_or(&object);
    println!("eBPF object: {} ({} KiB)", shown.display(), size / 1024);
    Ok(object)
}

/// The daemon, the CNI plugin and the command line tool. Wants [`ebpf`] first: the daemon carries
/// the object in it.
pub(crate) fn userland(release: bool) -> anyhow::Result<()> {
    let mut cargo = run::cargo();
    cargo.args(["build", "--bins"]);
    for package in repo::USERLAND {
        cargo.args(["--package", package]);
    }
    if release {
        cargo.arg("--release");
    }
    run::go(&mut cargo)?;
    println!("binaries: {}", bin_dir(release).display());
    Ok(())
}

/// The binaries as they go to other machines: without a library that has to be there, and the same wherever they are
/// built. Returns their folder. Wants [`ebpf`] first.
pub(crate) fn portable(release: bool) -> anyhow::Result<PathBuf> {
    // With a target named, the flags are for the binaries alone and not for what runs while they are built.
    let host = host()?;
    let mut cargo = run::cargo();
    cargo.args(["build", "--bins", "--locked", "--target", &host]);
    if release {
        cargo.arg("--release");
    } else {
        // It would be most of the image.
        cargo.args(["--config", "profile.dev.strip=\"debuginfo\""]);
    }
    for package in repo::USERLAND {
        cargo.args(["--package", package]);
    }
    // What was compiled before has no say in what comes out.
    cargo.env("CARGO_INCREMENTAL", "0");
    let mut flags = vec!["-C".to_owned(), "target-feature=+crt-static".to_owned()];
    flags.extend(anywhere(&repo::root()));
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    if let Some(commit) = repo::commit() {
        cargo.env("BULKHEAD_COMMIT", commit);
    }
    run::go(&mut cargo).context("building static binaries")?;
    Ok(repo::target_dir().join(host).join(if release { "release" } else { "debug" }))
}

/// Flags that keep folders of this machine out of what the compiler writes.
fn anywhere(tree: &Path) -> Vec<String> {
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    [(Some(tree.to_owned()), "/bulkhead"), (home, "/cargo")]
        .into_iter()
        .filter_map(|(from, to)| Some(format!("--remap-path-prefix={}={to}", from?.display())))
        .collect()
}

/// This machine, as the compiler calls it: x86_64-unknown-linux-gnu.
fn host() -> anyhow::Result<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said = run::capture(Command::new(rustc).arg("-vV"))?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("`rustc -vV` says no host")?.to_owned())
}

/// Where the binaries are.
pub(crate) fn bin_dir(release: bool) -> PathBuf {
    repo::target_dir().join(if release { "release" } else { "debug" })
}
