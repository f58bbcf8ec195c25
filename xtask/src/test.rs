//! `cargo xtask test`: every step, in an order that fails early, and a table at the end.
//!
//! A step that fails does not keep the later ones from running: one run shows everything. What
//! the steps build, they build as the user; what needs a kernel runs as root. The tests in the Kubernetes
//! cluster run beside all others: they wait for Kubernetes most of the time.

mod beside;
mod report;
mod tally;

use std::{
    env,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::Context as _;

use self::{beside::Beside, report::Report};
pub(crate) use self::{report::Outcome, tally::Tally};
use crate::{
    check, cluster, fuzz, image,
    kernel::{self, Profile},
    leftovers::{self, Snapshot},
    programs,
    run::{self, Privilege},
    setup::{self, Purpose},
    verifier, vm,
};

/// Options of `cargo xtask test`.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct Options {
    /// Only tests whose name holds this; the check is left out
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,

    /// Leave out what needs a kernel and root; counted as skipped
    #[arg(long)]
    no_kernel: bool,
}

/// Features that tests of one crate want of another; a test that lacks its feature would silently not be built.
const FEATURES: &str = "policy/test-util,flows/test-util,datapath-abi/user";

/// How long a run of tests may print nothing: it may have to be compiled first, and the longest
/// test takes three minutes.
const SILENCE: Duration = Duration::from_secs(15 * 60);

/// Packages whose tests need root and a kernel, wholly or in part.
const KERNEL: [&str; 3] = ["daemon", "tests", "threeway"];

/// Tells the cluster's tests that they run beside this run (tests/tests/kubernetes).
const CLUSTER_TESTS: &str = "BULKHEAD_CLUSTER_TESTS";

/// Runs all steps. Fails if any of them did.
pub(crate) fn run(options: &Options) -> ExitCode {
    match leftovers::supervise() {
        Ok(None) => {}
        Ok(Some(code)) => return code,
        Err(error) => {
            eprintln!("error: {error:#}");
            return ExitCode::FAILURE;
        }
    }
    let mut report = Report::default();
    steps(options, &mut report);
    report.print();
    if report.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn steps(options: &Options, report: &mut Report) {
    if !step(report, "set-up", || setup::run(Purpose::Test).map(|()| Outcome::done())) {
        return;
    }
    let root = match privilege(options) {
        Ok(root) => root,
        Err(error) => return report.add("root", Outcome::failed(&error), Instant::now().elapsed()),
    };
    let before = Snapshot::take(root.ok());
    // The daemon carries the programs in it: without them nothing else can be compiled.
    if !step(report, "eBPF programs", || programs::ebpf().map(|()| Outcome::done())) {
        return;
    }
    if options.filter.is_none() {
        for part in check::PARTS {
            step(report, &format!("check {}", part.name()), || check::one(part).map(|()| Outcome::done()));
        }
    }
    let cluster = root.ok().and_then(|root| start_cluster_tests(options, root, report));
    step(report, "tests", || tests(options, root.is_ok()));
    if options.filter.is_none() {
        step(report, "fuzz", || fuzz::shortly().map(|()| Outcome::done()));
    }
    match root {
        Ok(root) => {
            step(report, "kernel tests", || count(kernel_tests(root)?, options));
            if options.filter.is_none() {
                step(report, "verifier", || verifier::running(root).map(|()| Outcome::done()));
                step(report, "other kernels", other_kernels);
            }
            if let Some(cluster) = cluster {
                cluster.end(report);
            }
        }
        Err(why) => {
            step(report, "kernel tests", || {
                let tally = Tally { skipped: count_kernel_tests(options)?, ..Tally::default() };
                Ok(Outcome::skipped(tally, why))
            });
        }
    }
    step(report, "leftovers", || leftovers::check(&before, root.ok()).map(|()| Outcome::done()));
}

/// Builds what the tests in the cluster need, and starts them: as early as can be, for they take the longest.
fn start_cluster_tests(options: &Options, root: Privilege, report: &mut Report) -> Option<Beside> {
    step(report, "binaries", || programs::userland(false).map(|()| Outcome::done()));
    step(report, "image", || image::build(&image::Options::debug()).map(|()| Outcome::done()));
    step(report, "Kubernetes", || cluster::prepare(root).map(|()| Outcome::done()));
    let mut cluster = None;
    step(report, "building tests", || {
        run::go(kernel_tests(root)?.arg("--no-run"))?;
        cluster = Some(Beside::start("cluster tests", cluster_tests(options, root)?));
        Ok(Outcome::done())
    });
    cluster
}

/// Runs a step, notes how it ended. True if it went well.
fn step(report: &mut Report, name: &str, work: impl FnOnce() -> anyhow::Result<Outcome>) -> bool {
    println!("\n=== {name}");
    let began = Instant::now();
    let outcome = work().unwrap_or_else(|error| Outcome::failed(&error));
    if let Some(why) = outcome.failure() {
        println!("=== {name} FAILED: {why}");
    }
    let good = outcome.failure().is_none();
    report.add(name, outcome, began.elapsed());
    good
}

/// Root, or why there is none. In continuous integration there has to be.
fn privilege(options: &Options) -> anyhow::Result<Result<Privilege, &'static str>> {
    if options.no_kernel {
        return Ok(Err("--no-kernel"));
    }
    match Privilege::find() {
        Ok(root) => {
            root.keep_alive();
            Ok(Ok(root))
        }
        Err(error) if in_ci() => Err(error.context("kernel tests must not be skipped in continuous integration")),
        Err(error) => {
            println!("Kernel tests will be skipped: {error:#}");
            Ok(Err("no root"))
        }
    }
}

