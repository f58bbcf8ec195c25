//! `cargo xtask bench NAME`: builds everything optimised, then hands over to `bulkhead-bench`.

use std::ffi::OsString;

use crate::{
    kernel::{Profile, Runnable},
    setup::Purpose,
};

const BENCH: Runnable = Runnable {
    package: "bench",
    bin: "bulkhead-bench",
    profile: Profile::Release,
    purpose: Purpose::Bench,
    userland: true,
};

/// Runs it with these arguments, the first of which says what to measure.
pub(crate) fn run(arguments: &[OsString]) -> anyhow::Result<()> {
    BENCH.run(arguments)
}
