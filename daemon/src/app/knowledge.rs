//! What the flow pipeline knows of the cluster: who had which address when, what numbers mean.
//! What is gone stays known for a while, because an event may be older than the change.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, RwLock},
};

use datapath_abi::{endpoint::RulesPtr, policy::Direction, service::FrontendKey};
use dns::Names;
use flows::{
    enrich::Context,
    record::{IdentityInfo, PodInfo, PolicyInfo, RuleInfo, RuleScope, ServiceInfo, Workload},
    redact::Redaction,
};
use policy::{
    compile::RuleRef,
    model::{Peers, Pod, PodKey, PolicyRef, Ports, ServiceKey},
};

use crate::reconcile::{Mirror, Planner};

/// Former owners remembered for one address.
const FORMER_OWNERS: usize = 4;
/// Generations of rules remembered.
const GENERATIONS: usize = 65_536;

/// A pod that has or had an address.
#[derive(Clone, Debug)]
struct Owner {
    pod: Arc<PodInfo>,
    /// CLOCK_MONOTONIC, nanoseconds: since when.
    since_ns: u64,
}

#[derive(Debug, Default)]
struct Inner {
    identities: HashMap<u32, Arc<IdentityInfo>>,
    /// Newest owner last.
    owners: HashMap<IpAddr, Vec<Owner>>,
    /// By slot, newest last.
    slots: HashMap<u32, Vec<Owner>>,
    rules: HashMap<u32, Arc<RuleInfo>>,
    policies: HashMap<PolicyRef, Arc<PolicyInfo>>,
    isolating: BTreeMap<u32, Arc<[Arc<PolicyInfo>]>>,
    /// Who would isolate the endpoint in a slot, with the staged policies.
    staged: HashMap<(u32, Direction), Arc<[Arc<PolicyInfo>]>>,
    /// By address, port and IANA protocol number.
    services: HashMap<(IpAddr, u16, u8), Arc<ServiceInfo>>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Knowledge {
    inner: RwLock<Inner>,
    /// What pods were told by DNS. Taken for a moment, never together with `inner`.
    names: Mutex<Names>,
    /// What is not told.
    redaction: Redaction,
}

impl Knowledge {
    /// Knows nothing yet.
    pub fn new(redaction: Redaction) -> Self {
        Self { redaction, ..Self::default() }
    }

    /// What is not told.
    pub fn redaction(&self) -> &Redaction {
        &self.redaction
    }

    /// What pods were told by DNS.
    pub fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Learns which Services stand at which addresses and ports; `None`: none does.
    pub fn services(&self, owners: &[(FrontendKey, Option<ServiceKey>)]) {
        let mut inner = self.inner.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        for (key, owner) in owners {
            let at = (IpAddr::from(key.addr), key.port, key.proto);
            match owner {
                // One that has gone is remembered until another takes its place: its records may be under way.
                None => {}
                Some(ServiceKey { namespace, name }) => {
                    let info = ServiceInfo { namespace: namespace.clone(), name: name.clone() };
                    inner.services.insert(at, Arc::new(info));
                }
            }
        }
    }

    /// Learns what a plan has changed for the `touched` pods.
    pub fn update(&self, planner: &Planner, mirror: &Mirror, touched: &BTreeSet<PodKey>) {
        let now_ns = monotonic_ns();
        let mut inner = self.inner.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        for key in touched {
            if let Some(pod) = planner.index().pod(key).filter(|pod| pod.is_peer()) {
                inner.learn_pod(planner, pod, &self.redaction, now_ns);
            }
        }
        for number in touched.iter().filter_map(|key| planner.identity_number(key)).collect::<BTreeSet<u32>>() {
            let Some(key) = planner.universe().get(number).map(|identity| identity.key()) else { continue };
            // A number that was given back may stand for somebody else.
            let info = IdentityInfo {
                namespace: key.namespace.clone(),
                labels: self.redaction.labels(key.labels.map()),
                service_account: key.service_account.clone(),
            };
            inner.identities.insert(number, Arc::new(info));
        }
        for (cookie, rule) in planner.cookies().iter() {
            if !inner.rules.contains_key(&cookie) {
                let info = inner.rule_info(planner, rule);
                inner.rules.insert(cookie, Arc::new(info));
            }
        }
        let mut moved = Vec::new();
        for view in planner.views(mirror) {
            let pod = pod_info(planner, &view.pod, &self.redaction);
            let owners = inner.slots.entry(view.endpoint.slot).or_default();
            if own(owners, &pod, now_ns) && owners.len() > 1 {
                moved.push(view.endpoint.slot);
            }
            for direction in view.directions {
                let at = (view.endpoint.slot, direction.direction);
                match &direction.staged {
                    None => drop(inner.staged.remove(&at)),
                    Some(table) => {
                        let policies = table.isolated_by.iter().map(|policy| inner.policy_info(policy)).collect();
                        inner.staged.insert(at, policies);
                    }
                }
                let generation = direction.rules.generation();
                if generation != 0 && !inner.isolating.contains_key(&generation) {
                    // What is in force may still be what was compiled before.
                    let table = planner.rule_table(direction.rules.ruleset()).cloned().unwrap_or(direction.table);
                    // Of a pod that none isolates, those that have rules: what they cannot be asked about is dropped for their sake.
                    let policies = if table.is_isolated() { table.isolated_by.clone() } else { table.policies() };
                    let policies = policies.iter().map(|policy| inner.policy_info(policy)).collect();
                    inner.isolating.insert(generation, policies);
                }
            }
        }
        while inner.isolating.len() > GENERATIONS {
            inner.isolating.pop_first();
        }
        drop(inner);
        // What one pod was told is no business of the next one.
        for slot in moved {
            self.names().forget(slot);
        }
    }
}

impl Inner {
    fn learn_pod(&mut self, planner: &Planner, pod: &Pod, redaction: &Redaction, now_ns: u64) {
        let info = pod_info(planner, pod, redaction);
        for ip in &pod.ips {
            own(self.owners.entry(*ip).or_default(), &info, now_ns);
        }
    }

