//! The process of the daemon under test: started in a node's namespace, killed or stopped on
//! demand, its log kept for when something goes wrong.

use std::{
    env,
    fs::{self, File, OpenOptions},
    io::Read as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    node::{PATIENCE, eventually},
    sandbox::Sandbox,
};

/// How long a daemon may take to stop when asked to.
const STOPPING: Duration = Duration::from_secs(30);

/// Where a binary of the product is: in `BULKHEAD_BIN_DIR`, or beside what cargo has built of us.
///
/// # Errors
/// It is not there. The text says how to build it.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let folder = match env::var_os("BULKHEAD_BIN_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let own = env::current_exe().context("where this program is")?;
            let folder = own.parent().context("a program lies in a folder")?;
            // Tests are in target/<profile>/deps, binaries in the folder above.
            if folder.ends_with("deps") { folder.parent().context("deps lies in a folder")? } else { folder }.to_owned()
        }
    };
    let path = folder.join(name);
    ensure!(
        path.is_file(),
        "{} is not there: build it with `cargo xtask build`, or say in BULKHEAD_BIN_DIR where the binaries are",
        path.display()
    );
    Ok(path)
}

/// Whether a signal to our process group (Ctrl-C) also reaches the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// It does.
    Ours,
    /// It does not: we stop it ourselves, or leave it running.
    Own,
}

/// A daemon that runs.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    log: PathBuf,
}

impl Agent {
    /// Starts it in a namespace; what it says is appended to `log`.
    pub fn start(netns: &Sandbox, arguments: &[String], group: Group, log: &Path) -> anyhow::Result<Self> {
        let open = || OpenOptions::new().create(true).append(true).open(log);
        let output = open().with_context(|| format!("opening {}", log.display()))?;
        let mut command = Command::new(binary("bulkhead-daemon")?);
        for (name, _) in env::vars_os() {
            // What is set for an installed daemon is not meant for this one.
            if name.to_string_lossy().starts_with("BULKHEAD_") {
                command.env_remove(&name);
            }
        }
        command.args(arguments).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        if group == Group::Own {
            command.process_group(0);
        }
        let _inside = netns.enter()?;
        let child = command.spawn().context("starting bulkhead-daemon")?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails if it has ended, with the end of its log.
    pub fn must_run(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the daemon has ended ({status}); its log ends with:\n{}", self.tail()),
        }
    }

    /// Its exit status, if it has ended by itself.
    pub fn code(&mut self) -> anyhow::Result<Option<i32>> {
        Ok(self.child.try_wait()?.and_then(|status| status.code()))
    }

    /// Waits until it has ended by itself; its exit status, `None` if it has not for [`PATIENCE`] or a signal has ended it.
    pub fn ended(&mut self) -> anyhow::Result<Option<i32>> {
        eventually(PATIENCE, || Ok(self.code()?.is_some()))?;
        self.code()
    }

    /// Ends it at once, as a crash would.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill().context("killing the daemon")?;
        self.child.wait()?;
        Ok(())
    }

    /// Lets it do nothing until it is woken.
    pub fn freeze(&self) -> anyhow::Result<()> {
        let pid = Pid::from_raw(self.child.id() as i32).context("a process has a number")?;
        kill_process(pid, Signal::STOP).context("freezing the daemon")
    }

    /// Wakes it again.
    pub fn wake(&self) -> anyhow::Result<()> {
        let pid = Pid::from_raw(self.child.id() as i32).context("a process has a number")?;
        kill_process(pid, Signal::CONT).context("waking the daemon")
    }

    /// Asks it to stop and waits until it has.
    pub fn stop(mut self) -> anyhow::Result<ExitStatus> {
        let pid = Pid::from_raw(self.child.id() as i32).context("a process has a number")?;
        kill_process(pid, Signal::TERM).context("asking the daemon to stop")?;
        let began = Instant::now();
        while began.elapsed() < STOPPING {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(5));
        }
        bail!("the daemon has not stopped within {STOPPING:?}; its log ends with:\n{}", self.tail())
    }

    /// Lets it run on when this is dropped.
    pub fn keep(self) {
        std::mem::forget(self);
    }

    /// The end of its log.
    pub fn tail(&self) -> String {
        tail(&self.log)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The last lines of a file.
pub fn tail(path: &Path) -> String {
    const LINES: usize = 30;
    let mut text = Vec::new();
    match File::open(path).and_then(|mut file| file.read_to_end(&mut text)) {
        Ok(_) => {}
        Err(error) => return format!("({}: {error})", path.display()),
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// Whether a process runs.
pub fn runs(pid: u32) -> bool {
    fs::metadata(format!("/proc/{pid}")).is_ok()
}
