//! An explanation for people: the verdict first, then both directions with every rule.

use std::io;

use super::{
    endpoint::verdict,
    out::Out,
    table::{Item, Table, Tone},
};
use crate::view::{
    Verdict,
    explain::{Considered, DirectionExplained, Explanation, Party},
    labels_text, objects_text,
};

/// Prints an explanation.
pub(crate) fn render(out: &mut Out, explanation: &Explanation) -> io::Result<()> {
    let Explanation { verdict, reason, source, destination, protocol, port, directions, notes } = explanation;
    let target = match (port, destination.to_string()) {
        (0, name) => name,
        (port, name) if name.contains(':') => format!("[{name}]:{port}"),
        (port, name) => format!("{name}:{port}"),
    };
    let (tone, word) = word(*verdict);
    out.toned(tone, &format!("{}  {source} -> {target} {}", word.to_uppercase(), protocol.to_uppercase()))?;
    out.words(&format!("  {reason}"))?;
    out.raw("\n")?;
    party(out, "source", source)?;
    party(out, "destination", destination)?;
    for direction in directions {
        self::direction(out, direction)?;
    }
    if !notes.is_empty() {
        out.title("NOTES")?;
        for note in notes {
            out.words(&format!("  {note}"))?;
        }
    }
    Ok(())
}

/// One end, on one line.
fn party(out: &mut Out, name: &str, party: &Party) -> io::Result<()> {
    let mut words = vec![party.to_string()];
    if !party.pod.is_empty() && !party.ip.is_empty() {
        words.push(party.ip.clone());
    }
    if let Some(workload) = &party.workload {
        words.push(workload.to_string());
    }
    words.push(match party.reserved_name.as_str() {
        "" => format!("identity {}", party.identity),
        reserved => format!("identity {} ({reserved})", party.identity),
    });
    if !party.labels.is_empty() {
        words.push(labels_text(&party.labels));
    }
    if !party.pod.is_empty() && !party.local {
        words.push("on another node".to_owned());
    }
    out.field(name, &words.join("  "))
}

/// One direction with its rules.
fn direction(out: &mut Out, direction: &DirectionExplained) -> io::Result<()> {
    let (_, word) = word(direction.verdict);
    let here = if direction.enforced_here { "" } else { " (enforced on the pod's own node)" };
    let name = direction.direction.to_string().to_uppercase();
    out.title(&format!("{name} of {}: {word}{here}", direction.pod))?;
    out.words(&format!("  {}", direction.reason))?;
    if direction.isolated {
        out.words(&format!("  isolated by {}", objects_text(&direction.isolated_by)))?;
    }
    match (direction.considered.is_empty(), direction.isolated) {
        (true, true) => out.line("  no rules")?,
        (true, false) => {}
        (false, _) => rules(out, &direction.considered)?,
    }
    let Some(staged) = &direction.staged else { return Ok(()) };
    let (tone, word) = self::word(staged.verdict);
    out.raw("\n")?;
    out.toned(tone, &format!("  with the staged policies: {word}"))?;
    out.words(&format!("  {}", staged.reason))?;
    rules(out, &staged.considered)
}

/// Rules in the order in which they are asked; with their tiers, if there is more than one.
fn rules(out: &mut Out, considered: &[Considered]) -> io::Result<()> {
    let tiers = considered.iter().any(|rule| !matches!(rule.tier.as_str(), "" | "NetworkPolicy"));
    let heads = ["", "TIER", "RULE", "SAYS", "MATCHES", "WHY"];
    let mut table = match tiers {
        true => Table::new(heads).indent(2),
        false => Table::new(["", "RULE", "SAYS", "MATCHES", "WHY"]).indent(2),
    };
    for rule in considered {
        let mark = match (rule.decides, rule.passes_on) {
            (true, _) => "=>",
            (_, true) => "->",
            _ => "",
        };
        let mut title = rule.rule.to_string();
        if !rule.name.is_empty() {
            title = format!("{title} {}", rule.name);
        }
        if rule.staged {
            title = format!("{title} (staged)");
        }
        let matches = match (rule.matched, rule.not_asked) {
            (true, true) => "not asked",
            (true, false) => "yes",
            (false, _) => "no",
        };
        let (mark, title) = (Item::new(Tone::Title, mark), Item::from(&title));
        let (says, matches, why) = (verdict(rule.verdict), Item::from(matches), Item::from(&rule.why));
        match tiers {
            true => table.row([mark, Item::from(&rule.tier), title, says, matches, why]),
            false => table.row([mark, title, says, matches, why]),
        };
    }
    out.table(&table, "  no rules")
}

/// The verdict as a word, and its colour.
fn word(verdict: Verdict) -> (Tone, &'static str) {
    match verdict {
        Verdict::Allow => (Tone::Good, "allowed"),
        Verdict::Deny => (Tone::Bad, "denied"),
        Verdict::Pass => (Tone::Plain, "passed on"),
        Verdict::Unknown => (Tone::Warn, "unknown"),
    }
}
