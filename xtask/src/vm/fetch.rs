//! Kernels of Debian's: which package, fetching it, unpacking what is needed of it. What was fetched once is taken
//! again, with or without a network, until somebody asks for a fresh one.

use std::{
    cmp::Ordering,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail, ensure};

use super::kernels::Kernel;
use crate::{repo, run, setup};

/// A kernel that is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Fetched {
    /// The package it came with.
    pub(super) package: String,
    /// The kernel.
    pub(super) image: PathBuf,
    /// The folder with its modules.
    pub(super) modules: PathBuf,
}

/// Where kernels are kept: one folder for each package.
fn store() -> PathBuf {
    repo::target_dir().join("vm/kernels")
}

/// The newest one that was fetched before.
pub(super) fn cached(kernel: &Kernel) -> Option<Fetched> {
    let entries = fs::read_dir(store()).ok()?;
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let name = newest(&kernel.package, names)?;
    opened(&name).ok()
}

/// The kernel, from before or from the package sources.
pub(super) fn get(kernel: &Kernel, fresh: bool) -> anyhow::Result<Fetched> {
    if let Some(found) = cached(kernel).filter(|_| !fresh) {
        return Ok(found);
    }
    let package = offered(kernel)?;
    if let Ok(found) = opened(&package) {
        return Ok(found);
    }
    println!("Fetching {package}");
    let part = store().join(format!("{package}.part"));
    if part.exists() {
        fs::remove_dir_all(&part)?;
    }
    fs::create_dir_all(part.join("root"))?;
    download(&package, &part)?;
    let deb = fs::read_dir(&part)?.flatten().map(|entry| entry.path()).find(|path| ends(path, ".deb"));
    let deb = deb.with_context(|| format!("apt-get has left no package in {}", part.display()))?;
    run::go(Command::new("dpkg-deb").arg("--extract").arg(&deb).arg(part.join("root")))?;
    fs::remove_file(&deb)?;
    // Complete, or not there at all.
    fs::rename(&part, store().join(&package))?;
    opened(&package)
}

fn ends(path: &Path, suffix: &str) -> bool {
    path.to_string_lossy().ends_with(suffix)
}

/// Fetches a package into a folder; brings the lists up to date if they name one that is gone.
fn download(package: &str, folder: &Path) -> anyhow::Result<()> {
    let mut command = Command::new("apt-get");
    command.current_dir(folder).args(["download", "--quiet"]);
    if rustix::process::geteuid().is_root() {
        // Else apt complains that its own user cannot write here.
        command.args(["-o", "APT::Sandbox::User=root"]);
    }
    command.arg(package);
    if run::go(&mut command).is_ok() {
        return Ok(());
    }
    setup::update_lists()?;
    run::go(&mut command).with_context(|| format!("fetching {package}"))
}

/// The newest package that the sources offer.
fn offered(kernel: &Kernel) -> anyhow::Result<String> {
    ensure!(run::find("apt-cache").is_some(), "kernels come as packages of Debian's, and there is no apt-cache here");
    for fresh in [false, true] {
        if fresh {
            setup::update_lists()?;
        }
        let prefix = kernel.package.split('*').next().unwrap_or_default();
        let names = run::capture(Command::new("apt-cache").args(["pkgnames", prefix]))?;
        if let Some(name) = newest(&kernel.package, names.lines().map(str::to_owned)) {
            return Ok(name);
        }
    }
    bail!("no package source offers {}: Debian 12 has it (tests/kernels.toml)", kernel.package)
}

/// What is in the store under this name.
fn opened(package: &str) -> anyhow::Result<Fetched> {
    let root = store().join(package).join("root");
    let boot = fs::read_dir(root.join("boot"))?.flatten().map(|entry| entry.path());
    let image =
        boot.into_iter().find(|path| path.file_name().is_some_and(|it| it.to_string_lossy().starts_with("vmlinuz-")));
    let image = image.with_context(|| format!("{package} has no boot/vmlinuz-*"))?;
    let release = image.file_name().map(|name| name.to_string_lossy().replacen("vmlinuz-", "", 1)).unwrap_or_default();
    // Where /usr is merged, packages say so.
    let modules = ["lib/modules", "usr/lib/modules"].map(|folder| root.join(folder).join(&release));
    let modules = modules.into_iter().find(|folder| folder.is_dir());
    Ok(Fetched {
        package: package.to_owned(),
        modules: modules.with_context(|| format!("{package} has no modules of {release}"))?,
        image,
    })
}

/// The newest of the names that match a pattern with one `*`.
fn newest(pattern: &str, names: impl Iterator<Item = String>) -> Option<String> {
    let (prefix, suffix) = pattern.split_once('*').unwrap_or((pattern, ""));
    let middle = |name: &str| -> Option<String> {
        let rest = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
        // Another flavour has its name here, which no version has.
        (!rest.contains('-') && rest.starts_with(|c: char| c.is_ascii_digit()) || rest.is_empty())
            .then(|| rest.to_owned())
    };
    names
        .filter_map(|name| middle(&name).map(|version| (version, name)))
        .max_by(|(a, _), (b, _)| by_number(a, b))
        .map(|(_, name)| name)
}

/// Compares texts by the numbers in them.
fn by_number(a: &str, b: &str) -> Ordering {
    let numbers = |text: &str| -> Vec<u64> {
        text.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
    };
    numbers(a).cmp(&numbers(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_package_of_the_flavour_is_chosen() {
        let names = [
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.1.0-57-cloud-amd64-unsigned",
            "linux-image-6.1.0-57-amd64",
            "linux-image-6.12.117+deb12-cloud-amd64",
            "linux-image-6.12.99+deb12-cloud-amd64",
            "linux-image-6.12-cloud-amd64",
        ];
        let newest = |pattern: &str| newest(pattern, names.iter().map(|&name| name.to_owned()));
        assert_eq!(newest("linux-image-6.1.0-*-cloud-amd64").as_deref(), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(newest("linux-image-6.12.*-cloud-amd64").as_deref(), Some("linux-image-6.12.117+deb12-cloud-amd64"));
        assert_eq!(newest("linux-image-6.1.0-*-amd64").as_deref(), Some("linux-image-6.1.0-57-amd64"));
        assert_eq!(newest("linux-image-5.10.*-amd64"), None);
    }
}
