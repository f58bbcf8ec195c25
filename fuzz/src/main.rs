//! The engine: libFuzzer around one target. Started by `cargo xtask fuzz`, which names the target
//! in `BULKHEAD_FUZZ_TARGET`; the arguments are libFuzzer's own.
//!
//! With `BULKHEAD_FUZZ_PREPARE` it writes what each target starts from into that folder, and fuzzes
//! nothing: one binary for everything keeps the build short.
#![no_main]

use std::{env, path::Path, process, sync::OnceLock};

use fuzz::Target;
use libfuzzer_sys::fuzz_target;

static TARGET: OnceLock<Target> = OnceLock::new();

fn target() -> &'static Target {
    TARGET.get_or_init(|| {
        let name = env::var("BULKHEAD_FUZZ_TARGET").unwrap_or_default();
        fuzz::target(&name).unwrap_or_else(|| {
            let names: Vec<&str> = fuzz::TARGETS.iter().map(|target| target.name).collect();
            eprintln!("BULKHEAD_FUZZ_TARGET is {name:?}: want one of {}", names.join(", "));
            process::exit(64);
        })
    })
}

/// Before libFuzzer looks at its arguments.
fn start() {
    let Some(folder) = env::var_os("BULKHEAD_FUZZ_PREPARE") else { return };
    for target in fuzz::TARGETS {
        let folder = Path::new(&folder).join(target.name);
        if let Err(error) = target.prepare(&folder) {
            eprintln!("writing to {}: {error}", folder.display());
            process::exit(1);
        }
    }
    process::exit(0);
}

fuzz_target!(init: start(), |bytes: &[u8]| (target().run)(bytes));
