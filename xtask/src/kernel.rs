//! Running what needs a kernel: as root, with the binaries built, told where they are. Demo,
//! benchmark and kernel tests share this.
//!
//! What they are told, as environment variables:
//!
//! * `BULKHEAD_BIN_DIR`: the folder with `bulkhead-daemon`, `bulkhead-cni` and `bulkhead`.
//! * `BULKHEAD_IMAGE`: where `cargo xtask image` puts the container image.
//! * `BULKHEAD_GO`: a Go that builds Kubernetes, if there is one.
//! * `BULKHEAD_KERNEL_TESTS=required`: we are root on a kernel that can; a test that finds
//!   otherwise has failed, and has no reason to skip.

use std::{convert::Infallible, ffi::OsString, process::Command};

use anyhow::{Context as _, bail};

use crate::{
    programs,
    run::{self, Privilege},
    setup::{self, Purpose},
};

/// Debug or optimised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Profile {
    /// Quick to build.
    Debug,
    /// What one measures.
    Release,
}

/// A binary of the workspace that is run as root.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Runnable {
    /// The package it is in.
    pub(crate) package: &'static str,
    /// Its name.
    pub(crate) bin: &'static str,
    /// How it, and the rest, is built.
    pub(crate) profile: Profile,
    /// What to set the machine up for.
    pub(crate) purpose: Purpose,
    /// Whether it starts the binaries that a user installs.
    pub(crate) userland: bool,
}

impl Runnable {
    /// Sets up, builds everything, runs it where the user is, with these arguments.
    pub(crate) fn run(self, arguments: &[OsString]) -> anyhow::Result<()> {
        let Self { package, bin, profile, purpose, userland } = self;
        if !has_bin(package, bin)? {
            bail!("this version has no {bin}: the package {package} has no binary of that name");
        }
        setup::run(purpose)?;
        let root = Privilege::find()?;
        root.keep_alive();
        programs::ebpf()?;
        if userland {
            programs::userland(profile == Profile::Release)?;
        }
        run::go(&mut self.command(root, arguments)?)
    }

    /// As [`Runnable::run`], where that has set up and built everything before: says nothing of its own, and ends
    /// this program as what it runs has ended.
    pub(crate) fn run_again(self, arguments: &[OsString]) -> anyhow::Result<Infallible> {
        let root = Privilege::find()?;
        let mut command = self.command(root, arguments)?;
        let status = command.status().with_context(|| format!("starting `{}`", run::show(&command)))?;
        std::process::exit(status.code().unwrap_or(1))
    }

    /// Cargo that runs it.
    fn command(self, root: Privilege, arguments: &[OsString]) -> anyhow::Result<Command> {
        let Self { package, bin, profile, .. } = self;
        let mut cargo = run::cargo();
        // Files that the user names lie where the user is.
        cargo.current_dir(std::env::current_dir()?);
        cargo.args(["run", "--quiet", "--manifest-path"]).arg(crate::repo::root().join("Cargo.toml"));
        cargo.args(["--package", package, "--bin", bin]);
        if profile == Profile::Release {
            cargo.arg("--release");
        }
        prepare(&mut cargo, root, profile)?;
        cargo.arg("--").args(arguments);
        Ok(cargo)
    }
}

/// Makes cargo run what it builds as root, and tells that where things are.
pub(crate) fn prepare(cargo: &mut Command, root: Privilege, profile: Profile) -> anyhow::Result<()> {
    cargo.env("BULKHEAD_BIN_DIR", programs::bin_dir(profile == Profile::Release));
    cargo.env("BULKHEAD_IMAGE", crate::image::archive());
    cargo.env("BULKHEAD_KERNEL_TESTS", "required");
    if let Some(go) = setup::go::find() {
        cargo.env("BULKHEAD_GO", go);
    }
    root.run_as_root(cargo)
}

/// Whether a package has such a binary.
fn has_bin(package: &str, bin: &str) -> anyhow::Result<bool> {
    let mut command = cargo_metadata::MetadataCommand::new();
    let metadata = command.manifest_path(crate::repo::root().join("Cargo.toml")).no_deps().exec()?;
    Ok(metadata
        .workspace_packages()
        .iter()
        .any(|it| it.name.as_str() == package && it.targets.iter().any(|target| target.is_bin() && target.name == bin)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binary_that_is_not_there_is_noticed() {
        assert!(has_bin("cli", "bulkhead").unwrap());
        assert!(!has_bin("cli", "bulkhead-daemon").unwrap());
    }
}