/// Whether nobody is watching.
fn in_ci() -> bool {
    env::var("CI").is_ok_and(|value| !value.is_empty() && value != "false")
}

/// Every crate's tests but those that [`kernel_tests`] runs.
fn tests(options: &Options, kernel: bool) -> anyhow::Result<Outcome> {
    let mut cargo = run::cargo();
    cargo.args(["test", "--no-fail-fast", "--workspace", "--features", FEATURES]);
    cargo.args(["--exclude", "tests", "--exclude", "threeway"]);
    if kernel {
        cargo.args(["--exclude", "daemon"]);
    }
    count(cargo, options)
}

/// Tests that need root, but for those in the cluster.
fn kernel_tests(root: Privilege) -> anyhow::Result<Command> {
    let mut cargo = run::cargo();
    cargo.args(["test", "--no-fail-fast"]);
    for package in KERNEL {
        cargo.args(["--package", package]);
    }
    kernel::prepare(&mut cargo, root, Profile::Debug)?;
    cargo.env(CLUSTER_TESTS, "beside");
    Ok(cargo)
}

/// Tests in the Kubernetes cluster.
fn cluster_tests(options: &Options, root: Privilege) -> anyhow::Result<Command> {
    let mut cargo = run::cargo();
    cargo.args(["test", "--package", "tests", "--test", "kubernetes"]);
    kernel::prepare(&mut cargo, root, Profile::Debug)?;
    cargo.arg("--").args(&options.filter);
    Ok(cargo)
}

/// All programs on the kernels of tests/kernels.toml, in virtual machines.
fn other_kernels() -> anyhow::Result<Outcome> {
    if !cfg!(target_arch = "x86_64") {
        return Ok(Outcome::skipped(Tally::default(), "they are for x86-64"));
    }
    vm::shortly().map(|tally| Outcome::of(tally, Ok(())))
}

/// How many tests there are that nobody has run.
fn count_kernel_tests(options: &Options) -> anyhow::Result<u64> {
    let mut cargo = run::cargo();
    cargo.args(["test", "--quiet", "--package", "tests", "--package", "threeway", "--"]);
    cargo.args(&options.filter).arg("--list");
    let text = run::capture(&mut cargo).context("counting the kernel tests")?;
    Ok(text.lines().filter(|line| line.ends_with(": test")).count() as u64)
}

/// Runs a `cargo test` and adds up what it says.
fn count(mut cargo: Command, options: &Options) -> anyhow::Result<Outcome> {
    if let Some(filter) = &options.filter {
        cargo.arg("--").arg(filter);
    }
    let mut tally = Tally::default();
    let result = run::go_reading(&mut cargo, SILENCE, |line| tally.read(line));
    Ok(Outcome::of(tally, result))
}
