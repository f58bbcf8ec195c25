//! `bulkhead-bench policy`: what policies cost until they are map entries, for worlds of several sizes
//! and shapes. Everything from nothing, and one change on a node that has it all. Needs no root and no kernel, but
//! for the writes into the kernel's maps, where they are asked for.

mod cell;
mod plot;
mod report;
mod world;

use std::{env, path::PathBuf, process::Command};

use anyhow::{Context as _, ensure};

use self::{
    cell::{Found, measure},
    report::{Report, Row},
    world::{Shape, World},
};
use crate::machine::Machine;

/// Options of `bulkhead-bench policy`.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Args {
    /// Also write the result as JSON
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
    /// Also draw how it grows, as SVG
    #[arg(long, value_name = "PATH")]
    plot: Option<PathBuf>,
    /// Numbers of pods
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000, 100_000], value_name = "N,...")]
    pods: Vec<usize>,
    /// Numbers of policies
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1_000, 10_000], value_name = "N,...")]
    policies: Vec<usize>,
    /// What policies are like
    #[arg(long, value_delimiter = ',', default_values_t = [Shape::Equal], value_name = "SHAPE,...")]
    shapes: Vec<Shape>,
    /// How often each change is made
    #[arg(long, default_value_t = 100, value_name = "N")]
    changes: usize,
    /// Also write what follows from each change into maps of the kernel; needs root
    #[arg(long)]
    kernel: bool,
}

/// Options of the process that measures one world.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Cell {
    #[arg(long)]
    shape: Shape,
    #[arg(long)]
    pods: usize,
    #[arg(long)]
    policies: usize,
    #[arg(long)]
    changes: usize,
    #[arg(long)]
    kernel: bool,
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Measures one world and prints it as one line of JSON.
pub(crate) fn run_cell(cell: Cell) -> anyhow::Result<()> {
    let Cell { shape, pods, policies, changes, kernel } = cell;
    let found = measure(World { shape, pods, policies }, changes, kernel)?;
    println!("{}", serde_json::to_string(&found)?);
    Ok(())
}

/// Measures, prints the tables, writes JSON and plot.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    ensure!(args.changes >= 2, "--changes must be 2 or more: what comes must go");
    for (option, numbers, most) in [("--pods", &args.pods, 1_000_000), ("--policies", &args.policies, 100_000)] {
        ensure!(numbers.iter().all(|number| (10..=most).contains(number)), "{option} must be from 10 to {most}");
    }
    let mut rows = Vec::new();
    for &shape in &args.shapes {
        for &pods in &args.pods {
            for &policies in &args.policies {
                eprintln!("{shape}: {pods} pods, {policies} policies");
                let found = in_a_process(shape, [pods, policies, args.changes], args.kernel)
                    .with_context(|| format!("{shape}, {pods} pods, {policies} policies"))?;
                rows.push(Row { shape: shape.name(), pods, policies, found });
            }
        }
    }
    let report = Report::new(Machine::read(), rows);
    print!("{}", report.tables());
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(path, text).with_context(|| path.display().to_string())?;
    }
    if let Some(path) = &args.plot {
        plot::draw(path, report.rows())?;
    }
    Ok(())
}

fn in_a_process(shape: Shape, numbers: [usize; 3], kernel: bool) -> anyhow::Result<Found> {
    let me = env::current_exe().context("the path of this program")?;
    let options = ["--pods", "--policies", "--changes"].into_iter().zip(numbers);
    let options = options.flat_map(|(option, value)| [option.to_owned(), value.to_string()]);
    let output = Command::new(me)
        .args(["policy-cell", "--shape", shape.name()])
        .args(options)
        .args(kernel.then_some("--kernel"))
        .output()?;
    ensure!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    serde_json::from_slice(&output.stdout).context("what the process printed")
}
