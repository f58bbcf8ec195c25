//! `cargo xtask cluster`: builds everything, then hands over to the binary `cluster` of `tests`, which has a
//! Kubernetes cluster on this machine.

use std::ffi::OsString;

use crate::{
    kernel::{Profile, Runnable},
    setup::Purpose,
};

const CLUSTER: Runnable =
    Runnable { package: "tests", bin: "cluster", profile: Profile::Debug, purpose: Purpose::Cluster, userland: true };

/// Runs it with these arguments.
pub(crate) fn run(arguments: &[OsString]) -> anyhow::Result<()> {
    CLUSTER.run(arguments)
}
