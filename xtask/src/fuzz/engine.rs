//! The binary with all targets and libFuzzer in it: building it with the counters that guide the
//! fuzzer, and asking it what it has.
//!
//! Our crates are compiled with LLVM's coverage instrumentation by a wrapper around rustc that cargo
//! uses for members of a workspace alone. What comes from others is the same as in every other
//! build, and is not compiled again; what is generic of it is instrumented where it is used.

use std::{
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use super::folder;
use crate::{repo, run};

/// The wrapper. All of its flags are those of a stable compiler; what the passes mean:
/// https://clang.llvm.org/docs/SanitizerCoverage.html. Overflow checks and debug assertions stay
/// those of the profile, which is `dev`.
const WRAPPER: &str = r#"#!/bin/sh
# Compiles a crate with counters for libFuzzer. Written by `cargo xtask fuzz`.
case " $* " in
# Runs while cargo builds, without libFuzzer.
*" --crate-name build_script_"*) exec "$@" ;;
# rustc is only asked for its version.
*" --crate-name "*) ;;
*) exec "$@" ;;
esac
# Where inputs spend their time. The rest would cost more to compile than it wins.
case " $* " in
*" --crate-name datapath_"* | *" --crate-name objects "* | *" --crate-name cni_plugin "* | \
    *" --crate-name flows "* | *" --crate-name fuzz "*) speed=1 ;;
*) speed=0 ;;
esac
exec "$@" -C opt-level=$speed -C passes=sancov-module \
    -C llvm-args=-sanitizer-coverage-level=4 \
    -C llvm-args=-sanitizer-coverage-inline-8bit-counters \
    -C llvm-args=-sanitizer-coverage-pc-table \
    -C llvm-args=-sanitizer-coverage-trace-compares
"#;

/// The binary, built.
#[derive(Debug)]
pub(super) struct Engine {
    binary: PathBuf,
    start: PathBuf,
}

impl Engine {
    /// Builds it and has it write what the targets start from.
    pub(super) fn build() -> anyhow::Result<Self> {
        let mut cargo = run::cargo();
        cargo.args(["build", "--package", "fuzz", "--bin", "bulkhead-fuzz", "--features", "engine"]);
        cargo.env("RUSTC_WORKSPACE_WRAPPER", wrapper()?);
        run::go(&mut cargo).context("building the fuzzer")?;
        let engine = Self { binary: repo::target_dir().join("debug/bulkhead-fuzz"), start: folder().join("start") };
        let _ = fs::remove_dir_all(&engine.start);
        run::capture(engine.command().env("BULKHEAD_FUZZ_PREPARE", &engine.start)).context("preparing the targets")?;
        Ok(engine)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        run::clean(&mut command);
        // libFuzzer's own stack traces need a symbolizer; the panic's message has the place.
        command.env("RUST_BACKTRACE", "0");
        command
    }

    /// libFuzzer for one target.
    pub(super) fn fuzzer(&self, target: &str) -> Command {
        let mut command = self.command();
        command.env("BULKHEAD_FUZZ_TARGET", target);
        command
    }

    /// Names of all targets.
    pub(super) fn targets(&self) -> anyhow::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.start).with_context(|| format!("reading {}", self.start.display()))? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    /// What a target starts from.
    pub(super) fn start(&self, target: &str) -> PathBuf {
        self.start.join(target)
    }

    /// Runs a target on one file. Fails if it breaks the target.
    pub(super) fn replay(&self, target: &str, input: &Path) -> anyhow::Result<()> {
        run::go(self.fuzzer(target).env("RUST_BACKTRACE", "1").arg(input))?;
        println!("{target}: {} does no harm", input.display());
        Ok(())
    }
}

/// Writes the wrapper. Its name changes with its content: cargo looks at nothing else to see that
/// crates must be compiled again.
fn wrapper() -> anyhow::Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    WRAPPER.hash(&mut hasher);
    let path = folder().join(format!("rustc-{:016x}.sh", hasher.finish()));
    fs::create_dir_all(folder())?;
    if !fs::read_to_string(&path).is_ok_and(|text| text == WRAPPER) {
        // In one step: another run may be about to use it.
        let unfinished = path.with_extension(format!("{}", std::process::id()));
        fs::write(&unfinished, WRAPPER)?;
        fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o755))?;
        fs::rename(&unfinished, &path).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(path)
}
