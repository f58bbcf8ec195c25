//! An explanation as text, line by line.

use std::fmt;

use datapath_abi::policy::Direction;

use super::{Considered, Explanation, SideExplanation, Standing, Walk};
use crate::world::Flow;

/// Reasons that are told for one rule: it may name thousands of peers.
const MAX_REASONS: usize = 5;

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { flow, egress, ingress } = self;
        let word = |passes: bool| if passes { "allowed" } else { "denied" };
        write!(f, "{flow}: {}", word(self.verdict().passes()))?;
        match self.staged_verdict() {
            Some(staged) => writeln!(f, ", with the staged policies {}", word(staged.passes()))?,
            None => writeln!(f)?,
        }
        [egress, ingress].into_iter().try_for_each(|side| f.write_str(&side.text(flow)))
    }
}

impl SideExplanation {
    /// This end's part of the text for the flow that was explained: whose rules these are and what they come to, then
    /// every one of them; and the same with the staged policies, where those have a say.
    pub fn text(&self, flow: &Flow) -> String {
        let Self { direction, walk, staged } = self;
        let (subject, _) = flow.seen_from(*direction);
        let direction = match direction {
            Direction::Egress => "egress",
            Direction::Ingress => "ingress",
        };
        let staged =
            staged.as_ref().map(|staged| format!("{direction} of {subject} with the staged policies: {staged}"));
        format!("{direction} of {subject}: {walk}{}", staged.unwrap_or_default())
    }
}

impl fmt::Display for Walk {
    /// The outcome, then every rule. Tiers are named where ClusterNetworkPolicy has a say.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { outcome, isolated_by, considered } = self;
        writeln!(f, "{outcome}")?;
        if considered.iter().all(|it| it.standing == Standing::NetworkPolicy) {
            return considered.iter().try_for_each(|considered| considered.fmt(f));
        }
        for standing in Standing::ALL {
            let mut rules = considered.iter().filter(|it| it.standing == standing).peekable();
            let isolates = standing == Standing::NetworkPolicy && !isolated_by.is_empty();
            if rules.peek().is_none() && !isolates {
                continue;
            }
            write!(f, "  {} tier", standing.as_str())?;
            if isolates {
                let names: Vec<String> = isolated_by.iter().map(ToString::to_string).collect();
                write!(f, ", isolated by {}", names.join(", "))?;
            }
            match (self.is_asked(standing), standing) {
                (true, _) => writeln!(f, ":")?,
                (false, Standing::Baseline) if !isolated_by.is_empty() => {
                    writeln!(f, ", not asked, as NetworkPolicy isolates the pod:")?;
                }
                (false, _) => writeln!(f, ", not asked:")?,
            }
            rules.try_for_each(|considered| considered.fmt(f))?;
        }
        Ok(())
    }
}

impl fmt::Display for Considered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, name, staged, action, written, peers, ports, .. } = self;
        let mark = match () {
            () if self.decides => "decides",
            () if self.passes_on => "passes on to the next tier",
            () if self.matches() => "matches too",
            () => "no match",
        };
        write!(f, "  {rule}")?;
        if let Some(name) = name {
            write!(f, " {name:?}")?;
        }
        let staged = if *staged { " (staged)" } else { "" };
        writeln!(f, "{staged}: {action} {}; {}: {mark}", written.peers, written.ports)?;
        if self.fails_closed {
            return writeln!(f, "    - domain names are for Accept rules only, so it denies everything");
        }
        reasons(f, peers)?;
        reasons(f, ports)
    }
}

fn reasons(f: &mut fmt::Formatter<'_>, reasons: &[impl fmt::Display]) -> fmt::Result {
    for reason in reasons.iter().take(MAX_REASONS) {
        writeln!(f, "    - {reason}")?;
    }
    match reasons.len().saturating_sub(MAX_REASONS) {
        0 => Ok(()),
        more => writeln!(f, "    - {more} more like these"),
    }
}
