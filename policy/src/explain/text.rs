//! An explanation as text, line by line.

use std::fmt;

use datapath_abi::policy::Direction;

use super::{Considered, Explanation, SideExplanation};

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { flow, egress, ingress } = self;
        let verdict = if self.verdict().passes() { "allowed" } else { "denied" };
        writeln!(f, "{flow}: {verdict}")?;
        for side in [egress, ingress] {
            let (subject, _) = flow.seen_from(side.direction);
            let direction = match side.direction {
                Direction::Egress => "egress",
                Direction::Ingress => "ingress",
            };
            write!(f, "{direction} of {subject}: {side}")?;
        }
        Ok(())
    }
}

impl fmt::Display for SideExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { direction: _, outcome, isolated_by: _, considered } = self;
        writeln!(f, "{outcome}")?;
        considered.iter().try_for_each(|considered| considered.fmt(f))
    }
}

impl fmt::Display for Considered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, action, written, peers, ports, decides } = self;
        let mark = match (decides, self.matches()) {
            (true, _) => "decides",
            (false, true) => "matches too",
            (false, false) => "no match",
        };
        writeln!(f, "  {rule}: {action} {}; {}: {mark}", written.peers, written.ports)?;
        for mismatch in peers {
            writeln!(f, "    - {mismatch}")?;
        }
        for mismatch in ports {
            writeln!(f, "    - {mismatch}")?;
        }
        Ok(())
    }
}
