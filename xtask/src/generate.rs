//! What is generated and committed: Rust code from the .proto files. `--check` fails on drift.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().expect("xtask lies in the repository's root").to_owned()
}

/// Generates everything, or compares with what is there.
pub(crate) fn run(check: bool) -> anyhow::Result<()> {
    let scratch = root().join("target/generated-proto");
    let _ = fs::remove_dir_all(&scratch);
    fs::create_dir_all(&scratch)?;
    protos(&scratch)?;
    settle(&scratch, &root().join("proto/src/generated"), check)
}

/// Compiles every .proto file below `proto/` into `out`.
fn protos(out: &Path) -> anyhow::Result<()> {
    let dir = root().join("proto");
    let mut files = Vec::new();
    for entry in fs::read_dir(&dir)? {
        let path = entry?.path();
        if !path.is_dir() || path.ends_with("src") {
            continue;
        }
        for file in fs::read_dir(path)? {
            let file = file?.path();
            if file.extension().is_some_and(|e| e == "proto") {
                files.push(file);
            }
        }
    }
    files.sort();
    if files.is_empty() {
        return Ok(());
    }
    tonic_prost_build::configure()
        .out_dir(out)
        .emit_rerun_if_changed(false)
        .compile_protos(&files, &[dir])
        .context("compiling proto/: is protobuf-compiler installed?")
}

/// Makes `to` hold what `from` holds, or fails where it does not.
fn settle(from: &Path, to: &Path, check: bool) -> anyhow::Result<()> {
    let mut stale = Vec::new();
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let new = fs::read(entry.path())?;
        let target = to.join(entry.file_name());
        if fs::read(&target).ok().as_ref() == Some(&new) {
            continue;
        }
        if check {
            stale.push(target.display().to_string());
        } else {
            fs::write(&target, new)?;
            println!("wrote {}", target.display());
        }
    }
    for entry in fs::read_dir(to)? {
        let entry = entry?;
        if !from.join(entry.file_name()).exists() {
            if check {
                stale.push(entry.path().display().to_string());
            } else {
                fs::remove_file(entry.path())?;
            }
        }
    }
    if !stale.is_empty() {
        bail!("out of date, run `cargo xtask gen`:\n  {}", stale.join("\n  "));
    }
    Ok(())
}
