//! What a daemon and its pods take up on a node: links, pins, records, addresses, entries of maps. Two
//! of these are equal when nothing was left behind in between.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use anyhow::{Context as _, ensure};

use crate::node::{Node, PATIENCE, eventually};

/// Maps whose entries belong to endpoints and rules; the others hold connections, counters, events.
const MAPS: [&str; 8] = ["ENDPOINTS", "INTERFACES", "ADDRESSES", "CIDRS", "PEERS", "REGIONS", "PORTS", "RULESETS"];

/// Everything that is there, by kind; lists are sorted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Footprint(BTreeMap<String, Vec<String>>);

impl Footprint {
    /// Of a node whose daemon runs.
    pub fn of(node: &Node) -> anyhow::Result<Self> {
        let mut all = BTreeMap::new();
        let output = {
            let _inside = node.sandbox.enter()?;
            Command::new("ip").args(["-o", "link"]).output().context("starting ip")?
        };
        let links = String::from_utf8_lossy(&output.stdout).into_owned();
        let names = links.lines().filter_map(|line| line.split(": ").nth(1)?.split('@').next()).map(str::to_owned);
        all.insert("links".to_owned(), sorted(names.collect()));
        for pins in fs::read_dir(node.pins()).context("pins")?.flatten() {
            all.insert("pins".to_owned(), names_in(&pins.path().join("links")));
        }
        for folder in ["endpoints", "tombstones", "corrupt"] {
            all.insert(folder.to_owned(), names_in(&node.state().join(folder)));
        }
        let ask = node.ask()?;
        let status = ask.status()?;
        for map in status.maps.iter().filter(|map| MAPS.contains(&map.name.as_str())) {
            all.insert(map.name.clone(), vec![map.entries.to_string()]);
        }
        for pool in &status.pools {
            all.insert(pool.range.clone(), vec![format!("{} in use", pool.used)]);
        }
        let endpoints = ask.endpoints()?.into_iter().map(|endpoint| format!("{}/{}", endpoint.namespace, endpoint.pod));
        all.insert("known endpoints".to_owned(), sorted(endpoints.collect()));
        Ok(Self(all))
    }

    /// Waits until a node is as it was then: what is removed late has a while for it.
    pub fn comes_back(&self, node: &Node) -> anyhow::Result<()> {
        let mut found = Self::of(node)?;
        eventually(PATIENCE, || {
            found = Self::of(node)?;
            Ok(found == *self)
        })?;
        let differs = |(kind, was): (&String, &Vec<String>)| {
            let is = found.0.get(kind);
            (is != Some(was)).then(|| format!("{kind}: was {was:?}, is {is:?}"))
        };
        let leaks: Vec<String> = self.0.iter().filter_map(differs).collect();
        ensure!(leaks.is_empty(), "something was left behind or is missing:\n  {}", leaks.join("\n  "));
        Ok(())
    }
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    sorted(entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names
}
