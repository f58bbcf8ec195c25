//! `cargo xtask bench scale`: Bulkhead on a cluster of two real nodes that looks large to it. Here are only the
//! arguments and the order of things.
//!
//! ```text
//! world  the objects                      load   puts them into the API server
//! api    the API server, asked by many    pods   real pods, twenty at once
//! flips  how soon a policy is in force    meter  what the daemons take
//! report the figures                      interrupt  ctrl-c
//! ```

mod api;
mod flips;
mod interrupt;
mod load;
mod meter;
mod pods;
mod report;
mod world;

use std::{
    process::ExitCode,
    sync::OnceLock,
    time::{Duration, Instant},
};

use ::tests::{
    cluster::{Cluster, Plan},
    effort::Measured,
};
use anyhow::ensure;
use clap::{Parser, ValueEnum};

use api::Api;
use meter::{Meter, Reading};
use report::{Daemon, Report};
use world::World;

/// Measures Bulkhead on a Kubernetes cluster that has much in it.
///
/// Two nodes on this machine with real pods; nodes, pods, Services and policies beside them that are objects in the
/// API server only. Needs root, about 6 GiB of memory, and a quiet machine for figures that mean something. Nothing is
/// left behind, also after ctrl-c.
#[derive(Parser, Clone, Debug)]
#[command(name = "cargo xtask bench scale", max_term_width = 100)]
struct Args {
    /// Real pods on each of the two nodes
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=240))]
    pods_per_node: u16,
    /// How many of them are made at once
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..))]
    at_once: u16,
    /// Services
    #[arg(long, default_value_t = 1000)]
    services: usize,
    /// Pods that are objects only
    #[arg(long, default_value_t = 10_000)]
    fake_pods: usize,
    /// NetworkPolicies
    #[arg(long, default_value_t = 1000)]
    policies: usize,
    /// Namespaces that all of these are in
    #[arg(long, default_value_t = 100)]
    namespaces: usize,
    /// How often a policy is turned over, each way
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// How long to watch daemons that have nothing to do, seconds
    #[arg(long, default_value_t = 60)]
    idle: u64,
    /// What to print; progress goes to standard error
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Output {
    /// For people
    #[default]
    Table,
    /// One object, as docs/scale.md has it
    Json,
}

/// A line of progress, with the seconds since the start.
pub(crate) fn say(what: &str) {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    eprintln!("{:>4} s  {what}", BEGAN.get_or_init(Instant::now).elapsed().as_secs());
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
    match run(&args) {
        Ok(report) => {
            match args.output {
                Output::Table => print!("{}", report.table()),
                Output::Json => println!("{:#}", report.json()),
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<Report> {
    ensure!(rustix::process::geteuid().is_root(), "needs root, for namespaces and mounts");
    let world =
        World { namespaces: args.namespaces, pods: args.fake_pods, services: args.services, policies: args.policies };
    world.check()?;
    interrupt::listen()?;
    let mut cluster = Cluster::start(Plan::default(), say)?;
    interrupt::check()?;
    say("Bulkhead");
    cluster.install()?;
    let measured = measure(args, world, &cluster);
    if measured.is_err() && interrupt::check().is_ok() {
        eprintln!("{}", cluster.tails());
    }
    say("taking all of it away");
    drop(cluster);
    // What ended in the middle of something may have been killed before it cleaned up.
    tests::cgroup::sweep();
    say("done");
    measured
}

fn measure(args: &Args, world: World, cluster: &Cluster) -> anyhow::Result<Report> {
    // Each ADD's own time.
    let daemons = "daemonset/bulkhead";
    let log = "BULKHEAD_LOG=info,daemon::cni=debug";
    cluster.control.kubectl(&["set", "env", "-n", "kube-system", daemons, log])?;
    cluster.control.kubectl(&["rollout", "status", "-n", "kube-system", daemons, "--timeout=120s"])?;
    let api = Api::of(&cluster.control)?;
    let mut phases = Phases::begin(cluster)?;
    load::make(&api, cluster, world, &phases.meters())?;
    phases.end("load")?;

    say("real pods");
    let started = pods::start(&api, cluster, world, usize::from(args.pods_per_node), usize::from(args.at_once))?;
    phases.end("pods")?;
    let mut adds = Measured::default();
    for meter in phases.meters() {
        meter.adds(cluster)?.into_iter().for_each(|took| adds.add(took));
    }
    let pods = usize::from(args.pods_per_node) * cluster.nodes.len();
    ensure!(adds.count() >= pods, "the daemons have told of {} ADDs for {pods} pods", adds.count());

    say("turns of a policy");
    let flips = flips::measure(&api, cluster, usize::from(args.rounds))?;
    phases.end("turns")?;

    say(&format!("{} s without anything to do", args.idle));
    interrupt::sleep(Duration::from_secs(args.idle))?;
    phases.end("idle")?;
    Ok(Report {
        counts: vec![
            ("real pods", pods),
            ("at once", usize::from(args.at_once)),
            ("fake pods", world.pods),
            ("fake nodes", world.nodes()),
            ("label sets", world.label_sets()),
            ("Services", world.services),
            ("endpoints of Services", world.endpoints()),
            ("policies", world.policies),
        ],
        adds,
        started,
        flips,
        daemons: phases.daemons,
    })
}

/// What daemons take from phase to phase.
struct Phases<'a> {
    cluster: &'a Cluster,
    meters: Vec<(Meter, Reading)>,
    began: Instant,
    daemons: Vec<Daemon>,
}

impl<'a> Phases<'a> {
    fn begin(cluster: &'a Cluster) -> anyhow::Result<Self> {
        let meters = Meter::all(cluster).into_iter().map(|meter| {
            let reading = meter.read(cluster)?;
            Ok((meter, reading))
        });
        let meters = meters.collect::<anyhow::Result<Vec<_>>>()?;
        let daemons = meters.iter().map(|(meter, _)| Daemon { node: meter.node.clone(), phases: Vec::new() }).collect();
        Ok(Self { cluster, meters, began: Instant::now(), daemons })
    }

    fn meters(&self) -> Vec<Meter> {
        self.meters.iter().map(|(meter, _)| meter.clone()).collect()
    }

    /// What has been since the last call is called so.
    fn end(&mut self, phase: &'static str) -> anyhow::Result<()> {
        let took = self.began.elapsed();
        for ((meter, last), daemon) in self.meters.iter_mut().zip(&mut self.daemons) {
            let reading = meter.read(self.cluster)?;
            let cpu = reading.cpu.checked_sub(last.cpu);
            let cpu = cpu.ok_or_else(|| anyhow::anyhow!("the daemon of {} was started anew", meter.node))?;
            say(&format!(
                "{}: {phase}: {:.2} s of processor time, {} MiB",
                meter.node,
                cpu.as_secs_f64(),
                reading.rss >> 20
            ));
            daemon.phases.push((phase, reading, cpu, took));
            *last = reading;
        }
        self.began = Instant::now();
        Ok(())
    }
}
