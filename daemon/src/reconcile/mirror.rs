//! What the kernel holds, as far as the daemon writes it: read once, kept by applying each
//! change that was carried out.

use std::collections::BTreeMap;

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
        Self::from_fn(|name| maps::ALL.iter().find(|info| info.name == name).map_or(0, |info| info.capacity))
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
}

impl Mirror {
    /// Notes that a change was carried out.
    pub fn apply(&mut self, change: &Change) {
        match *change {
            Change::PutPort(key, value) => {
                self.ports.insert(key, value);
            }
            Change::PutPeer(key, value) => {
                self.peers.insert(key, value);
            }
            Change::PutRegion(ruleset, addr, length, value) => {
                self.regions.insert((ruleset, addr, length), value);
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
                self.peers.remove(&key);
            }
            Change::DropRegion(ruleset, addr, length) => {
                self.regions.remove(&(ruleset, addr, length));
            }
            Change::DropPort(key) => {
                self.ports.remove(&key);
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

    /// Greatest identity number that any map mentions.
    pub fn highest_identity(&self) -> u32 {
        let peers = self.peers.keys().map(|key| key.identity);
        let addresses = self.addresses.values().map(|entry| entry.identity);
        let endpoints = self.endpoints.values().map(|endpoint| endpoint.identity);
        peers.chain(addresses).chain(endpoints).filter(|&n| n <= datapath_abi::identity::MAX).max().unwrap_or(0)
    }

    /// Rule sets that an endpoint points at, be they enforced or staged. Second stages go with their first.
    pub fn rulesets_in_use(&self) -> impl Iterator<Item = u32> {
        let staged = self.staged.values().flatten().copied();
        let words = self.endpoints.values().flat_map(|endpoint| endpoint.rules).chain(staged);
        words.map(|rules| RulesPtr(rules).ruleset())
    }
}
