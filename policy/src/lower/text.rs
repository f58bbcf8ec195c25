//! Entries as text: for dumps, and for tests that show what the compiler makes of policies.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use datapath_abi::addr::{Addr, V4_PREFIX_BITS};
use datapath_abi::endpoint::RulesPtr;
use datapath_abi::identity::{CLASS_ANY, CLASS_CLUSTER, CLASS_NODE, CLASS_WORLD};
use datapath_abi::policy::{Decision, Verdict};

use super::{Peer, PortPrefix, RuleSet, Stage};
use crate::model::{PortRange, Protocol};

impl fmt::Display for PortPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Protocol::from_number(self.proto) {
            Some(protocol) => write!(f, "{protocol}/")?,
            None => write!(f, "{}/", self.proto)?,
        }
        match PortRange::new(self.port, self.last()) {
            Ok(range) => range.fmt(f),
            Err(_) => Err(fmt::Error),
        }
    }
}

/// `allow #1`: what it says, and the cookie of the rule that says it.
struct Shown(Decision);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Decision { cookie, precedence: _, verdict, pad: _ } = self.0;
        match Verdict::try_from(verdict) {
            Ok(Verdict::None) => f.write_str("nothing"),
            Ok(Verdict::Allow) => write!(f, "allow #{cookie}"),
            Ok(Verdict::Deny) => write!(f, "deny #{cookie}"),
            Ok(Verdict::Pass) => write!(f, "pass #{cookie}"),
            Err(other) => write!(f, "verdict {other} #{cookie}"),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (prefix, decision) in &self.ports.entries {
            write!(f, "{prefix} {}, ", Shown(*decision))?;
        }
        write!(f, "{}{}", if self.ports.is_empty() { "" } else { "else " }, Shown(self.otherwise))
    }
}

impl fmt::Display for RuleSet {
    /// Flags, then one line for each entry: classes, identities and regions, in this order; then the
    /// same for the second stage.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { flags, peers, regions, second } = self;
        let names = [
            (RulesPtr::ISOLATED, "ISOLATED"),
            (RulesPtr::HAS_PEERS, "HAS_PEERS"),
            (RulesPtr::HAS_CLASSES, "HAS_CLASSES"),
            (RulesPtr::HAS_REGIONS, "HAS_REGIONS"),
        ];
        let set: Vec<&str> = names.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, name)| *name).collect();
        writeln!(f, "flags {}", if set.is_empty() { "none".to_owned() } else { set.join(" ") })?;
        stage(f, peers, regions)?;
        let Some(Stage { peers, regions }) = second else { return Ok(()) };
        writeln!(f, "after a pass")?;
        stage(f, peers, regions)
    }
}

fn stage(f: &mut fmt::Formatter<'_>, peers: &BTreeMap<u32, Peer>, regions: &BTreeMap<(Addr, u8), Peer>) -> fmt::Result {
    for (identity, peer) in peers.range(CLASS_ANY..) {
        match *identity {
            CLASS_ANY => writeln!(f, "any: {peer}")?,
            CLASS_CLUSTER => writeln!(f, "cluster: {peer}")?,
            CLASS_WORLD => writeln!(f, "world: {peer}")?,
            CLASS_NODE => writeln!(f, "node: {peer}")?,
            other => writeln!(f, "class {other:#x}: {peer}")?,
        }
    }
    for (identity, peer) in peers.range(..CLASS_ANY) {
        writeln!(f, "identity {identity}: {peer}")?;
    }
    let mut sorted: Vec<_> = regions.iter().map(|((addr, length), peer)| (addr.octets(), *length, peer)).collect();
    sorted.sort_by_key(|(octets, length, _)| (*octets, *length));
    for (octets, length, peer) in sorted {
        let ip = IpAddr::from(octets).to_canonical();
        let length = if ip.is_ipv4() { u32::from(length).saturating_sub(V4_PREFIX_BITS) } else { u32::from(length) };
        writeln!(f, "region {ip}/{length}: {peer}")?;
    }
    Ok(())
}
