//! The writes that bring one set from what it is to what it should be.

use std::collections::BTreeSet;

use datapath_abi::service::{Backend, BackendKey, Frontend, FrontendKey, GoneKey};

use crate::found::Write;
use crate::index::Index;
use crate::ports::PortId;
use crate::tables::{Phases, Refusal};

impl Index {
    /// Brings a port up to date.
    pub(crate) fn settle(&mut self, port: &PortId, phases: &mut Phases) {
        self.refused.remove(port);
        let Some(held) = self.held.get(port) else { return };
        if held.at.is_empty() {
            if let Some(set) = self.held.remove(port).and_then(|held| held.set) {
                self.retire(set, phases);
            }
            return;
        }
        let at: Vec<FrontendKey> = held.at.iter().copied().collect();
        let new = at.iter().filter(|key| !self.tables.frontends.contains_key(key)).count();
        if self.tables.frontends.len() + new > self.capacity.frontends {
            self.refused.insert(port.clone(), Refusal::Frontend);
            return;
        }
        let set = match held.set {
            Some(set) => set,
            None => {
                let set = self.tables.free_number();
                self.held.entry(port.clone()).or_default().set = Some(set);
                set
            }
        };
        let target = self.target(port);
        let before = self.tables.sets.remove(&set).unwrap_or_default();
        let places = self.settle_places(port, set, before.clone(), &target, phases);
        // What nobody may look at yet when the count rises, or any more when it falls, is not there.
        let (most, last) = (before.len().max(places.len()), places.len());
        let count = |count: usize| Frontend { set, count: u32::try_from(count).unwrap_or(u32::MAX) };
        for key in at {
            let is = self.tables.frontends.insert(key, count(last));
            if is != Some(count(most)) {
                phases.raise.push(Write::PutFrontend(key, count(most)));
            }
            if last < most {
                phases.lower.push(Write::PutFrontend(key, count(last)));
            }
        }
        self.tables.sets.insert(set, places);
    }

    /// The places of a set from what they are to `target`, as far as there is room. Changes those that stay.
    fn settle_places(
        &mut self,
        port: &PortId,
        set: u32,
        mut places: Vec<Backend>,
        target: &BTreeSet<Backend>,
        phases: &mut Phases,
    ) -> Vec<Backend> {
        let mut stay: BTreeSet<Backend> = BTreeSet::new();
        let mut holes: Vec<usize> = Vec::new();
        for (place, backend) in places.iter().enumerate() {
            if target.contains(backend) && stay.insert(*backend) {
                continue;
            }
            holes.push(place);
            if !target.contains(backend) {
                self.gone(set, *backend, &mut phases.replace);
            }
        }
        if !self.tables.gone.is_empty() {
            for backend in target {
                let key = gone_key(set, *backend);
                if self.tables.gone.remove(&key).is_some() {
                    phases.prepare.push(Write::DropGone(key));
                }
            }
        }
        let mut added = target.difference(&stay).copied();
        let mut filled = 0;
        for place in &holes {
            let Some(backend) = added.next() else { break };
            places[*place] = backend;
            phases.replace.push(Write::PutBackend(key(set, *place), backend));
            filled += 1;
        }
        let mut missing = 0;
        for backend in added {
            let at = key(set, places.len());
            let left = self.tables.left.remove(&at);
            if left.is_none() && self.tables.backends >= self.capacity.backends {
                missing += 1;
                continue;
            }
            self.tables.backends += usize::from(left.is_none());
            if left != Some(backend) {
                if let Some(left) = left.filter(|left| !target.contains(left)) {
                    self.gone(set, left, &mut phases.replace);
                }
                phases.prepare.push(Write::PutBackend(at, backend));
            }
            places.push(backend);
        }
        if missing > 0 {
            self.refused.insert(port.clone(), Refusal::Backends(missing));
        }
        self.fill(set, &mut places, &holes[filled..], phases);
        for (at, backend) in self.tables.left_of(set) {
            self.tables.left.remove(&at);
            if !target.contains(&backend) {
                self.gone(set, backend, &mut phases.replace);
            }
            phases.clear.push(Write::DropBackend(at));
        }
        places
    }

