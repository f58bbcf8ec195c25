//! All Services and EndpointSlices, and what follows from a change of one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use datapath_abi::addr::Addr;
use datapath_abi::service::{Backend, FrontendKey};
use policy::model::{EndpointSlice, Object, ObjectKey, Service, ServiceKey};

use crate::found::{Found, Write};
use crate::ports::{Claim, PortId, claims, endpoints, serving};
use crate::tables::{Capacity, Phases, Refusal, Tables};

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// In the order in which it is to be done.
    pub writes: Vec<Write>,
    /// Addresses and ports that stand for another Service than before, or for none.
    pub owners: Vec<(FrontendKey, Option<ServiceKey>)>,
    /// Entries that the plan adds to GONE are of this round: see [`Index::swept`].
    pub round: u64,
}

/// What is known under the name of a Service.
#[derive(Clone, Debug, Default)]
pub(crate) struct Entry {
    /// The Service, if there is one.
    pub(crate) service: Option<Service>,
    /// The slices that are for it, by name.
    pub(crate) slices: BTreeMap<String, EndpointSlice>,
    claims: Vec<(FrontendKey, Claim)>,
}

/// A port that stands at an address.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    /// Where it stands; empty: nowhere any more.
    pub(crate) at: BTreeSet<FrontendKey>,
    /// Its set, if it has one already.
    pub(crate) set: Option<u32>,
}

/// See the module. Objects may be told in any order: the same ones make the same entries, but for numbers of sets and the
/// order of places.
#[derive(Clone, Debug, Default)]
pub struct Index {
    pub(crate) capacity: Capacity,
    pub(crate) services: BTreeMap<ServiceKey, Entry>,
    /// Which Service a slice is for.
    slices: HashMap<ServiceKey, ServiceKey>,
    /// Who wants an address and port; the first has it.
    pub(crate) claims: BTreeMap<FrontendKey, BTreeSet<Claim>>,
    pub(crate) clashes: BTreeSet<FrontendKey>,
    pub(crate) owners: BTreeMap<FrontendKey, PortId>,
    pub(crate) held: BTreeMap<PortId, Held>,
    pub(crate) refused: BTreeMap<PortId, Refusal>,
    /// Backends that found no room in GONE.
    pub(crate) gone_missed: u64,
    /// Services of which something has been told since the last plan.
    dirty: BTreeSet<ServiceKey>,
    pub(crate) tables: Tables,
    pub(crate) round: u64,
    /// A plan has been made: nothing of a predecessor's is left.
    begun: bool,
}

impl Index {
    /// Without objects, above maps that hold `found`.
    pub fn new(found: Found, capacity: Capacity) -> Self {
        Self { capacity, tables: Tables::new(found), ..Self::default() }
    }

    /// The maps hold something else than was thought: begins anew with the objects there are.
    pub fn reset(&mut self, found: Found) {
        self.tables = Tables::new(found);
        self.claims.clear();
        self.clashes.clear();
        self.held.clear();
        self.refused.clear();
        self.begun = false;
        for (key, entry) in &mut self.services {
            entry.claims.clear();
            self.dirty.insert(key.clone());
        }
        // Not `owners`: who stood where is compared with by the next plan.
    }

    /// Takes a new object, or a new version of one. Others than Services and EndpointSlices are passed over.
    pub fn apply(&mut self, object: Object) {
        match object {
            Object::Service(service) => {
                let key = service.key.clone();
                self.services.entry(key.clone()).or_default().service = Some(service);
                self.dirty.insert(key);
            }
            Object::EndpointSlice(slice) => self.put_slice(slice),
            _ => {}
        }
    }

    /// Forgets an object, if it is there.
    pub fn delete(&mut self, key: &ObjectKey) {
        match key {
            ObjectKey::Service(key) => {
                if let Some(entry) = self.services.get_mut(key) {
                    entry.service = None;
                    self.dirty.insert(key.clone());
                }
            }
            ObjectKey::EndpointSlice(key) => self.drop_slice(key),
            _ => {}
        }
    }

    fn put_slice(&mut self, slice: EndpointSlice) {
        let service = slice.service_key();
        if self.slices.get(&slice.key) != service.as_ref() {
            self.drop_slice(&slice.key);
        }
        let Some(service) = service else { return };
        self.slices.insert(slice.key.clone(), service.clone());
        self.services.entry(service.clone()).or_default().slices.insert(slice.key.name.clone(), slice);
        self.dirty.insert(service);
    }

    fn drop_slice(&mut self, key: &ServiceKey) {
        let Some(service) = self.slices.remove(key) else { return };
        if let Some(entry) = self.services.get_mut(&service) {
            entry.slices.remove(&key.name);
        }
        self.dirty.insert(service);
    }

