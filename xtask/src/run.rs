//! Starting other programs: cargo, and whatever needs root. Errors show the command that failed.

use std::{
    env,
    ffi::OsStr,
    io::{self, BufRead as _, BufReader, IsTerminal as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail};

use crate::{leftovers, repo};

/// Folders that hold programs for the administrator and are not in every user's PATH.
const SBIN: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// The cargo that runs this program, without what that run has put into the environment.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(repo::root());
    clean(&mut command);
    command
}

/// Takes out of the environment what `cargo run` says about xtask itself.
pub(crate) fn clean(command: &mut Command) {
    command.env_remove("LD_LIBRARY_PATH");
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") || text == "CARGO_CRATE_NAME" {
            command.env_remove(&name);
        }
    }
}

/// Runs a command to its end, its output going where ours goes.
pub(crate) fn go(command: &mut Command) -> anyhow::Result<()> {
    let shown = show(command);
    let status = command.status().with_context(|| format!("starting `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed ({status})");
    }
    Ok(())
}

/// As [`go`], and gives each line of its standard output to `line` before it is printed. A command
/// that says nothing for as long as `patience` is ended, with all that it has started.
pub(crate) fn go_reading(command: &mut Command, patience: Duration, mut line: impl FnMut(&str)) -> anyhow::Result<()> {
    let shown = show(command);
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("starting `{shown}`"))?;
    let stdout = child.stdout.take().expect("standard output is piped");
    read_to_end(&mut child, stdout, &shown, patience, |text| {
        line(text);
        println!("{text}");
    })
}

/// As [`go_reading`], but prints nothing: `line` is given what goes to standard error as well, in order.
pub(crate) fn go_silently(command: &mut Command, patience: Duration, line: impl FnMut(&str)) -> anyhow::Result<()> {
    let shown = show(command);
    let (output, input) = io::pipe().context("making a pipe")?;
    command.stdin(Stdio::null()).stdout(input.try_clone().context("making a pipe")?).stderr(input);
    let mut child = command.spawn().with_context(|| format!("starting `{shown}`"))?;
    // It holds the pipe open for as long as it could start the command again.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    read_to_end(&mut child, output, &shown, patience, line)
}

