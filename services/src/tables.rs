//! What the maps hold in the form in which it is compared: sets of backends as lists.

use std::collections::{BTreeMap, BTreeSet};

use datapath_abi::maps;
use datapath_abi::service::{Backend, BackendKey, Frontend, FrontendKey, GoneKey};

use crate::found::{Found, Write};

/// How much each map holds at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capacity {
    /// FRONTENDS.
    pub frontends: usize,
    /// BACKENDS.
    pub backends: usize,
    /// GONE.
    pub gone: usize,
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
            frontends: of(maps::FRONTENDS) as usize,
            backends: of(maps::BACKENDS) as usize,
            gone: of(maps::GONE) as usize,
        }
    }
}

/// What found no room. The rest of the port is in force.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Refusal {
    /// The port as a whole: FRONTENDS is full.
    Frontend,
    /// So many of its backends: BACKENDS is full.
    Backends(usize),
}

/// The maps, as they are when all writes so far have been carried out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tables {
    pub(crate) frontends: BTreeMap<FrontendKey, Frontend>,
    /// Places 0 to count - 1 of each set.
    pub(crate) sets: BTreeMap<u32, Vec<Backend>>,
    /// Places beyond, which a predecessor left.
    pub(crate) left: BTreeMap<BackendKey, Backend>,
    /// With the round in which it was written.
    pub(crate) gone: BTreeMap<GoneKey, u64>,
    /// Entries of BACKENDS.
    pub(crate) backends: usize,
    /// The last number of a set that was given out.
    last_set: u32,
}

impl Tables {
    pub(crate) fn new(found: Found) -> Self {
        let Found { frontends, backends, gone } = found;
        let mut counts: BTreeMap<u32, u32> = BTreeMap::new();
        for frontend in frontends.values() {
            let count = counts.entry(frontend.set).or_default();
            *count = (*count).max(frontend.count);
        }
        let numbers = frontends.values().map(|frontend| frontend.set);
        let numbers = numbers.chain(backends.keys().map(|key| key.set)).chain(gone.iter().map(|key| key.set));
        let last_set = numbers.max().unwrap_or(0);
        let mut tables = Self { frontends, last_set, backends: backends.len(), ..Self::default() };
        tables.gone = gone.into_iter().map(|key| (key, 0)).collect();
        tables.sets = counts.keys().map(|set| (*set, Vec::new())).collect();
        for (key, backend) in backends {
            let count = counts.get(&key.set).copied().unwrap_or(0);
            let places = tables.sets.entry(key.set).or_default();
            // In the order of places: after a gap nothing can be reached by rights.
            if key.place < count && places.len() == key.place as usize {
                places.push(backend);
            } else {
                tables.left.insert(key, backend);
            }
        }
        tables
    }

    /// A number that no set has: the one after the last, so that it is long before one comes again.
    pub(crate) fn free_number(&mut self) -> u32 {
        loop {
            self.last_set = self.last_set.checked_add(1).unwrap_or(1);
            let number = self.last_set;
            if !self.sets.contains_key(&number) {
                return number;
            }
        }
    }

    /// What is left of a set beyond its places.
    pub(crate) fn left_of(&self, set: u32) -> Vec<(BackendKey, Backend)> {
        let (first, last) = (BackendKey { set, place: 0 }, BackendKey { set, place: u32::MAX });
        self.left.range(first..=last).map(|(key, backend)| (*key, *backend)).collect()
    }

    /// The maps.
    pub(crate) fn found(&self) -> Found {
        let places = self.sets.iter().flat_map(|(set, places)| {
            places.iter().zip(0..).map(|(backend, place)| (BackendKey { set: *set, place }, *backend))
        });
        Found {
            frontends: self.frontends.clone(),
            backends: places.chain(self.left.iter().map(|(key, backend)| (*key, *backend))).collect(),
            gone: self.gone.keys().copied().collect::<BTreeSet<_>>(),
        }
    }
}

/// Writes in the order in which they are to be carried out.
#[derive(Debug, Default)]
pub(crate) struct Phases {
    /// What nobody looks at yet: backends at places beyond the count. And what must not end any more.
    pub(crate) prepare: Vec<Write>,
    /// Frontends that are new, have another set, or have a count that rises.
    pub(crate) raise: Vec<Write>,
    /// Frontends that go: before others come into their sets, who serve elsewhere.
    pub(crate) close: Vec<Write>,
    /// Backends in the place of others, and who has gone.
    pub(crate) replace: Vec<Write>,
    /// Frontends whose count falls.
    pub(crate) lower: Vec<Write>,
    /// Places that nobody looks at any more; nothing else.
    pub(crate) clear: Vec<Write>,
}

impl Phases {
    pub(crate) fn in_order(self) -> impl Iterator<Item = Write> {
        let Self { prepare, raise, close, replace, lower, clear } = self;
        [prepare, raise, close, replace, lower, clear].into_iter().flatten()
    }
}
