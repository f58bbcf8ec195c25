//! What compiles and links the programs for the kernel. Two ways lead there; this file knows
//! them, finds which one this machine has, and says what is missing when it has neither.
//!
//! * *Debian*: a compiler and its `core` for the BPF target as packages, and bpf-linker built
//!   against the LLVM of the same release.
//! * *rustup*: a nightly that builds `core` from source (`-Z build-std`), and a bpf-linker that
//!   takes its LLVM from that nightly.
//!
//! Installing is `setup`'s, building `programs`'s business.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

use crate::{repo, run};

/// The target the kernel's programs are compiled for.
pub(crate) const TARGET: &str = "bpfel-unknown-none";
/// Name of the variable that chooses the way.
const CHOICE: &str = "BULKHEAD_EBPF_TOOLCHAIN";

/// The compiler that Debian's package `rustc-web` brings. rustup's are elsewhere.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
/// Release of bpf-linker for Debian's compiler: links with LLVM as a library of the system.
pub(crate) const DEBIAN_LINKER: &str = "0.13.0";
/// Major versions of LLVM that release can be built against.
pub(crate) const DEBIAN_LLVM: [u32; 3] = [23, 22, 21];

/// The nightly we build with. Its LLVM is 22, as [`RUSTUP_LINKER`] wants it.
pub(crate) const NIGHTLY: &str = "nightly-2026-05-20";
/// Release of bpf-linker for a nightly: the last one that takes its LLVM from the compiler, so
/// that none need be installed.
pub(crate) const RUSTUP_LINKER: &str = "0.10.3";
/// The LLVM that release understands.
const RUSTUP_LLVM: u32 = 22;

/// A way to build the programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// Packages of the distribution.
    Debian {
        /// The compiler.
        rustc: PathBuf,
        /// bpf-linker.
        linker: PathBuf,
    },
    /// A nightly with the source of `core`.
    Rustup {
        /// Name of the toolchain.
        nightly: String,
        /// bpf-linker.
        linker: PathBuf,
    },
}

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Packages of the distribution.
    Debian,
    /// A nightly.
    Rustup,
}

impl Way {
    /// What the user has chosen; `None` leaves it to us.
    pub(crate) fn chosen() -> anyhow::Result<Option<Self>> {
        match env::var(CHOICE).as_deref() {
            Err(_) | Ok("") => Ok(None),
            Ok("debian") => Ok(Some(Self::Debian)),
            Ok("rustup") => Ok(Some(Self::Rustup)),
            Ok(other) => bail!("{CHOICE} is {other:?}: write debian or rustup, or leave it out"),
        }
    }

    /// The way, complete, if this machine has it; else what is missing.
    fn find(self) -> Result<Toolchain, String> {
        match self {
            Self::Debian => debian(),
            Self::Rustup => rustup(),
        }
    }
}

/// Finds a way to build.
///
/// # Errors
/// There is none. The text says what is missing for either and how to get it.
pub(crate) fn find() -> anyhow::Result<Toolchain> {
    if let Some(way) = Way::chosen()? {
        return way.find().map_err(|missing| anyhow::anyhow!("{CHOICE} says {way:?}, but {missing}"));
    }
    Way::Debian.find().or_else(|debian| {
        Way::Rustup.find().map_err(|rustup| {
            anyhow::anyhow!(
                "nothing here can build programs for the kernel. `cargo xtask setup` installs what is missing:\n  \
                 with Debian's packages: {debian}\n  with rustup: {rustup}"
            )
        })
    })
}

