//! What the kernel holds, as far as the daemon writes it: read once, kept by applying each
//! change that was carried out.

use std::collections::{BTreeMap, BTreeSet};

use datapath_abi::{
    addr::{Addr, AddrEntry},
    endpoint::{Endpoint, RulesPtr},
    maps,
    policy::{Decision, PeerEntry, PeerKey, PortKey, RulesetInfo},
};

use super::change::Change;

/// How much each map holds at most.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Capacity {
    /// ENDPOINTS, slot 0 included.
    pub endpoints: usize,
    /// ADDRESSES.
    pub addresses: usize,
    /// CIDRS.
    pub cidrs: usize,
    /// PEERS.
    pub peers: usize,
    /// REGIONS.
    pub regions: usize,
    /// PORTS.
    pub ports: usize,
    /// RULESETS.
    pub rulesets: usize,
}

impl Default for Capacity {
    fn default() -> Self {
        Self::from_fn(maps::default_capacity)
    }
}

impl Capacity {
    /// From the capacity of each map by its name.
    pub fn from_fn(of: impl Fn(&str) -> u32) -> Self {
        Self {
            endpoints: of(maps::ENDPOINTS) as usize,
            addresses: of(maps::ADDRESSES) as usize,
            cidrs: of(maps::CIDRS) as usize,
            peers: of(maps::PEERS) as usize,
            regions: of(maps::REGIONS) as usize,
            ports: of(maps::PORTS) as usize,
            rulesets: of(maps::RULESETS) as usize,
        }
    }
}

/// The daemon's maps in the kernel.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Mirror {
    /// ENDPOINTS that are in use.
    pub endpoints: BTreeMap<u32, Endpoint>,
    /// STAGED, where it is not zero.
    pub staged: BTreeMap<u32, [u64; 2]>,
    /// INTERFACES.
    pub interfaces: BTreeMap<u32, u32>,
    /// ADDRESSES.
    pub addresses: BTreeMap<Addr, AddrEntry>,
    /// CIDRS by first address and prefix length.
    pub cidrs: BTreeMap<(Addr, u8), AddrEntry>,
    /// PEERS.
    pub peers: BTreeMap<PeerKey, PeerEntry>,
    /// REGIONS by rule set, first address, prefix length.
    pub regions: BTreeMap<(u32, Addr, u8), PeerEntry>,
    /// PORTS.
    pub ports: BTreeMap<PortKey, Decision>,
    /// RULESETS.
    pub rulesets: BTreeMap<u32, RulesetInfo>,
    /// GENERATION.
    pub generation: u64,
    uses: PortUses,
}

/// Who refers to which port set.
#[derive(Clone, PartialEq, Debug, Default)]
struct PortUses {
    /// Entries of PEERS and REGIONS, by port set.
    counts: BTreeMap<u32, usize>,
    /// Port sets that have entries in PORTS, and nobody who refers to them.
    idle: BTreeSet<u32>,
}

impl PortUses {
    /// An entry that referred to one port set refers to another, if to any.
    fn swap(&mut self, before: Option<&PeerEntry>, after: Option<&PeerEntry>) {
        let number = |entry: Option<&PeerEntry>| entry.map(|entry| entry.portset).filter(|number| *number != 0);
        if let Some(number) = number(after) {
            *self.counts.entry(number).or_insert(0) += 1;
            self.idle.remove(&number);
        }
        if let Some(number) = number(before)
            && let Some(count) = self.counts.get_mut(&number)
        {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&number);
                self.idle.insert(number);
            }
        }
    }

    /// A port set has an entry in PORTS.
    fn put(&mut self, number: u32) {
        if !self.counts.contains_key(&number) {
            self.idle.insert(number);
        }
    }
}

