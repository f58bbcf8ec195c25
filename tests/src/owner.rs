//! Names of throwaway things, which say whose they are, and sweeping up what runs that died have
//! left. Only what a process left that is gone is touched: tests run in parallel, also those of
//! another checkout.
//!
//! A name is `bh-PID-START-NUMBER`: START is when the process was started, so that a process that
//! got the same PID later is not taken for the owner.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// Where `ip netns` keeps namespaces (ip-netns(8)).
pub const NAMESPACES: &str = "/run/netns";
/// Where a bpffs is mounted (file-hierarchy(7)).
pub const BPFFS: &str = "/sys/fs/bpf";

/// How long a process that was killed may take to be gone.
const DYING: Duration = Duration::from_secs(3);

/// A name that nothing else has. Sweeps first, once in a process.
pub fn fresh_name() -> String {
    static SWEPT: Once = Once::new();
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    SWEPT.call_once(sweep);
    let pid = std::process::id();
    let start = started(pid).unwrap_or(0);
    format!("bh-{pid}-{start:x}-{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// The folder of what belongs to a name.
pub fn folder(name: &str) -> PathBuf {
    // Not in $TMPDIR: a socket's path may have 107 bytes only (unix(7)).
    Path::new("/tmp").join(name)
}

/// The pins of what belongs to a name.
pub fn pins(name: &str) -> PathBuf {
    // "bulkhead" in it lets an operator see whose it is.
    Path::new(BPFFS).join(format!("bulkhead-{name}"))
}

/// Removes everything of a name: processes in its namespace, the namespace, pins, folder. What
/// is not there is as good as removed.
pub fn remove(name: &str) {
    if Path::new(NAMESPACES).join(name).exists() {
        for pid in processes_in(name) {
            let _ = kill_process(pid, Signal::KILL);
        }
        // Whoever still dies might write another file.
        let began = Instant::now();
        while !processes_in(name).is_empty() && began.elapsed() < DYING {
            thread::sleep(Duration::from_millis(5));
        }
        let _ = Command::new("ip").args(["netns", "delete", name]).output();
    }
    let _ = fs::remove_dir_all(pins(name));
    unmount_below(&folder(name));
    let _ = fs::remove_dir_all(folder(name));
}

/// Takes away what a test has mounted in its folder.
pub fn unmount_below(folder: &Path) {
    let Ok(mounts) = fs::read_to_string("/proc/self/mounts") else { return };
    // The second word is the place (fstab(5)); nothing of ours needs its escapes.
    for place in mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|at| Path::new(at).starts_with(folder))
    {
        let _ = Command::new("umount").args(["--lazy", place]).output();
    }
}

/// Removes what processes have left that are gone.
pub fn sweep() {
    let mut names: Vec<String> = [(NAMESPACES, ""), ("/tmp", ""), (BPFFS, "bulkhead-")]
        .iter()
        .flat_map(|(folder, prefix)| names_in(Path::new(folder), prefix))
        .filter(|name| is_abandoned(name))
        .collect();
    names.sort();
    names.dedup();
    for name in names {
        remove(&name);
    }
}

/// Names in a folder that have a prefix, without it.
pub fn names_in(folder: &Path, prefix: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter_map(|name| name.strip_prefix(prefix).map(str::to_owned)).collect()
}

/// Whether it is a name of [`fresh_name`] whose owner is gone.
pub fn is_abandoned(name: &str) -> bool {
    let Some((pid, start)) = parse(name) else { return false };
    started(pid) != Some(start)
}

fn parse(name: &str) -> Option<(u32, u64)> {
    let mut parts = name.strip_prefix("bh-")?.split('-');
    let pid = parts.next()?.parse().ok()?;
    let start = u64::from_str_radix(parts.next()?, 16).ok()?;
    let _number: u32 = parts.next()?.parse().ok()?;
    parts.next().is_none().then_some((pid, start))
}

/// When a process was started, in clock ticks since boot; `None` if there is none.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // proc_pid_stat(5): field 22; the name, which may hold anything, is field 2.
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(19)?.parse().ok()
}

/// Processes whose network namespace is the one of this name.
fn processes_in(name: &str) -> Vec<Pid> {
    let Ok(output) = Command::new("ip").args(["netns", "pids", name]).output() else { return Vec::new() };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let own = std::process::id() as i32;
    text.split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .filter(|pid| *pid != own)
        .filter_map(Pid::from_raw)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_living_process_owns_is_left_alone() {
        let name = fresh_name();
        assert!(!is_abandoned(&name), "{name}");
        let (pid, start) = parse(&name).expect("a name of ours");
        assert!(is_abandoned(&format!("bh-{pid}-{:x}-0", start + 1)), "the PID was used again");
    }

    #[test]
    fn names_of_others_are_never_abandoned() {
        for name in
            ["bh-", "bh-1-2", "bh-t-1-2", "bh-demo-node", "bh-1-x-3", "bh-1-2-3-4", "cni-1-2-3", "bh-999999999-0"]
        {
            assert!(!is_abandoned(name), "{name}");
        }
    }
}
