//! Packages of Debian and Ubuntu: what is offered, and installing it. Never removes anything.

use std::{cell::Cell, process::Command};

use anyhow::{Context as _, bail};

use crate::run::{self, Privilege};

/// apt-get, found.
pub(super) struct Apt;

thread_local! {
    /// Lists are brought up to date once per run, and only if something is not in them.
    static UPDATED: Cell<bool> = const { Cell::new(false) };
}

impl Apt {
    /// apt-get, if this is a system that has it.
    pub(super) fn find() -> anyhow::Result<Self> {
        if run::find("apt-get").is_none() || run::find("apt-cache").is_none() {
            bail!("this system has no apt-get (set-up knows Debian 12 and 13, Ubuntu 22.04 and 24.04)");
        }
        Ok(Self)
    }

    /// Which version of a package would be installed.
    fn candidate(package: &str) -> Option<String> {
        let text = run::capture(cache().args(["policy", package])).ok()?;
        parse_candidate(&text)
    }

    /// As [`Apt::candidate`], with fresh lists if the old ones say no.
    fn candidate_or_update(package: &str, floor: Option<(u32, u32)>) -> anyhow::Result<Option<String>> {
        let good =
            |found: &Option<String>| found.as_deref().is_some_and(|it| floor.is_none_or(|floor| at_least(it, floor)));
        let found = Self::candidate(package);
        if good(&found) || UPDATED.get() {
            return Ok(found);
        }
        update(Privilege::find()?)?;
        Ok(Self::candidate(package))
    }

    /// Fails if no package source offers this.
    pub(super) fn must_offer(&self, package: &str, floor: Option<(u32, u32)>) -> anyhow::Result<()> {
        match Self::candidate_or_update(package, floor)? {
            Some(version) if floor.is_none_or(|floor| at_least(&version, floor)) => Ok(()),
            Some(version) => {
                let (major, minor) = floor.unwrap_or_default();
                bail!("{package} is {version} here, wanted {major}.{minor} or newer (the security updates have it)")
            }
            None => bail!("no package source offers {package}"),
        }
    }

    /// Major version of the LLVM that a package depends on.
    pub(super) fn llvm_of(&self, package: &str) -> Option<u32> {
        let text = run::capture(cache().args(["depends", "--recurse", "--important", package])).ok()?;
        parse_llvm(&text)
    }

    /// Fails if installing these would remove something (rustc-web cannot be beside the packages
    /// rustc and rustup).
    pub(super) fn must_not_remove(&self, packages: &[String]) -> anyhow::Result<()> {
        let mut trial = get();
        trial.args(["install", "--simulate", "--no-install-recommends", "--no-remove"]).args(packages);
        run::capture(&mut trial).map(drop).context("they cannot be installed beside what is there")
    }

    /// Brings the lists up to date, once in a run.
    pub(super) fn update(&self) -> anyhow::Result<()> {
        if UPDATED.get() { Ok(()) } else { update(Privilege::find()?) }
    }

    /// Installs packages.
    pub(super) fn install(&self, packages: &[String], root: Privilege) -> anyhow::Result<()> {
        println!("Installing with apt-get: {}", packages.join(" "));
        if packages.iter().any(|package| Self::candidate(package).is_none()) && !UPDATED.get() {
            update(root)?;
        }
        let mut command = as_root(root);
        command.args(["install", "--yes", "--no-install-recommends", "--no-remove"]).args(packages);
        run::go(&mut command).with_context(|| {
            format!("packages could not be installed; `apt-get install {}` shows more", packages.join(" "))
        })
    }
}

fn cache() -> Command {
    // Its words are parsed: English ones.
    let mut command = Command::new("apt-cache");
    command.env("LC_ALL", "C");
    command
}

fn get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("LC_ALL", "C");
    command
}

fn as_root(root: Privilege) -> Command {
    let mut command = root.command("env");
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    command
}

fn update(root: Privilege) -> anyhow::Result<()> {
    println!("Bringing apt's package lists up to date");
    UPDATED.set(true);
    run::go(as_root(root).args(["update", "--quiet"]))
}

fn parse_candidate(policy: &str) -> Option<String> {
    let line = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (line != "(none)").then(|| line.to_owned())
}

/// `libllvm22` somewhere among the dependencies.
fn parse_llvm(depends: &str) -> Option<u32> {
    depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: libllvm")?.split([':', ' ']).next()?.parse().ok())
}

/// Whether a package's version is new enough; an epoch before a colon is no part of it.
fn at_least(version: &str, floor: (u32, u32)) -> bool {
    let upstream = version.split_once(':').map_or(version, |(_, rest)| rest);
    super::version(upstream).is_some_and(|found| found >= floor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_candidate_is_read_from_apts_policy() {
        let text = "rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1~deb12u2\n  Version table:\n";
        assert_eq!(parse_candidate(text).as_deref(), Some("1.96.0+dfsg1-1~deb12u2"));
        assert_eq!(parse_candidate("x:\n  Installed: (none)\n  Candidate: (none)\n"), None);
        assert_eq!(parse_candidate(""), None);
    }

    #[test]
    fn an_old_compiler_is_told_from_a_new_one() {
        assert!(at_least("1.96.0+dfsg1-1~deb12u2", (1, 88)));
        assert!(!at_least("1.85.0+dfsg3-1~deb12u3", (1, 88)));
        assert!(at_least("1:22.1.8-1~deb12u1", (1, 88)));
    }

    #[test]
    fn the_llvm_of_a_package_is_found_among_its_dependencies() {
        let text = "rustc-web\n  Depends: libc6\nlibstd-rust-web-1.96\n  Depends: libllvm22\n  Depends: zlib1g\n";
        assert_eq!(parse_llvm(text), Some(22));
        assert_eq!(parse_llvm("  Depends: libllvm22:amd64\n"), Some(22));
        assert_eq!(parse_llvm("  Depends: libc6\n"), None);
    }
}
