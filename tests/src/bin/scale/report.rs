//! What was measured, as a table or as JSON, beside what the design allows and what Cilium does.

use std::{fs, time::Duration};

use ::tests::effort::Measured;
use serde_json::{Value, json};

use crate::{flips::Flips, meter::Reading, pods::Started};

/// One daemon's readings at the ends of phases.
#[derive(Clone, Debug)]
pub(crate) struct Daemon {
    pub(crate) node: String,
    /// Name of a phase, what the daemon had at its end, and the processor time and time that it took.
    pub(crate) phases: Vec<(&'static str, Reading, Duration, Duration)>,
}

/// All of it.
pub(crate) struct Report {
    /// What there was, by name.
    pub(crate) counts: Vec<(&'static str, usize)>,
    pub(crate) adds: Measured,
    pub(crate) started: Started,
    pub(crate) flips: Flips,
    pub(crate) daemons: Vec<Daemon>,
}

/// A line of the table.
struct Line {
    id: String,
    what: String,
    found: String,
    value: Value,
    budget: &'static str,
    cilium: &'static str,
}

impl Report {
    /// For people.
    pub(crate) fn table(&self) -> String {
        let counts: Vec<String> = self.counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
        let mut text = format!("{}\n{}\n\n", counts.join(", "), machine());
        let lines = self.lines();
        let width = |of: fn(&Line) -> &str| lines.iter().map(|line| of(line).chars().count()).max().unwrap_or(0);
        let (what, found, budget) = (width(|it| &it.what), width(|it| &it.found), width(|it| it.budget).max(6));
        text += &format!("{:what$}  {:>found$}  {:budget$}  Cilium, without this load\n", "", "found", "budget");
        for line in &lines {
            let row = format!("{:what$}  {:>found$}  {:budget$}  {}", line.what, line.found, line.budget, line.cilium);
            text += row.trim_end();
            text.push('\n');
        }
        text
    }

    /// For programs: docs/scale.md says what each field means.
    pub(crate) fn json(&self) -> Value {
        let counts: serde_json::Map<String, Value> =
            self.counts.iter().map(|(what, count)| ((*what).replace(' ', "_"), json!(count))).collect();
        let found = |line: Line| json!({"id": line.id, "what": line.what, "found": line.value, "budget": line.budget});
        let found: Vec<Value> = self.lines().into_iter().map(found).collect();
        json!({"schema": "bulkhead.bench.scale/1", "machine": machine(), "counts": counts, "figures": found})
    }

    fn lines(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut series = |id: &str, what: &str, of: &Measured, budget: &'static str, cilium: &'static str| {
            let [p50, p99] = [50, 99].map(|percent| milliseconds(of.percentile(percent)));
            let longest = milliseconds(of.longest());
            lines.push(Line {
                id: id.to_owned(),
                what: format!("{what} ({})", of.count()),
                found: format!("{p50} / {p99} ms"),
                value: json!({"count": of.count(), "p50_ms": p50, "p99_ms": p99, "longest_ms": longest}),
                budget,
                cilium,
            });
        };
        let started = &self.started;
        series("add", "ADD in the daemon, p50 / p99", &self.adds, "", "1400 to 7000 at 20 at once");
        series("pod_ready", "pod made to Ready, p50 / p99", &started.each, "", "");
        let ptp = "1.05 x ptp, not measured here";
        series("batch_ready", "pods at once, made to all Ready, p50 / p99", &started.batches, ptp, "6 to 11 s for 20");
        let Flips { allow, deny } = &self.flips;
        let enforced = "p99 20 ms from watch event to last write";
        series("allow", "policy allows: since the API's answer, p50 / p99", &allow.since_answer, enforced, "");
        series(
            "deny",
            "policy denies: since the API's answer, p50 / p99",
            &deny.since_answer,
            enforced,
            "108 ms median",
        );
        series("allow_request", "policy allows: since the request, p50 / p99", &allow.since_request, "", "");
        series("deny_request", "policy denies: since the request, p50 / p99", &deny.since_request, "", "108 ms median");
        for Daemon { node, phases } in &self.daemons {
            for (phase, reading, cpu, took) in phases {
                let mut line = |id, what: String, found: String, value, budget, cilium| {
                    lines.push(Line { id: format!("{id}_{phase}_{node}"), what, found, value, budget, cilium });
                };
                let Reading { rss, peak, maps, .. } = reading;
                line(
                    "rss",
                    format!("{node}, end of {phase}: memory now, at most"),
                    format!("{} / {} MiB", rss >> 20, peak >> 20),
                    json!({"rss_bytes": rss, "peak_bytes": peak}),
                    "50 MiB",
                    "228 MB with 24 pods",
                );
                if *phase == "idle" {
                    let found = format!("{} MiB", maps >> 20);
                    line("maps", format!("{node}: maps"), found, json!({"bytes": maps}), "64 MiB", "127 MiB");
                }
                let share = 100.0 * cpu.as_secs_f64() / took.as_secs_f64().max(0.001);
                line(
                    "cpu",
                    format!("{node}, {phase}, {:.0} s: processor time", took.as_secs_f64()),
                    format!("{:.2} s, {share:.1} %", cpu.as_secs_f64()),
                    json!({"cpu_s": cpu.as_secs_f64(), "wall_s": took.as_secs_f64()}),
                    "",
                    "",
                );
            }
        }
        lines
    }
}

/// With a tenth, as no more is meant.
fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 10_000.0).round() / 10.0
}

/// What it was measured on.
fn machine() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: Vec<&str> = load.split(' ').take(3).collect();
    format!(
        "Linux {}, {} x {}, load {}",
        rustix::system::uname().release().to_string_lossy(),
        std::thread::available_parallelism().map_or(0, usize::from),
        model.map_or("?", |it| it.1),
        load.join(" ")
    )
}
