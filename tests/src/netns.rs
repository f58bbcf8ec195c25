//! Throwaway network namespaces: without a name, so that the kernel removes them together with
//! the process, however it ends.

use std::{
    fs::File,
    io::Write as _,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A network namespace, alive as long as this is.
#[derive(Debug)]
pub struct Netns(OwnedFd);

impl Netns {
    /// Makes a namespace and runs lines of `ip -batch` in it. Needs root and iproute2.
    pub fn new(batch: &str) -> anyhow::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("bh-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        ip(&["netns", "add", &name], "").context("a network namespace (needs root)")?;
        let made = ip(&["-n", &name, "-batch", "-"], batch)
            .and_then(|()| File::open(format!("/run/netns/{name}")).context("opening the namespace"));
        // It lives on by the open file.
        let unnamed = ip(&["netns", "delete", &name], "");
        let file = made?;
        unnamed?;
        Ok(Self(file.into()))
    }

    /// Opens the namespace at a path. It stays when this is dropped.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        Ok(Self(File::open(path).with_context(|| format!("network namespace {}", path.display()))?.into()))
    }

    /// The same once more.
    pub fn try_clone(&self) -> anyhow::Result<Self> {
        Ok(Self(self.0.try_clone().context("network namespace")?))
    }

    /// Moves the calling thread into the namespace until the guard is dropped.
    pub fn enter(&self) -> anyhow::Result<Inside> {
        let home = File::open("/proc/thread-self/ns/net").context("own network namespace")?;
        move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network)).context("entering a namespace")?;
        Ok(Inside { home: home.into(), _thread: std::marker::PhantomData })
    }
}

/// The calling thread is in another namespace.
#[derive(Debug)]
pub struct Inside {
    home: OwnedFd,
    // It is this thread that has to go back.
    _thread: std::marker::PhantomData<*const ()>,
}

impl Drop for Inside {
    fn drop(&mut self) {
        if let Err(error) = move_into_link_name_space(self.home.as_fd(), Some(LinkNameSpaceType::Network)) {
            // Whatever this thread did next would happen in the wrong place.
            eprintln!("cannot leave a network namespace: {error}");
            std::process::abort();
        }
    }
}

/// Runs `ip` with `input`; its error output becomes the error.
pub(crate) fn ip(arguments: &[&str], input: &str) -> anyhow::Result<()> {
    let mut child = Command::new("ip")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting `ip` (package iproute2)")?;
    child.stdin.take().context("stdin of `ip`")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
