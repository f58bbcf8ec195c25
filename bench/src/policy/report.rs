//! What was found, as tables and as JSON (schema: bench/README.md).

use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::cell::{Event, Found};
use crate::{budget::Budget, machine::Machine};

/// Everything that was found.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    schema: &'static str,
    machine: Machine,
    rows: Vec<Row>,
    budgets: Vec<Budget>,
}

/// One world.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) shape: &'static str,
    pub(super) pods: usize,
    pub(super) policies: usize,
    #[serde(flatten)]
    pub(super) found: Found,
}

impl Report {
    pub(super) fn new(machine: Machine, rows: Vec<Row>) -> Self {
        let budgets = rows.iter().flat_map(budgets).collect();
        Self { schema: "bulkhead.bench.policy/1", machine, rows, budgets }
    }

    pub(super) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// For people.
    pub(super) fn tables(&self) -> String {
        let m = &self.machine;
        let mut text = format!("{} on {} x {}\n\nEverything from nothing\n", m.kernel, m.cpus, m.cpu);
        let mut full = table(&[
            "shape",
            "pods",
            "policies",
            "index ms",
            "compile",
            "lower",
            "total",
            "allocations",
            "peak MiB",
            "identities",
            "rule sets",
            "refused",
            "peers",
            "regions",
            "ports",
            "MiB",
        ]);
        for row in &self.rows {
            let found = &row.found;
            let allocations: usize =
                [found.index, found.compile, found.lower].map(|step| step.allocations).iter().sum();
            let mut cells = vec![row.shape.to_owned(), row.pods.to_string(), row.policies.to_string()];
            let times = [found.index.ms, found.compile.ms, found.lower.ms, found.total_ms];
            cells.extend(times.map(|ms| format!("{ms:.0}")));
            cells.extend([allocations.to_string(), format!("{:.0}", found.peak_mib)]);
            cells.extend([found.identities, found.rule_sets, found.refused].map(|count| count.to_string()));
            cells.extend(found.entries.map(|count| count.to_string()));
            cells.push(format!("{:.1}", found.entry_bytes as f64 / f64::from(1 << 20)));
            full.add_row(cells);
        }
        finish(&mut text, full, 1);
        let _ = writeln!(text, "\nOne change on a node with 110 of the pods, from the object to the list of writes");
        let mut events = table(&[
            "shape",
            "pods",
            "policies",
            "what",
            "p50 ms",
            "p99",
            "max",
            "writes",
            "written p50",
            "p99",
            "max",
        ]);
        for row in &self.rows {
            let first = format!("{:.1}", row.found.node.ms);
            let shape = || vec![row.shape.to_owned(), row.pods.to_string(), row.policies.to_string()];
            let whole =
                ["all of it, once".to_owned(), first.clone(), first.clone(), first, row.found.node_writes.to_string()];
            events.add_row([shape(), whole.to_vec(), vec![String::new(); 3]].concat());
            for event in &row.found.events {
                let times = [event.p50_ms, event.p99_ms, event.max_ms].map(|ms| format!("{ms:.2}"));
                let written = event.written.map_or_else(Default::default, |written| {
                    [written.p50_ms, written.p99_ms, written.max_ms].map(|ms| format!("{ms:.2}"))
                });
                let writes = vec![event.writes.to_string()];
                events.add_row([shape(), vec![event.what.clone()], times.to_vec(), writes, written.to_vec()].concat());
            }
        }
        finish(&mut text, events, 4);
        for Budget { what, limit, found, unit, met } in &self.budgets {
            let verdict = if *met { "met" } else { "MISSED" };
            let _ = writeln!(text, "{verdict}: {what} {found:.1} {unit}, limit {limit:.0}");
        }
        text
    }
}

/// "Full compile of 100,000 pods, 10,000 policies: below 10 s on one core, below 1 GiB", and "policy change to
/// enforced, 10,000 pods in the cluster, 1,000 policies: p99 below 20 ms".
fn budgets(row: &Row) -> Vec<Budget> {
    let budget = |what: &str, limit: f64, found: f64, unit| Budget {
        what: format!("{what} ({})", row.shape),
        limit,
        found,
        unit,
        met: found < limit,
    };
    match (row.pods, row.policies) {
        (100_000, 10_000) => vec![
            budget("full compile of 100,000 pods, 10,000 policies", 10_000.0, row.found.total_ms, "ms"),
            budget("its memory", 1024.0, row.found.peak_mib, "MiB"),
        ],
        (10_000, 1_000) => {
            let until = |event: &Event| event.written.map_or(event.p99_ms, |written| written.p99_ms);
            let worst = row.found.events.iter().map(until).fold(0.0, f64::max);
            vec![budget("slowest kind of change at 10,000 pods, 1,000 policies, p99", 20.0, worst, "ms")]
        }
        _ => Vec::new(),
    }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_BORDERS_ONLY_CONDENSED);
    table.set_header(header);
    table
}

/// Numbers stand to the right, from a column on.
fn finish(text: &mut String, mut table: Table, numbers: usize) {
    for column in table.column_iter_mut().skip(numbers) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let _ = writeln!(text, "{table}");
}
