//! What the kernel should hold, and the plan that leads there from what it does hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use datapath_abi::{
    addr::{Addr, AddrEntry},
    endpoint::{Endpoint, NO_SLOT, RulesPtr, Swing},
    identity,
    policy::{Direction, PeerEntry, PeerKey, PortKey, RulesetInfo},
};
use ipnetwork::IpNetwork;
use policy::{
    IdentityKey, Index, RuleSet, RuleTable, Touched, Universe, compile,
    lower::{Limits, LowerError, Peer, PodAddress, PortSet, What, lower_within, region_key},
    model::{Object, ObjectKey, Pod, PodKey},
};

use super::{
    change::{Change, Plan, Refusal, Remains},
    claims::Claims,
    mirror::{Capacity, Mirror},
    numbers::{Exhausted, HashCookies, Identities},
};

/// Names an attachment: CNI's container id and interface name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct EndpointKey {
    /// CNI_CONTAINERID.
    pub container_id: String,
    /// CNI_IFNAME.
    pub ifname: String,
}

/// A pod's interface on this node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LocalEndpoint {
    /// Which attachment.
    pub key: EndpointKey,
    /// Which pod.
    pub pod: PodKey,
    /// Index into ENDPOINTS.
    pub slot: u32,
    /// Interface index of the host side.
    pub ifindex: u32,
    /// MAC address of the container side.
    pub mac: [u8; 6],
    /// IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// IPv6 address.
    pub v6: Option<Ipv6Addr>,
}

impl LocalEndpoint {
    /// Its addresses, IPv4 first.
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> {
        self.v4.map(IpAddr::V4).into_iter().chain(self.v6.map(IpAddr::V6))
    }
}

/// One direction of an endpoint, for people.
#[derive(Clone, PartialEq, Debug)]
pub struct DirectionView {
    /// Which.
    pub direction: Direction,
    /// The pointer in force.
    pub rules: RulesPtr,
    /// What should be in force.
    pub table: Arc<RuleTable>,
    /// Whether it is.
    pub complete: bool,
}

/// An endpoint, for people.
#[derive(Clone, PartialEq, Debug)]
pub struct EndpointView {
    /// The endpoint.
    pub endpoint: LocalEndpoint,
    /// Its identity.
    pub identity: u32,
    /// Its pod.
    pub pod: Pod,
    /// Whether the source has an object for the pod.
    pub has_object: bool,
    /// Egress, ingress.
    pub directions: [DirectionView; 2],
}

const DIRECTIONS: [Direction; 2] = [Direction::Egress, Direction::Ingress];

/// A rule set that some endpoint wants.
#[derive(Clone, Debug)]
struct Set {
    number: u32,
    table: Arc<RuleTable>,
    /// What was put into the maps, once it was; after a restart not known until lowered.
    installed: Option<RuleSet>,
    /// Why the last attempt to put it there failed.
    refused: Option<(String, String)>,
}

/// Everything that determines the maps.
#[derive(Debug)]
pub struct Planner {
    index: Index,
    /// Pods as the source describes them.
    sourced: Claims,
    /// Pods that run here although the source has forgotten them.
    orphans: BTreeSet<PodKey>,
    endpoints: BTreeMap<u32, LocalEndpoint>,
    host_addresses: BTreeSet<IpAddr>,
    /// Where pods' addresses come from: one in there that nobody has is nobody we know.
    pools: Vec<IpNetwork>,
    identities: Identities,
    universe: Universe,
    /// Which number each peer has.
    numbered: BTreeMap<PodKey, u32>,
    cookies: HashCookies,
    tables: BTreeMap<(u32, Direction), ([u8; 16], Arc<RuleTable>)>,
    sets: BTreeMap<[u8; 16], Set>,
    port_sets: BTreeMap<PortSet, u32>,
    /// Entries that a restart has left, whose numbers have not been taken over yet.
    seeded: bool,
    capacity: Capacity,
    dirty: Touched,
    /// Identities that came, went, or whose pods changed since the last plan.
    stirred: BTreeSet<IdentityKey>,
    /// Identity numbers that came since the last plan.
    born: BTreeSet<u32>,
    /// Addresses that found no room in the last plan.
    strangers: usize,
}

impl Planner {
    /// Knows nothing yet. `identities` are those written down before.
    pub fn new(
        config: policy::identity::Config,
        pools: Vec<IpNetwork>,
        identities: Identities,
        capacity: Capacity,
    ) -> Self {
        Self {
            index: Index::new(config),
            sourced: Claims::default(),
            orphans: BTreeSet::new(),
            endpoints: BTreeMap::new(),
            host_addresses: BTreeSet::new(),
            pools,
            identities,
            universe: Universe::default(),
            numbered: BTreeMap::new(),
            cookies: HashCookies::default(),
            tables: BTreeMap::new(),
            sets: BTreeMap::new(),
            port_sets: BTreeMap::new(),
            seeded: false,
            capacity,
            dirty: Touched::default(),
            stirred: BTreeSet::new(),
            born: BTreeSet::new(),
            strangers: 0,
        }
    }

    /// All objects, with the addresses that this node's pods have.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Every known identity.
    pub fn identities(&self) -> &Identities {
        &self.identities
    }

