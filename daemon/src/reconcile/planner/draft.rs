//! A plan in the making.

use std::collections::{BTreeMap, BTreeSet};

use datapath_abi::{
    addr::{Addr, AddrEntry},
    endpoint::{Endpoint, Swing},
    policy::{Decision, PeerEntry, PeerKey, PortKey, RulesetInfo},
};

use crate::reconcile::{
    change::Change,
    endpoint::LocalEndpoint,
    mirror::{Capacity, Mirror},
};

/// A plan in the making.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    mirror: &'a Mirror,
    /// Entries of rule sets that nobody may meet again.
    taken: Vec<Change>,
    /// Entries of rule sets, and what of them is in `put`.
    put: Vec<Change>,
    peers: BTreeMap<PeerKey, PeerEntry>,
    regions: BTreeMap<(u32, Addr, u8), PeerEntry>,
    ports: BTreeMap<PortKey, Decision>,
    rulesets: BTreeSet<u32>,
    /// How many of those are not yet in their map.
    new: New,
    made: Vec<Change>,
    addresses: Vec<Change>,
    interfaces: Vec<Change>,
    swings: Vec<Swing>,
    dropped: Vec<Change>,
    cleared: Vec<Change>,
    generation: Option<u64>,
}

/// Entries that make a map fuller.
#[derive(Clone, Copy, Debug, Default)]
struct New {
    peers: usize,
    regions: usize,
    ports: usize,
    rulesets: usize,
}

/// How far a draft has come, to return there.
#[derive(Debug)]
pub(super) struct Mark {
    put: usize,
    new: New,
}

impl<'a> Draft<'a> {
    pub(super) fn new(mirror: &'a Mirror) -> Self {
        Self {
            mirror,
            taken: Vec::new(),
            put: Vec::new(),
            peers: BTreeMap::new(),
            regions: BTreeMap::new(),
            ports: BTreeMap::new(),
            rulesets: BTreeSet::new(),
            new: New::default(),
            made: Vec::new(),
            addresses: Vec::new(),
            interfaces: Vec::new(),
            swings: Vec::new(),
            dropped: Vec::new(),
            cleared: Vec::new(),
            generation: None,
        }
    }

    pub(super) fn mark(&self) -> Mark {
        Mark { put: self.put.len(), new: self.new }
    }

    /// Forgets the entries of rule sets that were put since.
    pub(super) fn rewind(&mut self, mark: Mark) {
        for change in self.put.drain(mark.put..) {
            match change {
                Change::PutPort(key, _) => drop(self.ports.remove(&key)),
                Change::PutPeer(key, _) => drop(self.peers.remove(&key)),
                Change::PutRegion(ruleset, addr, length, _) => drop(self.regions.remove(&(ruleset, addr, length))),
                Change::PutRuleset(number, _) => drop(self.rulesets.remove(&number)),
                _ => {}
            }
        }
        self.new = mark.new;
    }

    pub(super) fn put_port(&mut self, key: PortKey, decision: Decision) {
        let before = self.mirror.ports.get(&key);
        if before != Some(&decision) && self.ports.insert(key, decision).is_none() {
            self.new.ports += usize::from(before.is_none());
            self.put.push(Change::PutPort(key, decision));
        }
    }

    pub(super) fn put_peer(&mut self, key: PeerKey, entry: PeerEntry) {
        let before = self.mirror.peers.get(&key);
        if before != Some(&entry) && self.peers.insert(key, entry).is_none() {
            self.new.peers += usize::from(before.is_none());
            self.put.push(Change::PutPeer(key, entry));
        }
    }

    /// Before any address is written.
    pub(super) fn drop_peer(&mut self, key: PeerKey) {
        if self.mirror.peers.contains_key(&key) {
            self.taken.push(Change::DropPeer(key));
        }
    }

    pub(super) fn put_region(&mut self, key: (u32, Addr, u8), entry: PeerEntry) {
        let before = self.mirror.regions.get(&key);
        if before != Some(&entry) && self.regions.insert(key, entry).is_none() {
            self.new.regions += usize::from(before.is_none());
            self.put.push(Change::PutRegion(key.0, key.1, key.2, entry));
        }
    }

