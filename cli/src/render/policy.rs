//! Policies for people: one line each, or one with its rules in words.

use std::io;

use super::{
    endpoint::verdict,
    out::Out,
    table::{Item, Table, Tone},
    text::{count, or_dash},
};
use crate::view::policy::{Detail, Policy, State};

/// Prints a list.
pub(crate) fn list(out: &mut Out, policies: &[Policy]) -> io::Result<()> {
    let mut table =
        Table::new(["KIND", "NAMESPACE", "NAME", "STATUS", "ISOLATES", "PODS", "HERE", "ENTRIES", "FROM", "NOTE"])
            .right([5, 6, 7]);
    for policy in policies {
        table.row([
            Item::from(&policy.policy.kind),
            Item::from(or_dash(&policy.policy.namespace)),
            Item::from(&policy.policy.name),
            status(policy.status),
            Item::from(standing(policy)),
            Item::from(policy.selected_pods.to_string()),
            Item::from(policy.selected_endpoints.to_string()),
            Item::from(policy.entries.to_string()),
            Item::from(origin(policy)),
            note(policy),
        ]);
    }
    out.table(&table, "no policies: every pod is open")
}

/// Prints one policy with everything.
pub(crate) fn detail(out: &mut Out, detail: &Detail) -> io::Result<()> {
    let Detail { policy, selects, selected, rules, warnings } = detail;
    out.field("policy", &format!("{} {}", policy.policy.kind, policy.policy.path()))?;
    let reason = if policy.reason.is_empty() { String::new() } else { format!(": {}", policy.reason) };
    out.field("status", &format!("{}{reason}", policy.status.word()))?;
    out.field("from", &origin(policy))?;
    match &policy.tier {
        None => out.field("isolates", &or_dash(&isolates(policy)))?,
        Some(tier) => {
            out.field("tier", &tier.to_string())?;
            out.field("rules", &or_dash(&isolates(policy)))?;
        }
    }
    out.field(
        "selects",
        &format!(
            "{selects}: {}, {} on this node",
            count(policy.selected_pods, "pod"),
            count(policy.selected_endpoints, "endpoint")
        ),
    )?;
    for pod in selected {
        out.field("", &pod.to_string())?;
    }
    out.field("entries", &policy.entries.to_string())?;
    out.raw("\n")?;
    let mut table = Table::new(["RULE", "SAYS", "PEERS", "PORTS", "PODS NOW"]).right([4]);
    for summary in rules {
        let name = if summary.name.is_empty() { String::new() } else { format!(" {}", summary.name) };
        let title = format!("{}[{}]{name}", summary.rule.direction, summary.rule.index);
        // Peers and ports stand under each other, one per line, as in the object.
        let lines = summary.peers.len().max(summary.ports.len()).max(1);
        for line in 0..lines {
            let word = |list: &[String], all: &str| match list.get(line) {
                Some(text) => Item::from(text),
                None if line == 0 => Item::from(all),
                None => Item::from(""),
            };
            let (peer, port) = (word(&summary.peers, "anybody"), word(&summary.ports, "every port"));
            if line == 0 {
                let pods = summary.matching_pods.to_string();
                table.row([Item::from(&title), verdict(summary.verdict), peer, port, Item::from(pods)]);
            } else {
                table.row([Item::from(""), Item::from(""), peer, port, Item::from("")]);
            }
        }
    }
    let no_rules = match policy.tier {
        None => "no rules: nothing is allowed in the directions it isolates",
        Some(_) => "no rules: it has no effect",
    };
    out.table(&table, no_rules)?;
    if !warnings.is_empty() {
        out.title("PROBABLY NOT MEANT")?;
        for warning in warnings {
            out.toned(Tone::Warn, &format!("{}: {} ({})", or_dash(&warning.field), warning.message, warning.code))?;
        }
    }
    Ok(())
}

/// What it isolates, or the tier and the rules it has there.
fn standing(policy: &Policy) -> String {
    match &policy.tier {
        None => or_dash(&isolates(policy)),
        Some(tier) => format!("{tier}: {}", or_dash(&isolates(policy))),
    }
}

/// The directions it isolates, with the number of rules: `egress(2),ingress(1)`.
fn isolates(policy: &Policy) -> String {
    use crate::view::Direction;
    let words: Vec<String> = policy
        .directions
        .iter()
        .map(|direction| match direction {
            Direction::Egress => format!("egress({})", policy.egress_rules),
            Direction::Ingress => format!("ingress({})", policy.ingress_rules),
            Direction::Unknown => "unknown".to_owned(),
        })
        .collect();
    words.join(",")
}

/// Where it was read from.
fn origin(policy: &Policy) -> String {
    policy.origin.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string)
}

/// The status in its colour.
fn status(status: State) -> Item {
    let tone = match status {
        State::Accepted => Tone::Good,
        State::Refused => Tone::Bad,
        State::LastGood | State::Staged | State::Unknown => Tone::Warn,
    };
    Item::new(tone, status.word())
}

/// What needs attention.
fn note(policy: &Policy) -> Item {
    match (policy.reason.as_str(), policy.warnings) {
        ("", 0) => Item::from(""),
        ("", warnings) => Item::new(Tone::Warn, count(warnings, "warning")),
        (reason, _) => Item::new(Tone::Warn, reason),
    }
}
