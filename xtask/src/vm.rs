//! `cargo xtask vm`: the kernel's part of the tests on other kernels than the running one, each booted in a virtual
//! machine without hardware support (QEMU's TCG), so that it works wherever QEMU does, and needs no root.
//!
//! ```text
//! kernels  which ones: tests/kernels.toml
//! fetch    a kernel's package of Debian's, unpacked below target/vm
//! modules  files of kernel modules in the order they have to be loaded
//! image    the root of the machine: test programs, what they call, libraries
//! archive  the format of that (cpio)
//! boot     the machine, and what it tells
//! ```

mod archive;
mod boot;
mod fetch;
mod image;
mod kernels;
mod modules;

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};

use self::{
    boot::{Boot, Line},
    fetch::Fetched,
    image::{Image, Which},
    kernels::Kernel,
};
use crate::{
    programs, repo,
    setup::{self, Purpose},
    test::Tally,
};

/// Options of `cargo xtask vm`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    /// Only this kernel of tests/kernels.toml [default: all]
    #[arg(long, value_name = "NAME")]
    kernel: Option<String>,

    /// Say which kernels there are, and run nothing
    #[arg(long)]
    list: bool,

    /// Take the newest package that is offered, though an older one was fetched before
    #[arg(long)]
    fresh: bool,

    /// End a machine that is not done by then
    #[arg(long, value_name = "MINUTES", default_value_t = 45)]
    limit: u64,

    /// Everything that says something about a kernel, which takes long in emulation
    #[arg(long, conflicts_with = "tests")]
    all: bool,

    /// Which tests: the name of a file in tests/tests or daemon/tests, or NAME:FILTER; "threeway:--packets 10000" is the three-way
    /// check [default: as much as `cargo xtask test` runs there, some minutes for each kernel]
    #[arg(last = true, value_name = "TESTS")]
    tests: Vec<String>,
}

/// What runs unless something else is named, and in every `cargo xtask test`: what there is time for. SCTP, Geneve and
/// netkit are there on these kernels and not everywhere else.
const SHORT: [&str; 7] = [
    "matrix",
    "threeway:--packets 3000",
    "net:overlay::",
    "datapath_overlay:a_sender_is_known",
    "net:netkit::",
    "e2e_netkit:with_tcx",
    "e2e_netpol:about_sctp",
];
/// What runs with `--all`, first what is over soon.
const ALL: [&str; 20] = [
    "matrix",
    "net",
    "datapath_policy",
    "datapath_established",
    "datapath_change",
    "datapath_hard",
    "datapath_reasons",
    "datapath_sender",
    "datapath_services",
    "datapath_staged",
    "datapath_sweep",
    "datapath_tables",
    "datapath_tiers",
    "datapath_overlay",
    "datapath_model",
    "threeway:--packets 50000",
    "e2e_netpol",
    "e2e_netkit",
    "e2e_overlay",
    "packets",
];
/// The program that measures the verifier.
const VERIFIER: &str = "verifier";
/// How long a machine may take in `cargo xtask test`: several times what it takes.
const SHORTLY: Duration = Duration::from_secs(15 * 60);
/// How long one test program may take: emulation is some twenty times slower.
const EACH: Duration = Duration::from_secs(20 * 60);

/// `cargo xtask vm`.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    if options.list {
        for kernel in kernels::read()? {
            let state = fetch::cached(&kernel).map_or_else(|| "not fetched".to_owned(), |it| it.package);
            println!("{:<8} {:<8} {:<40} {state}", kernel.name, kernel.attach, kernel.package);
        }
        return Ok(());
    }
    let kernels = chosen(options.kernel.as_deref())?;
    setup::run(Purpose::Vm)?;
    programs::ebpf()?;
    programs::userland(false)?;
    let jobs: Vec<Job> = match options.tests.as_slice() {
        [] if options.all => ALL.map(Job::parse).to_vec(),
        [] => SHORT.map(Job::parse).to_vec(),
        named => named.iter().map(|word| Job::parse(word)).collect(),
    };
    let built = image::build_tests(Which::Of(&jobs))?;
    let limit = Duration::from_secs(options.limit * 60);
    each(&kernels, |kernel| one(kernel, &built, &jobs, options.fresh, limit)).map(drop)
}

/// The kernels that are meant by a name; no name is all.
fn chosen(name: Option<&str>) -> anyhow::Result<Vec<Kernel>> {
    let mut kernels = kernels::read()?;
    if let Some(name) = name.filter(|name| *name != "all") {
        let all = kernels.iter().map(|kernel| kernel.name.clone()).collect::<Vec<_>>().join(", ");
        kernels.retain(|kernel| kernel.name == name);
        ensure!(!kernels.is_empty(), "there is no kernel {name:?}: choose one of {all}");
    }
    Ok(kernels)
}

/// Does something on each kernel, also after a failure. What was counted and said on all of them.
fn each(
    kernels: &[Kernel],
    mut work: impl FnMut(&Kernel) -> anyhow::Result<(Tally, Said)>,
) -> anyhow::Result<(Tally, Said)> {
    let (mut all, mut said, mut failed) = (Tally::default(), Said::new(), Vec::new());
    for kernel in kernels {
        match work(kernel) {
            Ok((tally, lines)) => {
                failed.extend(tally.failures.iter().map(|failure| format!("{}: {failure}", kernel.name)));
                all.passed += tally.passed;
                all.failed += tally.failed;
                all.skipped += tally.skipped;
                said.extend(lines);
            }
            Err(error) => failed.push(format!("{}: {error:#}", kernel.name)),
        }
    }
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok((all, said))
}