impl Toolchain {
    /// For people.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Debian { rustc, linker } => format!("{} with {}", rustc.display(), linker.display()),
            Self::Rustup { nightly, linker } => format!("{nightly} (-Z build-std) with {}", linker.display()),
        }
    }

    /// bpf-linker.
    pub(crate) fn linker(&self) -> &Path {
        match self {
            Self::Debian { linker, .. } | Self::Rustup { linker, .. } => linker,
        }
    }

    /// A cargo that builds for [`TARGET`] in this way. Whatever the user has set for the build
    /// of ordinary programs has no say here.
    pub(crate) fn cargo_build(&self) -> Command {
        let mut command = match self {
            Self::Debian { rustc, .. } => {
                let mut command = run::cargo();
                neutral(&mut command);
                // core_intrinsics, for an instruction that no stable function gives on this target.
                command.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
                command.arg("build");
                command
            }
            Self::Rustup { nightly, .. } => {
                let mut command = Command::new("rustup");
                command.current_dir(repo::root());
                run::clean(&mut command);
                neutral(&mut command);
                command.args(["run", nightly, "cargo", "build", "-Z", "build-std=core"]);
                command
            }
        };
        command.args(["--target", TARGET]);
        command
    }
}

/// Removes from the environment what would change how we compile; says no to wrappers that a
/// configuration file may name.
fn neutral(command: &mut Command) {
    const EXACT: [&str; 8] = [
        "RUSTC",
        "RUSTDOC",
        "RUSTFLAGS",
        "RUSTC_BOOTSTRAP",
        "CARGO_BUILD_RUSTC",
        "CARGO_BUILD_RUSTFLAGS",
        "CARGO_BUILD_TARGET",
        "CARGO_BUILD_TARGET_DIR",
    ];
    for name in EXACT {
        command.env_remove(name);
    }
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_TARGET_")
            || text.starts_with("CARGO_PROFILE_")
            || text.starts_with("CARGO_UNSTABLE_")
        {
            command.env_remove(&name);
        }
    }
    // Empty means none (https://doc.rust-lang.org/cargo/reference/config.html#buildrustc-wrapper).
    command.env("RUSTC_WRAPPER", "").env("RUSTC_WORKSPACE_WRAPPER", "");
}

/// Debian's compiler, if it can compile for the BPF target, and its LLVM's major version.
pub(crate) fn debian_rustc() -> Result<(PathBuf, u32), String> {
    let rustc = PathBuf::from(DEBIAN_RUSTC);
    let libdir = run::capture(neutral_rustc(&rustc).args(["--print", "target-libdir", "--target", TARGET]));
    let has_core = libdir.is_ok_and(|dir| has_core(Path::new(dir.trim())));
    if !has_core {
        return Err(format!(
            "{DEBIAN_RUSTC} with `core` for {TARGET} is missing (packages rustc-web and libstd-rust-web-dev-bpf)"
        ));
    }
    let llvm = llvm_major(&mut neutral_rustc(&rustc)).map_err(|error| error.to_string())?;
    Ok((rustc, llvm))
}

fn neutral_rustc(rustc: &Path) -> Command {
    let mut command = Command::new(rustc);
    command.env_remove("LD_LIBRARY_PATH");
    command
}

fn has_core(libdir: &Path) -> bool {
    let Ok(entries) = fs::read_dir(libdir) else { return false };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with("libcore-") && name.ends_with(".rlib")
    })
}

/// The LLVM a compiler carries.
fn llvm_major(rustc: &mut Command) -> anyhow::Result<u32> {
    let text = run::capture(rustc.arg("-vV"))?;
    parse_llvm(&text).with_context(|| format!("`{}` names no LLVM version", run::show(rustc)))
}

fn parse_llvm(version: &str) -> Option<u32> {
    let line = version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    line.split('.').next()?.trim().parse().ok()
}

fn debian() -> Result<Toolchain, String> {
    let (rustc, llvm) = debian_rustc()?;
    let own = debian_linker_root(llvm).join("bin/bpf-linker");
    let library = format!("libLLVM.so.{llvm}");
    let found = [Some(own), run::find("bpf-linker")]
        .into_iter()
        .flatten()
        .find(|linker| linker_version(linker).is_some_and(|it| it == DEBIAN_LINKER) && links_with(linker, &library));
    match found {
        Some(linker) => Ok(Toolchain::Debian { rustc, linker }),
        None => Err(format!("bpf-linker {DEBIAN_LINKER} for LLVM {llvm} is missing")),
    }
}

/// Where `setup` puts bpf-linker for Debian's compiler.
pub(crate) fn debian_linker_root(llvm: u32) -> PathBuf {
    repo::tools_dir().join(format!("bpf-linker-{DEBIAN_LINKER}-llvm-{llvm}"))
}

