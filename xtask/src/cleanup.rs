//! `cargo xtask clean-up`: removes what an interrupted demo or test run has left, found by the
//! names we give. Says each thing it does. Nothing that is not ours by name is touched.

use std::{fs, path::Path};

use anyhow::{Context as _, bail};

use crate::run::{self, Privilege};

/// Begins the name of every network namespace of tests and demo.
const NAMESPACE: &str = "bh-";
/// Begins the name of every pin folder and nftables table.
const OURS: &str = "bulkhead";
/// Where programs and maps are pinned.
const BPFFS: &str = "/sys/fs/bpf";
/// The daemon's process, cut to the length that the kernel keeps.
const DAEMON: &str = "bulkhead-daemon";

/// Removes everything of ours, or says what it would remove.
pub(crate) fn run(dry_run: bool) -> anyhow::Result<()> {
    if let Some(pid) = running_daemon() {
        bail!(
            "bulkhead-daemon runs here (process {pid}), and the pods it serves would lose their network. \
             Stop it first: `kill {pid}`, or `systemctl stop bulkhead`"
        );
    }
    let root = Privilege::find()?;
    let removals = removals(root)?;
    if removals.is_empty() {
        println!("Nothing of ours is left on this machine.");
        return Ok(());
    }
    let mut failed = Vec::new();
    for Removal { what, command } in &removals {
        if dry_run {
            println!("would remove {what}");
            continue;
        }
        println!("removing {what}");
        let [program, arguments @ ..] = command.as_slice() else { continue };
        // What is gone by now, as a link whose namespace was removed before, needs no removal.
        if let Err(error) = run::capture(root.command(program).args(arguments)) {
            failed.push((what.clone(), error));
        }
    }
    let left: Vec<String> = if dry_run { Vec::new() } else { removals_left(root)? };
    let failed: Vec<String> =
        failed.into_iter().filter(|(what, _)| left.contains(what)).map(|(_, error)| format!("{error:#}")).collect();
    if !failed.is_empty() {
        bail!("not everything could be removed:\n  {}", failed.join("\n  "));
    }
    Ok(())
}

/// One thing, and the command that removes it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Removal {
    what: String,
    command: Vec<String>,
}

impl Removal {
    fn new(what: String, command: &[&str]) -> Self {
        Self { what, command: command.iter().map(|&word| word.to_owned()).collect() }
    }
}

fn removals_left(root: Privilege) -> anyhow::Result<Vec<String>> {
    Ok(removals(root)?.into_iter().map(|removal| removal.what).collect())
}

/// Everything of ours, in the order in which it can be removed.
fn removals(root: Privilege) -> anyhow::Result<Vec<Removal>> {
    let mut all = Vec::new();
    for namespace in names(Path::new("/run/netns"), |name| name.starts_with(NAMESPACE)) {
        // What runs in there holds the namespace, and our links with it.
        let pids = run::capture(root.command("ip").args(["netns", "pids", &namespace])).unwrap_or_default();
        for pid in pids.split_whitespace() {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let what = format!("process {pid} ({}) in network namespace {namespace}", name.trim());
            all.push(Removal::new(what, &["kill", "-KILL", pid]));
        }
        let what = format!("network namespace {namespace}");
        all.push(Removal::new(what, &["ip", "netns", "delete", &namespace]));
    }
    for link in names(Path::new("/sys/class/net"), is_host_link) {
        all.push(Removal::new(format!("link {link}"), &["ip", "link", "delete", &link]));
    }
    let listed = run::capture(root.command("find").args([BPFFS, "-mindepth", "1", "-maxdepth", "1"]));
    for path in listed.unwrap_or_default().lines().filter(|path| is_pin(path)) {
        all.push(Removal::new(format!("pins below {path}"), &["rm", "-r", path]));
    }
    if run::find("nft").is_some() {
        let tables = run::capture(root.command("nft").args(["list", "tables"])).context("listing nftables tables")?;
        for (family, table) in tables.lines().filter_map(our_table) {
            let what = format!("nftables table {family} {table}");
            all.push(Removal::new(what, &["nft", "delete", "table", family, table]));
        }
    }
    Ok(all)
}

fn names(folder: &Path, ours: impl Fn(&str) -> bool) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let all = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut found: Vec<String> = all.filter(|name| ours(name)).collect();
    found.sort();
    found
}

/// The host side of a pod's veth: `bh` and eleven hexadecimal digits, as the daemon names it.
fn is_host_link(name: &str) -> bool {
    let digits = name.strip_prefix("bh").unwrap_or_default();
    digits.len() == 11 && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn is_pin(path: &str) -> bool {
    Path::new(path).file_name().is_some_and(|name| name.to_string_lossy().starts_with(OURS))
}

/// Family and name, from a line of `nft list tables`.
fn our_table(line: &str) -> Option<(&str, &str)> {
    let (family, table) = line.trim().strip_prefix("table ")?.split_once(' ')?;
    table.starts_with(OURS).then_some((family, table))
}

/// A daemon that runs on this machine.
fn running_daemon() -> Option<u32> {
    let entries = fs::read_dir("/proc").ok()?;
    entries.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_string_lossy().parse().ok()?;
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        (name.trim() == DAEMON).then_some(pid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_we_give_are_ours() {
        assert!(is_host_link("bh6ad2516ced2"));
        for name in ["bh", "bh0", "bhub0", "bh6ad2516ced", "bh6ad2516cedg", "eth0", "lo"] {
            assert!(!is_host_link(name), "{name}");
        }
        assert!(is_pin("/sys/fs/bpf/bulkhead"));
        assert!(is_pin("/sys/fs/bpf/bulkhead-test-7"));
        assert!(!is_pin("/sys/fs/bpf/cilium"));
        assert!(!is_pin("/sys/fs/bpf"));
    }

    #[test]
    fn tables_of_others_stay() {
        assert_eq!(our_table("table inet bulkhead"), Some(("inet", "bulkhead")));
        assert_eq!(our_table("table ip bulkhead-t_1"), Some(("ip", "bulkhead-t_1")));
        assert_eq!(our_table("table inet filter"), None);
        assert_eq!(our_table(""), None);
    }

    #[test]
    fn the_kernel_keeps_fifteen_bytes_of_a_name() {
        // TASK_COMM_LEN is 16 with the zero at the end (include/linux/sched.h).
        assert!(DAEMON.len() <= 15);
    }
}
