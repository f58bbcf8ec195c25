//! Makes this machine able to do what is asked: says what is missing and what for, and installs
//! that and nothing else. What is there already, from wherever, is left alone.

mod apt;
pub(crate) mod go;
mod need;
mod python;

use std::{fs, process::Command};

use anyhow::{Context as _, bail};
use clap::ValueEnum;

use self::{apt::Apt, need::Need};
use crate::{
    run::{self, Privilege},
    toolchain::{self, Way},
};

/// What the machine is set up for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Purpose {
    /// Compile everything
    Build,
    /// Run the demo
    Demo,
    /// Run all tests
    Test,
    /// Run the fuzzer
    Fuzz,
    /// Run the benchmarks, with the programs we compare ourselves to
    Bench,
    /// Run tests on other kernels
    Vm,
    /// Have a Kubernetes cluster
    Cluster,
}

/// The oldest kernel that the programs load on, see docs/kernel-policy.md.
const KERNEL_FLOOR: (u32, u32) = (6, 1);

/// `cargo xtask setup`.
pub(crate) fn run(purpose: Purpose) -> anyhow::Result<()> {
    let name = purpose.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
    println!("Set-up for `{name}` on {}", system());
    if !matches!(purpose, Purpose::Build | Purpose::Fuzz | Purpose::Vm) {
        check_kernel()?;
    }
    let missing: Vec<&Need> = need::all(purpose).filter(|need| !need.report()).collect();
    let mut packages: Vec<String> = missing.iter().map(|need| need.package.to_owned()).collect();
    let found = toolchain::find();
    match &found {
        Ok(toolchain) => println!("  there    {:<28} eBPF programs: {}", "eBPF toolchain", toolchain.describe()),
        Err(_) => println!("  missing  {:<28} compiles and links the programs for the kernel", "eBPF toolchain"),
    }
    let components = missing_components(purpose);
    let lacks_go = matches!(purpose, Purpose::Cluster | Purpose::Test) && !go::report();
    let lacks_readers = purpose == Purpose::Test && !python::report();
    if packages.is_empty() && found.is_ok() && components.is_empty() && !lacks_go && !lacks_readers {
        println!("Nothing to install.");
        return Ok(());
    }

    let way = if found.is_ok() { None } else { Some(choose_way()?) };
    if let Some(Plan::Debian { packages: more, .. }) = &way {
        packages.extend(more.iter().cloned());
    }
    if !packages.is_empty() {
        let apt = Apt::find().with_context(|| {
            format!("there is no apt-get here: install what these packages of Debian's hold: {}", packages.join(" "))
        })?;
        apt.install(&packages, Privilege::find()?)?;
    }
    if lacks_go {
        go::install()?;
    }
    if lacks_readers {
        python::install()?;
    }
    for component in components {
        println!("Installing rustup's component {component} (style and lints)");
        run::go(Command::new("rustup").args(["component", "add", component]))?;
    }
    if let Some(way) = way {
        way.finish()?;
    }
    for need in missing {
        if !need.is_there() {
            bail!("package {} is installed, yet {} is still not there", need.package, need.probe);
        }
    }
    let toolchain = toolchain::find()?;
    println!("eBPF programs: {}", toolchain.describe());
    println!("Set-up done.");
    Ok(())
}

/// Brings the lists of what packages there are up to date, once in a run.
pub(crate) fn update_lists() -> anyhow::Result<()> {
    Apt::find()?.update()
}

/// How the eBPF toolchain will be installed.
enum Plan {
    /// Packages, then bpf-linker.
    Debian { packages: Vec<String> },
    /// A nightly, then bpf-linker.
    Rustup,
}

/// Chooses what can be had here.
fn choose_way() -> anyhow::Result<Plan> {
    let chosen = Way::chosen()?;
    let mut why = Vec::new();
    if chosen != Some(Way::Rustup) {
        match debian_packages() {
            Ok(packages) => return Ok(Plan::Debian { packages }),
            Err(error) => why.push(format!("Debian's packages: {error}")),
        }
    }
    if chosen != Some(Way::Debian) {
        if run::find("rustup").is_some() {
            return Ok(Plan::Rustup);
        }
        why.push("rustup: the program rustup is not in PATH (https://rustup.rs)".to_owned());
    }
    bail!("no way to get a compiler for the kernel's programs:\n  {}", why.join("\n  "))
}

