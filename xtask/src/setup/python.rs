//! DuckDB and Polars, which read what we write in a test, from PyPI into a folder of their own outside the repository.
//! Whoever cannot have them has that test skipped, but not in continuous integration.

use std::{env, path::PathBuf, process::Command};

use anyhow::Context as _;

use crate::run;

/// What is installed.
const PACKAGES: [&str; 2] = ["duckdb", "polars"];

/// Where: history/tests/readers looks there as well.
fn folder() -> Option<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    Some(cache.or_else(|| env::home_dir().map(|home| home.join(".cache")))?.join("bulkhead/readers"))
}

/// Says whether they are there.
pub(super) fn report() -> bool {
    let there = folder().is_some_and(|folder| {
        let mut python = Command::new(folder.join("bin/python"));
        python.args(["-c", "import duckdb, polars"]).output().is_ok_and(|output| output.status.success())
    });
    let state = if there { "there" } else { "missing" };
    println!("  {state:<8} {:<28} read files of the flow history in a test", PACKAGES.join(", "));
    there
}

/// Fetches them.
pub(super) fn install() -> anyhow::Result<()> {
    let folder = folder().context("neither XDG_CACHE_HOME nor HOME says where a cache may be")?;
    println!("Fetching {} into {}", PACKAGES.join(", "), folder.display());
    run::go(Command::new("python3").args(["-m", "venv"]).arg(&folder)).context("making a virtual environment")?;
    let mut pip = Command::new(folder.join("bin/python"));
    run::go(pip.args(["-m", "pip", "install", "--quiet", "--only-binary", ":all:"]).args(PACKAGES))
        .context("fetching them from PyPI")
}
