//! `bulkhead-cni`: the binary that container runtimes call. All of it is in the library.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    cni_plugin::run()
}
