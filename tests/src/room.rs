//! A room of its own for a node that keeps to the places of an installed one: network, mount and
//! process namespaces, a bpffs, and empty /run and /var/lib. The kernel clears all of it when the
//! room is dropped or our process ends, however it ends: the room's first process reads from us.
//!
//! Not private are the control groups, and everything else of the file system.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// How long furnishing may take; it takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// Makes the room's places and says `ready`. Then stays as the room's first process, whose end
/// ends every other one (pid_namespaces(7)), until its input ends. Arguments: pairs of a folder
/// outside and the place in /run where it is to be seen.
const FURNISH: &str = r#"
set -eu
mount -t tmpfs -o mode=755 tmpfs /run
while [ $# -gt 0 ]; do
    mkdir -p "/run/$2"
    mount --bind "$1" "/run/$2"
    shift 2
done
mount -t tmpfs -o mode=755 tmpfs /var/lib
mount -t bpf bpf /sys/fs/bpf
ip link set lo up
mkdir /run/pids /run/log
eval "$FURNITURE"
echo ready
exec cat > /dev/null
"#;

/// The namespaces, alive as long as this is.
#[derive(Debug)]
pub struct Room {
    /// `unshare`, which waits for the room's first process and is itself in the room's mount and
    /// network namespaces.
    holder: Child,
    /// The room ends with it.
    lease: Option<ChildStdin>,
}

impl Room {
    /// With these folders of the machine in places below /run, whatever covers them otherwise.
    ///
    /// # Errors
    /// We are not root, or iproute2 or util-linux are missing.
    pub fn new(shared: &[(&Path, &str)]) -> anyhow::Result<Self> {
        Self::furnished(shared, "")
    }

    /// The same, and before anything else runs there a script has changed it.
    ///
    /// # Errors
    /// As [`Self::new`], or the script has failed.
    pub fn furnished(shared: &[(&Path, &str)], script: &str) -> anyhow::Result<Self> {
        let mut unshare = Command::new("unshare");
        unshare.env("FURNITURE", script);
        unshare.args(["--net", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        unshare.args(["sh", "-c", FURNISH, "room"]);
        for (folder, place) in shared {
            ensure!(folder.is_dir(), "{} is no folder", folder.display());
            unshare.arg(folder).arg(place);
        }
        let mut holder = unshare
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting `unshare` (package util-linux)")?;
        let lease = holder.stdin.take();
        let output = holder.stdout.take().context("output of `unshare`")?;
        let room = Self { holder, lease };
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).context("reading from the room")?;
        ensure!(line == "ready\n", "the room could not be furnished; its error output is above");
        Ok(room)
    }

    /// A process outside whose network namespace is the room's.
    pub fn holder(&self) -> u32 {
        self.holder.id()
    }

    /// Where we find what has this path in the room. No part of it may be an absolute symbolic
    /// link, as /var/run is one: it would lead out of the room.
    pub fn outside(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        // proc_pid_root(5): also leads through the mounts of that process.
        Path::new("/proc").join(self.holder.id().to_string()).join("root").join(path.strip_prefix("/").unwrap_or(path))
    }

    /// A command that runs in the room.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let pid = self.holder.id();
        let mut command = Command::new("nsenter");
        command.args([format!("--target={pid}"), "--mount".to_owned(), "--net".to_owned()]);
        // The holder itself is outside: only its children are in.
        command.arg(format!("--pid=/proc/{pid}/ns/pid_for_children"));
        command.arg("--").arg(program.as_ref()).stdin(Stdio::null());
        command
    }

    /// Runs a command in the room to its end; returns what it printed.
    ///
    /// # Errors
    /// It did not succeed. The text has what it said on standard error.
    pub fn run(&self, program: impl AsRef<Path>, arguments: &[&str]) -> anyhow::Result<String> {
        let program = program.as_ref();
        let output = self.command(program).args(arguments).output().context("starting `nsenter`")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{} {}: {}", program.display(), arguments.join(" "), said.trim());
        String::from_utf8(output.stdout).with_context(|| format!("{} printed no text", program.display()))
    }

    /// Starts a process that stays. What it says goes to /run/log/`name`.
    pub fn start(&self, name: &str, program: impl AsRef<Path>, arguments: &[&str]) -> anyhow::Result<Process> {
        let log = self.outside(Path::new("/run/log").join(name));
        let output = File::options().create(true).append(true).open(&log)?;
        let pid_file = format!("/run/pids/{name}");
        let seen = self.outside(&pid_file);
        let _ = fs::remove_file(&seen);
        let child = self
            .command("sh")
            .args(["-c", r#"echo $$ > "$0.new"; mv "$0.new" "$0"; exec "$@""#, &pid_file])
            .arg(program.as_ref())
            .args(arguments)
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("starting `nsenter`")?;
        let mut process = Process { name: name.to_owned(), child, pid: String::new(), log };
        let began = Instant::now();
        while !seen.exists() {
            process.must_run()?;
            ensure!(began.elapsed() < PATIENCE, "{name} was not started");
            thread::sleep(Duration::from_millis(2));
        }
        process.pid = fs::read_to_string(&seen)?.trim().to_owned();
        Ok(process)
    }

    /// Ends a process at once, as a crash would.
    pub fn kill(&self, mut process: Process) -> anyhow::Result<()> {
        self.run("kill", &["-KILL", &process.pid]).with_context(|| format!("killing {}", process.name))?;
        process.child.wait()?;
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        drop(self.lease.take());
        // Returns when every process in the room has ended: the kernel kills them first.
        if let Err(error) = self.holder.wait() {
            eprintln!("left behind: the processes of a room: {error}");
        }
    }
}

/// A process in a room. It goes with the room, at the latest.
#[derive(Debug)]
pub struct Process {
    name: String,
    /// `nsenter`, which waits for the process and ends as it does.
    child: Child,
    /// Its number in the room.
    pid: String,
    log: PathBuf,
}

impl Process {
    /// What it was called when it was started.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Fails if it has ended, with the end of its log.
    pub fn must_run(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} has ended ({status}); its log ends with:\n{}", self.name, self.tail()),
        }
    }

    /// The end of its log.
    pub fn tail(&self) -> String {
        crate::agent::tail(&self.log)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        crate::trial::remember(format!("log of {}:\n{}", self.name, self.tail()));
        // Not `nsenter` first: nobody would ask how its child has ended, and a process namespace does
        // not end before somebody has (pid_namespaces(7)).
        let waiter = self.child.id();
        let processes = fs::read_to_string(format!("/proc/{waiter}/task/{waiter}/children")).unwrap_or_default();
        for pid in processes.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)) {
            let _ = kill_process(pid, Signal::KILL);
        }
        if processes.is_empty() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_ends_with_everything_in_it() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let room = Room::new(&[(Path::new("/tmp"), "shared")]).expect("a room");
        let sleeper = room.start("sleeper", "sleep", &["1000"]).expect("a process");
        assert_eq!(fs::read_dir(room.outside("/var/lib")).expect("a folder").count(), 0);
        assert!(room.outside("/run/shared").is_dir());
        let links = room.run("ip", &["-o", "link"]).expect("links");
        assert_eq!(links.lines().count(), 1, "{links}");
        let pids = room.run("ps", &["-e", "-o", "pid="]).expect("processes");
        assert!(pids.lines().any(|pid| pid.trim() == sleeper.pid), "{pids}");
        // A pipe that the sleeper has open tells when it is gone.
        let holder = room.holder.id();
        drop(room);
        assert!(!Path::new(&format!("/proc/{holder}")).exists());
        drop(sleeper);
    }
}
