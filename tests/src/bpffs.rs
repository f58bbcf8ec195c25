//! A BPF file system of one's own, unmounted on drop: where tests pin maps.

use std::{path::Path, process::Command};

use anyhow::{Context as _, ensure};
use tempfile::TempDir;

/// A mounted BPF file system.
#[derive(Debug)]
pub struct Bpffs(TempDir);

impl Bpffs {
    /// Mounts one. Needs root.
    pub fn new() -> anyhow::Result<Self> {
        let dir = TempDir::with_prefix("bh-bpffs-").context("a folder to mount at")?;
        let output = Command::new("mount").args(["-t", "bpf", "bpf"]).arg(dir.path()).output().context("mount")?;
        ensure!(output.status.success(), "mount: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(Self(dir))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        match Command::new("umount").arg(self.0.path()).status() {
            Ok(status) if status.success() => {}
            other => eprintln!("{} stays mounted: {other:?}", self.0.path().display()),
        }
    }
}
