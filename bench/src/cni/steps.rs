//! How long the daemon takes for each step, by what it logs.

use std::fmt::Write as _;

use anyhow::ensure;
use serde_json::Value;

use crate::stats::quantile;

/// What makes the daemon log its steps.
pub(super) const ARGUMENTS: [&str; 2] = ["--log=info,daemon::app::attachments=debug", "--log-format=json"];

/// The median of each step, in the order in which they come first.
pub(super) fn table(log: &str) -> anyhow::Result<String> {
    let mut steps: Vec<(String, Vec<f64>)> = Vec::new();
    for line in log.lines() {
        let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
        let (what, step, us) = (line["message"].as_str(), line["step"].as_str(), line["took_us"].as_f64());
        let (Some(what), Some(step), Some(us)) = (what, step, us) else { continue };
        let name = format!("{} {step}", what.trim_start_matches("Step of "));
        match steps.iter_mut().find(|(known, _)| *known == name) {
            Some((_, series)) => series.push(us / 1e3),
            None => steps.push((name, vec![us / 1e3])),
        }
    }
    ensure!(!steps.is_empty(), "the daemon has logged no steps");
    let mut text = "p50 ms of the daemon's steps\n".to_owned();
    for (name, series) in steps {
        let _ = writeln!(text, "{name:20} {:6.2}", quantile(&series, 0.5));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_come_in_order_with_their_medians() {
        let line = |step: &str, us: u32| format!(r#"{{"message":"Step of ADD","step":"{step}","took_us":{us}}}"#);
        let log = [line("Reserve", 1000), "no JSON".into(), line("Link", 500), line("Reserve", 3000), "{}".into()];
        let text = table(&log.join("\n")).unwrap();
        let found: Vec<Vec<&str>> = text.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(found, [["ADD", "Reserve", "1.00"], ["ADD", "Link", "0.50"]]);
        assert!(table("nothing").is_err());
    }
}
