//! The machine: QEMU without hardware support, two serial lines. The kernel speaks on the first, which is kept in a
//! file and shown when something went wrong; what the tests say comes by the second.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

/// Processors of the machine.
const CPUS: &str = "2";
/// Its memory. A machine with every test program in it takes less than half.
const MEMORY: &str = "3G";
/// How much of what the kernel said is shown.
const SHOWN: usize = 30;
/// How long the machine may take to be gone when it has said that it is done.
const GOODBYE: Duration = Duration::from_secs(20);

/// A line from the machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Line {
    /// The release of its kernel.
    Kernel(String),
    /// A program starts.
    Begin(String),
    /// It has ended: its exit status, `signal` or `timeout`, and seconds.
    End { name: String, how: String, seconds: u64 },
    /// All is done.
    Done,
    /// The machine itself cannot go on.
    Broken(String),
    /// Said by a program.
    Text(String),
}

impl Line {
    /// What the first process writes, see tests/src/bin/guest.rs.
    fn parse(text: &str) -> Self {
        let Some(rest) = text.strip_prefix("@@ ") else { return Self::Text(text.to_owned()) };
        let words: Vec<&str> = rest.split(' ').collect();
        match words.as_slice() {
            ["kernel", release] => Self::Kernel((*release).to_owned()),
            ["begin", name] => Self::Begin((*name).to_owned()),
            ["end", name, how, seconds] => Self::End {
                name: (*name).to_owned(),
                how: (*how).to_owned(),
                seconds: seconds.parse().unwrap_or_default(),
            },
            ["done"] => Self::Done,
            ["broken", ..] => Self::Broken(rest["broken".len()..].trim().to_owned()),
            _ => Self::Text(text.to_owned()),
        }
    }
}

/// What is booted.
#[derive(Debug)]
pub(super) struct Boot<'a> {
    /// The kernel.
    pub(super) kernel: &'a Path,
    /// The root of the machine.
    pub(super) image: &'a Path,
    /// Where the kernel's words go.
    pub(super) log: PathBuf,
    /// When it is ended, whatever it does.
    pub(super) limit: Duration,
}

impl Boot<'_> {
    /// Boots, and gives every line to `each` as it comes.
    ///
    /// # Errors
    /// The machine did not come to its end in time. What its kernel said last is in the text.
    pub(super) fn run(&self, mut each: impl FnMut(Line)) -> anyhow::Result<()> {
        let mut child = Machine(self.command().spawn().context("starting qemu-system-x86_64")?);
        let stdout = child.0.stdout.take().context("standard output is piped")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for text in BufReader::new(stdout).split(b'\n') {
                let Ok(text) = text else { break };
                let text = String::from_utf8_lossy(&text).replace('\r', "");
                if sender.send(Line::parse(&text)).is_err() {
                    break;
                }
            }
        });
        let end = Instant::now() + self.limit;
        loop {
            match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(Line::Done) => return child.gone(),
                Ok(Line::Broken(why)) => bail!("the machine is broken: {why}\n{}", self.kernel_said()),
                Ok(line) => each(line),
                Err(RecvTimeoutError::Disconnected) => bail!("the machine went down\n{}", self.kernel_said()),
                Err(RecvTimeoutError::Timeout) => {
                    bail!("the machine was ended after {} s\n{}", self.limit.as_secs(), self.kernel_said())
                }
            }
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new("qemu-system-x86_64");
        // Not /dev/kvm, where there is one: it is often refused or half working inside of virtual machines, and then
        // kernels hang. All features that are emulated: what the compiler of the programs may want.
        command.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", CPUS, "-m", MEMORY]);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        command.arg("-serial").arg(format!("file:{}", self.log.display())).args(["-serial", "stdio"]);
        command.arg("-kernel").arg(self.kernel).arg("-initrd").arg(self.image);
        // A kernel that finds something wrong with itself ends the machine. Mitigations cost time and prove nothing.
        command.args(["-append", "console=ttyS0 panic=-1 oops=panic mitigations=off random.trust_cpu=on"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command
    }

    fn kernel_said(&self) -> String {
        let text = fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        format!(
            "its kernel said last ({}):\n{}",
            self.log.display(),
            lines[lines.len().saturating_sub(SHOWN)..].join("\n")
        )
    }
}

/// Does not outlive us.
struct Machine(Child);

impl Machine {
    fn gone(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        while self.0.try_wait()?.is_none() {
            if began.elapsed() > GOODBYE {
                // It has told all there was to tell.
                break;
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_machine_are_told_from_those_of_programs() {
        let end = Line::End { name: "packets".to_owned(), how: "101".to_owned(), seconds: 12 };
        assert_eq!(Line::parse("@@ end packets 101 12"), end);
        assert_eq!(Line::parse("@@ kernel 6.1.0-56-cloud-amd64"), Line::Kernel("6.1.0-56-cloud-amd64".to_owned()));
        assert_eq!(Line::parse("@@ done"), Line::Done);
        assert_eq!(Line::parse("@@ broken no such file"), Line::Broken("no such file".to_owned()));
        assert_eq!(Line::parse("test a ... ok"), Line::Text("test a ... ok".to_owned()));
        assert_eq!(Line::parse("@@ nonsense"), Line::Text("@@ nonsense".to_owned()));
    }
}
