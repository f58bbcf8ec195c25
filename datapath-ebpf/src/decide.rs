//! What the maps say about one direction to a verdict.

use datapath_abi::{
    endpoint::RulesPtr,
    policy::{Decision, PeerEntry, PortKey, Verdict},
    reason::DropReason,
};

/// The three tables of rules, as the maps hold them. A test gives a model, the kernel the maps.
pub trait Rules {
    /// PEERS: rule set and identity (or class).
    fn peer(&self, ruleset: u32, identity: u32) -> Option<PeerEntry>;
    /// REGIONS: rule set and the subject's peer address, by longest prefix.
    fn region(&self, ruleset: u32) -> Option<PeerEntry>;
    /// PORTS.
    fn port(&self, key: PortKey) -> Option<Decision>;
}

/// Asks one direction's rules about one peer.
#[inline(always)]
pub fn ask<R: Rules>(rules: &R, ptr: RulesPtr, identity: u32, proto: u8, port: u16) -> Decision {
    through(ptr, |ptr| look(rules, ptr, identity, proto, port))
}

/// Looks into one rule set and, if that says so, into the one after it. What passes there, too, no
/// rule has decided.
#[inline(always)]
pub fn through(ptr: RulesPtr, look: impl Fn(RulesPtr) -> Decision) -> Decision {
    let decision = look(ptr);
    if decision.verdict != Verdict::Pass as u8 {
        return decision;
    }
    let after = look(ptr.after_pass());
    if after.verdict == Verdict::Pass as u8 { Decision::default() } else { after }
}

/// What one rule set says about one peer.
#[inline(always)]
pub fn look<R: Rules>(rules: &R, ptr: RulesPtr, identity: u32, proto: u8, port: u16) -> Decision {
    let ruleset = ptr.ruleset();
    let mut found = None;
    if ptr.has(RulesPtr::HAS_PEERS) {
        found = rules.peer(ruleset, identity);
    }
    if found.is_none() && ptr.has(RulesPtr::HAS_CLASSES) {
        let class = datapath_abi::identity::class(identity);
        found = rules.peer(ruleset, class);
        if found.is_none() && class != datapath_abi::identity::CLASS_ANY {
            found = rules.peer(ruleset, datapath_abi::identity::CLASS_ANY);
        }
    }
    let mut decision = match found {
        Some(entry) => at_port(rules, entry, proto, port),
        None => Decision::default(),
    };
    if ptr.has(RulesPtr::HAS_REGIONS)
        && let Some(entry) = rules.region(ruleset)
    {
        let by_address = at_port(rules, entry, proto, port);
        if by_address.precedence > decision.precedence {
            decision = by_address;
        }
    }
    decision
}

/// The longest port prefix that holds `port`, else what holds otherwise.
#[inline(always)]
fn at_port<R: Rules>(rules: &R, entry: PeerEntry, proto: u8, port: u16) -> Decision {
    // Counts up to a fixed number, with the step at the end: a loop whose step comes first is laid out so that an
    // ordinary instruction falls into its head, which verifiers before 6.3 call a back-edge and refuse.
    let mut shorter = 0u32;
    while shorter <= 16 {
        let length = 16 - shorter;
        if entry.lengths & (1 << length) != 0 {
            let mask = !(0xffffu32 >> length) as u16;
            let key = PortKey { portset: entry.portset, port: port & mask, proto, length: length as u8 };
            if let Some(decision) = rules.port(key) {
                return decision;
            }
        }
        // Nothing shorter is there.
        if entry.lengths & ((1 << length) - 1) == 0 {
            break;
        }
        shorter += 1;
    }
    entry.otherwise
}

/// A decision to a verdict: allowed, or why not.
#[inline(always)]
pub fn verdict(ptr: RulesPtr, decision: Decision) -> Result<(), DropReason> {
    if decision.verdict == Verdict::Allow as u8 {
        Ok(())
    } else if decision.verdict == Verdict::Deny as u8 {
        Err(DropReason::DenyRule)
    } else if ptr.has(RulesPtr::ISOLATED) {
        Err(DropReason::DefaultDeny)
    } else {
        Ok(())
    }
}

/// Drops that depend on what the rules say, or on there being any; and [`DropReason`]'s zero: none.
const BY_RULES: u64 = 1
    | bit(DropReason::DefaultDeny)
    | bit(DropReason::DenyRule)
    | bit(DropReason::PolicyChange)
    | bit(DropReason::Fragment)
    | bit(DropReason::ExtensionHeader)
    | bit(DropReason::ConntrackFull)
    | bit(DropReason::UnrelatedIcmpError)
    | bit(DropReason::Multicast)
    | bit(DropReason::Midstream);

const fn bit(reason: DropReason) -> u64 {
    1 << reason as u8
}

/// Whether other rules could make a difference to a packet of which this (a reason's number, or 0)
/// is said.
#[inline(always)]
pub const fn is_by_rules(reason: u8) -> bool {
    BY_RULES >> (reason & 63) & 1 != 0
}

#[cfg(test)]
mod tests;
