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
    if entry.lengths != 0 {
        let mut length = 17u32;
        while length > 0 {
            length -= 1;
            if entry.lengths & (1 << length) != 0 {
                let mask = !(0xffffu32 >> length) as u16;
                let key = PortKey { portset: entry.portset, port: port & mask, proto, length: length as u8 };
                if let Some(decision) = rules.port(key) {
                    return decision;
                }
                // Nothing shorter is there.
                if entry.lengths & ((1 << length) - 1) == 0 {
                    break;
                }
            }
        }
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

#[cfg(test)]
mod tests;