/// Reads what a command says, and how it ended.
fn read_to_end(
    child: &mut Child,
    output: impl io::Read + Send + 'static,
    shown: &str,
    patience: Duration,
    mut line: impl FnMut(&str),
) -> anyhow::Result<()> {
    let (sender, lines) = mpsc::channel();
    // Ends with the pipe, or with the first line that nobody wants any more.
    thread::spawn(move || {
        for text in BufReader::new(output).split(b'\n') {
            if sender.send(text).is_err() {
                break;
            }
        }
    });
    let mut last = String::new();
    loop {
        match lines.recv_timeout(patience) {
            Ok(text) => {
                let text = text.with_context(|| format!("reading what `{shown}` says"))?;
                let text = String::from_utf8_lossy(&text);
                line(&text);
                last = text.into_owned();
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                leftovers::end_tree(child.id());
                child.wait()?;
                bail!("`{shown}` was ended: nothing for {} s after the line {last:?}", patience.as_secs());
            }
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("`{shown}` failed ({status})");
    }
    Ok(())
}

/// Runs a command to its end and returns its standard output. The error holds what it complained of.
pub(crate) fn capture(command: &mut Command) -> anyhow::Result<String> {
    let shown = show(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting `{shown}`"))?;
    if !output.status.success() {
        bail!("`{shown}` failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A command as one would type it.
pub(crate) fn show(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    let words = std::iter::once(name).chain(command.get_args()).map(OsStr::to_string_lossy);
    words.collect::<Vec<_>>().join(" ")
}

/// Where a program is, looked for in PATH and in the administrator's folders.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(SBIN.iter().map(PathBuf::from)).collect::<Vec<_>>();
    folders.into_iter().map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// How we come to do what only root may.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Privilege {
    /// We are root.
    Root,
    /// Through sudo.
    Sudo,
}

impl Privilege {
    /// Finds out; asks for the password now rather than in half an hour.
    ///
    /// # Errors
    /// Neither is to be had. The text says what to do.
    pub(crate) fn find() -> anyhow::Result<Self> {
        if rustix::process::geteuid().is_root() {
            return Ok(Self::Root);
        }
        if find("sudo").is_none() {
            bail!("this needs root, and there is no sudo: run it as root, or `apt-get install sudo` as root");
        }
        if quiet(Command::new("sudo").args(["-n", "true"])) {
            return Ok(Self::Sudo);
        }
        if !std::io::stdin().is_terminal() {
            bail!("this needs root, and sudo wants a password but there is no terminal to ask for it: run it as root");
        }
        println!("Root is needed; sudo may ask for your password.");
        go(Command::new("sudo").arg("-v"))
            .context("this needs root, and sudo did not give it: run it as root, or become a member of group sudo")?;
        Ok(Self::Sudo)
    }

    /// A command that root will run.
    pub(crate) fn command(self, program: &str) -> Command {
        match self {
            Self::Root => Command::new(find(program).unwrap_or_else(|| program.into())),
            Self::Sudo => {
                let mut command = Command::new("sudo");
                command.arg(program);
                command
            }
        }
    }

    /// Keeps sudo from forgetting us while long steps run.
    pub(crate) fn keep_alive(self) {
        if self == Self::Sudo {
            thread::spawn(|| {
                while quiet(Command::new("sudo").args(["-n", "-v"])) {
                    thread::sleep(Duration::from_secs(60));
                }
            });
        }
    }

    /// Makes cargo start what it has built (tests, `cargo run`) as root. What it builds stays
    /// the user's.
    pub(crate) fn run_as_root(self, cargo: &mut Command) -> anyhow::Result<()> {
        if self == Self::Sudo {
            let triple = host_triple()?.to_uppercase().replace(['-', '.'], "_");
            cargo.env(format!("CARGO_TARGET_{triple}_RUNNER"), "sudo -E");
        }
        Ok(())
    }
}

/// Whether a command succeeds; what it says is nobody's concern.
pub(crate) fn quiet(command: &mut Command) -> bool {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// What rustc calls this machine.
fn host_triple() -> anyhow::Result<String> {
    let mut rustc = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    clean(&mut rustc);
    let text = capture(rustc.arg("-vV"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(line.context("`rustc -vV` names no host")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_the_command_and_its_complaint() {
        let error = capture(Command::new("sh").args(["-c", "echo no luck >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("sh -c") && text.contains("no luck") && text.contains('3'), "{text}");
    }

    #[test]
    fn lines_are_read_before_the_command_has_failed() {
        let mut seen = Vec::new();
        let long = Duration::from_secs(60);
        let result = go_reading(Command::new("sh").args(["-c", "echo a; echo b; exit 1"]), long, |line| {
            seen.push(line.to_owned());
        });
        assert!(result.is_err());
        assert_eq!(seen, ["a", "b"]);
    }

    #[test]
    fn what_runs_silently_is_read_in_order() {
        let mut seen = Vec::new();
        let mut command = Command::new("sh");
        let result = go_silently(command.args(["-c", "echo a; echo b >&2; echo c"]), Duration::from_secs(60), |line| {
            seen.push(line.to_owned());
        });
        assert!(result.is_ok());
        assert_eq!(seen, ["a", "b", "c"]);
    }

    #[test]
    fn what_hangs_is_ended_with_all_it_has_started() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$; sleep 1000 & echo $!; wait"]);
        let mut pids = Vec::new();
        let result = go_reading(&mut command, Duration::from_secs(2), |line| pids.push(line.to_owned()));
        let text = result.unwrap_err().to_string();
        assert!(text.contains("nothing for") && text.contains(&format!("{:?}", pids[1])), "{text}");
        let lives = |pid: &String| {
            std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
        };
        // A process that is killed takes its time.
        let began = std::time::Instant::now();
        while pids.iter().any(lives) {
            assert!(began.elapsed() < Duration::from_secs(20), "{pids:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_program_is_found_or_not() {
        assert!(find("sh").is_some());
        assert!(find("no-such-program-anywhere").is_none());
    }
}
