//! The demo: its story comes true, and it cleans up, also when it is interrupted.

use std::{
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tests::{agent, owner, trial::trial};

/// The demo, told where the binaries are.
fn demo() -> anyhow::Result<Command> {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_demo"));
    let folder = agent::binary("bulkhead")?;
    demo.env("BULKHEAD_BIN_DIR", folder.parent().context("a binary lies in a folder")?).stdin(Stdio::null());
    Ok(demo)
}

/// What a process has left under names of its own.
fn left_by(pid: u32) -> Vec<String> {
    let ours = |folder: &str, prefix: &str| owner::names_in(Path::new(folder), &format!("{prefix}bh-{pid}-"));
    [ours(owner::NAMESPACES, ""), ours("/tmp", ""), ours(owner::BPFFS, "bulkhead-")].concat()
}

#[test]
fn every_line_of_the_story_comes_true() {
    trial(|| {
        let child = demo()?.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let pid = child.id();
        let output = child.wait_with_output()?;
        let said = String::from_utf8(output.stdout)? + &String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}:\n{said}", output.status);
        ensure!(said.contains("Every line of this came true"), "{said}");
        for line in
            ["DENIED   street/stranger -> shop/db:5432", "CUT      shop/web -> shop/db:5433", "$ bulkhead explain"]
        {
            ensure!(said.contains(line), "no {line:?} in\n{said}");
        }
        ensure!(!said.contains('\x1b'), "colours where there is no terminal");
        ensure!(left_by(pid).is_empty(), "left behind: {:?}", left_by(pid));
        Ok(())
    });
}

#[test]
fn an_interrupted_demo_cleans_up() {
    trial(|| {
        for (signal, after) in [(Signal::INT, 500), (Signal::TERM, 2500)] {
            let mut child = demo()?.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
            let pid = child.id();
            thread::sleep(Duration::from_millis(after));
            kill_process(Pid::from_raw(pid as i32).context("a process")?, signal)?;
            let status = child.wait()?;
            ensure!(status.code() == Some(130), "after {signal:?}: {status}");
            ensure!(left_by(pid).is_empty(), "left behind after {signal:?}: {:?}", left_by(pid));
        }
        Ok(())
    });
}