    /// The identities that have pods.
    pub fn universe(&self) -> &Universe {
        &self.universe
    }

    /// The number of a pod's identity; `None` for one that is no peer.
    pub fn identity_number(&self, pod: &PodKey) -> Option<u32> {
        self.numbered.get(pod).copied()
    }

    /// How many addresses of pods elsewhere have found no room in ADDRESSES: to the programs they are
    /// nobody's. They are tried again by the next plan.
    pub fn strangers(&self) -> usize {
        self.strangers
    }

    /// Rules by cookie.
    pub fn cookies(&self) -> &HashCookies {
        &self.cookies
    }

    /// Takes an object of the source.
    pub fn apply(&mut self, object: Object) {
        let touched = match object {
            Object::Pod(pod) => {
                let key = pod.key.clone();
                self.orphans.remove(&key);
                self.sourced.put(pod);
                self.settle_pod(&key)
            }
            other => self.index.apply(other),
        };
        self.dirty.merge(touched);
    }

    /// The source has the object no longer.
    pub fn delete(&mut self, key: &ObjectKey) {
        let touched = match key {
            // A pod that runs here keeps the labels it had: without them it could be open.
            ObjectKey::Pod(pod) if self.endpoints.values().any(|endpoint| endpoint.pod == *pod) => {
                if self.sourced.contains(pod) {
                    self.orphans.insert(pod.clone());
                }
                Touched::default()
            }
            ObjectKey::Pod(pod) => {
                self.sourced.remove(pod);
                self.settle_pod(pod)
            }
            other => self.index.delete(other),
        };
        self.dirty.merge(touched);
    }

    /// A pod's interface has come, or was found.
    pub fn add_endpoint(&mut self, endpoint: LocalEndpoint) {
        let pod = endpoint.pod.clone();
        let rivals = self.sourced.claimants(endpoint.ips());
        self.endpoints.insert(endpoint.slot, endpoint);
        let mut touched = self.settle_pod(&pod);
        touched.rules.insert(pod);
        self.dirty.merge(touched);
        self.settle_all(&rivals);
    }

    /// An endpoint that a predecessor has left, with the identity it had in the kernel. Until the
    /// source tells of the pod it counts as what that identity says, for the source may have
    /// forgotten a pod that runs.
    pub fn restore_endpoint(&mut self, endpoint: LocalEndpoint, identity: Option<u32>) {
        let known = identity.and_then(|number| self.identities.key(number));
        if let Some(key) = known.filter(|key| key.namespace == endpoint.pod.namespace) {
            let mut pod = Pod::new(endpoint.pod.clone());
            pod.labels = key.labels.clone();
            pod.service_account = key.service_account.clone();
            self.orphans.insert(pod.key.clone());
            self.sourced.put(pod);
        }
        self.add_endpoint(endpoint);
    }

    /// A pod's interface is gone.
    pub fn remove_endpoint(&mut self, slot: u32) -> Option<LocalEndpoint> {
        let endpoint = self.endpoints.remove(&slot)?;
        for direction in DIRECTIONS {
            self.tables.remove(&(slot, direction));
        }
        let runs = self.endpoints.values().any(|other| other.pod == endpoint.pod);
        if !runs && self.orphans.remove(&endpoint.pod) {
            self.sourced.remove(&endpoint.pod);
        }
        let touched = self.settle_pod(&endpoint.pod);
        self.dirty.merge(touched);
        self.settle_all(&self.sourced.claimants(endpoint.ips()));
        Some(endpoint)
    }

    /// The node's own addresses.
    pub fn set_host_addresses(&mut self, addresses: BTreeSet<IpAddr>) {
        self.host_addresses = addresses;
    }

    /// The endpoint in a slot.
    pub fn endpoint(&self, slot: u32) -> Option<&LocalEndpoint> {
        self.endpoints.get(&slot)
    }

    /// All endpoints, by slot.
    pub fn endpoints(&self) -> impl Iterator<Item = &LocalEndpoint> {
        self.endpoints.values()
    }

    /// A slot that is free in the plan and in the kernel.
    pub fn free_slot(&self, mirror: &Mirror, taken: &BTreeSet<u32>) -> Option<u32> {
        (NO_SLOT + 1..self.capacity.endpoints as u32).find(|slot| {
            !self.endpoints.contains_key(slot) && !mirror.endpoints.contains_key(slot) && !taken.contains(slot)
        })
    }

    fn settle_all(&mut self, pods: &BTreeSet<PodKey>) {
        for pod in pods {
            let touched = self.settle_pod(pod);
            self.dirty.merge(touched);
        }
    }

    /// The pod in the index is the source's, or a bare one for a pod that runs without an object,
    /// with the addresses it has on this node. An address that another pod has here is not its own any
    /// more, whatever an object says that has not been brought up to date.
    fn settle_pod(&mut self, key: &PodKey) -> Touched {
        let local: BTreeSet<IpAddr> =
            self.endpoints.values().filter(|endpoint| endpoint.pod == *key).flat_map(LocalEndpoint::ips).collect();
        match self.sourced.get(key).cloned() {
            None if local.is_empty() => self.index.delete(&ObjectKey::Pod(key.clone())),
            sourced => {
                let mut pod = sourced.unwrap_or_else(|| Pod::new(key.clone()));
                if !local.is_empty() {
                    pod.ips = local;
                    // It runs here, whatever an object says that has not been brought up to date.
                    pod.finished = false;
                    pod.host_network = false;
                } else {
                    pod.ips.retain(|ip| !self.endpoints.values().any(|other| other.ips().any(|held| held == *ip)));
                }
                self.index.apply(Object::Pod(pod))
            }
        }
    }

