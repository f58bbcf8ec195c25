//! Where things lie in the repository, and which binaries come out of it.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use crate::run;

/// What carries the programs for the kernel, below the folder that they are built into.
pub(crate) const OBJECT_IN_TARGET: &str = "bpfel-unknown-none/release/bulkhead-datapath";

/// Packages that make the binaries a user installs.
pub(crate) const USERLAND: [&str; 3] = ["daemon", "cni-plugin", "cli"];

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().expect("xtask lies in the repository's root").to_owned()
}

/// The commit that is checked out, shortened; none outside of a clone.
pub(crate) fn commit() -> Option<String> {
    run::capture(Command::new("git").current_dir(root()).args(["rev-parse", "--short=12", "HEAD"]))
        .ok()
        .map(|text| text.trim().to_owned())
}

/// Where cargo puts what it builds for this machine, unless the user says otherwise.
pub(crate) fn target_dir() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => env::current_dir().unwrap_or_else(|_| root()).join(dir),
        None => root().join("target"),
    }
}

/// Where the programs are that building needs and no package manager offers as they must be.
pub(crate) fn tools_dir() -> PathBuf {
    root().join("target/tools")
}
