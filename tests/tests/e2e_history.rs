//! Flow records that outlive memory: a daemon that is killed, a disk that is full, a folder that is read without a daemon.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tests::{
    agent::binary,
    flood::Flood,
    manifest::shop,
    node::{Node, PATIENCE, Setup, eventually},
    owner,
    traffic::{Echo, OPEN, Protocol::Tcp, Reached, SILENT, reach},
    trial::trial,
};

/// Port that web may use; every other is denied.
const OPEN_PORT: u16 = 80;

/// What the daemon says of its history.
fn ledger(node: &Node) -> anyhow::Result<Value> {
    node.bulkhead().exporter("history")
}

fn count(ledger: &Value, name: &str) -> u64 {
    ledger[name].as_u64().unwrap_or(u64::MAX / 8)
}

fn lost(ledger: &Value) -> BTreeMap<String, u64> {
    let all = ledger["dropped"].as_array().into_iter().flatten();
    all.filter_map(|it| Some((it["reason"].as_str()?.to_owned(), it["count"].as_u64()?))).collect()
}

/// Whether what came, and what was there before, is what is kept or lost.
fn is_even(ledger: &Value) -> bool {
    count(ledger, "carried") + count(ledger, "observed")
        == count(ledger, "spooled") + lost(ledger).values().sum::<u64>()
}

/// Flows from there on, by the command line: uid, verdict, port of the destination.
fn flows(arguments: &[&str]) -> anyhow::Result<Vec<(String, String, u64)>> {
    let mut command = Command::new(binary("bulkhead")?);
    let output = command.arg("flows").args(arguments).args(["--since", "1h", "-o", "json"]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout)?;
    lines
        .lines()
        .map(|line| {
            let all: Value = serde_json::from_str(line)?;
            let flow = &all["flow"];
            let word = |value: &Value| value.as_str().map(str::to_owned).with_context(|| format!("a word in {flow}"));
            let port = flow["l4"]["TCP"]["destination_port"].as_u64().unwrap_or_default();
            Ok((word(&flow["uuid"])?, word(&flow["verdict"])?, port))
        })
        .collect()
}

/// Everything that the daemon has taken from the kernel is in the folder.
fn settled(node: &Node) -> anyhow::Result<()> {
    let done = || Ok(is_even(&ledger(node)?));
    ensure!(eventually(PATIENCE, done)?, "{}", ledger(node)?);
    Ok(())
}

#[test]
fn records_outlive_a_daemon_that_is_killed_and_are_read_without_one() {
    trial(|| {
        let mut node = Node::start(&[("all.yaml", &shop("shop"))])?;
        let [web, db] = node.add_all(["shop/web", "shop/db"])?;
        let _echo = Echo::start(&db.sandbox, &[OPEN_PORT], &[])?;
        let mut ports = BTreeSet::new();
        let mut before = Vec::new();
        for life in 0..3u16 {
            let port = 81 + life;
            for to in db.at(port) {
                ensure!(reach(&web.sandbox, Tcp, to, SILENT)? == Reached::No);
            }
            for to in db.at(OPEN_PORT) {
                ensure!(reach(&web.sandbox, Tcp, to, OPEN)? == Reached::Yes);
            }
            ports.insert(u64::from(port));
            let server = node.api_socket().display().to_string();
            let all_told = || {
                let told = flows(&["--server", &server])?;
                let denied: BTreeSet<u64> = told.iter().filter(|it| it.1 == "DROPPED").map(|it| it.2).collect();
                Ok(ports.is_subset(&denied) && told.iter().any(|it| it.1 == "FORWARDED"))
            };
            ensure!(eventually(PATIENCE, all_told)?, "life {life}: {:?}", flows(&["--server", &server])?);
            settled(&node)?;
            let told = flows(&["--server", &server])?;
            let names: BTreeSet<&String> = told.iter().map(|it| &it.0).collect();
            ensure!(names.len() == told.len(), "each once: {told:?}");
            ensure!(told.starts_with(&before), "the earlier ones, the same, first: {before:?} {told:?}");
            let folder = node.state().join("history").display().to_string();
            ensure!(flows(&["--dir", &folder])?.starts_with(&told), "the folder says the same");
            let csv = node.bulkhead().succeed(&["flows", "--since", "1h", "-o", "csv"])?;
            let rows: Vec<&str> = csv.lines().skip(1).filter_map(|line| line.split(',').nth(1)).collect();
            let names: Vec<&str> = told.iter().map(|it| &*it.0).collect();
            ensure!(csv.starts_with("time,uid,") && rows.starts_with(&names), "the same as rows: {csv}");
            before = told;
            if life == 2 {
                node.take_agent()?.stop()?;
                let whole = flows(&["--dir", &folder])?;
                ensure!(whole.starts_with(&before), "the folder says the same without the daemon");
            } else {
                node.take_agent()?.kill()?;
                node.start_daemon()?;
            }
        }
        Ok(())
    });
}

