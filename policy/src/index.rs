//! All objects, and which pods an event touches.
//!
//! Whatever order objects come in, the same objects make the same index. A pod whose Namespace is
//! not (yet) known counts as in a namespace without labels but its name; who starts an index
//! should therefore fill in namespaces before acting on what it says.

use std::collections::{BTreeMap, BTreeSet};

use datapath_abi::policy::Direction;

use crate::identity::{Config, IdentityKey};
use crate::model::{Labels, Namespace, NetworkPolicy, Object, ObjectKey, Pod, PodKey, PolicyKind, PolicyRef};
use crate::postings::{Postings, narrowest};

/// What an event touches. Deleted pods are named too.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Touched {
    /// Pods whose rule tables may have changed, in either direction.
    pub rules: BTreeSet<PodKey>,
    /// Pods whose identity, addresses or named ports may have changed: what a
    /// [`crate::lower::Universe`] says about them must be looked at again.
    pub identities: BTreeSet<PodKey>,
}

impl Touched {
    /// Nothing.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.identities.is_empty()
    }

    /// Adds what another event touches.
    pub fn merge(&mut self, other: Self) {
        self.rules.extend(other.rules);
        self.identities.extend(other.identities);
    }
}

/// All objects.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Index {
    config: Config,
    namespaces: BTreeMap<String, Shelf>,
    /// Excluded label keys that pod selectors name, with how many times they do.
    selected: BTreeMap<String, usize>,
}

/// What belongs to one namespace. Kept as long as it holds anything.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Shelf {
    namespace: Option<Namespace>,
    pods: BTreeMap<String, Pod>,
    /// Names of pods by label.
    labelled: Postings<String>,
    network_policies: BTreeMap<String, NetworkPolicy>,
    /// Names of policies by the labels of which a pod must have one to be selected.
    selecting: Postings<String>,
    /// Names of the policies that no one label decides about.
    broad: BTreeSet<String>,
}

impl Shelf {
    /// Puts a pod in, or takes it out; returns what was there.
    fn swap_pod(&mut self, name: &str, new: Option<Pod>) -> Option<Pod> {
        let name = name.to_owned();
        let old = self.pods.remove(&name);
        if old.as_ref().map(|pod| &pod.labels) != new.as_ref().map(|pod| &pod.labels) {
            old.iter().for_each(|pod| self.labelled.take_all(&pod.labels, &name));
            new.iter().for_each(|pod| self.labelled.put_all(&pod.labels, &name));
        }
        if let Some(new) = new {
            self.pods.insert(name, new);
        }
        old
    }

    /// The same for a policy.
    fn swap_network_policy(&mut self, name: &str, new: Option<NetworkPolicy>) -> Option<NetworkPolicy> {
        let name = name.to_owned();
        let old = self.network_policies.remove(&name);
        match old.as_ref().map(|policy| narrowest(&policy.pod_selector)) {
            None => {}
            Some(None) => drop(self.broad.remove(&name)),
            Some(Some((key, values))) => values.iter().for_each(|value| self.selecting.take(key, value, &name)),
        }
        match new.as_ref().map(|policy| narrowest(&policy.pod_selector)) {
            None => {}
            Some(None) => drop(self.broad.insert(name.clone())),
            Some(Some((key, values))) => values.iter().for_each(|value| self.selecting.put(key, value, &name)),
        }
        if let Some(new) = new {
            self.network_policies.insert(name, new);
        }
        old
    }

    /// The pods that a policy selects.
    fn selected<'a>(&'a self, policy: &'a NetworkPolicy) -> Box<dyn Iterator<Item = &'a Pod> + 'a> {
        match self.labelled.candidates(&policy.pod_selector) {
            None => Box::new(self.pods.values().filter(|pod| policy.selects(pod))),
            Some(names) => {
                let pods = names.filter_map(|name| self.pods.get(name));
                Box::new(pods.filter(|pod| policy.selects(pod)))
            }
        }
    }

    /// The policies that may select a pod, by name.
    fn may_select(&self, pod: &Pod) -> BTreeSet<&String> {
        let by_label = pod.labels.iter().flat_map(|(key, value)| self.selecting.under(key, value));
        by_label.chain(&self.broad).collect()
    }

    fn is_empty(&self) -> bool {
        self.namespace.is_none() && self.pods.is_empty() && self.network_policies.is_empty()
    }
}

