//! Numbers of port sets, by content.

use std::collections::{BTreeMap, BTreeSet};

use datapath_abi::policy::PortKey;
use policy::lower::{PortPrefix, PortSet};

use crate::reconcile::mirror::Mirror;

/// The port sets that are in the maps, or in a plan.
#[derive(Debug, Default)]
pub(super) struct PortSets {
    numbers: BTreeMap<PortSet, u32>,
    taken: BTreeSet<u32>,
    /// Where to look for a free number.
    next: u32,
}

impl PortSets {
    /// Those that a predecessor has left in the kernel.
    pub(super) fn found(mirror: &Mirror) -> Self {
        let mut contents: BTreeMap<u32, PortSet> = BTreeMap::new();
        for (key, decision) in &mirror.ports {
            let prefix = PortPrefix { proto: key.proto, length: key.length, port: key.port };
            contents.entry(key.portset).or_default().entries.insert(prefix, *decision);
        }
        let mut sets = Self::default();
        for (number, content) in contents {
            sets.numbers.entry(content).or_insert(number);
            sets.taken.insert(number);
        }
        sets
    }

    /// The number of a set that is known.
    pub(super) fn get(&self, set: &PortSet) -> Option<u32> {
        self.numbers.get(set).copied()
    }

    /// Gives a set a number that is in no map and no list.
    pub(super) fn add(&mut self, set: &PortSet, mirror: &Mirror) -> u32 {
        loop {
            self.next = self.next.checked_add(1).unwrap_or(1);
            let number = self.next;
            let first = PortKey { portset: number, ..PortKey::default() };
            let last = PortKey { portset: number, port: u16::MAX, proto: u8::MAX, length: u8::MAX };
            if !self.taken.contains(&number) && mirror.ports.range(first..=last).next().is_none() {
                self.numbers.insert(set.clone(), number);
                self.taken.insert(number);
                return number;
            }
        }
    }

    /// Takes a set out of the list again.
    pub(super) fn remove(&mut self, set: &PortSet) {
        if let Some(number) = self.numbers.remove(set) {
            self.taken.remove(&number);
        }
    }

    /// Keeps those that something refers to.
    pub(super) fn retain(&mut self, referenced: &BTreeSet<u32>) {
        self.numbers.retain(|_, number| referenced.contains(number));
        self.taken.retain(|number| referenced.contains(number));
    }
}
