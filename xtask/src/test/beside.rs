//! A step that runs beside those that come after it, because it waits more than it works. What it says is
//! kept, and printed when it has ended: two steps that print at once cannot be read.

use std::{
    process::Command,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{Outcome, Report, SILENCE, Tally};
use crate::run;

/// A run of tests that is under way.
#[derive(Debug)]
pub(super) struct Beside {
    name: &'static str,
    thread: JoinHandle<Ended>,
}

#[derive(Debug)]
struct Ended {
    outcome: Outcome,
    said: String,
    took: Duration,
}

impl Beside {
    /// Starts it.
    pub(super) fn start(name: &'static str, mut command: Command) -> Self {
        println!("\n=== {name}, beside the steps that follow");
        let thread = thread::spawn(move || {
            let began = Instant::now();
            let (mut tally, mut said) = (Tally::default(), String::new());
            let result = run::go_silently(&mut command, SILENCE, |line| {
                tally.read(line);
                said.push_str(line);
                said.push('\n');
            });
            Ended { outcome: Outcome::of(tally, result), said, took: began.elapsed() }
        });
        Self { name, thread }
    }

    /// Waits for its end, and prints what it has said.
    pub(super) fn end(self, report: &mut Report) {
        println!("\n=== {}", self.name);
        match self.thread.join() {
            Ok(Ended { outcome, said, took }) => {
                print!("{said}");
                if let Some(why) = outcome.failure() {
                    println!("=== {} FAILED: {why}", self.name);
                }
                report.add_beside(self.name, outcome, took);
            }
            Err(_) => {
                report.add_beside(self.name, Outcome::failed(&anyhow::anyhow!("its thread died")), Duration::ZERO)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_tests_are_counted_and_its_failure_is_the_reports() {
        let mut report = Report::default();
        for words in
            ["test result: ok. 2 passed; 0 failed;", "test a ... FAILED\ntest result: FAILED. 1 passed; 1 failed;"]
        {
            let mut command = Command::new("sh");
            command.args(["-c", &format!("echo '{words}'; case '{words}' in *FAILED*) exit 1;; esac")]);
            assert!(!report.failed());
            Beside::start("cluster", command).end(&mut report);
        }
        assert!(report.failed());
        assert_eq!(report.last_line(), "3 passed, 1 failed, 0 skipped");
    }
}
