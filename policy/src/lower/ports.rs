//! From the rules that speak to one peer to its port set.
//!
//! A port range becomes the fewest prefixes that cover it; of the rules that cover a prefix the
//! first in the table's order decides there.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datapath_abi::policy::Decision;

use super::Limits;
use super::error::{Budget, LowerError, What};
use crate::compile::{RuleTable, TablePorts};
use crate::model::{PortRange, Protocol};

/// Bits of a port number.
const PORT_BITS: u8 = 16;

/// What applies to one peer, by port.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Peer {
    /// By protocol and port. Shared: many peers have the same.
    pub ports: Arc<PortSet>,
    /// For what the port set does not mention, of every protocol.
    pub otherwise: Decision,
}

impl Peer {
    /// Whether it says nothing about anything.
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.otherwise == Decision::default()
    }

    /// What holds for a protocol (IANA number) and port. Protocols without ports have port 0.
    pub fn decide(&self, proto: u8, port: u16) -> Decision {
        self.ports.lookup(proto, port).unwrap_or(self.otherwise)
    }
}

/// Ports of one protocol whose first `length` bits are equal. The order is that in which
/// prefixes contain each other: shorter before longer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PortPrefix {
    /// IANA protocol number.
    pub proto: u8,
    /// Length, 0 to 16. 0 is every port of the protocol.
    pub length: u8,
    /// First port: the bits below the prefix are clear.
    pub port: u16,
}

impl PortPrefix {
    /// The prefix of this length that a port lies in.
    pub const fn around(proto: u8, port: u16, length: u8) -> Self {
        let mask = (u16::MAX as u32) << (PORT_BITS - length);
        Self { proto, length, port: port & mask as u16 }
    }

    /// Last port.
    pub const fn last(self) -> u16 {
        self.port | ((1u32 << (PORT_BITS - self.length)) - 1) as u16
    }
}

/// A port set by content.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct PortSet {
    /// The longest prefix that holds a port decides.
    pub entries: BTreeMap<PortPrefix, Decision>,
}

impl PortSet {
    /// Whether it has no entry: number 0 stands for it.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// `PeerEntry::lengths`: bit `n` is set if there is a prefix of length `n`.
    pub fn lengths(&self) -> u32 {
        self.entries.keys().fold(0, |mask, prefix| mask | 1 << prefix.length)
    }

    /// The entry with the longest prefix that holds this port.
    pub fn lookup(&self, proto: u8, port: u16) -> Option<Decision> {
        let lengths = self.lengths();
        let found = (0..=PORT_BITS).rev().filter(|length| lengths & 1 << length != 0);
        found.map(|length| PortPrefix::around(proto, port, length)).find_map(|it| self.entries.get(&it).copied())
    }
}

/// The fewest prefixes that together are exactly this range, in order of ports.
pub fn prefixes(protocol: Protocol, range: PortRange) -> impl Iterator<Item = PortPrefix> {
    let proto = protocol.number();
    let mut next = Some(range.from());
    std::iter::from_fn(move || {
        let from = next?;
        let fits = |length: &u8| {
            let prefix = PortPrefix::around(proto, from, *length);
            prefix.port == from && prefix.last() <= range.to()
        };
        // None fits once `from` lies behind the range.
        let length = (0..=PORT_BITS).find(fits)?;
        let prefix = PortPrefix::around(proto, from, length);
        next = prefix.last().checked_add(1);
        Some(prefix)
    })
}

/// Numbers that the named ports of an egress rule stand for at one destination.
pub(super) type Resolved = BTreeSet<(Protocol, u16)>;

/// A rule that speaks to a peer, by its place in the table.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Voice {
    /// Place in the table: of several voices the lowest decides.
    pub(super) rule: usize,
    /// What its named ports stand for here.
    pub(super) named: Resolved,
}

impl Voice {
    pub(super) fn plain(rule: usize) -> Self {
        Self { rule, named: Resolved::new() }
    }
}

/// Makes peers of voices. Many peers hear the same voices, so it remembers.
#[derive(Debug)]
pub(super) struct Flatten<'a> {
    table: &'a RuleTable,
    decisions: Vec<Decision>,
    limit: usize,
    known: BTreeMap<Vec<Voice>, Peer>,
    /// Every port set so far.
    sets: BTreeSet<Arc<PortSet>>,
    /// Of all of them.
    total: Budget<'a>,
}

impl<'a> Flatten<'a> {
    pub(super) fn new(table: &'a RuleTable, decisions: Vec<Decision>, limits: &Limits) -> Self {
        let total = Budget::new(What::PortSets, limits.port_sets, table);
        Self { table, decisions, limit: limits.ports, known: BTreeMap::new(), sets: BTreeSet::new(), total }
    }

    /// What these rules together say, each of them where the ones before it are silent. `voices`
    /// must be sorted.
    pub(super) fn peer(&mut self, voices: Vec<Voice>) -> Result<Peer, LowerError> {
        if let Some(peer) = self.known.get(&voices) {
            return Ok(peer.clone());
        }
        let peer = self.flatten(&voices)?;
        if self.sets.insert(peer.ports.clone()) {
            for _ in 0..peer.ports.entries.len() {
                self.total.take(voices.iter().map(|voice| voice.rule))?;
            }
        }
        self.known.insert(voices, peer.clone());
        Ok(peer)
    }

    fn flatten(&self, voices: &[Voice]) -> Result<Peer, LowerError> {
        let mut otherwise = None;
        let mut first: BTreeMap<PortPrefix, usize> = BTreeMap::new();
        let mut budget = Budget::new(What::Ports, self.limit, self.table);
        for Voice { rule, named } in voices {
            let TablePorts::These { ranges, named: _ } = &self.table.rules[*rule].ports else {
                // Whatever comes after this rule in the order has nothing left to decide.
                otherwise = Some(*rule);
                break;
            };
            let named = named.iter().map(|(protocol, port)| (*protocol, PortRange::single(*port)));
            for prefix in ranges.iter().copied().chain(named).flat_map(|(protocol, range)| prefixes(protocol, range)) {
                if let Entry::Vacant(vacant) = first.entry(prefix) {
                    vacant.insert(*rule);
                    budget.take([*rule])?;
                }
            }
        }
        Ok(Peer {
            ports: Arc::new(self.port_set(&first)),
            otherwise: otherwise.map_or(Decision::default(), |rule| self.decisions[rule]),
        })
    }

    /// Lets every prefix also say what the shorter ones around it say, and leaves out those that
    /// then say nothing of their own. `otherwise` needs no look: its rule comes after all of these.
    fn port_set(&self, first: &BTreeMap<PortPrefix, usize>) -> PortSet {
        let mut decided: BTreeMap<PortPrefix, usize> = BTreeMap::new();
        let mut set = PortSet::default();
        for (prefix, rule) in first {
            let shorter = (0..prefix.length).rev();
            let around = shorter
                .map(|length| PortPrefix::around(prefix.proto, prefix.port, length))
                .find_map(|it| decided.get(&it).copied());
            let rule = around.map_or(*rule, |around| around.min(*rule));
            decided.insert(*prefix, rule);
            if around != Some(rule) {
                set.entries.insert(*prefix, self.decisions[rule]);
            }
        }
        set
    }
}
