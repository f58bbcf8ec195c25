//! Ctrl-C. What runs looks now and then whether somebody wants it to end, and everything is taken away on the way out.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::ensure;
use tokio::signal::unix::{SignalKind, signal};

/// Status of a program that SIGINT ends, as a shell says it.
const INTERRUPTED: i32 = 130;

static WANTED: AtomicBool = AtomicBool::new(false);

/// Listens. A second signal ends the program at once; the kernel then ends what is in the cluster's namespaces.
pub(crate) fn listen() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        let _inside = runtime.enter();
        [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?]
    };
    thread::spawn(move || {
        runtime.block_on(async {
            let [interrupt, terminate] = &mut signals;
            loop {
                tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
                if WANTED.swap(true, Ordering::Relaxed) {
                    std::process::exit(INTERRUPTED);
                }
                eprintln!("interrupted: taking the cluster away");
            }
        });
    });
    Ok(())
}

/// Fails if somebody wants the program to end.
pub(crate) fn check() -> anyhow::Result<()> {
    ensure!(!WANTED.load(Ordering::Relaxed), "interrupted");
    Ok(())
}

/// Sleeps, unless somebody wants the program to end.
pub(crate) fn sleep(time: Duration) -> anyhow::Result<()> {
    let end = Instant::now() + time;
    loop {
        check()?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(Duration::from_millis(100)));
    }
}
