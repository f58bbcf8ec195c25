//! What a test run has left on the machine: everything of these kinds that was not there before
//! and is there afterwards. Who leaves something behind fails, and is told what it is.
//!
//! What other programs do at the same time must not count: systemd starts services, a desktop
//! mounts a stick. [`others`] knows those; processes count only if they descend from us.

mod others;
mod process;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::bail;

use crate::run::{self, Privilege};

pub(crate) use process::{end_tree, supervise};

/// What can be left behind.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Kind {
    /// A named network namespace.
    Namespace,
    /// A network interface of this machine's own namespace.
    Link,
    /// Something pinned in a bpffs.
    Pin,
    /// A mount.
    Mount,
    /// A control group.
    Cgroup,
    /// A table of nftables.
    Table,
    /// A file or folder where an installed daemon has its own.
    File,
    /// A process that one of our steps has started.
    Process,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Namespace => "network namespace",
            Self::Link => "link",
            Self::Pin => "bpffs pin",
            Self::Mount => "mount",
            Self::Cgroup => "cgroup",
            Self::Table => "nftables table",
            Self::File => "file",
            Self::Process => "process",
        }
    }
}

/// What was there at one moment.
#[derive(Debug, Default)]
pub(crate) struct Snapshot(BTreeMap<Kind, BTreeSet<String>>);

impl Snapshot {
    /// Looks. Without root, pins and tables stay out of sight.
    pub(crate) fn take(root: Option<Privilege>) -> Self {
        let mounts = mounts();
        let mut all = BTreeMap::new();
        all.insert(Kind::Namespace, names_in(Path::new("/run/netns")));
        all.insert(Kind::Link, names_in(Path::new("/sys/class/net")));
        all.insert(Kind::Cgroup, cgroups(&mounts));
        all.insert(
            Kind::Mount,
            mounts.into_iter().map(|mount| format!("{} ({})", mount.point, mount.fstype)).collect(),
        );
        all.insert(Kind::File, files());
        all.insert(Kind::Process, process::descendants());
        if let Some(root) = root {
            all.insert(Kind::Pin, lines(root, &["find", "/sys/fs/bpf", "-mindepth", "1"]));
            all.insert(Kind::Table, lines(root, &["nft", "list", "tables"]));
        }
        Self(all)
    }

    /// What is there now and was not then, in words.
    fn since(&self, before: &Snapshot) -> Vec<String> {
        let nothing = BTreeSet::new();
        let mut new = Vec::new();
        for (kind, now) in &self.0 {
            // A kind that could not be seen before cannot be compared.
            let Some(then) = before.0.get(kind) else { continue };
            let then = if *kind == Kind::Process { &nothing } else { then };
            let is_theirs = |name: &&String| *kind == Kind::Cgroup && others::makes_more_of(name, then);
            let names: Vec<&str> = now.difference(then).filter(|name| !is_theirs(name)).map(String::as_str).collect();
            new.extend(summary(&names).into_iter().map(|name| format!("{} {name}", kind.name())));
        }
        new
    }
}

/// Names in order, those below another one of them only counted.
fn summary(names: &[&str]) -> Vec<String> {
    let mut tops: Vec<(&str, usize)> = Vec::new();
    for &name in names {
        let above = |(top, _): &&mut (&str, usize)| name.strip_prefix(*top).is_some_and(|rest| rest.starts_with('/'));
        match tops.iter_mut().find(above) {
            Some((_, below)) => *below += 1,
            None => tops.push((name, 0)),
        }
    }
    let words = |(top, below): (&str, usize)| match below {
        0 => top.to_owned(),
        _ => format!("{top} and {below} below it"),
    };
    tops.into_iter().map(words).collect()
}

/// How long what is being taken down may take: the kernel destroys namespaces and their links by
/// and by.
const PATIENCE: Duration = Duration::from_secs(15);

/// Fails if something is there that was not there `before`.
pub(crate) fn check(before: &Snapshot, root: Option<Privilege>) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let left = Snapshot::take(root).since(before);
        if left.is_empty() {
            let unseen = if root.is_some() { "" } else { " (pins and nftables tables not looked at: that needs root)" };
            println!("nothing was left behind{unseen}");
            return Ok(());
        }
        if began.elapsed() > PATIENCE {
            bail!("left behind:\n  {}\n`cargo xtask clean-up` removes what is ours", left.join("\n  "));
        }
        thread::sleep(Duration::from_millis(500));
    }
}

