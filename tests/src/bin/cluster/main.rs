//! `cargo xtask cluster`: a Kubernetes cluster on this machine to try things on. Here are only the
//! arguments; a process that stays (`hold`) has the cluster, so that whatever becomes of it the cluster ends
//! with it.

mod held;

use std::{
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

use clap::{Parser, Subcommand};
use tests::cluster::{Plan, Proxy, layout::Families};

use held::Held;

/// A Kubernetes cluster on this machine: real control plane, kubelets and containerds, each in namespaces of its own.
///
/// Kubernetes is built from its Go modules the first time, which takes about six minutes on two cores; after that
/// a cluster is up in half a minute. Pods have no network until one is installed. Needs root.
#[derive(Parser, Debug)]
#[command(name = "cargo xtask cluster", max_term_width = 100)]
#[command(
    after_help = "Exit status: 0 if it went well, 1 if not, 64 for wrong usage; `kubectl` and `shell`: that of what they run."
)]
struct Args {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand, Debug)]
enum Task {
    /// Start a cluster, and leave it running
    Up(Wanted),
    /// End the cluster, with everything in it
    Down,
    /// Say what runs, and where its logs and kubeconfig are
    Status,
    /// Open a shell in the control plane, or on a node, with kubectl set up
    Shell {
        /// A node
        #[arg(long, value_name = "NAME")]
        node: Option<String>,
        /// What to run instead of a shell
        #[arg(last = true, value_name = "COMMAND")]
        command: Vec<String>,
    },
    /// Call kubectl as an administrator: `cargo xtask cluster kubectl get pods -A`
    Kubectl {
        /// Its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
        arguments: Vec<String>,
    },
    /// Give an image to every node: `cargo xtask cluster import target/image/bulkhead.tar`
    Import {
        /// An archive that `ctr images import` reads
        archive: std::path::PathBuf,
    },
    /// Build the programs of a cluster that are not there yet, and nothing else
    Build,
    /// Make manifests/bulkhead.yaml and bulkhead-uninstall.yaml from the chart
    Chart,
    /// Have the cluster, in the foreground
    #[command(hide = true)]
    Hold(Wanted),
}

/// What cluster.
#[derive(clap::Args, Clone, Copy, Debug)]
struct Wanted {
    /// How many nodes
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=100))]
    nodes: u8,
    /// Who makes Services work for the node itself and from outside
    #[arg(long, value_enum, default_value_t)]
    proxy: Proxy,
    /// Pods, Services and nodes have both families; that is the default
    #[arg(long, conflicts_with_all = ["ipv4", "ipv6"])]
    dual_stack: bool,
    /// IPv4 only
    #[arg(long, conflicts_with = "ipv6")]
    ipv4: bool,
    /// IPv6 only
    #[arg(long)]
    ipv6: bool,
}

impl Wanted {
    fn plan(self) -> Plan {
        let families = match (self.ipv4, self.ipv6) {
            (true, _) => Families::Ipv4,
            (_, true) => Families::Ipv6,
            _ => Families::DualStack,
        };
        Plan { nodes: usize::from(self.nodes), families, proxy: self.proxy, ..Plan::default() }
    }

    fn words(self) -> Vec<String> {
        let plan = self.plan();
        let proxy = match plan.proxy {
            Proxy::None => "none",
            Proxy::Nftables => "nftables",
            Proxy::Iptables => "iptables",
        };
        let mut words = vec!["--nodes".to_owned(), plan.nodes.to_string(), "--proxy".to_owned(), proxy.to_owned()];
        match plan.families {
            Families::Ipv4 => words.push("--ipv4".to_owned()),
            Families::Ipv6 => words.push("--ipv6".to_owned()),
            Families::DualStack => {}
        }
        words
    }
}

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(said) => {
            // Help is no error. EX_USAGE of sysexits.h, as the product's own binaries.
            let code = if said.use_stderr() { 64 } else { 0 };
            let _ = said.print();
            return ExitCode::from(code);
        }
    };
    match run(args.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(rustix::process::geteuid().is_root(), "needs root, for namespaces and mounts");
    match task {
        Task::Up(wanted) => held::up(&wanted.words())?,
        Task::Hold(wanted) => held::hold(wanted.plan())?,
        Task::Build => println!("Kubernetes: {}", tests::cluster::parts::folder()?.display()),
        Task::Chart => tests::cluster::chart::write(&tests::cluster::parts::folder()?)?,
        Task::Import { archive } => Held::find()?.import(&archive)?,
        Task::Down => held::down()?,
        Task::Status => {
            let held = Held::find()?;
            held.describe();
            return Ok(code(held.kubectl().args(["get", "nodes,pods", "-A", "-o", "wide"]).status()?));
        }
        Task::Shell { node, command } => {
            let mut shell = Held::find()?.shell(node.as_deref(), &command)?;
            return Err(shell.exec().into());
        }
        Task::Kubectl { arguments } => {
            let mut kubectl: Command = Held::find()?.kubectl();
            return Err(kubectl.args(arguments).exec().into());
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn code(status: std::process::ExitStatus) -> ExitCode {
    ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}
