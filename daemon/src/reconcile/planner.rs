//! What the kernel should hold, and the plan that leads there from what it does hold.

mod addresses;
mod draft;
mod garbage;
mod install;
mod point;
mod port_sets;
mod release;
mod shared;
mod stirred;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use datapath_abi::{
    endpoint::NO_SLOT,
    policy::{Direction, PeerKey},
};
use ipnetwork::IpNetwork;
use policy::{
    Index, RuleTable, Touched, Universe,
    compile::Compiler,
    lower::PodAddress,
    model::{Object, ObjectKey, Pod, PodKey},
};

use self::{addresses::Addresses, draft::Draft, install::Set, port_sets::PortSets, stirred::Stirred};
pub use self::{
    shared::Unshared,
    view::{DirectionView, EndpointView},
};
use super::{
    change::Plan,
    claims::Claims,
    endpoint::LocalEndpoint,
    mirror::{Capacity, Mirror},
    numbers::{Exhausted, HashCookies, Identities},
};

/// Rules by slot and direction, with their digests.
type Tables = BTreeMap<(u32, Direction), ([u8; 16], Arc<RuleTable>)>;

const DIRECTIONS: [Direction; 2] = [Direction::Egress, Direction::Ingress];

/// Everything that determines the maps.
#[derive(Debug)]
pub struct Planner {
    index: Index,
    /// Pods as the source describes them.
    sourced: Claims,
    /// Pods that run here although the source has forgotten them.
    orphans: BTreeSet<PodKey>,
    endpoints: BTreeMap<u32, LocalEndpoint>,
    /// Where pods' addresses come from, of this node and others: one in there that nobody has is nobody we know.
    pools: Vec<IpNetwork>,
    /// Those of this node.
    own_pools: Vec<IpNetwork>,
    identities: Identities,
    universe: Universe,
    /// Which number each peer has.
    numbered: BTreeMap<PodKey, u32>,
    cookies: HashCookies,
    tables: Tables,
    /// What they would be with the staged policies, where those have a say.
    staged: Tables,
    sets: BTreeMap<[u8; 16], Set>,
    /// `None`: what the kernel holds has not been taken over yet.
    port_sets: Option<PortSets>,
    /// Until a plan was made of what the kernel was found to hold: whose identities packets may bear.
    carried: Option<BTreeSet<u32>>,
    /// How many plans were made.
    round: u64,
    /// Rule sets that endpoints pointed at, and the last plan that found them so. Packets may still be under them.
    lately: BTreeMap<u32, u64>,
    /// Entries for identities that are gone, no part of their rule sets any more, and the plan that found them so.
    /// Only packets under way may still meet them.
    gone: BTreeMap<PeerKey, u64>,
    /// Whether nothing is left of a predecessor that nobody knows.
    swept: bool,
    capacity: Capacity,
    dirty: Touched,
    stirred: Stirred,
    /// Who is behind which address.
    addresses: Addresses,
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
            own_pools: pools.clone(),
            pools,
            identities,
            universe: Universe::default(),
            numbered: BTreeMap::new(),
            cookies: HashCookies::default(),
            tables: Tables::new(),
            staged: Tables::new(),
            sets: BTreeMap::new(),
            port_sets: None,
            carried: None,
            round: 0,
            lately: BTreeMap::new(),
            gone: BTreeMap::new(),
            swept: false,
            capacity,
            dirty: Touched::default(),
            stirred: Stirred::default(),
            addresses: Addresses::default(),
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

    /// All identities are written down.
    pub fn identities_kept(&mut self) {
        self.identities.kept();
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
        self.addresses.strangers()
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

    /// The ranges of nodes may have changed.
    fn settle_pools(&mut self) {
        let others = self.index.nodes().flat_map(|node| &node.pod_ranges).copied();
        let all: BTreeSet<IpNetwork> = others.chain(self.own_pools.iter().copied()).collect();
        self.pools = all.into_iter().collect();
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
        self.addresses.touch(endpoint.ips());
        if let Some(before) = self.endpoints.insert(endpoint.slot, endpoint) {
            self.addresses.touch(before.ips());
        }
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
            self.sourced.put(pod.into());
        }
        self.add_endpoint(endpoint);
    }