    /// Fills holes from the end, and shortens the list.
    fn fill(&mut self, set: u32, places: &mut Vec<Backend>, holes: &[usize], phases: &mut Phases) {
        let rest = places.len() - holes.len();
        let beyond: BTreeSet<usize> = holes.iter().copied().filter(|hole| *hole >= rest).collect();
        let mut last = (rest..places.len()).rev().filter(|place| !beyond.contains(place));
        for hole in holes.iter().filter(|hole| **hole < rest) {
            let Some(from) = last.next() else { break };
            places[*hole] = places[from];
            phases.replace.push(Write::PutBackend(key(set, *hole), places[from]));
        }
        for place in (rest..places.len()).rev() {
            phases.clear.push(Write::DropBackend(key(set, place)));
        }
        places.truncate(rest);
    }

    /// Removes sets of ports that found no room in FRONTENDS where they stand now: nobody reaches their backends. True
    /// if that makes room.
    pub(crate) fn let_go(&mut self, writes: &mut Vec<Write>) -> bool {
        let mut phases = Phases::default();
        let refused = self.refused.iter().filter(|(_, refusal)| **refusal == Refusal::Frontend);
        let without = refused.map(|(port, _)| port.clone()).collect::<Vec<_>>();
        for port in without {
            if let Some(set) = self.held.get_mut(&port).and_then(|held| held.set.take()) {
                self.retire(set, &mut phases);
            }
        }
        self.tables.backends -= phases.clear.len();
        let freed = !phases.clear.is_empty();
        writes.extend(phases.in_order());
        freed
    }

    /// Removes a set of which no frontend will speak.
    fn retire(&mut self, set: u32, phases: &mut Phases) {
        let places = self.tables.sets.remove(&set).unwrap_or_default();
        for backend in &places {
            self.gone(set, *backend, &mut phases.replace);
        }
        for place in (0..places.len()).rev() {
            phases.clear.push(Write::DropBackend(key(set, place)));
        }
    }

    /// Removes frontends at which nobody stands any more, of the ports that a plan is about. `first`: all of them, and
    /// whatever else a predecessor has left.
    pub(crate) fn close(&mut self, first: bool, keys: &BTreeSet<FrontendKey>, phases: &mut Phases) {
        let all: BTreeSet<FrontendKey>;
        let keys = if first {
            all = self.tables.frontends.keys().copied().collect();
            &all
        } else {
            keys
        };
        for key in keys.iter().filter(|key| !self.owners.contains_key(key)) {
            if self.tables.frontends.remove(key).is_some() {
                phases.close.push(Write::DropFrontend(*key));
            }
        }
        if !first {
            return;
        }
        let used: BTreeSet<u32> = self.held.values().filter_map(|held| held.set).collect();
        let unused: Vec<u32> = self.tables.sets.keys().copied().filter(|set| !used.contains(set)).collect();
        for set in unused {
            self.retire(set, phases);
        }
        for (at, backend) in std::mem::take(&mut self.tables.left) {
            self.gone(at.set, backend, &mut phases.replace);
            phases.clear.push(Write::DropBackend(at));
        }
    }

    fn gone(&mut self, set: u32, backend: Backend, writes: &mut Vec<Write>) {
        let key = gone_key(set, backend);
        if self.tables.gone.contains_key(&key) {
            self.tables.gone.insert(key, self.round);
        } else if self.tables.gone.len() >= self.capacity.gone {
            self.gone_missed += 1;
        } else {
            self.tables.gone.insert(key, self.round);
            writes.push(Write::PutGone(key));
        }
    }
}

fn key(set: u32, place: usize) -> BackendKey {
    // A map has fewer entries than that.
    BackendKey { set, place: u32::try_from(place).unwrap_or(u32::MAX) }
}

fn gone_key(set: u32, backend: Backend) -> GoneKey {
    GoneKey { addr: backend.addr, port: backend.port, set, ..GoneKey::default() }
}
