//! Puts the object file with the programs to compare with where `path::wrapper` includes it
//! from. As in the daemon: `cargo xtask` names it in `BULKHEAD_FLOOR_OBJECT`, a plain build
//! takes what xtask has left in the target folder.

use std::{env, fs, path::PathBuf};

fn main() {
    println!("cargo::rerun-if-env-changed=BULKHEAD_FLOOR_OBJECT");
    let default = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"))
        .join("../target/ebpf/bpfel-unknown-none/release/bulkhead-floor");
    let object = env::var_os("BULKHEAD_FLOOR_OBJECT").map_or(default, PathBuf::from);
    println!("cargo::rerun-if-changed={}", object.display());
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("bulkhead-floor.o");
    if let Err(error) = fs::copy(&object, &out) {
        println!(
            "cargo::error=no eBPF object at {} ({error}): run `cargo xtask build`, which builds the programs first",
            object.display()
        );
    }
}
