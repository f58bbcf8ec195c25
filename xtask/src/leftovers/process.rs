//! Processes that our steps have started. A supervisor runs the steps in a child of its own and
//! adopts whoever loses its parent, so that none can get lost, however it was started. It also asks
//! how each of them has ended: a process namespace does not end before somebody has.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    process::{Command, ExitCode},
};

use anyhow::Context as _;
use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitOptions, kill_process},
};

/// Tells a worker who its supervisor is: the number of its parent. With any other number it is
/// somebody else's, that a test has inherited.
const SUPERVISOR: &str = "BULKHEAD_XTASK_SUPERVISOR";

/// `None`: go on, you are supervised. Else this was the supervisor, and here is how the work ended.
///
/// # Errors
/// The worker could not be started.
pub(crate) fn supervise() -> anyhow::Result<Option<ExitCode>> {
    if supervisor().is_some() {
        return Ok(None);
    }
    let own = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(own)).context("becoming a subreaper")?;
    let program = env::current_exe().context("where this program is")?;
    let worker = Command::new(program)
        .args(env::args_os().skip(1))
        .env(SUPERVISOR, own.as_raw_nonzero().to_string())
        .spawn()
        .context("starting the worker")?;
    let worker = Pid::from_child(&worker);
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == worker => {
                let code = status.exit_status().and_then(|code| u8::try_from(code).ok());
                return Ok(Some(code.map_or(ExitCode::FAILURE, ExitCode::from)));
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("waiting for the worker"),
        }
    }
}

/// Who adopts what our steps lose.
fn supervisor() -> Option<u32> {
    let parent = rustix::process::getppid()?.as_raw_nonzero().to_string();
    (env::var(SUPERVISOR).ok()? == parent).then_some(parent.parse().ok()?)
}

/// Servers that build tools leave running on purpose.
const SERVERS: [&str; 1] = ["sccache"];

/// A process, as /proc/PID/stat has it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Process {
    pid: u32,
    parent: u32,
    name: String,
    state: char,
}

/// Every living descendant of ours, with its command line.
pub(super) fn descendants() -> BTreeSet<String> {
    let own = std::process::id();
    let mut alive = of_us(&all(), supervisor().unwrap_or(own));
    alive.retain(|process| process.pid != own);
    alive.iter().map(|process| format!("{}: {}", process.pid, command_line(process))).collect()
}

/// Ends everything that `pid` has started, and itself.
pub(crate) fn end_tree(pid: u32) {
    let mut tree = of_us(&all(), pid).iter().map(|process| process.pid).collect::<Vec<_>>();
    tree.push(pid);
    for pid in tree.into_iter().filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

fn all() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let stats = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok());
    stats.filter_map(|entry| parse(&fs::read_to_string(entry.path().join("stat")).ok()?)).collect()
}

/// The descendants of `own` among these, without the dead ones that nobody has asked about yet.
fn of_us(all: &[Process], own: u32) -> Vec<Process> {
    let parents: BTreeMap<u32, u32> = all.iter().map(|process| (process.pid, process.parent)).collect();
    let descends = |process: &&Process| {
        let mut pid = process.pid;
        // A process cannot be its own ancestor, but /proc is read piece by piece.
        for _ in 0..all.len() {
            match parents.get(&pid) {
                Some(&parent) if parent == own => return true,
                Some(&parent) => pid = parent,
                None => return false,
            }
        }
        false
    };
    let wanted = |process: &&Process| process.state != 'Z' && !SERVERS.contains(&process.name.as_str());
    all.iter().filter(descends).filter(wanted).cloned().collect()
}

/// proc_pid_stat(5): pid, name in parentheses (which may hold any character), state, parent.
fn parse(stat: &str) -> Option<Process> {
    let (pid, rest) = stat.split_once(" (")?;
    let (name, rest) = rest.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    Some(Process { pid: pid.parse().ok()?, parent, name: name.to_owned(), state })
}

fn command_line(process: &Process) -> String {
    let words = fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
    let text = String::from_utf8_lossy(&words).replace('\0', " ");
    let text = text.trim();
    if text.is_empty() { process.name.clone() } else { text.chars().take(160).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, parent: u32, state: char) -> Process {
        Process { pid, parent, name: "x".to_owned(), state }
    }

    #[test]
    fn a_name_may_hold_parentheses_and_spaces() {
        let found = parse("12 (a) b (c) S 7 12 12 0 -1").unwrap();
        assert_eq!(found, Process { pid: 12, parent: 7, name: "a) b (c".to_owned(), state: 'S' });
        assert_eq!(parse("nonsense"), None);
    }

    #[test]
    fn grandchildren_count_strangers_and_the_dead_do_not() {
        let all = [process(1, 0, 'S'), process(5, 1, 'S'), process(6, 5, 'S'), process(7, 6, 'S'), process(8, 5, 'Z')];
        let found: Vec<u32> = of_us(&all, 5).iter().map(|process| process.pid).collect();
        assert_eq!(found, [6, 7]);
    }

    #[test]
    fn a_child_of_ours_is_seen_while_it_lives() {
        let mut child = std::process::Command::new("sleep").arg("31.4159").spawn().unwrap();
        let line = format!("{}: sleep 31.4159", child.id());
        let seen = |all: &BTreeSet<String>| all.contains(&line);
        // Until it has become `sleep` it is a copy of this program.
        let began = std::time::Instant::now();
        while !seen(&descendants()) && began.elapsed().as_secs() < 5 {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(seen(&descendants()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!seen(&descendants()));
    }
}