    /// The pods that events have touched since the last plan.
    pub fn touched(&self) -> BTreeSet<PodKey> {
        self.dirty.rules.union(&self.dirty.identities).cloned().collect()
    }

    /// The maps may hold anything: every rule set is to be compared with them again.
    pub fn forget_installed(&mut self) {
        for set in self.sets.values_mut() {
            set.installed = None;
        }
        self.port_sets.clear();
        self.seeded = false;
    }

    /// Works out what to change. `mirror` is what the kernel holds.
    ///
    /// # Errors
    /// Every identity number is taken.
    pub fn plan(&mut self, mirror: &Mirror) -> Result<Plan, Exhausted> {
        self.seed(mirror);
        self.renumber()?;
        self.recompile();
        let mut draft = Draft::new(mirror, &self.capacity);
        let changed = self.install(mirror, &mut draft);
        let moved = self.addresses(mirror, &mut draft);
        let refusals = self.point(mirror, &mut draft, &changed, &moved);
        self.dirty = Touched::default();
        self.stirred.clear();
        self.born.clear();
        Ok(Plan { changes: draft.finish(), refusals })
    }

    /// Takes over the numbers of what a predecessor has left in the kernel.
    fn seed(&mut self, mirror: &Mirror) {
        if self.seeded {
            return;
        }
        self.seeded = true;
        let mut contents: BTreeMap<u32, PortSet> = BTreeMap::new();
        for (key, decision) in &mirror.ports {
            let prefix = policy::lower::PortPrefix { proto: key.proto, length: key.length, port: key.port };
            contents.entry(key.portset).or_default().entries.insert(prefix, *decision);
        }
        for (number, content) in contents {
            self.port_sets.entry(content).or_insert(number);
        }
    }

    /// Gives numbers to identities, and says who is behind each.
    fn renumber(&mut self) -> Result<(), Exhausted> {
        let mut keys = std::mem::take(&mut self.dirty.identities).into_iter();
        while let Some(key) = keys.next() {
            let before = self.numbered.get(&key).copied();
            let wanted = self.index.identity_key(&key);
            let after = match wanted.as_ref().map(|identity| self.identities.number(identity)) {
                Some(Ok(number)) => Some(number),
                Some(Err(exhausted)) => {
                    // The next plan begins where this one ends.
                    self.dirty.identities.insert(key);
                    self.dirty.identities.extend(keys);
                    return Err(exhausted);
                }
                None => None,
            };
            if let Some(number) = before.filter(|_| before != after) {
                if let Some(identity) = self.universe.get(number) {
                    self.stirred.insert(identity.key().clone());
                }
                self.universe.remove_pod(number, &key);
                if self.universe.get(number).is_some_and(|identity| identity.pods().is_empty()) {
                    self.universe.remove(number);
                }
                self.numbered.remove(&key);
            }
            if let (Some(number), Some(identity)) = (after, wanted) {
                if self.universe.get(number).is_none() {
                    self.universe.insert(number, identity.clone()).expect("Identities gives numbers of pods only");
                    self.born.insert(number);
                }
                let pod = self.index.pod(&key).expect("only a pod in the index has an identity key");
                let address = PodAddress { ips: pod.ips.clone(), ports: pod.ports.clone() };
                let same = self.universe.get(number).and_then(|it| it.pods().get(&key)) == Some(&address);
                if !same {
                    self.universe.put_pod(number, key.clone(), address);
                    self.stirred.insert(identity);
                }
                self.numbered.insert(key, number);
            }
        }
        Ok(())
    }

    /// Compiles the tables of the endpoints that events have touched.
    fn recompile(&mut self) {
        for endpoint in self.endpoints.values() {
            for direction in DIRECTIONS {
                let at = (endpoint.slot, direction);
                if !self.dirty.rules.contains(&endpoint.pod) && self.tables.contains_key(&at) {
                    continue;
                }
                let table = compile(&self.index, &endpoint.pod, direction);
                let digest = table.digest();
                if self.tables.get(&at).is_none_or(|(old, _)| *old != digest) {
                    self.tables.insert(at, (digest, Arc::new(table)));
                }
            }
        }
    }