/// Names in a folder; none if there is no such folder.
fn names_in(folder: &Path) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(folder) else { return BTreeSet::new() };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Lines that a command says as root; none if it fails, as where there is no bpffs or no nft.
fn lines(root: Privilege, command: &[&str]) -> BTreeSet<String> {
    let [program, arguments @ ..] = command else { return BTreeSet::new() };
    let text = run::capture(root.command(program).args(arguments)).unwrap_or_default();
    text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
}

/// A line of /proc/self/mountinfo.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Mount {
    point: String,
    fstype: String,
}

fn mounts() -> Vec<Mount> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    text.lines().filter_map(parse_mount).filter(|mount| !others::mounts_at(&mount.point)).collect()
}

/// proc_pid_mountinfo(5): the mount point is the fifth field, the type follows a lone dash.
fn parse_mount(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let point = before.split(' ').nth(4)?.to_owned();
    let fstype = after.split(' ').next()?.to_owned();
    Some(Mount { point, fstype })
}

fn cgroups(mounts: &[Mount]) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for mount in mounts.iter().filter(|mount| mount.fstype.starts_with("cgroup")) {
        let mut folders = vec![PathBuf::from(&mount.point)];
        while let Some(folder) = folders.pop() {
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
                let path = entry.path();
                if !others::makes_cgroup(&path.to_string_lossy()) {
                    all.insert(path.display().to_string());
                    folders.push(path);
                }
            }
        }
    }
    all
}

/// Where an installed daemon and its plugin have files; a test has no business there.
fn files() -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for path in ["/run/bulkhead", "/var/lib/bulkhead", "/opt/cni/bin/bulkhead-cni"] {
        if Path::new(path).exists() {
            all.insert(path.to_owned());
        }
    }
    let configurations = names_in(Path::new("/etc/cni/net.d"));
    all.extend(
        configurations.into_iter().filter(|name| name.contains("bulkhead")).map(|n| format!("/etc/cni/net.d/{n}")),
    );
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(kind: Kind, names: &[&str]) -> Snapshot {
        Snapshot(BTreeMap::from([(kind, names.iter().map(|&name| name.to_owned()).collect())]))
    }

    #[test]
    fn what_is_new_is_named_with_its_kind() {
        let before = snapshot(Kind::Namespace, &["mine"]);
        let after = snapshot(Kind::Namespace, &["mine", "bh-1-0"]);
        assert_eq!(after.since(&before), ["network namespace bh-1-0"]);
    }

    #[test]
    fn what_lies_below_a_leftover_is_only_counted() {
        let names = ["/b", "/b-2", "/b/maps", "/b/maps/X", "/c"];
        assert_eq!(summary(&names), ["/b and 2 below it", "/b-2", "/c"]);
    }

    #[test]
    fn what_was_there_before_and_what_is_gone_is_no_leftover() {
        let before = snapshot(Kind::Link, &["lo", "eth0"]);
        assert!(snapshot(Kind::Link, &["lo", "eth0"]).since(&before).is_empty());
        assert!(snapshot(Kind::Link, &["lo"]).since(&before).is_empty());
    }

    #[test]
    fn what_could_not_be_seen_before_is_not_compared() {
        let before = Snapshot::default();
        assert!(snapshot(Kind::Pin, &["/sys/fs/bpf/x"]).since(&before).is_empty());
    }

    #[test]
    fn a_process_of_ours_counts_however_early_it_began() {
        let before = snapshot(Kind::Process, &["7: sleep 9"]);
        let after = snapshot(Kind::Process, &["7: sleep 9"]);
        assert_eq!(after.since(&before), ["process 7: sleep 9"]);
    }

    #[test]
    fn a_line_of_mountinfo_is_understood_with_and_without_optional_fields() {
        let line = "36 35 98:0 /mnt1 /mnt/a\\040b rw,noatime master:1 shared:2 - ext3 /dev/root rw";
        let mount = Mount { point: "/mnt/a\\040b".to_owned(), fstype: "ext3".to_owned() };
        assert_eq!(parse_mount(line), Some(mount));
        let line = "36 35 98:0 / /proc rw - proc proc rw";
        assert_eq!(parse_mount(line).unwrap().fstype, "proc");
    }

    #[test]
    fn the_running_machine_can_be_looked_at() {
        let Snapshot(all) = Snapshot::take(None);
        assert!(all[&Kind::Link].contains("lo"));
        assert!(all[&Kind::Mount].iter().any(|mount| mount.starts_with("/proc ")));
    }
}