/// A small file system in a node's folder; goes with it.
fn small_disk(name: &str) -> anyhow::Result<PathBuf> {
    let place = owner::folder(name).join("disk");
    std::fs::create_dir_all(&place)?;
    let output = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m,mode=755", "tmpfs"]).arg(&place).output()?;
    ensure!(output.status.success(), "mount: {}", String::from_utf8_lossy(&output.stderr));
    Ok(place)
}

/// Fills what is left of it; returns the file that does.
fn fill(disk: &Path) -> anyhow::Result<PathBuf> {
    let file = disk.join("foreign");
    // An error of a full disk is what is wanted.
    let _ = std::fs::write(&file, vec![1u8; 2 << 20]);
    Ok(file)
}

#[test]
fn a_full_disk_costs_history_alone_and_is_counted() {
    trial(|| {
        let name = owner::fresh_name();
        let disk = owner::folder(&name).join("disk");
        let arguments = vec!["--history-dir".to_owned(), disk.join("history").display().to_string()];
        let node = Node::without_daemon(
            Setup { name: name.clone(), arguments, ..Setup::default() },
            &[("all.yaml", &shop("shop"))],
        )?;
        ensure!(small_disk(&name)? == disk);
        let mut node = node;
        node.start_daemon()?;
        let [web, db] = node.add_all(["shop/web", "shop/db"])?;
        let _echo = Echo::start(&db.sandbox, &[OPEN_PORT], &[])?;
        let kept = || Ok(count(&ledger(&node)?, "spooled") > 0);
        for to in db.at(81) {
            ensure!(reach(&web.sandbox, Tcp, to, SILENT)? == Reached::No);
        }
        ensure!(eventually(PATIENCE, kept)?, "{}", ledger(&node)?);

        let foreign = fill(&disk)?;
        let targets: Vec<SocketAddr> = (0..200).flat_map(|port| db.at(1000 + port)).collect();
        let flood = Flood::start(&web.sandbox, targets, Duration::from_millis(20))?;
        let refused = || {
            let it = ledger(&node)?;
            Ok(is_even(&it)
                && lost(&it).values().sum::<u64>() > 1000
                && it["trouble"].as_str().is_some_and(|why| !why.is_empty()))
        };
        ensure!(eventually(PATIENCE, refused)?, "{}", ledger(&node)?);
        // What is decided does not ask the disk.
        for to in db.at(OPEN_PORT) {
            ensure!(reach(&web.sandbox, Tcp, to, OPEN)? == Reached::Yes);
        }
        for to in db.at(81) {
            ensure!(reach(&web.sandbox, Tcp, to, SILENT)? == Reached::No);
        }
        std::fs::remove_file(foreign)?;
        let spooled = count(&ledger(&node)?, "spooled");
        let goes_on = || {
            let it = ledger(&node)?;
            Ok(count(&it, "spooled") > spooled && it["trouble"].as_str().unwrap_or_default().is_empty())
        };
        ensure!(eventually(PATIENCE, goes_on)?, "{}", ledger(&node)?);
        flood.finish()?;
        settled(&node)?;
        let folder = disk.join("history").display().to_string();
        ensure!(!flows(&["--dir", &folder])?.is_empty());
        Ok(())
    });
}