    fn policy_info(&mut self, policy: &PolicyRef) -> Arc<PolicyInfo> {
        let PolicyRef { kind, namespace, name } = policy;
        let info = self.policies.entry(policy.clone()).or_insert_with(|| {
            Arc::new(PolicyInfo {
                kind: kind.as_str().to_owned(),
                namespace: namespace.clone(),
                name: name.clone(),
                uid: String::new(),
                revision: 0,
            })
        });
        info.clone()
    }

    fn rule_info(&mut self, planner: &Planner, rule: &RuleRef) -> RuleInfo {
        let (index, place) = (planner.index(), rule.index as usize);
        let network = index.network_policy(&rule.policy).and_then(|policy| policy.rules(rule.direction)?.get(place));
        let cluster = index.cluster_policy(&rule.policy).and_then(|policy| policy.rules(rule.direction).get(place));
        let found = network.or_else(|| cluster.map(|rule| &rule.rule));
        let scope = match found.map(|rule| (&rule.peers, &rule.ports)) {
            None | Some((Peers::Anyone, Ports::All)) => RuleScope::All,
            Some((Peers::Anyone, _)) => RuleScope::Ports,
            Some((_, Ports::All)) => RuleScope::Peers,
            Some(_) => RuleScope::PeersAndPorts,
        };
        RuleInfo { policy: self.policy_info(&rule.policy), direction: rule.direction, index: rule.index, scope }
    }
}

fn pod_info(planner: &Planner, pod: &Pod, redaction: &Redaction) -> Arc<PodInfo> {
    Arc::new(PodInfo {
        namespace: pod.key.namespace.clone(),
        name: pod.key.name.clone(),
        uid: pod.uid.clone(),
        labels: redaction.labels(pod.labels.map()),
        service_account: pod.service_account.clone(),
        workload: pod
            .workload
            .as_ref()
            .map(|workload| Workload { kind: workload.kind.clone(), name: workload.name.clone() }),
        identity: planner.identity_number(&pod.key).unwrap_or(0),
    })
}

/// Notes who has an address or a slot from now on. Whether that is somebody new.
fn own(owners: &mut Vec<Owner>, pod: &Arc<PodInfo>, now_ns: u64) -> bool {
    let mut is_new = false;
    match owners.last_mut() {
        // The same pod, described better: for its earlier events as well.
        Some(last) if last.pod.namespace == pod.namespace && last.pod.name == pod.name => last.pod = pod.clone(),
        _ => {
            // Nearly always the only one, and there are ten thousand of them.
            owners.reserve_exact(1);
            owners.push(Owner { pod: pod.clone(), since_ns: now_ns });
            is_new = true;
        }
    }
    if owners.len() > FORMER_OWNERS {
        owners.remove(0);
    }
    is_new
}

/// Who had it then.
fn owner_at(owners: &[Owner], time_ns: u64) -> Option<Arc<PodInfo>> {
    let then = owners.iter().rev().find(|owner| owner.since_ns <= time_ns);
    // Before anybody is known to have had it: the events of a pod whose ADD is under way.
    then.or_else(|| owners.first()).map(|owner| owner.pod.clone())
}

impl Context for Knowledge {
    fn identity(&self, number: u32) -> Option<Arc<IdentityInfo>> {
        self.read(|inner| inner.identities.get(&number).cloned())
    }

    fn pod_by_addr(&self, addr: IpAddr, time_ns: u64) -> Option<Arc<PodInfo>> {
        self.read(|inner| owner_at(inner.owners.get(&addr)?, time_ns))
    }

    fn pod_by_slot(&self, slot: u32, time_ns: u64) -> Option<Arc<PodInfo>> {
        self.read(|inner| owner_at(inner.slots.get(&slot)?, time_ns))
    }

    fn rule(&self, cookie: u32) -> Option<Arc<RuleInfo>> {
        self.read(|inner| inner.rules.get(&cookie).cloned())
    }

    fn isolating(&self, rules: RulesPtr) -> Option<Arc<[Arc<PolicyInfo>]>> {
        self.read(|inner| inner.isolating.get(&rules.generation()).cloned())
    }

    fn service(&self, addr: IpAddr, port: u16, protocol: u8) -> Option<Arc<ServiceInfo>> {
        self.read(|inner| inner.services.get(&(addr, port, protocol)).cloned())
    }

    fn dns_names(&self, slot: u32, addr: IpAddr, time_ns: u64) -> Option<Arc<[String]>> {
        self.names().names(slot, addr, time_ns)
    }

    fn staged_isolating(&self, slot: u32, direction: Direction) -> Option<Arc<[Arc<PolicyInfo>]>> {
        self.read(|inner| inner.staged.get(&(slot, direction)).cloned())
    }
}

impl Knowledge {
    fn read<T>(&self, look: impl FnOnce(&Inner) -> T) -> T {
        look(&self.inner.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

/// CLOCK_MONOTONIC, as the programs' events bear it.
pub fn monotonic_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