impl Index {
    /// An empty one.
    pub fn new(config: Config) -> Self {
        Self { config, ..Self::default() }
    }

    /// Takes a new object, or a new version of one.
    pub fn apply(&mut self, object: Object) -> Touched {
        match object {
            Object::Namespace(namespace) => self.put_namespace(namespace),
            Object::Pod(pod) => self.put_pod(pod),
            Object::NetworkPolicy(policy) => {
                let PolicyRef { kind: _, namespace, name } = policy.policy_ref();
                self.swap_network_policy(&namespace, &name, Some(policy))
            }
        }
    }

    /// Forgets an object. Touches nothing if it is not there.
    pub fn delete(&mut self, key: &ObjectKey) -> Touched {
        match key {
            ObjectKey::Namespace(name) => self.drop_namespace(name),
            ObjectKey::Pod(key) => self.drop_pod(key),
            ObjectKey::Policy(PolicyRef { kind: PolicyKind::NetworkPolicy, namespace, name }) => {
                self.swap_network_policy(namespace, name, None)
            }
        }
    }

    /// A namespace, if it is known.
    pub fn namespace(&self, name: &str) -> Option<&Namespace> {
        self.namespaces.get(name)?.namespace.as_ref()
    }

    /// Every namespace, by name.
    pub fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        self.namespaces.values().filter_map(|shelf| shelf.namespace.as_ref())
    }

    /// A pod.
    pub fn pod(&self, key: &PodKey) -> Option<&Pod> {
        self.namespaces.get(&key.namespace)?.pods.get(&key.name)
    }

    /// Every pod, by namespace and name.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.namespaces.values().flat_map(|shelf| shelf.pods.values())
    }

    /// A NetworkPolicy.
    pub fn network_policy(&self, policy: &PolicyRef) -> Option<&NetworkPolicy> {
        let PolicyRef { kind: PolicyKind::NetworkPolicy, namespace, name } = policy;
        self.namespaces.get(namespace)?.network_policies.get(name)
    }

    /// Every NetworkPolicy, by namespace and name.
    pub fn network_policies(&self) -> impl Iterator<Item = &NetworkPolicy> {
        self.namespaces.values().flat_map(|shelf| shelf.network_policies.values())
    }

    /// The NetworkPolicies that isolate a pod in a direction, by name.
    pub fn isolating<'a>(&'a self, pod: &'a Pod, direction: Direction) -> impl Iterator<Item = &'a NetworkPolicy> {
        let shelf = self.namespaces.get(&pod.key.namespace);
        let names =
            shelf.into_iter().flat_map(|shelf| shelf.may_select(pod).into_iter().map(move |name| (shelf, name)));
        let policies = names.filter_map(|(shelf, name)| shelf.network_policies.get(name));
        policies.filter(move |policy| policy.rules(direction).is_some() && policy.selects(pod))
    }

    /// What identity stands for this pod. `None` if it is not known, or no peer: hostNetwork
    /// pods are their node, and the addresses of finished ones are free for others.
    pub fn identity_key(&self, key: &PodKey) -> Option<IdentityKey> {
        self.pod(key).filter(|pod| pod.is_peer()).map(|pod| self.identity_of(pod))
    }

    /// What identity stands for a pod in this index's namespaces, be the pod in it or not.
    pub fn identity_of(&self, pod: &Pod) -> IdentityKey {
        let namespace_labels = match self.namespace(&pod.key.namespace) {
            Some(namespace) => namespace.labels().clone(),
            None => Namespace::new(&pod.key.namespace, Labels::default()).labels().clone(),
        };
        IdentityKey {
            namespace: pod.key.namespace.clone(),
            namespace_labels,
            labels: pod.labels.filtered(|key| self.counts(key)),
            service_account: pod.service_account.clone(),
        }
    }

    /// Whether pod labels with this key are part of the identity.
    fn counts(&self, key: &str) -> bool {
        !self.config.excluded_labels.contains(key) || self.selected.contains_key(key)
    }

    fn put_namespace(&mut self, namespace: Namespace) -> Touched {
        let shelf = self.namespaces.entry(namespace.name().to_owned()).or_default();
        let unknown = Namespace::new(namespace.name(), Labels::default());
        let changed = shelf.namespace.as_ref().unwrap_or(&unknown).labels() != namespace.labels();
        let name = namespace.name().to_owned();
        shelf.namespace = Some(namespace);
        if changed { self.everyone_in(&name) } else { Touched::default() }
    }

    fn drop_namespace(&mut self, name: &str) -> Touched {
        let Some(shelf) = self.namespaces.get_mut(name) else { return Touched::default() };
        let Some(old) = shelf.namespace.take() else { return Touched::default() };
        let changed = *old.labels() != *Namespace::new(name, Labels::default()).labels();
        self.tidy(name);
        if changed { self.everyone_in(name) } else { Touched::default() }
    }

    fn everyone_in(&self, namespace: &str) -> Touched {
        let pods = self.namespaces.get(namespace).into_iter().flat_map(|shelf| shelf.pods.values());
        Touched { rules: BTreeSet::new(), identities: pods.map(|pod| pod.key.clone()).collect() }
    }

    fn put_pod(&mut self, pod: Pod) -> Touched {
        let shelf = self.namespaces.entry(pod.key.namespace.clone()).or_default();
        let key = pod.key.clone();
        let (rules, identity) = shelf.pods.get(&key.name).map_or((true, true), |old| difference(old, &pod));
        shelf.swap_pod(&key.name, Some(pod));
        Touched {
            rules: rules.then(|| key.clone()).into_iter().collect(),
            identities: identity.then_some(key).into_iter().collect(),
        }
    }

    fn drop_pod(&mut self, key: &PodKey) -> Touched {
        let Some(shelf) = self.namespaces.get_mut(&key.namespace) else { return Touched::default() };
        if shelf.swap_pod(&key.name, None).is_none() {
            return Touched::default();
        }
        self.tidy(&key.namespace);
        Touched { rules: BTreeSet::from([key.clone()]), identities: BTreeSet::from([key.clone()]) }
    }

    /// Puts `new` in the place of what is there under this name.
    fn swap_network_policy(&mut self, namespace: &str, name: &str, new: Option<NetworkPolicy>) -> Touched {
        let shelf = self.namespaces.entry(namespace.to_owned()).or_default();
        let old = shelf.swap_network_policy(name, new.clone());
        let mut touched = Touched::default();
        if old != new {
            let selected = [&old, &new].into_iter().flatten().flat_map(|policy| shelf.selected(policy));
            touched.rules = selected.map(|pod| pod.key.clone()).collect();
        }
        touched.identities = self.recount(old.as_ref(), new.as_ref());
        self.tidy(namespace);
        touched
    }

    /// Counts the label keys that selectors name. Returns the pods for which a key begins or
    /// ceases to count.
    fn recount(&mut self, old: Option<&NetworkPolicy>, new: Option<&NetworkPolicy>) -> BTreeSet<PodKey> {
        let mut turned = BTreeSet::new();
        for key in self.excluded_keys(new) {
            let count = self.selected.entry(key.clone()).or_insert(0);
            *count += 1;
            if *count == 1 {
                turned.insert(key);
            }
        }
        for key in self.excluded_keys(old) {
            if let Some(count) = self.selected.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    self.selected.remove(&key);
                    turned.insert(key);
                }
            }
        }
        if turned.is_empty() {
            return BTreeSet::new();
        }
        let touched = self.pods().filter(|pod| turned.iter().any(|key| pod.labels.has(key)));
        touched.map(|pod| pod.key.clone()).collect()
    }

    fn excluded_keys(&self, policy: Option<&NetworkPolicy>) -> BTreeSet<String> {
        let selectors = policy.into_iter().flat_map(NetworkPolicy::pod_selectors);
        let keys = selectors.flat_map(|selector| selector.requirements()).map(|requirement| &requirement.key);
        keys.filter(|key| self.config.excluded_labels.contains(*key)).cloned().collect()
    }

    fn tidy(&mut self, namespace: &str) {
        if self.namespaces.get(namespace).is_some_and(Shelf::is_empty) {
            self.namespaces.remove(namespace);
        }
    }
}

/// Whether rules, and whether identity, addresses or named ports, of two versions of a pod may differ.
fn difference(old: &Pod, new: &Pod) -> (bool, bool) {
    let Pod { key: _, uid, labels, service_account, ips, ports, host_network, finished, workload: _ } = old;
    let another = *uid != new.uid;
    let both = another || *labels != new.labels || *ports != new.ports || *host_network != new.host_network;
    let identity = *service_account != new.service_account || *ips != new.ips || *finished != new.finished;
    (both, both || identity)
}
