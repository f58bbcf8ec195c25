//! Rule sets written straight into the maps, in the kernel's terms: what the compiler would
//! write, without the compiler, so that a test of the programs tests them alone.

use std::net::IpAddr;

use aya::maps::lpm_trie::Key;
use datapath_abi::{
    addr::{Addr, V4_PREFIX_BITS},
    endpoint::RulesPtr,
    identity, maps,
    policy::{Decision, PeerEntry, PeerKey, PortKey, REGION_RULESET_BITS, RegionKey, Verdict},
};

use crate::prog::Programs;

/// Whom an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// An identity or a `CLASS_` of [`identity`].
    Identity(u32),
    /// An address prefix.
    Region(IpAddr, u8),
}

/// One entry of a rule set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Whom it is about.
    pub peer: Peer,
    /// By protocol, port and prefix length.
    pub ports: Vec<(u8, u16, u8, Decision)>,
    /// For all other ports.
    pub otherwise: Decision,
}

/// Allowed by the rule that `cookie` names.
pub const fn allow(cookie: u32, precedence: u16) -> Decision {
    Decision { cookie, precedence, verdict: Verdict::Allow as u8, pad: 0 }
}

/// Denied by the rule that `cookie` names.
pub const fn deny(cookie: u32, precedence: u16) -> Decision {
    Decision { cookie, precedence, verdict: Verdict::Deny as u8, pad: 0 }
}

/// Left to the second rule set by the rule that `cookie` names.
pub const fn pass(cookie: u32, precedence: u16) -> Decision {
    Decision { cookie, precedence, verdict: Verdict::Pass as u8, pad: 0 }
}

/// No rule.
pub const NO_RULE: Decision = Decision { cookie: 0, precedence: 0, verdict: Verdict::None as u8, pad: 0 };

impl Rule {
    /// Everything with an identity or a class.
    pub fn identity(number: u32, otherwise: Decision) -> Self {
        Self { peer: Peer::Identity(number), ports: Vec::new(), otherwise }
    }

    /// Everything with a prefix, `10.0.0.0/8`.
    pub fn region(prefix: &str, otherwise: Decision) -> Self {
        let (addr, length) = prefix.split_once('/').expect("a prefix has a length");
        let peer = Peer::Region(addr.parse().expect("an address"), length.parse().expect("a length"));
        Self { peer, ports: Vec::new(), otherwise }
    }

    /// And this for ports under a prefix: 16 is one port, 0 the whole protocol.
    #[must_use]
    pub fn port(mut self, proto: u8, port: u16, length: u8, decision: Decision) -> Self {
        self.ports.push((proto, port, length, decision));
        self
    }
}

/// Writes rule sets and hands out their numbers.
#[derive(Debug, Default)]
pub struct Rulesets {
    rulesets: u32,
    portsets: u32,
}

impl Rulesets {
    /// Writes a rule set. Returns its number and the flags that a pointer to it needs.
    pub fn write(&mut self, programs: &mut Programs, rules: &[Rule]) -> (u32, u8) {
        self.rulesets += 1;
        let ruleset = self.rulesets;
        let mut flags = 0;
        for rule in rules {
            flags |= self.add(programs, ruleset, rule);
        }
        (ruleset, flags)
    }

    /// Writes a rule set in which something passes, and the one that is asked then.
    pub fn write_pair(&mut self, programs: &mut Programs, first: &[Rule], after_pass: &[Rule]) -> (u32, u8) {
        // The next write gives an even number.
        self.rulesets |= 1;
        let (ruleset, flags) = self.write(programs, first);
        let (second, more) = self.write(programs, after_pass);
        assert_eq!(RulesPtr::new(0, 0, ruleset).after_pass().ruleset(), second, "a pair");
        (ruleset, flags | more)
    }

    /// Adds an entry to a rule set. Returns the flag that a pointer to it needs.
    pub fn add(&mut self, programs: &mut Programs, ruleset: u32, rule: &Rule) -> u8 {
        let mut entry = PeerEntry { portset: 0, lengths: 0, otherwise: rule.otherwise };
        if !rule.ports.is_empty() {
            self.portsets += 1;
            entry.portset = self.portsets;
            let mut ports = programs.hash::<PortKey, Decision>(maps::PORTS);
            for (proto, port, length, decision) in &rule.ports {
                entry.lengths |= 1 << length;
                let key = PortKey { portset: entry.portset, port: *port, proto: *proto, length: *length };
                ports.insert(key, decision, 0).expect("PORTS has room");
            }
        }
        match rule.peer {
            Peer::Identity(number) => {
                let key = PeerKey { ruleset, identity: number };
                programs.hash::<PeerKey, PeerEntry>(maps::PEERS).insert(key, entry, 0).expect("PEERS has room");
                if number >= identity::CLASS_ANY { RulesPtr::HAS_CLASSES } else { RulesPtr::HAS_PEERS }
            }
            Peer::Region(addr, length) => {
                let length = u32::from(length) + if addr.is_ipv4() { V4_PREFIX_BITS } else { 0 };
                let key = Key::new(REGION_RULESET_BITS + length, RegionKey::new(ruleset, Addr::from(addr)));
                programs.trie::<RegionKey, PeerEntry>(maps::REGIONS).insert(&key, entry, 0).expect("REGIONS has room");
                RulesPtr::HAS_REGIONS
            }
        }
    }
}
