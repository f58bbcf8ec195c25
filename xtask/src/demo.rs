//! `cargo xtask demo`: builds everything, then hands over to the binary `demo` of `tests`, which
//! tells and checks the story.

use std::ffi::OsString;

use crate::{
    kernel::{Profile, Runnable},
    setup::Purpose,
};

const DEMO: Runnable =
    Runnable { package: "tests", bin: "demo", profile: Profile::Debug, purpose: Purpose::Demo, userland: true };

/// Runs it with these arguments.
pub(crate) fn run(arguments: &[OsString]) -> anyhow::Result<()> {
    DEMO.run(arguments)
}