    /// Puts every wanted rule set into the maps.
    fn install(&mut self, mirror: &Mirror, draft: &mut Draft<'_>) -> Changed {
        let wanted: BTreeMap<[u8; 16], Arc<RuleTable>> = self
            .tables
            .values()
            .filter(|(_, table)| table.is_isolated())
            .map(|(digest, table)| (*digest, table.clone()))
            .collect();
        let in_use: BTreeSet<u32> = mirror.rulesets_in_use().collect();
        self.sets.retain(|digest, set| wanted.contains_key(digest) || in_use.contains(&set.number));
        let mut all = Changed::default();
        for (digest, table) in wanted {
            let known = self.sets.get(&digest);
            let settled = known.is_some_and(|set| set.installed.is_some() && set.refused.is_none());
            if settled && !self.stirred.iter().any(|identity| table.concerns(identity)) {
                continue;
            }
            let number = match known {
                Some(set) => set.number,
                None => self.ruleset_number(mirror, draft, &digest),
            };
            let limits =
                Limits { peers: self.capacity.peers, regions: self.capacity.regions, ports: self.capacity.ports };
            let result = lower_within(&table, &self.universe, &mut self.cookies, &limits)
                .map_err(|error| too_large(&error))
                .and_then(|lowered| {
                    self.stage(mirror, draft, number, &digest, &lowered)?;
                    Ok(lowered)
                });
            let old = self.sets.remove(&digest).and_then(|set| set.installed);
            let (installed, refused) = match result {
                Ok(lowered) => {
                    let changed = match &old {
                        Some(old) => changes_for_anyone(old, &lowered, &self.universe, &self.born),
                        // Found in the kernel, content not known: what had to be written or
                        // taken away was not there.
                        None => mirror.rulesets.contains_key(&number) && draft.touched(number),
                    };
                    let retired = self.retire_at_once(mirror, draft, number, &lowered);
                    if changed || retired {
                        all.bumped.insert(number);
                    }
                    if let Some(old) = old {
                        all.before.insert(number, old);
                    }
                    (Some(lowered), None)
                }
                Err(refusal) => (old, Some(refusal)),
            };
            self.sets.insert(digest, Set { number, table, installed, refused });
        }
        all
    }

    /// A number for a rule set: the one it has in the kernel, or a free one.
    fn ruleset_number(&self, mirror: &Mirror, draft: &Draft<'_>, digest: &[u8; 16]) -> u32 {
        let taken: BTreeSet<u32> = self.sets.values().map(|set| set.number).collect();
        if let Some((&number, _)) =
            mirror.rulesets.iter().find(|(number, info)| info.digest == *digest && !taken.contains(number))
        {
            return number;
        }
        (1..=RulesPtr::MAX_RULESET)
            .find(|number| {
                !taken.contains(number)
                    && !mirror.rulesets.contains_key(number)
                    && !draft.rulesets.contains(number)
                    && mirror.peers_of(*number).next().is_none()
                    && mirror.regions_of(*number).next().is_none()
            })
            .unwrap_or(RulesPtr::MAX_RULESET)
    }

