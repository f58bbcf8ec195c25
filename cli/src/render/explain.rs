//! An explanation for people: the verdict first, then both directions in the daemon's words.

use std::io;

use super::{out::Out, table::Tone};
use crate::view::{
    Verdict,
    explain::{DirectionExplained, Explanation, Party},
    labels_text,
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

/// One direction: what is in force, and the text of what is written, which is that of a failed test.
fn direction(out: &mut Out, direction: &DirectionExplained) -> io::Result<()> {
    let (_, word) = word(direction.verdict);
    let here = if direction.enforced_here { "" } else { " (enforced on the pod's own node)" };
    let name = direction.direction.to_string().to_uppercase();
    out.title(&format!("{name} of {}: {word}{here}", direction.pod))?;
    if !direction.instead.is_empty() {
        out.words(&format!("  in force instead of what follows: {}", direction.instead))?;
    }
    direction.text.lines().try_for_each(|line| out.words(&format!("  {line}")))
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