    /// A pod's interface is gone.
    pub fn remove_endpoint(&mut self, slot: u32) -> Option<LocalEndpoint> {
        let endpoint = self.endpoints.remove(&slot)?;
        self.addresses.touch(endpoint.ips());
        for direction in DIRECTIONS {
            self.tables.remove(&(slot, direction));
            self.staged.remove(&(slot, direction));
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
        self.addresses.set_host(&addresses);
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
                let mut pod = sourced.unwrap_or_else(|| Pod::new(key.clone()).into());
                if !local.is_empty() {
                    let pod = Arc::make_mut(&mut pod);
                    pod.ips = local.into_iter().collect();
                    // It runs here, whatever an object says that has not been brought up to date.
                    pod.finished = false;
                    pod.host_network = false;
                } else {
                    let is_ours =
                        |ip: &IpAddr| self.endpoints.values().any(|other| other.ips().any(|held| held == *ip));
                    if pod.ips.iter().any(is_ours) {
                        Arc::make_mut(&mut pod).ips.retain(|ip| !is_ours(ip));
                    }
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
        self.addresses.forget();
        self.port_sets = None;
        self.gone.clear();
        self.swept = false;
    }

    /// Works out what to change. `mirror` is what the kernel holds.
    ///
    /// # Errors
    /// Every identity number is taken.
    pub fn plan(&mut self, mirror: &Mirror) -> Result<Plan, Exhausted> {
        self.round += 1;
        if self.port_sets.is_none() {
            self.port_sets = Some(PortSets::found(mirror));
            self.carried = Some(mirror.carried());
        }
        self.lately.extend(mirror.rulesets_in_use().map(|number| (number, self.round)));
        if self.dirty.nodes {
            self.settle_pools();
            self.stirred.nodes |= self.universe.set_nodes(self.index.nodes());
        }
        self.renumber()?;
        self.recompile();
        let mut draft = Draft::new(mirror);
        let changed = self.install(mirror, &mut draft);
        let moved = self.install_addresses(mirror, &mut draft);
        let refusals = self.point(mirror, &mut draft, &changed, &moved);
        self.dirty = Touched::default();
        self.stirred = Stirred::default();
        self.carried = None;
        Ok(Plan { changes: draft.finish(), refusals })
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
            let ips_of = |universe: &Universe, number: Option<u32>| {
                let pods = universe.get(number?)?.pods();
                pods.get(&key).map(|address| address.ips.clone())
            };
            let ips_before = ips_of(&self.universe, before).unwrap_or_default();
            if let Some(number) = before.filter(|_| before != after) {
                self.stirred.note(number, &self.universe, None);
                self.universe.remove_pod(number, &key);
                self.leave_if_empty(number);
                self.numbered.remove(&key);
            }
            if let (Some(number), Some(identity)) = (after, wanted) {
                let pod = self.index.pod(&key).expect("only a pod in the index has an identity key");
                let address = PodAddress { ips: pod.ips.clone(), ports: pod.ports.clone() };
                let same = self.universe.get(number).and_then(|it| it.pods().get(&key)) == Some(&address);
                if !same {
                    self.stirred.note(number, &self.universe, Some(&identity));
                    self.universe.insert(number, identity).expect("Identities gives numbers of pods only");
                    self.universe.put_pod(number, key.clone(), address);
                }
                self.numbered.insert(key.clone(), number);
            }
            let ips_after = ips_of(&self.universe, after).unwrap_or_default();
            if before != after || ips_before != ips_after {
                self.addresses.settle(&key, &ips_before, &ips_after);
            }
        }
        Ok(())
    }

    /// Compiles the tables of the endpoints that events have touched.
    fn recompile(&mut self) {
        let mut compiler = Compiler::new(&self.index);
        for endpoint in self.endpoints.values() {
            for direction in DIRECTIONS {
                let at = (endpoint.slot, direction);
                if !self.dirty.rules.contains(&endpoint.pod) && self.tables.contains_key(&at) {
                    continue;
                }
                self.tables.insert(at, compiler.compile(&endpoint.pod, direction));
                match compiler.compile_staged(&endpoint.pod, direction) {
                    Some(shared) => drop(self.staged.insert(at, shared)),
                    None => drop(self.staged.remove(&at)),
                }
            }
        }
    }
}