/// Where `setup` puts bpf-linker for a nightly.
pub(crate) fn rustup_linker_root() -> PathBuf {
    repo::tools_dir().join(format!("bpf-linker-{RUSTUP_LINKER}"))
}

/// A nightly with the source of `core` and the right LLVM: the one we pin, or the user's own.
pub(crate) fn rustup_nightly() -> Result<String, String> {
    let mut why = String::new();
    for nightly in [NIGHTLY, "nightly"] {
        let mut rustc = rustup_run(nightly);
        rustc.arg("rustc");
        let Ok(sysroot) = run::capture(rustc.args(["--print", "sysroot"])) else { continue };
        let source = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core");
        if !source.is_dir() {
            why = format!("; {nightly} is there but lacks the component rust-src");
            continue;
        }
        match llvm_major(rustup_run(nightly).arg("rustc")) {
            Ok(RUSTUP_LLVM) => return Ok(nightly.to_owned()),
            Ok(other) => why = format!("; {nightly} is there but has LLVM {other}, not {RUSTUP_LLVM}"),
            Err(error) => why = format!("; {error}"),
        }
    }
    Err(format!("the toolchain {NIGHTLY} with the component rust-src is missing{why}"))
}

/// `rustup run`, which here must not install what is not there: only `setup` installs.
fn rustup_run(toolchain: &str) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", toolchain]).env("RUSTUP_AUTO_INSTALL", "0").env_remove("LD_LIBRARY_PATH");
    command
}

fn rustup() -> Result<Toolchain, String> {
    let nightly = rustup_nightly()?;
    let own = rustup_linker_root().join("bin/bpf-linker");
    let found = [Some(own), run::find("bpf-linker")].into_iter().flatten().find(|linker| {
        linker_version(linker).is_some_and(|it| it == RUSTUP_LINKER) && !links_with(linker, "libLLVM.so")
    });
    match found {
        Some(linker) => Ok(Toolchain::Rustup { nightly, linker }),
        None => Err(format!("bpf-linker {RUSTUP_LINKER} is missing")),
    }
}

/// The release of a bpf-linker that starts.
fn linker_version(linker: &Path) -> Option<String> {
    let text = run::capture(Command::new(linker).arg("--version").env_remove("LD_LIBRARY_PATH")).ok()?;
    Some(text.trim().rsplit(' ').next()?.to_owned())
}

/// Whether a program is linked with a shared library whose name begins so. Looks for the name
/// where the dynamic linker would, in the file's own text.
fn links_with(program: &Path, library: &str) -> bool {
    fs::read(program).is_ok_and(|bytes| bytes.windows(library.len()).any(|window| window == library.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_llvm_version_is_read_from_what_rustc_says() {
        let text = "rustc 1.96.0 (x 2026-05-25)\nhost: x86_64-unknown-linux-gnu\nLLVM version: 22.1.8\n";
        assert_eq!(parse_llvm(text), Some(22));
        assert_eq!(parse_llvm("rustc 1.96.0"), None);
    }

    #[test]
    fn flags_of_the_user_do_not_reach_the_programs() {
        let toolchain = Toolchain::Debian { rustc: "/usr/bin/rustc".into(), linker: "/x/bpf-linker".into() };
        let command = toolchain.cargo_build();
        let value = |name: &str| command.get_envs().find(|(key, _)| *key == name).map(|(_, value)| value.is_some());
        assert_eq!(value("RUSTFLAGS"), Some(false), "removed");
        assert_eq!(value("CARGO_BUILD_TARGET"), Some(false), "removed");
        assert_eq!(value("RUSTC"), Some(true), "ours");
        let wrapper = command.get_envs().find(|(key, _)| *key == "RUSTC_WRAPPER").and_then(|(_, value)| value);
        assert_eq!(wrapper, Some("".as_ref()), "none, whatever a configuration file says");
    }

    #[test]
    fn a_folder_without_core_cannot_compile() {
        assert!(!has_core(Path::new("/nowhere")));
    }
}
