//! Figures as a table for people and as JSON for programs (schema: bench/README.md).

use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::{
    Args, FEW, MANY, Series,
    cases::{Case, Node},
};
use crate::{budget::Budget, machine::Machine, stats::Summary};

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
    /// `ns` to that of the floor program of the same family, median of the rounds.
    ratio: f64,
    /// The same without what the empty program costs.
    net_ratio: f64,
    /// `ns` with the object of `--against`.
    #[serde(skip_serializing_if = "Option::is_none")]
    against_ns: Option<Summary>,
    /// `ns` less that of the other object, median of the rounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    change_ns: Option<f64>,
    /// `ns` by round.
    #[serde(skip)]
    rounds: Vec<f64>,
}

impl Report {
    /// From what was measured in each round.
    pub(crate) fn new(machine: Machine, args: &Args, runs_per_round: u32, empty: &[f64], found: &[Series]) -> Self {
        // One figure for all: what a run costs by itself does not depend on what runs.
        let alone = Summary::of(empty).median;
        let shown = |net: &[f64]| -> Vec<f64> { net.iter().map(|net| net + alone).collect() };
        let floor_of = |case: &Case| {
            let id = match (case.id.contains("v6"), case.node == Node::Crowded) {
                (true, _) => "floor_v6",
                (false, false) => "floor_v4",
                (false, true) => "floor_cold_v4",
            };
            found.iter().find(|other| other.case.id == id).map_or(&[][..], |floor| &floor.net)
        };
        let rows: Vec<Row> = found
            .iter()
            .map(|Series { case, net, against }| {
                let floor = floor_of(case);
                let rounds = shown(net);
                let other = shown(against);
                Row {
                    id: case.id.clone(),
                    name: case.name.clone(),
                    rules: case.rules,
                    ns: Summary::of(&rounds),
                    net_ns: Summary::of(net),
                    ratio: paired(&rounds, &shown(floor), |one, other| one / other),
                    net_ratio: paired(net, floor, |one, other| one / other),
                    against_ns: (!other.is_empty()).then(|| Summary::of(&other)),
                    change_ns: (!other.is_empty()).then(|| paired(&rounds, &other, |one, other| one - other)),
                    rounds,
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
            empty_ns: Summary::of(empty),
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
        let mut header = vec!["case", "ns", "min", "max", "MAD", "x floor", "net ns", "net x floor"];
        if self.cases.iter().any(|row| row.change_ns.is_some()) {
            header.extend(["against", "change"]);
        }
        table.set_header(header);
        let e = &self.empty_ns;
        table.add_row(
            ["empty program", &one(e.median), &one(e.min), &one(e.max), &one(e.mad), "", "", ""].map(str::to_owned),
        );
        for row in &self.cases {
            let n = &row.ns;
            let mut cells = vec![
                row.name.clone(),
                one(n.median),
                one(n.min),
                one(n.max),
                one(n.mad),
                format!("{:.2}", row.ratio),
                one(row.net_ns.median),
                format!("{:.2}", row.net_ratio),
            ];
            if let (Some(against), Some(change)) = (row.against_ns, row.change_ns) {
                cells.extend([one(against.median), format!("{change:+.1}")]);
            }
            table.add_row(cells);
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

/// Median of what two cases of the same rounds give: the machine drifts from round to round.
fn paired(one: &[f64], other: &[f64], give: impl Fn(f64, f64) -> f64) -> f64 {
    let values: Vec<f64> = one.iter().zip(other).map(|(one, other)| give(*one, *other)).collect();
    Summary::of(&values).median
}

/// The packet path's lines of the design's section 10.
fn budgets(rows: &[Row]) -> Vec<Budget> {
    let of = |id: &str| rows.iter().find(|row| row.id == id).map_or(&[][..], |row| &row.rounds);
    let mut budgets = Vec::new();
    let mut add = |what: String, found: f64, limit: f64, unit: &'static str| {
        // Not measured with `--only`.
        if !found.is_nan() {
            budgets.push(Budget { what, limit, found, unit, met: found <= limit });
        }
    };
    for (id, floor) in [
        ("established_original_v4", "floor_v4"),
        ("established_reply_v4", "floor_v4"),
        ("established_original_v6", "floor_v6"),
        ("established_reply_v6", "floor_v6"),
        ("established_cold_v4", "floor_cold_v4"),
    ] {
        add(id.to_owned(), paired(of(id), of(floor), |one, floor| one / floor), 1.5, "x floor");
    }
    for family in ["v4", "v6"] {
        let (few, many) = (format!("first_{family}_{FEW}"), format!("first_{family}_{MANY}"));
        let established = format!("established_original_{family}");
        let beyond = paired(of(&many), of(&established), |first, established| first - established);
        add(format!("{many} beyond {established}"), beyond, 250.0, "ns");
        add(format!("{many} to {few}"), paired(of(&many), of(&few), |many, few| many / few), 1.2, "x");
    }
    // "No measurable cost": within what two runs of the same differ.
    for (what, plain) in [
        ("established", "established_original_v4".to_owned()),
        ("first", format!("first_v4_{FEW}")),
        ("denied", format!("denied_egress_{FEW}")),
    ] {
        let id = format!("{what}_staged_elsewhere");
        add(format!("{id} to {plain}"), paired(of(&id), of(&plain), |one, plain| one / plain), 1.05, "x");
    }
    for id in ["denied_ingress", "denied_egress"] {
        let id = format!("{id}_{MANY}");
        add(format!("{id} with its event"), paired(of(&id), of(&id), |one, _| one), 1000.0, "ns");
    }
    budgets
}