    /// Adds a rule set's entries to the draft, or nothing and the reason why.
    fn stage(
        &mut self,
        mirror: &Mirror,
        draft: &mut Draft<'_>,
        number: u32,
        digest: &[u8; 16],
        lowered: &RuleSet,
    ) -> Result<(), (String, String)> {
        let mark = draft.mark();
        let mut new_port_sets = Vec::new();
        let mut entry_of = |peer: &Peer, draft: &mut Draft<'_>, port_sets: &mut BTreeMap<PortSet, u32>| -> PeerEntry {
            let portset = if peer.ports.is_empty() {
                0
            } else if let Some(&number) = port_sets.get(&peer.ports) {
                number
            } else {
                let number = draft.free_port_set(port_sets);
                port_sets.insert(peer.ports.clone(), number);
                new_port_sets.push(peer.ports.clone());
                number
            };
            for (prefix, decision) in &peer.ports.entries {
                let key = PortKey { portset, port: prefix.port, proto: prefix.proto, length: prefix.length };
                draft.put_port(mirror, key, *decision);
            }
            PeerEntry { portset, lengths: peer.ports.lengths(), otherwise: peer.otherwise }
        };
        for (&who, peer) in &lowered.peers {
            let entry = entry_of(peer, draft, &mut self.port_sets);
            draft.put_peer(mirror, PeerKey { ruleset: number, identity: who }, entry);
        }
        for (&(addr, length), peer) in &lowered.regions {
            let entry = entry_of(peer, draft, &mut self.port_sets);
            draft.put_region(mirror, (number, addr, length), entry);
        }
        draft.put_ruleset(mirror, number, RulesetInfo { digest: *digest });
        if let Some(refusal) = draft.overflow(mirror, &self.capacity) {
            draft.rewind(mark);
            for set in new_port_sets {
                self.port_sets.remove(&set);
            }
            return Err(refusal);
        }
        Ok(())
    }

    /// Takes away at once what a live rule set no longer says about somebody who is still there;
    /// says whether there was anything. Entries of those who are gone can wait.
    fn retire_at_once(&self, mirror: &Mirror, draft: &mut Draft<'_>, number: u32, lowered: &RuleSet) -> bool {
        let before = draft.retired.len();
        for (who, _) in mirror.peers_of(number) {
            let alive = who > identity::MAX || self.universe.get(who).is_some();
            if alive && !lowered.peers.contains_key(&who) {
                draft.retired.push(Change::DropPeer(PeerKey { ruleset: number, identity: who }));
            }
        }
        for ((addr, length), _) in mirror.regions_of(number) {
            if !lowered.regions.contains_key(&(addr, length)) {
                draft.retired.push(Change::DropRegion(number, addr, length));
            }
        }
        draft.retired.len() != before
    }

    /// Brings ADDRESSES and CIDRS up to date. Returns whose identity has changed, from what to what.
    fn addresses(&mut self, mirror: &Mirror, draft: &mut Draft<'_>) -> Vec<(u32, u32)> {
        let mut wanted: BTreeMap<Addr, AddrEntry> = BTreeMap::new();
        for (key, &number) in &self.numbered {
            let Some(pod) = self.index.pod(key) else { continue };
            for ip in &pod.ips {
                wanted.insert(Addr::from(*ip), AddrEntry { identity: number, slot: NO_SLOT });
            }
        }
        for ip in &self.host_addresses {
            wanted.insert(Addr::from(*ip), AddrEntry { identity: identity::HOST, slot: NO_SLOT });
        }
        // Who runs here is known best: a local endpoint wins over any object.
        for endpoint in self.endpoints.values() {
            let identity = self.identity_of(endpoint);
            for ip in endpoint.ips() {
                wanted.insert(Addr::from(ip), AddrEntry { identity, slot: endpoint.slot });
            }
        }
        let mut moved = Vec::new();
        let mut room = self.capacity.addresses.saturating_sub(mirror.addresses.len());
        self.strangers = 0;
        // Who runs here comes first, and the node itself. Of pods elsewhere those that find no room are
        // strangers: no rule for their identity admits them.
        let is_near = |entry: &AddrEntry| entry.slot != NO_SLOT || entry.identity == identity::HOST;
        let (near, far): (Vec<_>, Vec<_>) = wanted.iter().partition(|(_, entry)| is_near(entry));
        for (&addr, &entry) in near.into_iter().chain(far) {
            let before = mirror.addresses.get(&addr);
            if before != Some(&entry) {
                if before.is_none() {
                    if room == 0 && !is_near(&entry) {
                        self.strangers += 1;
                        continue;
                    }
                    room = room.saturating_sub(1);
                }
                draft.put_address(addr, entry);
                moved.push((before.map_or_else(|| self.nobody(addr), |old| old.identity), entry.identity));
            }
        }
        for (&addr, entry) in &mirror.addresses {
            if !wanted.contains_key(&addr) {
                draft.dropped.push(Change::DropAddress(addr));
                moved.push((entry.identity, self.nobody(addr)));
            }
        }
        let cidrs: BTreeSet<(Addr, u8)> = self.pools.iter().map(|pool| region_key(*pool)).collect();
        let unmanaged = AddrEntry { identity: identity::UNMANAGED, slot: NO_SLOT };
        for &(addr, length) in &cidrs {
            if mirror.cidrs.get(&(addr, length)) != Some(&unmanaged) {
                draft.put.push(Change::PutCidr(addr, length, unmanaged));
            }
        }
        for &(addr, length) in mirror.cidrs.keys() {
            if !cidrs.contains(&(addr, length)) {
                draft.dropped.push(Change::DropCidr(addr, length));
            }
        }
        moved.retain(|(before, after)| before != after);
        moved.sort_unstable();
        moved.dedup();
        moved
    }

    /// The identity of an address that is in no table.
    fn nobody(&self, addr: Addr) -> u32 {
        let ip = IpAddr::from(addr);
        if self.pools.iter().any(|pool| pool.contains(ip)) { identity::UNMANAGED } else { identity::WORLD }
    }

    fn identity_of(&self, endpoint: &LocalEndpoint) -> u32 {
        self.numbered.get(&endpoint.pod).copied().unwrap_or(identity::UNMANAGED)
    }

    /// Points every endpoint at its rules; makes and clears entries of ENDPOINTS.
    fn point(
        &mut self,
        mirror: &Mirror,
        draft: &mut Draft<'_>,
        changed: &Changed,
        moved: &[(u32, u32)],
    ) -> Vec<Refusal> {
        let mut asked_again: BTreeMap<u32, bool> = BTreeMap::new();
        for set in self.sets.values() {
            let again = changed.bumped.contains(&set.number)
                || set.installed.as_ref().is_some_and(|now| {
                    let then = changed.before.get(&set.number).unwrap_or(now);
                    moved.iter().any(|&(before, after)| effective(then, before) != effective(now, after))
                });
            asked_again.insert(set.number, again);
        }
        let mut next = mirror.generation.max(1);
        let mut refusals = Vec::new();
        for endpoint in self.endpoints.values() {
            let fresh = self.fresh(endpoint);
            let found = mirror
                .endpoints
                .get(&endpoint.slot)
                .filter(|found| Endpoint { rules: found.rules, identity: found.identity, ..fresh } == **found);
            let mut rules = found.map_or([0; 2], |found| found.rules);
            for direction in DIRECTIONS {
                let at = direction as usize;
                let current = RulesPtr(rules[at]);
                let (wanted, refusal) = self.pointer(endpoint, direction, found.map(|_| current));
                refusals.extend(refusal);
                let same = (wanted.flags(), wanted.ruleset()) == (current.flags(), current.ruleset());
                let again = wanted.ruleset() != 0 && asked_again.get(&wanted.ruleset()).copied().unwrap_or(false);
                // A new endpoint never starts with a word that another has had, open ones included:
                // conntrack knows endpoints by it.
                if !same || again || found.is_none() || current.generation() == 0 {
                    rules[at] = RulesPtr::new(next as u32, wanted.flags(), wanted.ruleset()).0;
                    next += 1;
                }
            }
            let entry = Endpoint { rules, ..fresh };
            match found {
                None => draft.put_endpoint(mirror, endpoint, entry),
                Some(found) if *found != entry => {
                    draft.swings.push(Swing { rules, slot: endpoint.slot, identity: entry.identity });
                }
                Some(_) => {}
            }
            if mirror.interfaces.get(&endpoint.ifindex) != Some(&endpoint.slot) {
                draft.interfaces.push(Change::PutInterface(endpoint.ifindex, endpoint.slot));
            }
        }
        for (&ifindex, slot) in &mirror.interfaces {
            if self.endpoints.get(slot).is_none_or(|endpoint| endpoint.ifindex != ifindex) {
                draft.cleared.push(Change::DropInterface(ifindex));
            }
        }
        for &slot in mirror.endpoints.keys() {
            if !self.endpoints.contains_key(&slot) {
                draft.cleared.push(Change::ClearEndpoint(slot));
            }
        }
        if next != mirror.generation.max(1) || mirror.generation == 0 {
            draft.generation = Some(next);
        }
        refusals.sort();
        refusals
    }

    /// An endpoint's entry without its rules.
    fn fresh(&self, endpoint: &LocalEndpoint) -> Endpoint {
        Endpoint {
            rules: [0; 2],
            addr6: endpoint.v6.map_or(Addr::ZERO, |ip| Addr::from(IpAddr::V6(ip))),
            addr4: endpoint.v4.map_or(Addr::ZERO, |ip| Addr::from(IpAddr::V4(ip))),
            ifindex: endpoint.ifindex,
            identity: self.identity_of(endpoint),
            mac: endpoint.mac,
            pad: [0; 2],
        }
    }

    /// Where an endpoint's pointer should lead; the generation in it means nothing.
    fn pointer(
        &self,
        endpoint: &LocalEndpoint,
        direction: Direction,
        current: Option<RulesPtr>,
    ) -> (RulesPtr, Option<Refusal>) {
        let Some((digest, table)) = self.tables.get(&(endpoint.slot, direction)) else {
            return (DENIED, None);
        };
        if !table.is_isolated() {
            return (RulesPtr::default(), None);
        }
        let set = self.sets.get(digest);
        let refusal = set.and_then(|set| set.refused.clone());
        match set.and_then(|set| set.installed.as_ref().map(|rules| (set.number, rules.flags))) {
            Some((number, flags)) if refusal.is_none() => (RulesPtr::new(0, flags, number), None),
            installed => {
                let (reason, fix) = refusal.unwrap_or_default();
                let (pointer, remains) = match (installed, current) {
                    // The same rules, not yet extended by what did not fit.
                    (Some((number, flags)), _) => (RulesPtr::new(0, flags, number), Remains::LastComplete),
                    // Open is no rules: a pod that shall be isolated does not stay open.
                    (None, Some(current)) if current.ruleset() != 0 => (current, Remains::LastComplete),
                    (None, _) => (DENIED, Remains::Denied),
                };
                let policies = table.isolated_by.clone();
                let pod = endpoint.pod.clone();
                (pointer, Some(Refusal { pod, direction, policies, reason, fix, remains }))
            }
        }
    }

    /// What nobody refers to any more. To be carried out when every packet that was under way at
    /// the last swing is through.
    pub fn garbage(&mut self, mirror: &Mirror) -> Vec<Change> {
        let in_use: BTreeSet<u32> = mirror.rulesets_in_use().filter(|number| *number != 0).collect();
        let kept: BTreeMap<u32, Option<&RuleSet>> = self
            .sets
            .values()
            .map(|set| (set.number, if set.refused.is_none() { set.installed.as_ref() } else { None }))
            .collect();
        let stays = |number: u32| in_use.contains(&number);
        let mut changes = Vec::new();
        let mut referenced = BTreeSet::new();
        for (&key, entry) in &mirror.peers {
            let wanted = match kept.get(&key.ruleset) {
                Some(Some(rules)) => rules.peers.contains_key(&key.identity),
                // Frozen: refused since, but in force.
                _ => true,
            };
            if stays(key.ruleset) && wanted {
                referenced.insert(entry.portset);
            } else {
                changes.push(Change::DropPeer(key));
            }
        }
        for (&(ruleset, addr, length), entry) in &mirror.regions {
            if stays(ruleset) {
                referenced.insert(entry.portset);
            } else {
                changes.push(Change::DropRegion(ruleset, addr, length));
            }
        }
        for &key in mirror.ports.keys() {
            if !referenced.contains(&key.portset) {
                changes.push(Change::DropPort(key));
            }
        }
        self.port_sets.retain(|_, number| referenced.contains(number));
        for &number in mirror.rulesets.keys() {
            if !stays(number) {
                changes.push(Change::DropRuleset(number));
            }
        }
        self.sets.retain(|_, set| in_use.contains(&set.number) || set.refused.is_some());
        changes
    }

    /// Every endpoint with its rules, by slot.
    pub fn views(&self, mirror: &Mirror) -> Vec<EndpointView> {
        self.endpoints.values().filter_map(|endpoint| self.view(endpoint, mirror)).collect()
    }

    fn view(&self, endpoint: &LocalEndpoint, mirror: &Mirror) -> Option<EndpointView> {
        let in_force = mirror.endpoints.get(&endpoint.slot);
        let direction = |direction: Direction| {
            let (digest, table) = self.tables.get(&(endpoint.slot, direction))?;
            let complete = !table.is_isolated()
                || self.sets.get(digest).is_some_and(|set| set.refused.is_none() && set.installed.is_some());
            let rules = RulesPtr(in_force.map_or(DENIED.0, |entry| entry.rules[direction as usize]));
            Some(DirectionView { direction, rules, table: table.clone(), complete })
        };
        Some(EndpointView {
            identity: self.identity_of(endpoint),
            pod: self.index.pod(&endpoint.pod)?.clone(),
            has_object: self.sourced.contains(&endpoint.pod) && !self.orphans.contains(&endpoint.pod),
            directions: [direction(Direction::Egress)?, direction(Direction::Ingress)?],
            endpoint: endpoint.clone(),
        })
    }

    /// How many rule sets there are.
    pub fn rule_sets(&self) -> usize {
        self.sets.len()
    }

    /// The lowered content of a rule set, by number.
    pub fn rule_set(&self, number: u32) -> Option<&RuleSet> {
        self.sets.values().find(|set| set.number == number)?.installed.as_ref()
    }

    /// The table a rule set was made of, by number.
    pub fn rule_table(&self, number: u32) -> Option<&Arc<RuleTable>> {
        self.sets.values().find(|set| set.number == number).map(|set| &set.table)
    }
}

