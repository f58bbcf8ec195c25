//! A Go that builds Kubernetes, for the test cluster. Debian's is too old for that, but any Go fetches a
//! newer one, which is a module like others, checked against the public log of checksums.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

use super::apt::Apt;
use crate::run::{self, Privilege};

/// The oldest that builds it: `go` in tests/cluster/kubernetes/go.mod.
const FLOOR: u32 = 26;
/// What is fetched where there is none.
const VERSION: &str = "go1.26.4";

/// Says whether there is one that is new enough.
pub(super) fn report() -> bool {
    let found = find();
    let state = if found.is_some() { "there" } else { "missing" };
    println!("  {state:<8} {:<28} builds Kubernetes for the test cluster", format!("Go 1.{FLOOR} or newer"));
    found.is_some()
}

/// Fetches one, with whatever Go there is, or Debian's.
pub(super) fn install() -> anyhow::Result<()> {
    let go = match any() {
        Some(go) => go,
        None => {
            Apt::find()?.install(&["golang-go".to_owned()], Privilege::find()?)?;
            any().context("the package golang-go is installed, yet there is no `go`")?
        }
    };
    println!("Fetching {VERSION} with {}", go.display());
    let module = format!("golang.org/toolchain@v0.0.1-{VERSION}.linux-{}", architecture()?);
    let mut command = Command::new(&go);
    command.env("GOFLAGS", "-mod=mod").args(["mod", "download", &module]);
    // Outside of any module.
    command.current_dir(std::env::temp_dir());
    run::go(&mut command).with_context(|| format!("fetching {module}"))?;
    let folder = modules(&go)?.join(&module);
    // A module has no programs; this one is to have some. Its files may not be written to.
    for sub in ["bin", &format!("pkg/tool/linux_{}", architecture()?)] {
        for entry in fs::read_dir(folder.join(sub))? {
            let path = entry?.path();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o555))
                .with_context(|| format!("making {} a program", path.display()))?;
        }
    }
    match find() {
        Some(go) => {
            println!("Go: {}", go.display());
            Ok(())
        }
        None => bail!("{} is fetched, yet does not run", folder.display()),
    }
}

/// One that is new enough.
pub(crate) fn find() -> Option<PathBuf> {
    let fetched = any().and_then(|go| {
        let module = format!("golang.org/toolchain@v0.0.1-{VERSION}.linux-{}", architecture().ok()?);
        Some(modules(&go).ok()?.join(module).join("bin/go"))
    });
    let places = run::find("go").into_iter().chain([PathBuf::from("/usr/local/go/bin/go")]).chain(fetched);
    places.into_iter().find(|go| minor(go).is_some_and(|minor| minor >= FLOOR))
}

fn any() -> Option<PathBuf> {
    run::find("go").or_else(|| Some(PathBuf::from("/usr/local/go/bin/go")).filter(|go| go.is_file()))
}

fn modules(go: &Path) -> anyhow::Result<PathBuf> {
    Ok(PathBuf::from(run::capture(Command::new(go).args(["env", "GOMODCACHE"]))?.trim()))
}

fn minor(go: &Path) -> Option<u32> {
    if !go.is_file() {
        return None;
    }
    // Its own version, not that of one it would fetch.
    let said = run::capture(Command::new(go).env("GOTOOLCHAIN", "local").arg("version")).ok()?;
    said.split_whitespace().find_map(|word| word.strip_prefix("go1."))?.split('.').next()?.parse().ok()
}

/// This machine's, in Go's words.
fn architecture() -> anyhow::Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => bail!("no Go is known for {other}: install one yourself"),
    }
}