impl Mirror {
    /// Notes that a change was carried out.
    pub fn apply(&mut self, change: &Change) {
        match *change {
            Change::PutPort(key, value) => {
                self.ports.insert(key, value);
                self.uses.put(key.portset);
            }
            Change::PutPeer(key, value) => {
                let before = self.peers.insert(key, value);
                self.uses.swap(before.as_ref(), Some(&value));
            }
            Change::PutRegion(ruleset, addr, length, value) => {
                let before = self.regions.insert((ruleset, addr, length), value);
                self.uses.swap(before.as_ref(), Some(&value));
            }
            Change::PutRuleset(ruleset, value) => {
                self.rulesets.insert(ruleset, value);
            }
            Change::PutAddress(addr, value) => {
                self.addresses.insert(addr, value);
            }
            Change::PutCidr(addr, length, value) => {
                self.cidrs.insert((addr, length), value);
            }
            Change::PutEndpoint(slot, value) => {
                self.endpoints.insert(slot, value);
            }
            Change::PutStaged(slot, [0, 0]) => {
                self.staged.remove(&slot);
            }
            Change::PutStaged(slot, rules) => {
                self.staged.insert(slot, rules);
            }
            Change::PutInterface(ifindex, slot) => {
                self.interfaces.insert(ifindex, slot);
            }
            Change::PutGeneration(next) => self.generation = next,
            Change::Swing(ref orders) => {
                for order in orders {
                    if let Some(endpoint) = self.endpoints.get_mut(&order.slot) {
                        endpoint.rules = order.rules;
                        endpoint.identity = order.identity;
                    }
                }
            }
            Change::DropInterface(ifindex) => {
                self.interfaces.remove(&ifindex);
            }
            Change::ClearEndpoint(slot) => {
                self.endpoints.remove(&slot);
            }
            Change::DropAddress(addr) => {
                self.addresses.remove(&addr);
            }
            Change::DropCidr(addr, length) => {
                self.cidrs.remove(&(addr, length));
            }
            Change::DropPeer(key) => {
                let before = self.peers.remove(&key);
                self.uses.swap(before.as_ref(), None);
            }
            Change::DropRegion(ruleset, addr, length) => {
                let before = self.regions.remove(&(ruleset, addr, length));
                self.uses.swap(before.as_ref(), None);
            }
            Change::DropPort(key) => {
                self.ports.remove(&key);
                if self.ports_of(key.portset).next().is_none() {
                    self.uses.idle.remove(&key.portset);
                }
            }
            Change::DropRuleset(ruleset) => {
                self.rulesets.remove(&ruleset);
            }
        }
    }

    /// Entries of PEERS that belong to a rule set.
    pub fn peers_of(&self, ruleset: u32) -> impl Iterator<Item = (u32, &PeerEntry)> {
        let (first, last) = (PeerKey { ruleset, identity: 0 }, PeerKey { ruleset, identity: u32::MAX });
        self.peers.range(first..=last).map(|(key, entry)| (key.identity, entry))
    }

    /// Entries of REGIONS that belong to a rule set.
    pub fn regions_of(&self, ruleset: u32) -> impl Iterator<Item = ((Addr, u8), &PeerEntry)> {
        self.regions
            .range((ruleset, Addr::ZERO, 0)..)
            .take_while(move |((of, ..), _)| *of == ruleset)
            .map(|(&(_, addr, length), entry)| ((addr, length), entry))
    }

    /// Entries of PORTS that belong to a port set.
    pub fn ports_of(&self, portset: u32) -> impl Iterator<Item = PortKey> {
        let first = PortKey { portset, ..PortKey::default() };
        let last = PortKey { portset, port: u16::MAX, proto: u8::MAX, length: u8::MAX };
        self.ports.range(first..=last).map(|(key, _)| *key)
    }

    /// Port sets to which nobody would refer if these entries of PEERS and REGIONS were not there.
    pub fn idle_without<'a>(&self, gone: impl Iterator<Item = &'a PeerEntry>) -> BTreeSet<u32> {
        let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
        for entry in gone {
            *counts.entry(entry.portset).or_insert(0) += 1;
        }
        let last = counts.into_iter().filter(|(number, count)| self.uses.counts.get(number) == Some(count));
        last.map(|(number, _)| number).chain(self.uses.idle.iter().copied()).collect()
    }

    /// Identities that a packet may bear now: those of addresses, and of endpoints.
    pub fn carried(&self) -> BTreeSet<u32> {
        let addresses = self.addresses.values().map(|entry| entry.identity);
        addresses.chain(self.endpoints.values().map(|endpoint| endpoint.identity)).collect()
    }

    /// Greatest identity number that any map mentions.
    pub fn highest_identity(&self) -> u32 {
        self.highest_identity_to(datapath_abi::identity::MAX)
    }

    /// Greatest identity number up to `last` that any map mentions.
    pub fn highest_identity_to(&self, last: u32) -> u32 {
        let peers = self.peers.keys().map(|key| key.identity);
        let addresses = self.addresses.values().map(|entry| entry.identity);
        let endpoints = self.endpoints.values().map(|endpoint| endpoint.identity);
        peers.chain(addresses).chain(endpoints).filter(|&n| n <= last).max().unwrap_or(0)
    }

    /// Rule sets that an endpoint points at, be they enforced or staged. Second stages go with their first.
    pub fn rulesets_in_use(&self) -> impl Iterator<Item = u32> {
        let staged = self.staged.values().flatten().copied();
        let words = self.endpoints.values().flat_map(|endpoint| endpoint.rules).chain(staged);
        words.map(|rules| RulesPtr(rules).ruleset())
    }
}