/// What has become of the rule sets that were there before.
#[derive(Debug, Default)]
struct Changed {
    /// Those that say something else about somebody who was there before: what was decided under
    /// them is to be asked again.
    bumped: BTreeSet<u32>,
    /// What those that were lowered again said before.
    before: BTreeMap<u32, RuleSet>,
}

/// Isolated, and nothing is allowed.
const DENIED: RulesPtr = RulesPtr::new(0, RulesPtr::ISOLATED, 0);

/// Why a table cannot be lowered, and what to do about it.
fn too_large(error: &LowerError) -> (String, String) {
    let LowerError { what, needed, limit, policy, share } = error;
    let (map, instead) = match what {
        What::Peers => ("PEERS", "select fewer pods, or all of them with an empty namespaceSelector"),
        What::Regions => ("REGIONS", "use fewer or wider ipBlocks and exceptions"),
        What::Ports => ("PORTS", "use fewer or wider port ranges"),
    };
    let reason = format!("{policy} takes {share} of {needed} {what}, more than the {limit} that one rule set may have");
    (reason, format!("{instead}, or raise the capacity of {map} (--map-capacity {map}=N)"))
}

/// What a rule set says about an identity: its own entry, its class's, anybody's.
fn effective(rules: &RuleSet, number: u32) -> Option<&Peer> {
    rules
        .peers
        .get(&number)
        .or_else(|| rules.peers.get(&identity::class(number)))
        .or_else(|| rules.peers.get(&identity::CLASS_ANY))
}

