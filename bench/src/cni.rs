//! `bulkhead-bench cni`: what ADD and DEL take, beside the reference plugins `ptp` and `host-local`
//! (package containernetworking-plugins) in the same run.
//!
//! Both sides are asked as a runtime asks: a process for each call, from its start to its end. They
//! take turns, pod by pod, and who is first changes with every pod, so that what slows the machine
//! down slows both; between two calls is a pause, so that neither waits for what the kernel still does for the
//! other. Ours answers when policy is in the kernel; the pods are under a default deny and a rule.
//! Theirs enforces nothing.

mod reference;
mod report;
mod steps;

use std::{
    path::PathBuf,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use tests::{
    node::{Node, Setup},
    pod::Blank,
};

use self::{reference::Reference, report::Report};
use crate::machine::Machine;

/// What our pods are under: isolated in both directions, with rules for each.
const POLICIES: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-deny, namespace: bench}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: bench}
spec:
  podSelector: {}
  policyTypes: [Ingress, Egress]
  ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 80}]}]
  egress: [{to: [{namespaceSelector: {}}], ports: [{port: 53, protocol: UDP}]}]
";

/// Options of `bulkhead-bench cni`.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Args {
    /// Also write the result as JSON
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
    /// Pods of each side, all there at once before the first DEL; at most 400
    #[arg(long, default_value_t = 200, value_name = "N")]
    pods: usize,
    /// Give every pod an IPv6 address as well; the reference waits a second or two for each
    #[arg(long)]
    dual: bool,
    /// Pause between two calls, so that none pays for what the kernel still has to do for the one before
    #[arg(long, default_value_t = 50, value_name = "MS")]
    pause: u64,
    /// One more argument of our daemon, for example `--daemon=--attach=tcx`; may be repeated
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    daemon: Vec<String>,
    /// Also tell how long each step takes in our daemon, which then logs more
    #[arg(long)]
    steps: bool,
    /// Where the reference plugins are
    #[arg(long, default_value = "/usr/lib/cni", value_name = "PATH")]
    reference: PathBuf,
}

/// Milliseconds of each call, in the order of the pods.
#[derive(Debug, Default)]
struct Series {
    add: Vec<f64>,
    del: Vec<f64>,
}

/// Measures, prints the table, writes the JSON.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    ensure!((1..=400).contains(&args.pods), "--pods must be from 1 to 400");
    let machine = Machine::read();
    let mut pools = vec!["10.77.0.0/23".to_owned()];
    if args.dual {
        pools.push("fd77::/64".to_owned());
    }
    let mut arguments = args.daemon.clone();
    if args.steps {
        arguments.extend(steps::ARGUMENTS.map(str::to_owned));
    }
    let setup = Setup { pools, arguments, ..Setup::default() };
    let pause = Duration::from_millis(args.pause);
    let node = Node::start_as(setup, &[("policies.yaml", POLICIES)]).context("a node with our daemon")?;
    let reference = Reference::new(&args.reference, &node.folder(), args.dual)?;

    let (mut ours, mut theirs) = (Series::default(), Series::default());
    let mut pods = Vec::new();
    for number in 0..args.pods {
        eprint!("\rADD {} of {}", number + 1, args.pods);
        let blank = node.blank(&format!("bench/web-{number}"))?;
        let other = reference.blank()?;
        in_turn(
            number,
            pause,
            || timed(&mut ours.add, || ok(&blank, "ADD")),
            || timed(&mut theirs.add, || reference.call("ADD", &other)),
        )?;
        pods.push((blank, other));
    }
    for (number, (blank, other)) in pods.iter().enumerate() {
        eprint!("\rDEL {} of {}", number + 1, args.pods);
        in_turn(
            number,
            pause,
            || timed(&mut ours.del, || ok(blank, "DEL")),
            || timed(&mut theirs.del, || reference.call("DEL", other)),
        )?;
    }
    eprintln!();

    let report = Report::new(machine, args.pods, args.dual, &ours, &theirs);
    print!("{}", report.table());
    if args.steps {
        let log = std::fs::read_to_string(node.log()).context("the daemon's log")?;
        print!("{}", steps::table(&log)?);
    }
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&report)? + "\n";
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// Both, the first of them first for every other pod.
fn in_turn(
    number: usize,
    pause: Duration,
    one: impl FnOnce() -> anyhow::Result<()>,
    other: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    sleep(pause);
    if number.is_multiple_of(2) {
        one()?;
        sleep(pause);
        other()
    } else {
        other()?;
        sleep(pause);
        one()
    }
}

/// Milliseconds of a call that must succeed.
fn timed(series: &mut Vec<f64>, call: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let began = Instant::now();
    call()?;
    series.push(began.elapsed().as_secs_f64() * 1e3);
    Ok(())
}

fn ok(blank: &Blank, command: &str) -> anyhow::Result<()> {
    blank.call(command)?.result().with_context(|| format!("{command} of {}", blank.key))?;
    Ok(())
}
