//! `cargo xtask`: the one way to build, test, generate and measure. Continuous integration calls
//! the same commands and nothing else. Here are only the arguments; each command is a module.

mod bench;
mod check;
mod cleanup;
mod cluster;
mod demo;
mod differential;
mod edges;
mod fuzz;
mod generate;
mod image;
mod kernel;
mod leftovers;
mod mutants;
mod programs;
mod repo;
mod run;
mod setup;
mod test;
mod toolchain;
mod verifier;
mod vm;

use std::{ffi::OsString, process::ExitCode};

use clap::{Parser, Subcommand};

/// The one way to build, test, generate and measure Bulkhead.
///
/// A fresh clone needs git and rustup only: `demo`, `test` and `bench` set the machine up
/// themselves. What needs root is done through sudo; nothing is built as root.
#[derive(Parser, Debug)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Install what is missing on this machine, and say what for
    ///
    /// Knows Debian 12 and 13, Ubuntu 22.04 and 24.04. Leaves alone what is there. The compiler for
    /// the kernel's programs comes from Debian's packages where they offer it, else from rustup (a
    /// nightly with rust-src); BULKHEAD_EBPF_TOOLCHAIN=debian or =rustup decides otherwise.
    Setup {
        /// What the machine is to be able to do
        #[arg(long = "for", value_enum, default_value_t = setup::Purpose::Build)]
        purpose: setup::Purpose,
    },

    /// Build the programs for the kernel, then the daemon, the CNI plugin and the command line tool
    ///
    /// The daemon carries the programs in it, so they come first. RUSTFLAGS and the like apply to the
    /// binaries, never to the programs.
    Build {
        /// Optimised, as for an installation
        #[arg(long)]
        release: bool,
    },

    /// Look at the code without running it: format, lints, who imports whom, generated files
    Check {
        #[command(subcommand)]
        part: Option<check::Part>,
    },

    /// Run everything that tests Bulkhead, the kernel's part included
    ///
    /// Set-up, check, every crate's tests, then (as root) those that need a kernel, then a look at
    /// whether anything was left behind: network namespaces, links, pins, mounts, cgroups, nftables
    /// tables, processes. The last line is `N passed, N failed, N skipped`.
    Test(test::Options),

    /// See the main job done: pods, policies, live flows, a policy change
    ///
    /// Builds everything, then plays a story and checks that each line of it came true. Arguments
    /// are the demo's own; `--keep` leaves it running to play with.
    Demo {
        /// Passed to the demo
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
        arguments: Vec<OsString>,
    },

    /// Have a Kubernetes cluster on this machine: `cargo xtask cluster up`, `kubectl get nodes`, `down`
    ///
    /// Real API server, kubelets and containerds, built from their Go modules, in namespaces of their own.
    /// `cargo xtask cluster help` says more.
    Cluster {
        /// Passed to it
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
        arguments: Vec<OsString>,
    },

    /// Make the container image, as an archive that needs no registry
    ///
    /// Static binaries and nothing else; the same binaries make the same bytes. Give it to a node with
    /// `ctr -n k8s.io images import`, to kind with `kind load image-archive`, to a registry with what pushes
    /// an archive there, or build the Containerfile.
    Image(image::Options),

    /// Measure: `cargo xtask bench path --json out.json`
    ///
    /// Builds everything optimised and runs `bulkhead-bench` as root; `cargo xtask bench help` lists
    /// what there is to measure.
    Bench {
        /// What to measure, and its options; `--json PATH` writes the numbers to a file
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "NAME [ARGS]")]
        arguments: Vec<OsString>,
    },

    /// Give hostile input to everything that reads some, guided by the code that it reaches
    ///
    /// Packets, conversations, CNI configurations, manifests, gRPC requests, files of the daemon. What
    /// breaks something is made small and shown, with how to try it again and how to make it a test.
    Fuzz(fuzz::Options),

    /// Compare the API's text, compiled rules and the kernel's programs on random worlds and packets
    ///
    /// `cargo xtask differential --packets 10_000_000 --seed N`; `--help` after `--` lists the rest. A
    /// difference is shown in the smallest world that has it.
    Differential {
        /// Passed to the check
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
        arguments: Vec<OsString>,
    },

    /// Break the code in named ways; the comparison must notice each
    ///
    /// In a copy of the tree below the target folder, behind a switch, so that all is built once.
    Mutants(mutants::Options),

    /// Run the kernel's part of the tests on other kernels, in virtual machines: `cargo xtask vm --kernel 6.1`
    ///
    /// Debian's kernels of tests/kernels.toml, emulated, so neither root nor /dev/kvm is needed. Kernels are fetched
    /// once and kept below target/vm. `-- datapath_policy packets:fragments` chooses tests.
    Vm(vm::Options),

    /// Measure what the kernel's verifier says of each program: `cargo xtask verifier --kernel all`
    ///
    /// Instructions processed, states, stack, size, on the running kernel and others; compared with
    /// tests/verifier.json. Fails beyond 60 % of a limit.
    Verifier(verifier::Options),

    /// Write what is generated from a source in the repository
    ///
    /// Rust code from proto/, docs/abi.md from datapath-abi.
    Gen {
        /// Fail on a difference instead of writing
        #[arg(long)]
        check: bool,
    },

    /// Remove what an interrupted demo or test run has left on this machine
    ///
    /// Network namespaces and links with our prefix, what runs in those namespaces, pins below
    /// /sys/fs/bpf/bulkhead*, nftables tables called bulkhead*. Says what it did. Refuses while a
    /// daemon runs, whose pods would lose their network.
    CleanUp {
        /// Say what would be removed, and remove nothing
        #[arg(long)]
        dry_run: bool,
    },
}

fn main() -> ExitCode {
    let result = match Args::parse().command {
        Command::Setup { purpose } => setup::run(purpose),
        Command::Build { release } => programs::build(release),
        Command::Check { part } => check::run(part),
        Command::Test(options) => return test::run(&options),
        Command::Demo { arguments } => demo::run(&arguments),
        Command::Cluster { arguments } => cluster::run(&arguments),
        Command::Bench { arguments } => bench::run(&arguments),
        Command::Differential { arguments } => differential::run(&arguments),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Mutants(options) => mutants::run(&options),
        Command::Image(options) => image::run(&options),
        Command::Vm(options) => vm::run(&options),
        Command::Verifier(options) => verifier::run(&options),
        Command::Gen { check } => generate::run(check),
        Command::CleanUp { dry_run } => cleanup::run(dry_run),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn arguments_of_the_benchmark_and_the_demo_are_passed_on() {
        let parsed = Args::try_parse_from(["x", "bench", "path", "--json", "out.json", "--repeat", "9"]).unwrap();
        let Command::Bench { arguments } = parsed.command else { panic!("not bench") };
        assert_eq!(arguments, ["path", "--json", "out.json", "--repeat", "9"]);
        let parsed = Args::try_parse_from(["x", "demo", "--keep"]).unwrap();
        let Command::Demo { arguments } = parsed.command else { panic!("not demo") };
        assert_eq!(arguments, ["--keep"]);
    }
}
