//! Puts the object file with the eBPF programs where `datapath::load` includes it from.
//!
//! `cargo xtask` builds the object first and names it in `BULKHEAD_EBPF_OBJECT`; a plain
//! `cargo build` takes the one that xtask has left in the target folder.

use std::{env, fs, path::PathBuf, process::Command};

fn main() {
    println!("cargo::rerun-if-env-changed=BULKHEAD_EBPF_OBJECT");
    let default = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"))
        .join("../target/ebpf/bpfel-unknown-none/release/bulkhead-datapath");
    let object = env::var_os("BULKHEAD_EBPF_OBJECT").map_or(default, PathBuf::from);
    println!("cargo::rerun-if-changed={}", object.display());
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("bulkhead-datapath.o");
    if let Err(error) = fs::copy(&object, &out) {
        println!(
            "cargo::error=no eBPF object at {} ({error}): run `cargo xtask build`, which builds the programs first",
            object.display()
        );
    }
    println!("cargo::rerun-if-env-changed=BULKHEAD_COMMIT");
    let commit = env::var("BULKHEAD_COMMIT").ok().or_else(checked_out).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=BULKHEAD_COMMIT={commit}");
}

/// The commit that was checked out when this was built for the first time.
fn checked_out() -> Option<String> {
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
    Some(text.trim().to_owned())
}
