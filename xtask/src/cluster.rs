//! `cargo xtask cluster`: builds everything, then hands over to the binary `cluster` of `tests`, which has a
//! Kubernetes cluster on this machine.

use std::ffi::OsString;

use crate::{
    kernel::{self, Profile, Runnable},
    run::{self, Privilege},
    setup::Purpose,
};

const CLUSTER: Runnable =
    Runnable { package: "tests", bin: "cluster", profile: Profile::Debug, purpose: Purpose::Cluster, userland: false };

/// Runs it with these arguments.
pub(crate) fn run(arguments: &[OsString]) -> anyhow::Result<()> {
    CLUSTER.run(arguments)
}

/// Builds what a cluster is made of, as root, who has it.
pub(crate) fn prepare(root: Privilege) -> anyhow::Result<()> {
    let mut cargo = run::cargo();
    cargo.args(["run", "--quiet", "--package", "tests", "--bin", "cluster"]);
    kernel::prepare(&mut cargo, root, Profile::Debug)?;
    run::go(cargo.args(["--", "build"]))
}
