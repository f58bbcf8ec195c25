//! Measurements against what is written down, and against the budget. A change is told; only what comes near the
//! verifier's limits is a failure, for the figures move with each kernel and compiler.

use std::{fs, path::Path};

use anyhow::{Context as _, bail};
use serde_json::{Map, Value};

/// The verifier's limits (`BPF_COMPLEXITY_LIMIT_INSNS`, `MAX_BPF_STACK` for one function and for those that call each
/// other: include/linux/bpf_verifier.h, include/linux/filter.h), and how much of each may be used, in percent.
const LIMITS: [(&str, u64, u64); 3] = [("processed", 1_000_000, 60), ("frame", 512, 60), ("stack", 512, 60)];

/// What is measured, with a title for people.
const COLUMNS: [(&str, &str); 7] = [
    ("processed", "processed"),
    ("peak_states", "peak states"),
    ("total_states", "states"),
    ("frame", "frame B"),
    ("stack", "stack B"),
    ("instructions", "insns"),
    ("native_bytes", "native B"),
];

/// Compares lines of JSON with the file, and writes them into it if told.
pub(crate) fn run(baseline: &Path, found: &str, write: bool) -> anyhow::Result<()> {
    let mut known: Map<String, Value> = match fs::read_to_string(baseline) {
        Ok(text) => serde_json::from_str(&text).with_context(|| format!("{}", baseline.display()))?,
        Err(_) if write => Map::new(),
        Err(error) => return Err(error).with_context(|| format!("reading {}", baseline.display())),
    };
    let mut beyond = Vec::new();
    for line in found.lines().filter(|line| !line.trim().is_empty()) {
        let mut measured: Value = serde_json::from_str(line).with_context(|| format!("a measurement: {line:?}"))?;
        let release = measured["release"].as_str().context("a measurement without a release")?;
        let version = version(release);
        print!("{}", table(release, &measured, known.get(&version)));
        beyond.extend(over_budget(&version, &measured));
        // Who has built the kernel is no concern of those who read the file elsewhere.
        let bare = release.split(['-', '+']).next().unwrap_or_default().to_owned();
        measured["release"] = bare.into();
        known.insert(version, measured);
    }
    if write {
        let text = serde_json::to_string_pretty(&known)? + "\n";
        fs::write(baseline, text).with_context(|| format!("writing {}", baseline.display()))?;
        println!("written to {}", baseline.display());
    }
    if !beyond.is_empty() {
        bail!("too much of what the verifier allows:\n  {}", beyond.join("\n  "));
    }
    Ok(())
}

/// Major and minor number: what the figures depend on.
fn version(release: &str) -> String {
    release.split(['.', '-', '+']).take(2).collect::<Vec<_>>().join(".")
}

fn programs(measured: &Value) -> impl Iterator<Item = (&String, &Value)> {
    measured["programs"].as_object().into_iter().flatten()
}

fn over_budget(version: &str, measured: &Value) -> Vec<String> {
    let mut beyond = Vec::new();
    for (name, figures) in programs(measured) {
        for (what, limit, budget) in LIMITS {
            // What was not measured is no proof of anything.
            let value = figures[what].as_u64().unwrap_or(u64::MAX);
            if value.saturating_mul(100) > limit * budget {
                beyond.push(format!("{name} on {version}: {what} {value}, more than {budget} % of {limit}"));
            }
        }
    }
    beyond
}

/// A line for each program; behind each figure by how much it differs from what is written down.
fn table(release: &str, measured: &Value, known: Option<&Value>) -> String {
    let mut text = format!("Linux {release}");
    text += &match known {
        Some(known) => format!(", compared with {}\n", known["release"].as_str().unwrap_or("?")),
        None => ", of which nothing is written down\n".to_owned(),
    };
    text += &format!("{:<10}", "program");
    text += &COLUMNS.map(|(_, title)| format!(" {title:>18}")).concat();
    text += "\n";
    for (name, figures) in programs(measured) {
        text += &format!("{name:<10}");
        for (what, _) in COLUMNS {
            let now = figures[what].as_u64().unwrap_or_default();
            let before = known.and_then(|known| known["programs"][name][what].as_u64());
            text += &format!(" {:>18}", cell(now, before));
        }
        text += "\n";
    }
    text
}

fn cell(now: u64, before: Option<u64>) -> String {
    match before {
        Some(before) if before != now && before > 0 => {
            format!("{now} ({:+.1} %)", (now as f64 / before as f64 - 1.0) * 100.0)
        }
        None => format!("{now} (new)"),
        Some(_) => now.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn measured(processed: u64, frame: u64) -> Value {
        let figures = json!({"processed": processed, "frame": frame, "stack": 288});
        json!({"release": "6.1.0-56-cloud-amd64", "programs": {"from_pod": figures}})
    }

    #[test]
    fn only_what_is_beyond_the_budget_fails() {
        assert_eq!(over_budget("6.1", &measured(600_000, 307)), Vec::<String>::new());
        assert_eq!(
            over_budget("6.1", &measured(600_001, 0)),
            ["from_pod on 6.1: processed 600001, more than 60 % of 1000000"]
        );
        assert_eq!(over_budget("6.1", &measured(0, 308)), ["from_pod on 6.1: frame 308, more than 60 % of 512"]);
        let deep = json!({"programs": {"from_pod": {"processed": 1, "frame": 1, "stack": 320}}});
        assert_eq!(over_budget("6.1", &deep), ["from_pod on 6.1: stack 320, more than 60 % of 512"]);
        assert_eq!(over_budget("6.1", &json!({"programs": {"x": {}}})).len(), 3, "nothing was measured");
    }

    #[test]
    fn figures_are_kept_by_version_and_changes_are_told() {
        assert_eq!(version("6.1.0-56-cloud-amd64"), "6.1");
        assert_eq!(version("6.12.117+deb12-cloud-amd64"), "6.12");
        let text = table("6.1.0", &measured(1100, 64), Some(&measured(1000, 64)));
        assert!(text.contains(" 1100 (+10.0 %) ") && text.contains(" 64 "), "{text}");
        assert!(table("6.1.0", &measured(1, 1), None).contains("1 (new)"));
    }
}
