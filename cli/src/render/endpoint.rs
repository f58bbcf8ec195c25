//! Endpoints for people: one line each, or one with its rules.

use std::io;

use super::{
    out::Out,
    table::{Item, Table, Tone},
    text::or_dash,
};
use crate::view::{
    Direction, Verdict,
    endpoint::{Detail, Endpoint, Entry, Rules, State},
    labels_text, objects_text,
};

/// Prints a list.
pub(crate) fn list(out: &mut Out, endpoints: &[Endpoint]) -> io::Result<()> {
    let mut table =
        Table::new(["NAMESPACE", "POD", "STATE", "IPS", "IDENTITY", "EGRESS", "INGRESS", "INTERFACE", "LABELS"])
            .right([4]);
    for endpoint in endpoints {
        table.row([
            Item::from(&endpoint.namespace),
            Item::from(&endpoint.pod),
            state(endpoint.state),
            Item::from(or_dash(&endpoint.ips.join(","))),
            Item::from(endpoint.identity.to_string()),
            isolation(endpoint.rules(Direction::Egress)),
            isolation(endpoint.rules(Direction::Ingress)),
            Item::from(&endpoint.host_ifname),
            Item::from(labels(endpoint)),
        ]);
    }
    out.table(&table, "no endpoints: no pod on this node was wired by Bulkhead")
}

/// Prints endpoints with everything.
pub(crate) fn details(out: &mut Out, endpoints: &[Detail]) -> io::Result<()> {
    for (index, detail) in endpoints.iter().enumerate() {
        if index > 0 {
            out.raw("\n")?;
        }
        facts(out, &detail.endpoint)?;
        for rules in &detail.endpoint.directions {
            direction(out, rules, &detail.entries)?;
        }
    }
    Ok(())
}

/// The block of facts.
fn facts(out: &mut Out, endpoint: &Endpoint) -> io::Result<()> {
    out.field("pod", &format!("{}/{}", endpoint.namespace, endpoint.pod))?;
    let reason = match endpoint.state_reason.as_str() {
        "" => String::new(),
        reason => format!(": {reason}"),
    };
    out.field("state", &format!("{}{reason}", endpoint.state.word()))?;
    out.field("addresses", &or_dash(&endpoint.ips.join(", ")))?;
    out.field("identity", &endpoint.identity.to_string())?;
    out.field("labels", &labels(endpoint))?;
    out.field("account", &or_dash(&endpoint.service_account))?;
    if let Some(workload) = &endpoint.workload {
        out.field("workload", &workload.to_string())?;
    }
    out.field(
        "interface",
        &format!("{} in the pod ({}), {} on the host", endpoint.ifname, endpoint.mac, endpoint.host_ifname),
    )?;
    out.field("index, slot", &format!("ifindex {}, slot {}", endpoint.ifindex, endpoint.slot))?;
    out.field("container", &endpoint.container_id)?;
    out.field("netns", &or_dash(&endpoint.netns))?;
    out.field("created", &or_dash(&endpoint.created))
}

/// One direction: isolated by whom, and the entries.
fn direction(out: &mut Out, rules: &Rules, entries: &[Entry]) -> io::Result<()> {
    let word = rules.direction.to_string().to_uppercase();
    if !rules.isolated {
        return out.title(&format!("{word}: open, no policy isolates it"));
    }
    let by = objects_text(&rules.policies);
    out.title(&format!("{word}: isolated by {}", or_dash(&by)))?;
    out.toned(Tone::Faint, &format!("  rule set {}, generation {}", rules.rule_set, rules.generation))?;
    let mut table = Table::new(["VERDICT", "PEER", "PORTS", "RULE", "PRECEDENCE"]).indent(2).right([4]);
    for entry in entries.iter().filter(|entry| entry.direction == rules.direction) {
        table.row([
            verdict(entry.verdict),
            Item::from(entry.peer_label()),
            Item::from(entry.ports_text()),
            Item::from(entry.rule.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string)),
            Item::from(entry.precedence.to_string()),
        ]);
    }
    out.table(&table, "  nothing is allowed")
}

/// Isolation in one direction: `open`, or by how many policies.
fn isolation(rules: Option<&Rules>) -> Item {
    match rules {
        None => Item::from("-"),
        Some(rules) if rules.isolated => Item::from(format!("isolated({})", rules.policies.len())),
        Some(_) => Item::from("open"),
    }
}

/// The labels; without a Pod object there are none, which is worth a word.
fn labels(endpoint: &Endpoint) -> String {
    if endpoint.has_object { or_dash(&labels_text(&endpoint.labels)) } else { "(no Pod object)".to_owned() }
}

/// The state in its colour.
fn state(state: State) -> Item {
    let tone = match state {
        State::Ready => Tone::Good,
        State::Creating | State::Deleting => Tone::Plain,
        State::Stale | State::Unknown => Tone::Warn,
        State::Lost => Tone::Bad,
    };
    Item::new(tone, state.word())
}

/// A rule's verdict in its colour.
pub(crate) fn verdict(verdict: Verdict) -> Item {
    let tone = match verdict {
        Verdict::Allow => Tone::Good,
        Verdict::Deny => Tone::Bad,
        Verdict::Pass => Tone::Plain,
        Verdict::Unknown => Tone::Warn,
    };
    Item::new(tone, verdict.to_string())
}
