//! The first process of a virtual machine in which tests run on another kernel (`cargo xtask vm`): makes the
//! machine usable, runs what the plan names, tells the host how each ended, and switches the machine off.
//!
//! The plan is `/plan`: lines `env NAME=VALUE`, `module FILE`, and `run SECONDS PROGRAM ARGUMENTS`, words
//! between tabs. Whatever is said to the host goes to the second serial line; lines of ours start with `@@`.
//! It is for nothing but such a machine, and refuses to run as any other process than the first.

use std::{
    ffi::CString,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    process::{Command, ExitCode, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustix::system::{RebootCommand, finit_module, reboot};

/// Where the host listens. The first serial line is the kernel's.
const HOST: &str = "/dev/ttyS1";
/// What to do.
const PLAN: &str = "/plan";
/// How often to look whether a program has ended.
const LOOK: Duration = Duration::from_millis(20);

/// File system, place, options. Not /tmp: it is memory as all of the root, and may have the repository in it.
const MOUNTS: [(&str, &str, &str); 6] = [
    ("proc", "/proc", "rw"),
    ("sysfs", "/sys", "rw"),
    ("devtmpfs", "/dev", "rw"),
    ("tmpfs", "/run", "mode=755"),
    ("bpf", "/sys/fs/bpf", "rw"),
    ("cgroup2", "/sys/fs/cgroup", "rw"),
];

fn main() -> ExitCode {
    if std::process::id() != 1 {
        eprintln!("guest: this is the first process of a virtual machine, and nothing else");
        return ExitCode::from(64);
    }
    let done = mounts().and_then(|()| work());
    // Nobody reads an exit status of the first process: what there is to tell, the host is told.
    if let (Err(error), Ok(mut host)) = (done, host()) {
        let _ = writeln!(host, "@@ broken {error:#}");
    }
    rustix::fs::sync();
    // The line is slow, and what is in it when the power goes is lost.
    thread::sleep(Duration::from_millis(200));
    let _ = reboot(RebootCommand::PowerOff);
    ExitCode::FAILURE
}

fn host() -> io::Result<File> {
    OpenOptions::new().write(true).open(HOST)
}

fn mounts() -> anyhow::Result<()> {
    for (kind, place, options) in MOUNTS {
        fs::create_dir_all(place).with_context(|| format!("folder {place}"))?;
        call("mount", &["-n", "-t", kind, "-o", options, kind, place])?;
    }
    Ok(())
}

fn work() -> anyhow::Result<()> {
    let mut host = host().with_context(|| format!("opening {HOST}"))?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    writeln!(host, "@@ kernel {}", release.trim())?;
    call("ip", &["link", "set", "lo", "up"])?;
    let plan = fs::read_to_string(PLAN).with_context(|| format!("reading {PLAN}"))?;
    let mut environment: Vec<(String, String)> = Vec::new();
    for line in plan.lines() {
        let words: Vec<&str> = line.split('\t').collect();
        match words.as_slice() {
            ["env", pair] => {
                let (name, value) = pair.split_once('=').with_context(|| format!("{PLAN}: {line:?}"))?;
                environment.push((name.to_owned(), value.to_owned()));
            }
            ["module", file] => module(file)?,
            ["run", seconds, program, arguments @ ..] => {
                let limit = Duration::from_secs(seconds.parse().with_context(|| format!("{PLAN}: {line:?}"))?);
                let name = program.rsplit('/').next().unwrap_or(program);
                writeln!(host, "@@ begin {name}")?;
                let began = Instant::now();
                let mut command = Command::new(program);
                command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value)));
                let end = run(&mut command, limit, &host)?;
                writeln!(host, "@@ end {name} {end} {}", began.elapsed().as_secs())?;
            }
            _ => bail!("{PLAN}: {line:?} is no line of a plan"),
        }
    }
    writeln!(host, "@@ done")?;
    Ok(())
}

fn call(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let status = Command::new(program).args(arguments).status().with_context(|| format!("starting {program}"))?;
    anyhow::ensure!(status.success(), "{program} {}: {status}", arguments.join(" "));
    Ok(())
}

/// Loads a module. One that is there already is no error: modules load others.
fn module(file: &str) -> anyhow::Result<()> {
    let opened = File::open(file).with_context(|| format!("module {file}"))?;
    match finit_module(&opened, &CString::default(), 0) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => bail!("module {file}: {error}"),
    }
}

/// Runs a program to its end, or to the end of its time. In a word how it ended: its exit status, `signal` or
/// `timeout`.
fn run(command: &mut Command, limit: Duration, host: &File) -> anyhow::Result<String> {
    command.stdin(Stdio::null()).stdout(host.try_clone()?).stderr(host.try_clone()?);
    let mut child = command.spawn().with_context(|| format!("starting {command:?}"))?;
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(word(status));
        }
        if began.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            return Ok("timeout".to_owned());
        }
        thread::sleep(LOOK);
    }
}

fn word(status: ExitStatus) -> String {
    status.code().map_or_else(|| "signal".to_owned(), |code| code.to_string())
}
