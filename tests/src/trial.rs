//! One test that needs root: whether it may run here, and what a daemon said when it fails.

use std::{
    cell::RefCell,
    env,
    io::{self, Write as _},
};

thread_local! {
    /// Ends of the logs of daemons that this test had.
    static LOGS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Runs a test, or says that it was skipped. Fails where it may not be skipped: in continuous
/// integration, and where `cargo xtask test` has said that everything needed is there.
pub fn trial(test: impl FnOnce() -> anyhow::Result<()>) {
    if !rustix::process::geteuid().is_root() {
        let required = env::var("CI").is_ok_and(|value| value == "true")
            || env::var("BULKHEAD_KERNEL_TESTS").is_ok_and(|value| value == "required");
        assert!(!required, "needs root, and must not be skipped here");
        // Past the capture of test output: a skipped test must not look like a passed one.
        let _ = writeln!(io::stderr(), "skipped: needs root");
        return;
    }
    if let Err(error) = test() {
        let logs = LOGS.with_borrow_mut(std::mem::take).join("\n");
        panic!("{error:#}\n{logs}");
    }
}

/// Keeps the end of a daemon's log for the case that the test fails.
pub(crate) fn remember(log: String) {
    LOGS.with_borrow_mut(|logs| logs.push(log));
}
