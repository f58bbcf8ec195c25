//! `bulkhead-daemon version`.

use datapath_abi::ABI_VERSION;

/// Oldest kernel, see docs/kernel-policy.md.
pub const KERNEL_FLOOR: &str = "6.1";

/// Version, commit, ABI version, kernel floor: one a line.
pub fn text() -> String {
    format!(
        "bulkhead-daemon {}\ncommit {}\nabi {ABI_VERSION}\nkernel {KERNEL_FLOOR} or later\n",
        env!("CARGO_PKG_VERSION"),
        env!("BULKHEAD_COMMIT")
    )
}