/// Whether a new version of a rule set says anything else about somebody who was there before.
fn changes_for_anyone(old: &RuleSet, new: &RuleSet, universe: &Universe, born: &BTreeSet<u32>) -> bool {
    if old.regions != new.regions {
        return true;
    }
    let lost = old.peers.iter().any(|(&who, peer)| match new.peers.get(&who) {
        Some(other) => other != peer,
        None => who > identity::MAX || universe.get(who).is_some(),
    });
    lost || new.peers.keys().any(|who| !old.peers.contains_key(who) && !born.contains(who))
}

/// A plan in the making.
#[derive(Debug)]
struct Draft<'a> {
    put: Vec<Change>,
    peers: BTreeMap<PeerKey, PeerEntry>,
    regions: BTreeMap<(u32, Addr, u8), PeerEntry>,
    ports: BTreeMap<PortKey, datapath_abi::policy::Decision>,
    rulesets: BTreeSet<u32>,
    new_addresses: usize,
    retired: Vec<Change>,
    made: Vec<Change>,
    addresses: Vec<Change>,
    interfaces: Vec<Change>,
    swings: Vec<Swing>,
    cleared: Vec<Change>,
    dropped: Vec<Change>,
    generation: Option<u64>,
    next_port_set: u32,
    mirror: &'a Mirror,
}

/// How far a draft has come, to return there.
#[derive(Debug)]
struct Mark {
    put: usize,
    peers: BTreeMap<PeerKey, PeerEntry>,
    regions: BTreeMap<(u32, Addr, u8), PeerEntry>,
    ports: BTreeMap<PortKey, datapath_abi::policy::Decision>,
    rulesets: BTreeSet<u32>,
}

impl<'a> Draft<'a> {
    fn new(mirror: &'a Mirror, _capacity: &Capacity) -> Self {
        Self {
            put: Vec::new(),
            peers: BTreeMap::new(),
            regions: BTreeMap::new(),
            ports: BTreeMap::new(),
            rulesets: BTreeSet::new(),
            new_addresses: 0,
            retired: Vec::new(),
            made: Vec::new(),
            addresses: Vec::new(),
            interfaces: Vec::new(),
            swings: Vec::new(),
            cleared: Vec::new(),
            dropped: Vec::new(),
            generation: None,
            next_port_set: 1,
            mirror,
        }
    }