/// The packages of the Debian way that are not installed.
fn debian_packages() -> anyhow::Result<Vec<String>> {
    let mut packages = Vec::new();
    let llvm = match toolchain::debian_rustc() {
        Ok((_, llvm)) => Some(llvm),
        Err(_) => {
            let apt = Apt::find()?;
            apt.must_offer("rustc-web", Some(need::RUSTC_FLOOR))?;
            apt.must_offer("libstd-rust-web-dev-bpf", Some(need::RUSTC_FLOOR))?;
            packages.extend(["rustc-web".to_owned(), "libstd-rust-web-dev-bpf".to_owned()]);
            apt.llvm_of("rustc-web")
        }
    };
    let llvm = llvm.filter(|llvm| toolchain::DEBIAN_LLVM.contains(llvm));
    let llvm = llvm.context("bpf-linker cannot be built against its LLVM")?;
    let dev = format!("llvm-{llvm}-dev");
    if !fs::exists(llvm_prefix(llvm))? {
        Apt::find()?.must_offer(&dev, None)?;
        packages.push(dev);
    }
    if !packages.is_empty() {
        Apt::find()?.must_not_remove(&packages)?;
    }
    Ok(packages)
}

/// Where Debian puts an LLVM with its headers.
fn llvm_prefix(llvm: u32) -> String {
    format!("/usr/lib/llvm-{llvm}/include/llvm-c")
}

impl Plan {
    /// What comes after the packages.
    fn finish(&self) -> anyhow::Result<()> {
        let mut install = run::cargo();
        match self {
            Self::Debian { .. } => {
                let (_, llvm) = toolchain::debian_rustc().map_err(anyhow::Error::msg)?;
                println!("Compiling bpf-linker {} for LLVM {llvm}: about a minute", toolchain::DEBIAN_LINKER);
                install.env("LLVM_PREFIX", format!("/usr/lib/llvm-{llvm}"));
                install.args(["install", "bpf-linker", "--locked", "--version", toolchain::DEBIAN_LINKER]);
                install.args(["--no-default-features", "--features", &format!("llvm-{llvm}"), "--root"]);
                install.arg(toolchain::debian_linker_root(llvm));
            }
            Self::Rustup => {
                if toolchain::rustup_nightly().is_err() {
                    println!("Installing {} with the source of core, beside your own toolchain", toolchain::NIGHTLY);
                    run::go(Command::new("rustup").args([
                        "toolchain",
                        "install",
                        toolchain::NIGHTLY,
                        "--profile",
                        "minimal",
                        "--component",
                        "rust-src",
                    ]))?;
                }
                println!("Compiling bpf-linker {}: a few minutes", toolchain::RUSTUP_LINKER);
                install.args(["install", "bpf-linker", "--locked", "--version", toolchain::RUSTUP_LINKER, "--root"]);
                install.arg(toolchain::rustup_linker_root());
            }
        }
        // Not the user's flags, and not into the user's own folder of programs.
        for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_TARGET_DIR", "CARGO_BUILD_TARGET"] {
            install.env_remove(name);
        }
        run::go(&mut install).context("bpf-linker")
    }
}

/// rustup's components that are missing. Nobody's business without rustup.
fn missing_components(purpose: Purpose) -> Vec<&'static str> {
    if purpose != Purpose::Test || run::find("rustup").is_none() {
        return Vec::new();
    }
    let present = |subcommand: &str| run::quiet(run::cargo().args([subcommand, "--version"]));
    let wanted = [("clippy", "clippy"), ("rustfmt", "fmt")];
    wanted.into_iter().filter(|(_, subcommand)| !present(subcommand)).map(|(component, _)| component).collect()
}

/// The kernel must be one the programs load on.
fn check_kernel() -> anyhow::Result<()> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("the running kernel's version")?;
    let release = release.trim();
    let (major, minor) = KERNEL_FLOOR;
    match version(release) {
        Some(running) if running < KERNEL_FLOOR => bail!(
            "this machine runs Linux {release}; Bulkhead's programs need {major}.{minor} or newer. \
             On Ubuntu 22.04 `sudo apt-get install linux-generic-hwe-22.04` and a restart bring one"
        ),
        Some(_) => println!("  there    {:<28} Linux {release}, at least {major}.{minor}", "kernel"),
        None => println!("  unknown  {:<28} Linux {release:?}; wanted at least {major}.{minor}", "kernel"),
    }
    if !fs::exists("/sys/kernel/btf/vmlinux").unwrap_or(false) {
        bail!("this kernel says nothing about its types (no /sys/kernel/btf/vmlinux): it needs CONFIG_DEBUG_INFO_BTF");
    }
    Ok(())
}

/// Major and minor version at the start of a text.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Which system this is, for people.
fn system() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "an unknown system".to_owned(), |name| name.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_are_compared_by_number() {
        assert_eq!(version("6.1.0-44-amd64"), Some((6, 1)));
        assert_eq!(version("5.15.0-91-generic"), Some((5, 15)));
        assert_eq!(version("6.18.5"), Some((6, 18)));
        assert_eq!(version("unknown"), None);
        assert!(version("6.10.1") > version("6.2.0"));
    }
}
