//! As many random packets as fit into a test run. `cargo xtask differential` goes on for as long as one wants.

use std::time::Duration;

use tests::trial::trial;
use threeway::run::{Run, run};

/// What the seed is today matters to nobody; that it is the same everywhere does.
const SEED: u64 = 1;
const PACKETS: u64 = 200_000;

#[test]
fn three_sides_agree_about_random_packets() {
    trial(|| {
        let options = Run { packets: PACKETS, seed: SEED, patience: Duration::from_secs(40), ..Run::default() };
        match run(&options, |progress| println!("{progress}"))? {
            Ok(progress) => {
                println!("{progress}");
                assert!(progress.packets >= PACKETS);
                // Else nothing was tried: a world in which all is open, or nothing, shows no difference.
                let passed = progress.passed as f64 / progress.packets as f64;
                assert!((0.3..0.8).contains(&passed), "{passed} of all packets have passed");
                Ok(())
            }
            Err(found) => anyhow::bail!("{found}"),
        }
    });
}
