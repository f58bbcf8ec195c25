//! `cargo xtask differential`: builds the three-way check optimised, then hands over to it.

use std::ffi::OsString;

use crate::{
    kernel::{Profile, Runnable},
    setup::Purpose,
};

const DIFFERENTIAL: Runnable = Runnable {
    package: "threeway",
    bin: "threeway",
    profile: Profile::Release,
    purpose: Purpose::Test,
    userland: false,
};

/// Runs it with these arguments.
pub(crate) fn run(arguments: &[OsString]) -> anyhow::Result<()> {
    DIFFERENTIAL.run(arguments)
}