/// What measures the verifier.
fn verifier_job() -> Job {
    Job { program: VERIFIER.to_owned(), arguments: vec!["measure".to_owned(), image::OBJECT.to_owned()] }
}

/// Lines in which the program of [`verifier_job`] has told its figures.
fn figures(said: Said) -> Vec<String> {
    said.into_iter().filter(|(name, line)| name == VERIFIER && line.starts_with('{')).map(|(_, line)| line).collect()
}

/// Builds the program that measures the verifier.
pub(crate) fn build_verifier() -> anyhow::Result<PathBuf> {
    image::build_tests(Which::Of(&[]))?.remove(VERIFIER).context("the package tests has no binary verifier")
}

/// As [`build_verifier`], where `cargo xtask test` has built everything.
pub(crate) fn built_verifier() -> anyhow::Result<PathBuf> {
    image::build_tests(Which::All)?.remove(VERIFIER).context("the package tests has no binary verifier")
}

/// The verifier's figures on a kernel of the list, or on all of them, one line of JSON each.
pub(crate) fn verifier(name: &str) -> anyhow::Result<Vec<String>> {
    let jobs = [verifier_job()];
    let built = image::build_tests(Which::Of(&jobs))?;
    let (_, said) = each(&chosen(Some(name))?, |kernel| one(kernel, &built, &jobs, false, SHORTLY))?;
    Ok(figures(said))
}

/// What `cargo xtask test` does on other kernels: all programs stay within the verifier's limits, and [`SHORT`].
pub(crate) fn shortly() -> anyhow::Result<Tally> {
    let jobs: Vec<Job> = std::iter::once(verifier_job()).chain(SHORT.map(Job::parse)).collect();
    let built = image::build_tests(Which::All)?;
    let (tally, said) = each(&chosen(None)?, |kernel| one(kernel, &built, &jobs, false, SHORTLY))?;
    let verifier = built.get(VERIFIER).context("the package tests has no binary verifier")?;
    crate::verifier::compare(verifier, &figures(said).join("\n"), false)?;
    Ok(tally)
}

/// Lines of programs, with the program's name.
type Said = Vec<(String, String)>;

/// One program of the tests, or the three-way check.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Job {
    program: String,
    arguments: Vec<String>,
}

impl Job {
    /// `NAME` or `NAME:ARGUMENTS`, such as a filter.
    fn parse(word: &str) -> Self {
        let (program, arguments) = word.split_once(':').unwrap_or((word, ""));
        Self { program: program.to_owned(), arguments: arguments.split_whitespace().map(str::to_owned).collect() }
    }
}

/// Runs jobs on one kernel. What the tests counted, and every line that a program said with the program's name.
fn one(
    kernel: &Kernel,
    built: &image::Built,
    jobs: &[Job],
    fresh: bool,
    limit: Duration,
) -> anyhow::Result<(Tally, Said)> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "the kernels of tests/kernels.toml are for x86-64: run this on such a machine"
    );
    let fetched: Fetched = fetch::get(kernel, fresh)?;
    println!("\n=== kernel {} ({})", kernel.name, fetched.package);
    let began = Instant::now();
    let folder = repo::target_dir().join("vm").join(&kernel.name);
    fs::create_dir_all(&folder)?;
    let modules = modules::ordered(&fetched.modules, &kernel.modules)?;
    let path = folder.join("image.cpio");
    let each = EACH.min(limit).as_secs();
    Image { kernel, built, modules: &modules, jobs, each }.write(&path)?;
    let size = fs::metadata(&path)?.len();
    println!("image: {} MiB, {} modules; booting", size >> 20, modules.len());
    let boot = Boot { kernel: &fetched.image, image: &path, log: folder.join("kernel.log"), limit };
    let mut tally = Tally::default();
    let mut said = Said::new();
    let mut current = String::new();
    let result = boot.run(|line| match line {
        Line::Kernel(release) => println!("--- Linux {release}, up after {:.1} s", began.elapsed().as_secs_f64()),
        Line::Begin(name) => {
            println!("--- {name}");
            current = name;
        }
        Line::End { name, how, seconds } => {
            println!("--- {name}: {} in {seconds} s", if how == "0" { "ok" } else { &how });
            if how != "0" && !tally.failures.iter().any(|failure| failure.starts_with(&format!("{name} "))) {
                tally.failed += u64::from(how != "101");
                tally.failures.push(format!("{name} ended with {how}"));
            }
        }
        Line::Text(text) => {
            let before = tally.failures.len();
            tally.read(&text);
            if let Some(failure) = tally.failures.get_mut(before) {
                *failure = format!("{current} {failure}");
            }
            println!("{text}");
            said.push((current.clone(), text));
        }
        Line::Done | Line::Broken(_) => {}
    });
    fs::remove_file(&path)?;
    result?;
    println!(
        "=== kernel {}: {} passed, {} failed, {} skipped in {:.0} s",
        kernel.name,
        tally.passed,
        tally.failed,
        tally.skipped,
        began.elapsed().as_secs_f64()
    );
    Ok((tally, said))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_a_program_and_perhaps_a_filter() {
        assert_eq!(Job::parse("packets"), Job { program: "packets".to_owned(), arguments: Vec::new() });
        let wanted = Job { program: "packets".to_owned(), arguments: vec!["fragments::".to_owned()] };
        assert_eq!(Job::parse("packets:fragments::"), wanted);
        let arguments = ["--packets", "3000"].map(str::to_owned).to_vec();
        assert_eq!(Job::parse("threeway:--packets 3000"), Job { program: "threeway".to_owned(), arguments });
    }
}
