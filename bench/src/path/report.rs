//! Figures as a table for people and as JSON for programs (schema: bench/README.md).

use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::{Args, FEW, MANY, cases::Case};
use crate::{machine::Machine, stats::Summary};

/// Everything that was found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    schema: &'static str,
    machine: Machine,
    cpu: usize,
    rounds: u32,
    runs_per_round: u32,
    /// The empty program without a wrapper.
    empty_ns: Summary,
    cases: Vec<Row>,
    budgets: Vec<Budget>,
}

/// One case.
#[derive(Debug, Serialize)]
struct Row {
    id: String,
    name: String,
    rules: Option<u32>,
    /// As a plain test run would show it: with what the empty program costs.
    ns: Summary,
    /// Without.
    net_ns: Summary,
    /// `ns` to that of the floor program of the same family.
    ratio: f64,
    /// The same without what the empty program costs.
    net_ratio: f64,
}

/// One line of the design's section 10.
#[derive(Debug, Serialize)]
struct Budget {
    what: String,
    limit: f64,
    found: f64,
    unit: &'static str,
    met: bool,
}

impl Report {
    /// From the net nanoseconds of each case in each round.
    pub(crate) fn new(
        machine: Machine,
        args: &Args,
        runs_per_round: u32,
        empty: Summary,
        cases: &[Case],
        series: &[Vec<f64>],
    ) -> Self {
        let net: Vec<Summary> = series.iter().map(|values| Summary::of(values)).collect();
        let floor_of = |case: &Case| {
            let id = if case.id.contains("v6") { "floor_v6" } else { "floor_v4" };
            cases.iter().position(|other| other.id == id).map_or(f64::NAN, |at| net[at].median)
        };
        let rows: Vec<Row> = cases
            .iter()
            .zip(&net)
            .map(|(case, net)| {
                let shown = |value: f64| value + empty.median;
                let floor = floor_of(case);
                Row {
                    id: case.id.clone(),
                    name: case.name.clone(),
                    rules: case.rules,
                    ns: Summary { median: shown(net.median), min: shown(net.min), max: shown(net.max), mad: net.mad },
                    net_ns: *net,
                    ratio: shown(net.median) / shown(floor),
                    net_ratio: net.median / floor,
                }
            })
            .collect();
        let budgets = budgets(&rows);
        Self {
            schema: "bulkhead.bench.path/1",
            machine,
            cpu: args.cpu,
            rounds: args.rounds,
            runs_per_round,
            empty_ns: empty,
            cases: rows,
            budgets,
        }
    }

    /// For people.
    pub(crate) fn table(&self) -> String {
        let m = &self.machine;
        let mut text = format!(
            "Program cost per packet, nanoseconds. {} rounds of {} runs, CPU {} of {} ({}), kernel {}, JIT {}\n",
            self.rounds,
            self.runs_per_round,
            self.cpu,
            m.cpus,
            m.cpu,
            m.kernel,
            m.bpf_jit.map_or("unknown".to_owned(), |jit| if jit == 0 { "off".to_owned() } else { "on".to_owned() }),
        );
        for (name, state) in &m.mitigations {
            let _ = writeln!(text, "  {name}: {state}");
        }
        let mut table = Table::new();
        table.load_preset(presets::ASCII_BORDERS_ONLY_CONDENSED);
        table.set_header(["case", "ns", "min", "max", "MAD", "x floor", "net ns", "net x floor"]);
        let e = &self.empty_ns;
        table.add_row(
            ["empty program", &one(e.median), &one(e.min), &one(e.max), &one(e.mad), "", "", ""].map(str::to_owned),
        );
        for row in &self.cases {
            let n = &row.ns;
            table.add_row([
                row.name.clone(),
                one(n.median),
                one(n.min),
                one(n.max),
                one(n.mad),
                format!("{:.2}", row.ratio),
                one(row.net_ns.median),
                format!("{:.2}", row.net_ratio),
            ]);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let _ = writeln!(text, "{table}");
        for budget in &self.budgets {
            let word = if budget.met { "met   " } else { "MISSED" };
            let _ = writeln!(
                text,
                "{word} {}: {:.2} {}, at most {:.2}",
                budget.what, budget.found, budget.unit, budget.limit
            );
        }
        text
    }
}

fn one(value: f64) -> String {
    format!("{value:.1}")
}

/// The packet path's lines of the design's section 10.
fn budgets(rows: &[Row]) -> Vec<Budget> {
    let ns = |id: &str| rows.iter().find(|row| row.id == id).map_or(f64::NAN, |row| row.ns.median);
    let mut budgets = Vec::new();
    let mut add = |what: String, found: f64, limit: f64, unit: &'static str| {
        // Not measured with `--only`.
        if found.is_nan() {
            return;
        }
        budgets.push(Budget { what, limit, found, unit, met: found <= limit });
    };
    for (id, floor) in [
        ("established_original_v4", "floor_v4"),
        ("established_reply_v4", "floor_v4"),
        ("established_original_v6", "floor_v6"),
        ("established_reply_v6", "floor_v6"),
    ] {
        add(id.to_owned(), ns(id) / ns(floor), 1.5, "x floor");
    }
    for family in ["v4", "v6"] {
        let first = ns(&format!("first_{family}_{MANY}"));
        let established = ns(&format!("established_original_{family}"));
        add(format!("first_{family}_{MANY} beyond established"), first - established, 250.0, "ns");
        add(
            format!("first_{family}_{MANY} to first_{family}_{FEW}"),
            first / ns(&format!("first_{family}_{FEW}")),
            1.2,
            "x",
        );
    }
    for id in ["denied_ingress", "denied_egress"] {
        add(format!("{id}_{MANY} with its event"), ns(&format!("{id}_{MANY}")), 1000.0, "ns");
    }
    budgets
}
