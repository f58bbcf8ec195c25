//! Tells the binary which commit it is built from: BULKHEAD_COMMIT if set (packages, source
//! archives), else what git says, else nothing. Never fails a build.

use std::{env, process::Command};

fn main() {
    println!("cargo::rerun-if-env-changed=BULKHEAD_COMMIT");
    // The reflog of HEAD changes with every commit and every switch of branches.
    match git(&["rev-parse", "--path-format=absolute", "--git-path", "logs/HEAD"]) {
        Some(log) => println!("cargo::rerun-if-changed={log}"),
        None => println!("cargo::rerun-if-changed=build.rs"),
    }
    let commit = env::var("BULKHEAD_COMMIT").ok().or_else(|| git(&["rev-parse", "--short=12", "HEAD"]));
    println!("cargo::rustc-env=BULKHEAD_BUILD_COMMIT={}", commit.unwrap_or_default());
}

/// One line of git's answer, if git is there and knows.
fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let line = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !line.is_empty()).then_some(line)
}
