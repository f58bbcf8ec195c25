//! Tells bpf-linker how to treat small copies. Without this LLVM leaves zeroing a struct and
//! copying one to calls of byte loops instead of a few stores: 45 ns per packet (measured by
//! `bulkhead-bench path`, established, IPv4: 121 ns with the calls, 74 without).

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("bpf") {
        println!("cargo::rustc-link-arg-bins=--disable-expand-memcpy-in-order");
    }
}