    pub(super) fn put_ruleset(&mut self, number: u32, info: RulesetInfo) {
        let before = self.mirror.rulesets.get(&number);
        if before != Some(&info) && self.rulesets.insert(number) {
            self.new.rulesets += usize::from(before.is_none());
            self.put.push(Change::PutRuleset(number, info));
        }
    }

    /// A prefix for CIDRS.
    pub(super) fn put_cidr(&mut self, change: Change) {
        self.put.push(change);
    }

    pub(super) fn put_address(&mut self, addr: Addr, entry: AddrEntry) {
        self.addresses.push(Change::PutAddress(addr, entry));
    }

    pub(super) fn drop_address(&mut self, addr: Addr) {
        self.drop_later(Change::DropAddress(addr));
    }

    /// After the swing.
    pub(super) fn drop_later(&mut self, change: Change) {
        self.dropped.push(change);
    }

    pub(super) fn put_endpoint(&mut self, endpoint: &LocalEndpoint, entry: Endpoint) {
        if let Some(found) = self.mirror.endpoints.get(&endpoint.slot) {
            // Somebody else's, left over: nothing must lead to it while it changes.
            self.made.push(Change::DropInterface(found.ifindex));
            self.made.push(Change::ClearEndpoint(endpoint.slot));
        }
        self.made.push(Change::PutEndpoint(endpoint.slot, entry));
    }

    /// What STAGED says of a slot. It only tells, so there is no order to keep but one: what it leads to
    /// is there before, and there still when it is taken away.
    pub(super) fn put_staged(&mut self, slot: u32, rules: [u64; 2]) {
        if self.mirror.staged.get(&slot).copied().unwrap_or_default() != rules {
            self.interfaces.push(Change::PutStaged(slot, rules));
        }
    }

    pub(super) fn put_interface(&mut self, ifindex: u32, slot: u32) {
        self.interfaces.push(Change::PutInterface(ifindex, slot));
    }

    pub(super) fn swing(&mut self, swing: Swing) {
        self.swings.push(swing);
    }

    /// Last of all: what nobody lives in any more.
    pub(super) fn clear(&mut self, change: Change) {
        self.cleared.push(change);
    }

    pub(super) fn set_generation(&mut self, next: u64) {
        self.generation = Some(next);
    }

    /// Whether anything of a rule set has to be written.
    pub(super) fn touched(&self, number: u32) -> bool {
        let first = PeerKey { ruleset: number, identity: 0 };
        let last = PeerKey { ruleset: number, identity: u32::MAX };
        let region = self.regions.range((number, Addr::ZERO, 0)..).next();
        self.peers.range(first..=last).next().is_some() || region.is_some_and(|((ruleset, ..), _)| *ruleset == number)
    }

    /// Whether the draft would fill a map beyond its capacity: which, in words, and the fix.
    pub(super) fn overflow(&self, capacity: &Capacity) -> Option<(String, String)> {
        let full = |map: &str, new: usize, used: usize, capacity: usize| {
            (used + new > capacity).then(|| {
                let free = capacity.saturating_sub(used);
                (
                    format!("needs {new} more entries of {map}, {free} of {capacity} are free"),
                    format!("raise the capacity of {map} (--map-capacity {map}=N), or select fewer peers and ports"),
                )
            })
        };
        let (new, mirror) = (self.new, self.mirror);
        full("PEERS", new.peers, mirror.peers.len(), capacity.peers)
            .or_else(|| full("REGIONS", new.regions, mirror.regions.len(), capacity.regions))
            .or_else(|| full("PORTS", new.ports, mirror.ports.len(), capacity.ports))
            .or_else(|| full("RULESETS", new.rulesets, mirror.rulesets.len(), capacity.rulesets))
    }

    /// All changes, in the order in which no packet sees half of them.
    pub(super) fn finish(self) -> Vec<Change> {
        let mut changes = Vec::new();
        changes.extend(self.generation.map(Change::PutGeneration));
        changes.extend(self.taken);
        changes.extend(self.put);
        changes.extend(self.made);
        changes.extend(self.addresses);
        changes.extend(self.interfaces);
        if !self.swings.is_empty() {
            changes.push(Change::Swing(self.swings));
        }
        changes.extend(self.dropped);
        changes.extend(self.cleared);
        changes
    }
}