    /// Whether there is something to plan.
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty() || !self.begun
    }

    /// What is to be written for all that was told since the last plan. The first plan removes what a predecessor has
    /// left and nobody wants: it is to be made when all objects have been told.
    pub fn plan(&mut self) -> Plan {
        self.round += 1;
        let (mut keys, mut ports) = (BTreeSet::new(), BTreeSet::new());
        for key in std::mem::take(&mut self.dirty) {
            self.claim(&key, &mut keys);
            if self.services.get(&key).is_some_and(|entry| entry.service.is_none() && entry.slices.is_empty()) {
                self.services.remove(&key);
            }
        }
        let first = !std::mem::replace(&mut self.begun, true);
        if first {
            keys.extend(self.owners.keys().copied());
        }
        let mut owners = Vec::new();
        for key in &keys {
            self.settle_owner(*key, &mut ports, &mut owners);
        }
        if first {
            self.adopt(&ports);
        }
        let mut writes = Vec::new();
        let mut freed = self.carry_out(&ports, &keys, first, &mut writes);
        // What was refused may fit where others have gone.
        loop {
            while freed && !self.refused.is_empty() {
                let again: BTreeSet<PortId> = self.refused.keys().cloned().collect();
                freed = self.carry_out(&again, &BTreeSet::new(), false, &mut writes);
            }
            freed = self.let_go(&mut writes);
            if !freed {
                break;
            }
        }
        Plan { writes, owners, round: self.round }
    }

    /// Adds the writes for some ports, and addresses and ports where nobody may stand any more. True if they make room.
    fn carry_out(
        &mut self,
        ports: &BTreeSet<PortId>,
        keys: &BTreeSet<FrontendKey>,
        first: bool,
        writes: &mut Vec<Write>,
    ) -> bool {
        let mut phases = Phases::default();
        for port in ports {
            self.settle(port, &mut phases);
        }
        self.close(first, keys, &mut phases);
        // Not before: places are taken before others are given back.
        self.tables.backends -= phases.clear.len();
        let freed = !phases.clear.is_empty() || !phases.close.is_empty();
        writes.extend(phases.in_order());
        freed
    }

    /// Brings the claims of a Service up to date. `keys` get the addresses and ports that this is about.
    fn claim(&mut self, service: &ServiceKey, keys: &mut BTreeSet<FrontendKey>) {
        let Some(entry) = self.services.get_mut(service) else { return };
        let new = entry.service.as_ref().map(claims).unwrap_or_default();
        let old = std::mem::replace(&mut entry.claims, new.clone());
        for (key, claim) in old {
            keys.insert(key);
            if let Some(claims) = self.claims.get_mut(&key) {
                claims.remove(&claim);
            }
        }
        for (key, claim) in new {
            keys.insert(key);
            self.claims.entry(key).or_default().insert(claim);
        }
    }

    /// Finds out who stands at an address and port now. `ports` get those for whom something may have changed.
    fn settle_owner(
        &mut self,
        key: FrontendKey,
        ports: &mut BTreeSet<PortId>,
        owners: &mut Vec<(FrontendKey, Option<ServiceKey>)>,
    ) {
        let claims = self.claims.get(&key);
        match claims.map_or(0, BTreeSet::len) {
            0 | 1 => self.clashes.remove(&key),
            _ => self.clashes.insert(key),
        };
        let owner = claims.and_then(BTreeSet::first).map(|claim| claim.id.clone());
        if owner.is_none() {
            self.claims.remove(&key);
        }
        let before = self.owners.get(&key).cloned();
        if before.as_ref().map(|port| &port.service) != owner.as_ref().map(|port| &port.service) {
            owners.push((key, owner.as_ref().map(|port| port.service.clone())));
        }
        if let Some(before) = before.filter(|before| Some(before) != owner.as_ref()) {
            if let Some(held) = self.held.get_mut(&before) {
                held.at.remove(&key);
            }
            self.owners.remove(&key);
            ports.insert(before);
        }
        if let Some(owner) = owner {
            self.held.entry(owner.clone()).or_default().at.insert(key);
            self.owners.insert(key, owner.clone());
            ports.insert(owner);
        }
    }

    /// Takes over the sets of a predecessor: whoever stands where it let somebody stand has the set that it had.
    fn adopt(&mut self, ports: &BTreeSet<PortId>) {
        let mut taken = BTreeSet::from([0]);
        for port in ports {
            let Some(held) = self.held.get_mut(port) else { continue };
            let mut there = held.at.iter().filter_map(|key| self.tables.frontends.get(key));
            held.set = there.find(|frontend| taken.insert(frontend.set)).map(|frontend| frontend.set);
        }
    }

    /// Who serves for a port.
    pub(crate) fn target(&self, port: &PortId) -> BTreeSet<Backend> {
        match self.services.get(&port.service) {
            Some(entry) => serving(&endpoints(entry.slices.values(), port)),
            None => BTreeSet::new(),
        }
    }

    /// A sweep is over that began after the writes of a round: entries that they added to GONE have done their work.
    /// Returns what removes them.
    pub fn swept(&mut self, round: u64) -> Vec<Write> {
        let over: Vec<_> = self.tables.gone.iter().filter(|(_, added)| **added <= round).map(|(key, _)| *key).collect();
        for key in &over {
            self.tables.gone.remove(key);
        }
        over.into_iter().map(Write::DropGone).collect()
    }

    /// Whether GONE has entries.
    pub fn has_gone(&self) -> bool {
        !self.tables.gone.is_empty()
    }

    /// The maps, as they are when all writes have been carried out.
    pub fn found(&self) -> Found {
        self.tables.found()
    }

    /// Which Service stands at an address and port. `protocol` is IANA's number.
    pub fn at(&self, ip: IpAddr, port: u16, protocol: u8) -> Option<&ServiceKey> {
        let key = FrontendKey { addr: Addr::from(ip), port, proto: protocol, ..FrontendKey::default() };
        self.owners.get(&key).map(|port| &port.service)
    }
}
