//! What was found, as a table and as JSON (schema: bench/README.md).

use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::Series;
use crate::{machine::Machine, stats::quantile};

/// Everything that was found.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    schema: u32,
    machine: Machine,
    pods: usize,
    dual: bool,
    rows: Vec<Row>,
    budgets: Vec<Budget>,
}

/// One command of one side. Milliseconds.
#[derive(Debug, Serialize)]
struct Row {
    command: &'static str,
    side: &'static str,
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
}

/// One line of the design's section 10: ours to theirs.
#[derive(Debug, Serialize)]
struct Budget {
    what: String,
    limit: f64,
    found: f64,
    met: bool,
}

impl Report {
    pub(super) fn new(machine: Machine, pods: usize, dual: bool, ours: &Series, theirs: &Series) -> Self {
        let rows = vec![
            Row::new("ADD", "bulkhead", &ours.add),
            Row::new("ADD", "ptp + host-local", &theirs.add),
            Row::new("DEL", "bulkhead", &ours.del),
            Row::new("DEL", "ptp + host-local", &theirs.del),
        ];
        let budgets = rows
            .chunks(2)
            .map(|pair| {
                let found = pair[0].p50 / pair[1].p50;
                Budget {
                    what: format!("{} p50 to the reference", pair[0].command),
                    limit: 1.0,
                    found,
                    met: found < 1.0,
                }
            })
            .collect();
        Self { schema: 1, machine, pods, dual, rows, budgets }
    }

    /// For people.
    pub(super) fn table(&self) -> String {
        let m = &self.machine;
        let mut text = String::new();
        let families = if self.dual { "IPv4 and IPv6" } else { "IPv4" };
        let _ = writeln!(text, "{} on {} x {}, {} pods, {families}", m.kernel, m.cpus, m.cpu, self.pods);
        let mut table = Table::new();
        table.load_preset(presets::ASCII_BORDERS_ONLY_CONDENSED);
        table.set_header(["call", "plugin", "p50 ms", "p90", "p99", "max"]);
        for row in &self.rows {
            let cells = [row.command.to_owned(), row.side.to_owned()].into_iter();
            table.add_row(cells.chain([row.p50, row.p90, row.p99, row.max].map(|value| format!("{value:.1}"))));
        }
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let _ = writeln!(text, "{table}");
        for budget in &self.budgets {
            let verdict = if budget.met { "met" } else { "MISSED" };
            let _ = writeln!(text, "{verdict}: {} {:.2}, limit {:.1}", budget.what, budget.found, budget.limit);
        }
        text
    }
}

impl Row {
    fn new(command: &'static str, side: &'static str, series: &[f64]) -> Self {
        let at = |share| quantile(series, share);
        Self { command, side, p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_ours_to_theirs() {
        let series = |add: f64, del: f64| Series { add: vec![add; 3], del: vec![del; 3] };
        let report = Report::new(Machine::read(), 3, false, &series(5.0, 9.0), &series(10.0, 6.0));
        let found: Vec<(f64, bool)> = report.budgets.iter().map(|budget| (budget.found, budget.met)).collect();
        assert_eq!(found, [(0.5, true), (1.5, false)]);
        assert!(report.table().contains("MISSED: DEL p50"));
    }
}
