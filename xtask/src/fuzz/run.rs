//! One target under libFuzzer: started, watched, ended.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context as _;

use super::{engine::Engine, find::Find, folder};
use crate::repo;

/// An input that takes longer has found something: seconds.
const TIMEOUT_S: u32 = 10;
/// So has one that makes the process need more: megabytes.
const MEMORY_MB: u32 = 2048;
/// How much longer than its time a run may take to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A run that goes on.
#[derive(Debug)]
pub(super) struct Run<'a> {
    engine: &'a Engine,
    target: String,
    child: Child,
    log: PathBuf,
    began: Instant,
    told: Instant,
    time: Duration,
}

impl<'a> Run<'a> {
    /// Starts it, from the seeds and from what earlier runs and finds have left.
    pub(super) fn start(engine: &'a Engine, target: &str, time: Duration) -> anyhow::Result<Self> {
        let start = engine.start(target);
        let corpus = folder().join("corpus").join(target);
        let found = found(target);
        let log = folder().join("log").join(target);
        let _ = fs::remove_dir_all(&found);
        for folder in [corpus.as_path(), &found, log.parent().unwrap_or(Path::new("."))] {
            fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        }
        let options = fs::read_to_string(start.join("options"))?;
        let mut command = engine.fuzzer(target);
        command.args(options.lines());
        let dictionary = start.join("dictionary");
        if dictionary.is_file() {
            command.arg(format!("-dict={}", dictionary.display()));
        }
        command.arg(format!("-artifact_prefix={}/", found.display()));
        command.arg(format!("-max_total_time={}", time.as_secs()));
        command.args([format!("-timeout={TIMEOUT_S}"), format!("-rss_limit_mb={MEMORY_MB}")]);
        // The first folder is the one that is written to.
        command.args([corpus, start.join("seeds")]);
        let finds = repo::root().join("fuzz/finds").join(target);
        if finds.is_dir() {
            command.arg(finds);
        }
        let output = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
        let child = command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).spawn();
        let child = child.with_context(|| format!("starting {}", crate::run::show(&command)))?;
        let now = Instant::now();
        Ok(Self { engine, target: target.to_owned(), child, log, began: now, told: now, time })
    }

    /// Whether it has ended, and with which find. An engine that does not end by itself is ended.
    pub(super) fn ended(&mut self) -> anyhow::Result<Option<Option<Find>>> {
        let status = match self.child.try_wait()? {
            Some(status) => status,
            None if self.began.elapsed() < self.time + PATIENCE => return Ok(None),
            None => {
                self.child.kill()?;
                self.child.wait()?
            }
        };
        let log = self.text();
        if status.success() {
            self.tell();
            return Ok(Some(None));
        }
        Ok(Some(Some(Find::new(self.engine, &self.target, &found(&self.target), &log, status)?)))
    }

    /// Says how far it is, if it has not done so for a while.
    pub(super) fn progress(&mut self, every: Duration) {
        if self.told.elapsed() >= every {
            self.told = Instant::now();
            self.tell();
        }
    }

    fn tell(&self) {
        let Some(state) = state(&self.text()) else { return };
        println!("  {:<10} {:>5} s  {state}", self.target, self.began.elapsed().as_secs());
    }

    fn text(&self) -> String {
        fs::read(&self.log).map_or_else(|_| String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl Drop for Run<'_> {
    /// Nobody is left behind when another target could not be started.
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Where libFuzzer puts what breaks a target.
fn found(target: &str) -> PathBuf {
    folder().join("found").join(target)
}

/// The last of libFuzzer's lines of progress, for people: inputs tried, places reached, inputs kept.
fn state(log: &str) -> Option<String> {
    let line = log.lines().rev().find(|line| line.starts_with('#') && line.contains(" cov: "))?;
    let mut words = line.split_whitespace();
    let inputs = words.next()?.strip_prefix('#')?;
    let after = |name: &str| line.split_whitespace().skip_while(|word| *word != name).nth(1);
    let kept = after("corp:")?.split('/').next()?;
    Some(format!("{inputs:>10} inputs, {} places reached, {kept} inputs kept", after("cov:")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read_from_the_last_line_that_has_it() {
        let log = "INFO: Seed: 1\n#2\tINITED cov: 10 ft: 11 corp: 1/1b exec/s: 0 rss: 40Mb\n\
                   #4096\tpulse  cov: 123 ft: 456 corp: 78/901b lim: 4 exec/s: 2048 rss: 41Mb\nDone 5000 runs in 30 second(s)\n";
        assert_eq!(state(log).unwrap().trim(), "4096 inputs, 123 places reached, 78 inputs kept");
        assert_eq!(state("INFO: nothing yet\n"), None);
    }
}
