//! Network namespaces with a name, as container runtimes make them: the CNI plugin gets their path.
//! For those without a name see `netns`.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};

use crate::{
    netns::{Inside, Netns, ip},
    owner,
};

/// A namespace that goes, with its name, when this is dropped.
#[derive(Debug)]
pub struct Sandbox {
    name: String,
    netns: Netns,
}

impl Sandbox {
    /// With a name of our own; runs lines of `ip -batch` in it.
    pub fn new(batch: &str) -> anyhow::Result<Self> {
        Self::named(&owner::fresh_name(), batch)
    }

    /// With this name.
    pub fn named(name: &str, batch: &str) -> anyhow::Result<Self> {
        ip(&["netns", "add", name], "")?;
        let made = Netns::open(&path(name)).and_then(|netns| {
            let sandbox = Self { name: name.to_owned(), netns };
            sandbox.ip(batch)?;
            Ok(sandbox)
        });
        if made.is_err() {
            let _ = ip(&["netns", "delete", name], "");
        }
        made
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its path, for CNI_NETNS.
    pub fn path(&self) -> PathBuf {
        path(&self.name)
    }

    /// Moves the calling thread into it until the guard is dropped. Sockets and processes that are
    /// made meanwhile stay in it.
    pub fn enter(&self) -> anyhow::Result<Inside> {
        self.netns.enter()
    }

    /// Runs lines of `ip -batch` in it.
    pub fn ip(&self, batch: &str) -> anyhow::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let _inside = self.enter()?;
        ip(&["-batch", "-"], batch)
    }

    /// What a program prints that runs in it, and must succeed.
    ///
    /// # Errors
    /// It cannot be started, or fails: then with what it says of that.
    pub fn said(&self, program: impl AsRef<OsStr>, arguments: &[&str]) -> anyhow::Result<String> {
        let program = program.as_ref();
        let output = {
            let _inside = self.enter()?;
            Command::new(program).args(arguments).output().with_context(|| format!("starting {program:?}"))?
        };
        ensure!(output.status.success(), "{program:?} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Takes its name away, as a crashed runtime or a reboot of it would: nothing finds it by its
    /// path any more. Goes for good when the last process and socket in it has gone.
    pub fn vanish(self) {
        drop(self);
    }

    /// Lets it stay when this is dropped.
    pub fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if let Err(error) = ip(&["netns", "delete", &self.name], "")
            && self.path().exists()
        {
            eprintln!("left behind: network namespace {}: {error:#}", self.name);
        }
    }
}

fn path(name: &str) -> PathBuf {
    Path::new(owner::NAMESPACES).join(name)
}
