//! Numbers of port sets, by content.

use std::{collections::BTreeMap, sync::Arc};

use policy::lower::{PortPrefix, PortSet};

use crate::reconcile::mirror::Mirror;

/// The port sets that are in the maps, or in a plan.
#[derive(Debug, Default)]
pub(super) struct PortSets {
    numbers: BTreeMap<Arc<PortSet>, u32>,
    contents: BTreeMap<u32, Arc<PortSet>>,
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
            let content = Arc::new(content);
            sets.numbers.entry(content.clone()).or_insert(number);
            sets.contents.insert(number, content);
        }
        sets
    }

    /// The number of a set that is known.
    pub(super) fn get(&self, set: &PortSet) -> Option<u32> {
        self.numbers.get(set).copied()
    }

    /// Gives a set a number that is in no map and no list.
    pub(super) fn add(&mut self, content: &Arc<PortSet>, mirror: &Mirror) -> u32 {
        loop {
            self.next = self.next.checked_add(1).unwrap_or(1);
            let number = self.next;
            if !self.contents.contains_key(&number) && mirror.ports_of(number).next().is_none() {
                self.numbers.insert(content.clone(), number);
                self.contents.insert(number, content.clone());
                return number;
            }
        }
    }

    /// Takes a number out of the list again.
    pub(super) fn remove(&mut self, number: u32) {
        if let Some(content) = self.contents.remove(&number)
            && self.numbers.get(&content) == Some(&number)
        {
            self.numbers.remove(&content);
        }
    }
}
