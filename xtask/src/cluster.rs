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

/// Commands to a cluster that is up: everything is built, and what they print is for programs, too.
const TO_ONE_THAT_IS_UP: [&str; 5] = ["down", "import", "kubectl", "shell", "status"];

/// Runs it with these arguments.
pub(crate) fn run(arguments: &[OsString]) -> anyhow::Result<()> {
    let first = arguments.first().and_then(|word| word.to_str());
    if first.is_some_and(|word| TO_ONE_THAT_IS_UP.contains(&word)) {
        match CLUSTER.run_again(arguments)? {}
    }
    CLUSTER.run(arguments)
}

/// Builds what a cluster is made of, as root, who has it.
pub(crate) fn prepare(root: Privilege) -> anyhow::Result<()> {
    let mut cargo = run::cargo();
    cargo.args(["run", "--quiet", "--package", "tests", "--bin", "cluster"]);
    kernel::prepare(&mut cargo, root, Profile::Debug)?;
    run::go(cargo.args(["--", "build"]))
}