    fn mark(&self) -> Mark {
        Mark {
            put: self.put.len(),
            peers: self.peers.clone(),
            regions: self.regions.clone(),
            ports: self.ports.clone(),
            rulesets: self.rulesets.clone(),
        }
    }

    fn rewind(&mut self, mark: Mark) {
        self.put.truncate(mark.put);
        self.peers = mark.peers;
        self.regions = mark.regions;
        self.ports = mark.ports;
        self.rulesets = mark.rulesets;
    }

    fn put_port(&mut self, mirror: &Mirror, key: PortKey, decision: datapath_abi::policy::Decision) {
        if mirror.ports.get(&key) != Some(&decision) && self.ports.insert(key, decision).is_none() {
            self.put.push(Change::PutPort(key, decision));
        }
    }

    fn put_peer(&mut self, mirror: &Mirror, key: PeerKey, entry: PeerEntry) {
        if mirror.peers.get(&key) != Some(&entry) && self.peers.insert(key, entry).is_none() {
            self.put.push(Change::PutPeer(key, entry));
        }
    }

    fn put_region(&mut self, mirror: &Mirror, key: (u32, Addr, u8), entry: PeerEntry) {
        if mirror.regions.get(&key) != Some(&entry) && self.regions.insert(key, entry).is_none() {
            self.put.push(Change::PutRegion(key.0, key.1, key.2, entry));
        }
    }

    fn put_ruleset(&mut self, mirror: &Mirror, number: u32, info: RulesetInfo) {
        if mirror.rulesets.get(&number) != Some(&info) && self.rulesets.insert(number) {
            self.put.push(Change::PutRuleset(number, info));
        }
    }

    fn put_address(&mut self, addr: Addr, entry: AddrEntry) {
        if !self.mirror.addresses.contains_key(&addr) {
            self.new_addresses += 1;
        }
        self.addresses.push(Change::PutAddress(addr, entry));
    }

    fn put_endpoint(&mut self, mirror: &Mirror, endpoint: &LocalEndpoint, entry: Endpoint) {
        if let Some(found) = mirror.endpoints.get(&endpoint.slot) {
            // Somebody else's, left over: nothing must lead to it while it changes.
            self.made.push(Change::DropInterface(found.ifindex));
            self.made.push(Change::ClearEndpoint(endpoint.slot));
        }
        self.made.push(Change::PutEndpoint(endpoint.slot, entry));
    }

    /// A port set number that is in no map and no list.
    fn free_port_set(&mut self, taken: &BTreeMap<PortSet, u32>) -> u32 {
        let used: BTreeSet<u32> = taken.values().copied().collect();
        loop {
            let number = self.next_port_set;
            self.next_port_set = number.checked_add(1).unwrap_or(1);
            let first = PortKey { portset: number, ..PortKey::default() };
            let last = PortKey { portset: number, port: u16::MAX, proto: u8::MAX, length: u8::MAX };
            if !used.contains(&number) && self.mirror.ports.range(first..=last).next().is_none() {
                return number;
            }
        }
    }

    /// Whether anything of a rule set has to be written.
    fn touched(&self, number: u32) -> bool {
        self.peers.keys().any(|key| key.ruleset == number) || self.regions.keys().any(|key| key.0 == number)
    }

    /// Whether the draft would fill a map beyond its capacity: which, in words, and the fix.
    fn overflow(&self, mirror: &Mirror, capacity: &Capacity) -> Option<(String, String)> {
        let new_peers = self.peers.keys().filter(|key| !mirror.peers.contains_key(key)).count();
        let new_regions = self.regions.keys().filter(|key| !mirror.regions.contains_key(key)).count();
        let new_ports = self.ports.keys().filter(|key| !mirror.ports.contains_key(key)).count();
        let new_sets = self.rulesets.iter().filter(|number| !mirror.rulesets.contains_key(number)).count();
        let full = |map: &str, new: usize, used: usize, capacity: usize| {
            (used + new > capacity).then(|| {
                let free = capacity.saturating_sub(used);
                (
                    format!("needs {new} more entries of {map}, {free} of {capacity} are free"),
                    format!("raise the capacity of {map} (--map-capacity {map}=N), or select fewer peers and ports"),
                )
            })
        };
        full("PEERS", new_peers, mirror.peers.len(), capacity.peers)
            .or_else(|| full("REGIONS", new_regions, mirror.regions.len(), capacity.regions))
            .or_else(|| full("PORTS", new_ports, mirror.ports.len(), capacity.ports))
            .or_else(|| full("RULESETS", new_sets, mirror.rulesets.len(), capacity.rulesets))
    }

    /// All changes, in the order in which no packet sees half of them.
    fn finish(self) -> Vec<Change> {
        let mut changes = Vec::new();
        changes.extend(self.generation.map(Change::PutGeneration));
        changes.extend(self.put);
        changes.extend(self.made);
        changes.extend(self.addresses);
        changes.extend(self.interfaces);
        changes.extend(self.retired);
        if !self.swings.is_empty() {
            changes.push(Change::Swing(self.swings));
        }
        changes.extend(self.dropped);
        changes.extend(self.cleared);
        changes
    }
}
