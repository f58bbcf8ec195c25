//! `cargo xtask bench NAME`: builds everything optimised, then hands over to `bulkhead-bench`, or for `scale` to the
//! binary of `tests` that has a cluster.

use std::ffi::OsString;

use crate::{
    image,
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

// What is measured is in the image; this only asks and waits.
const SCALE: Runnable =
    Runnable { package: "tests", bin: "scale", profile: Profile::Debug, purpose: Purpose::Cluster, userland: false };

/// Runs it with these arguments, the first of which says what to measure.
pub(crate) fn run(arguments: &[OsString]) -> anyhow::Result<()> {
    let Some((_, rest)) = arguments.split_first().filter(|(name, _)| *name == "scale") else {
        return BENCH.run(arguments);
    };
    if !rest.iter().any(|word| word == "--help" || word == "-h") {
        image::run(&image::Options::release())?;
    }
    SCALE.run(rest)
}
