//! The table at the end of a test run, and its last line.

use std::time::{Duration, Instant};

use super::tally::Tally;

/// How a step ended.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    tally: Tally,
    failure: Option<String>,
    skipped: Option<String>,
}

impl Outcome {
    /// Went well, had no tests in it.
    pub(crate) fn done() -> Self {
        Self { tally: Tally::default(), failure: None, skipped: None }
    }

    /// Did not go well.
    pub(crate) fn failed(error: &anyhow::Error) -> Self {
        Self { failure: Some(format!("{error:#}")), ..Self::done() }
    }

    /// Was not done.
    pub(crate) fn skipped(tally: Tally, why: &str) -> Self {
        Self { tally, skipped: Some(why.to_owned()), ..Self::done() }
    }

    /// Was a run of tests.
    pub(crate) fn of(tally: Tally, result: anyhow::Result<()>) -> Self {
        let failure = match (result, tally.failures.is_empty()) {
            (Ok(()), _) => None,
            (Err(_), false) => Some(tally.failures.join(", ")),
            // Did not compile, or ended before it could say how.
            (Err(error), true) => Some(format!("{error:#}")),
        };
        Self { tally, failure, skipped: None }
    }

    /// Why it did not go well.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Failures to count: the tests that failed, or the step itself if it failed otherwise.
    fn failures(&self) -> u64 {
        if self.failure.is_some() { self.tally.failed.max(1) } else { self.tally.failed }
    }

    fn words(&self) -> String {
        let Tally { passed, skipped, .. } = self.tally;
        let mut words = Vec::new();
        if self.failure.is_some() {
            words.push("FAILED".to_owned());
        } else if let Some(why) = &self.skipped {
            words.push(format!("skipped ({why})"));
        } else {
            words.push("ok".to_owned());
        }
        for (number, what) in [(passed, "passed"), (self.tally.failed, "failed"), (skipped, "skipped")] {
            if number > 0 {
                words.push(format!("{number} {what}"));
            }
        }
        words.join(", ")
    }
}

/// All steps so far.
#[derive(Debug)]
pub(crate) struct Report {
    began: Instant,
    steps: Vec<Step>,
}

#[derive(Debug)]
struct Step {
    name: String,
    outcome: Outcome,
    took: Duration,
    /// It ran while others did.
    beside: bool,
}

impl Default for Report {
    fn default() -> Self {
        Self { began: Instant::now(), steps: Vec::new() }
    }
}

impl Report {
    /// Notes a step.
    pub(crate) fn add(&mut self, name: &str, outcome: Outcome, took: Duration) {
        self.steps.push(Step { name: name.to_owned(), outcome, took, beside: false });
    }

    /// Notes a step that ran beside others.
    pub(crate) fn add_beside(&mut self, name: &str, outcome: Outcome, took: Duration) {
        self.steps.push(Step { name: name.to_owned(), outcome, took, beside: true });
    }

    /// Whether any step did not go well.
    pub(crate) fn failed(&self) -> bool {
        self.steps.iter().any(|step| step.outcome.failures() > 0)
    }

    /// Prints the table, what failed, and the last line.
    pub(crate) fn print(&self) {
        println!("\n{:<16} {:>8}  result", "step", "time");
        for Step { name, outcome, took, beside } in &self.steps {
            let beside = if *beside { " (beside others)" } else { "" };
            println!("{name:<16} {:>8}  {}{beside}", time(*took), outcome.words());
        }
        println!("{:<16} {:>8}", "total", time(self.began.elapsed()));
        for Step { name, outcome, .. } in &self.steps {
            if let Some(why) = outcome.failure() {
                println!("\n{name} failed: {why}");
            }
        }
        println!("\n{}", self.last_line());
    }

    /// `N passed, N failed, N skipped`.
    pub(super) fn last_line(&self) -> String {
        let sum = |count: fn(&Outcome) -> u64| self.steps.iter().map(|step| count(&step.outcome)).sum::<u64>();
        let (passed, failed) = (sum(|outcome| outcome.tally.passed), sum(Outcome::failures));
        format!("{passed} passed, {failed} failed, {} skipped", sum(|outcome| outcome.tally.skipped))
    }
}

/// `3m 04s`, `12.3s`.
fn time(took: Duration) -> String {
    let seconds = took.as_secs();
    if seconds >= 60 {
        format!("{}m {:02}s", seconds / 60, seconds % 60)
    } else {
        format!("{:.1}s", took.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(passed: u64, failed: u64) -> Tally {
        Tally { passed, failed, ..Tally::default() }
    }

    #[test]
    fn a_step_that_fails_without_a_test_counts_as_one_failure() {
        let mut report = Report::default();
        report.add("tests", Outcome::of(tally(5, 0), Ok(())), Duration::ZERO);
        report.add("check fmt", Outcome::failed(&anyhow::anyhow!("untidy")), Duration::ZERO);
        assert!(report.failed());
        assert_eq!(report.last_line(), "5 passed, 1 failed, 0 skipped");
    }

    #[test]
    fn a_program_that_dies_before_it_has_counted_is_a_failure() {
        let mut report = Report::default();
        report.add("tests", Outcome::of(tally(5, 0), Err(anyhow::anyhow!("killed by signal 9"))), Duration::ZERO);
        assert_eq!(report.last_line(), "5 passed, 1 failed, 0 skipped");
    }

    #[test]
    fn failed_tests_are_counted_once() {
        let mut tally = tally(5, 2);
        tally.failures = vec!["a".to_owned(), "b".to_owned()];
        let outcome = Outcome::of(tally, Err(anyhow::anyhow!("cargo failed")));
        assert_eq!(outcome.failure(), Some("a, b"));
        let mut report = Report::default();
        report.add("tests", outcome, Duration::ZERO);
        assert_eq!(report.last_line(), "5 passed, 2 failed, 0 skipped");
    }

    #[test]
    fn skipping_is_no_failure_but_is_said() {
        let mut report = Report::default();
        let skipped = Tally { skipped: 9, ..Tally::default() };
        report.add("kernel tests", Outcome::skipped(skipped, "no root"), Duration::ZERO);
        assert!(!report.failed());
        assert_eq!(report.last_line(), "0 passed, 0 failed, 9 skipped");
    }

    #[test]
    fn times_are_short() {
        assert_eq!(time(Duration::from_millis(12_340)), "12.3s");
        assert_eq!(time(Duration::from_secs(184)), "3m 04s");
    }
}
