//! Who may import whom. The table below is the rule; this compares it with every Cargo.toml.
//!
//! A crate's dependency list is the proof of what it cannot do: whoever wants to read a clock or
//! open a socket in `policy` has to edit `policy/Cargo.toml`, and then this table.

mod table;

use std::{collections::BTreeSet, process::Command};

use anyhow::{Context as _, bail};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

use self::table::{CRATES, Crate, Outside};
use crate::{repo, run};

/// Compares every crate's dependencies with the table.
///
/// # Errors
/// One line for each edge that is not in it.
pub(crate) fn check() -> anyhow::Result<()> {
    let metadata = metadata()?;
    let members: Vec<&Package> = metadata.workspace_packages();
    let names: BTreeSet<&str> = members.iter().map(|package| package.name.as_str()).collect();
    let mut wrong = Vec::new();
    for row in CRATES.iter().filter(|row| !names.contains(row.name)) {
        wrong.push(format!("the table in xtask/src/edges/table.rs names {}, which is no crate of ours", row.name));
    }
    for package in &members {
        let Some(row) = CRATES.iter().find(|row| row.name == package.name.as_str()) else {
            wrong.push(format!(
                "{} is not in the table in xtask/src/edges/table.rs: say what it may import",
                package.name
            ));
            continue;
        };
        wrong.extend(direct(package, row, &names));
        let everything = everything_behind(row.name)?;
        wrong.extend(row.never_behind(&everything));
    }
    if !wrong.is_empty() {
        bail!("who may import whom:\n  {}", wrong.join("\n  "));
    }
    println!("edges: {} crates import only what they may", members.len());
    Ok(())
}

/// Builds each crate by itself: together, one crate's features would hide that another lacks them.
pub(crate) fn each_alone() -> anyhow::Result<()> {
    let mut failed = Vec::new();
    for row in CRATES {
        println!("alone: {}", row.name);
        if let Err(error) = run::go(run::cargo().args(["check", "--quiet", "--package", row.name])) {
            failed.push(error.to_string());
        }
    }
    if !failed.is_empty() {
        bail!("some crates do not build on their own:\n  {}", failed.join("\n  "));
    }
    Ok(())
}

fn metadata() -> anyhow::Result<Metadata> {
    let mut command = MetadataCommand::new();
    command.manifest_path(repo::root().join("Cargo.toml")).no_deps();
    command.exec().context("reading the workspace with `cargo metadata`")
}

/// What stands in the crate's own Cargo.toml. Dependencies of tests are free, except for ours,
/// which would turn the arrows around.
fn direct(package: &Package, row: &Crate, ours: &BTreeSet<&str>) -> Vec<String> {
    let mut wrong = Vec::new();
    for dependency in &package.dependencies {
        let name = dependency.name.as_str();
        if ours.contains(name) {
            // A crate's tests may have the crate itself with other features.
            let in_tests = dependency.kind == DependencyKind::Development;
            let for_tests = in_tests && (name == row.name || row.for_tests.contains(&name));
            if !row.ours.contains(&name) && !for_tests {
                wrong.push(format!("{} may not import {name}", row.name));
            }
        } else if dependency.kind != DependencyKind::Development {
            wrong.extend(row.outside.refuses(name).map(|why| format!("{} may not import {name}: {why}", row.name)));
        }
    }
    wrong
}

/// The names of all crates that are compiled into this one, with its own features only.
fn everything_behind(name: &str) -> anyhow::Result<BTreeSet<String>> {
    let mut tree: Command = run::cargo();
    tree.args(["tree", "--quiet", "--package", name, "--edges", "normal", "--prefix", "none", "--format", "{p}"]);
    let text = run::capture(&mut tree)?;
    Ok(text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
}

impl Crate {
    fn never_behind(&self, everything: &BTreeSet<String>) -> Vec<String> {
        let found = everything.iter().filter(|name| self.never.iter().any(|never| never.matches(name)));
        found.map(|name| format!("{} may not have {name} behind it, not even through others", self.name)).collect()
    }
}

impl Outside {
    /// Why a crate of others may not be imported; `None` if it may.
    fn refuses(self, name: &str) -> Option<String> {
        match self {
            Self::Any => None,
            Self::Only(list) if list.contains(&name) => None,
            Self::Only([]) => Some("it imports nothing of others".to_owned()),
            Self::Only(list) => Some(format!("of others it imports only {}", list.join(", "))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{table::Never, *};

    fn row(name: &str) -> &'static Crate {
        CRATES.iter().find(|row| row.name == name).unwrap()
    }

    #[test]
    fn a_pure_crate_may_not_have_a_runtime_behind_it() {
        let behind = BTreeSet::from(["thiserror".to_owned(), "tokio".to_owned(), "tokio-util".to_owned()]);
        assert_eq!(row("policy").never_behind(&behind).len(), 1);
        assert!(row("daemon").never_behind(&behind).is_empty());
    }

    #[test]
    fn a_family_of_crates_is_refused_by_its_first_word() {
        assert!(Never::Family("kube").matches("kube-client"));
        assert!(Never::Family("kube").matches("kube"));
        assert!(!Never::Family("kube").matches("kubernetes"));
        assert!(!Never::Crate("tokio").matches("tokio-util"));
    }

    #[test]
    fn what_is_not_on_the_list_is_refused_with_the_list() {
        let why = row("policy").outside.refuses("serde").unwrap();
        assert!(why.contains("ipnetwork"), "{why}");
        assert_eq!(row("policy").outside.refuses("ipnetwork"), None);
    }

    #[test]
    fn nobody_imports_in_a_circle() {
        fn depth(name: &str, left: u32) {
            assert!(left > 0, "{name} imports itself in the end");
            for next in row(name).ours {
                depth(next, left - 1);
            }
        }
        for row in CRATES {
            depth(row.name, CRATES.len() as u32);
        }
    }
}
