//! All objects, and which pods an event touches.
//!
//! Whatever order objects come in, the same objects make the same index. A pod whose Namespace is
//! not (yet) known counts as in a namespace without labels but its name; who starts an index
//! should therefore fill in namespaces before acting on what it says.

mod cluster;
mod shelf;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datapath_abi::policy::Direction;

use crate::identity::{Config, IdentityKey};
use crate::model::{
    ClusterNetworkPolicy, Labels, Namespace, NetworkPolicy, Node, Object, ObjectKey, Pod, PodKey, PolicyKind,
    PolicyRef, Tier,
};
use crate::selector::Selector;

use cluster::ClusterShelf;
use shelf::{Shelf, bare};

/// What an event touches. Deleted pods are named too.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Touched {
    /// Pods whose rule tables may have changed, in either direction.
    pub rules: BTreeSet<PodKey>,
    /// Pods whose identity, addresses or named ports may have changed: what a
    /// [`crate::lower::Universe`] says about them must be looked at again.
    pub identities: BTreeSet<PodKey>,
    /// Whether labels or addresses of a node have changed: rules that name nodes may mean others.
    pub nodes: bool,
}

/// Which policies count.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum View {
    /// Those that are enforced.
    #[default]
    Enforced,
    /// The staged ones too.
    WithStaged,
}

impl View {
    /// Whether a policy counts that is staged, or is not.
    pub fn counts(self, staged: bool) -> bool {
        self == Self::WithStaged || !staged
    }
}

impl Touched {
    /// Nothing.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.identities.is_empty() && !self.nodes
    }

    /// Adds what another event touches.
    pub fn merge(&mut self, other: Self) {
        self.rules.extend(other.rules);
        self.identities.extend(other.identities);
        self.nodes |= other.nodes;
    }
}

/// All objects.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Index {
    config: Config,
    namespaces: BTreeMap<String, Shelf>,
    cluster: ClusterShelf,
    nodes: BTreeMap<String, Node>,
    /// Excluded label keys that pod selectors name, with how many times they do.
    selected: BTreeMap<String, usize>,
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
            Object::Node(node) => self.swap_node(&node.name.clone(), Some(node)),
            // Rules speak of pods: what stands for them is none of their business.
            Object::Service(_) | Object::EndpointSlice(_) => Touched::default(),
            Object::NetworkPolicy(policy) => {
                let PolicyRef { kind: _, namespace, name } = policy.policy_ref();
                self.swap_network_policy(&namespace, &name, Some(policy))
            }
            Object::ClusterNetworkPolicy(policy) => self.swap_cluster_policy(&policy.name.clone(), Some(policy)),
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
            ObjectKey::Policy(PolicyRef { kind: PolicyKind::ClusterNetworkPolicy, namespace: _, name }) => {
                self.swap_cluster_policy(name, None)
            }
            ObjectKey::Node(name) => self.swap_node(name, None),
            ObjectKey::Service(_) | ObjectKey::EndpointSlice(_) => Touched::default(),
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
        self.namespaces.get(&key.namespace)?.pods.get(key).map(AsRef::as_ref)
    }

    /// Every pod, by namespace and name.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.namespaces.values().flat_map(|shelf| shelf.pods.values()).map(AsRef::as_ref)
    }

    /// A NetworkPolicy.
    pub fn network_policy(&self, policy: &PolicyRef) -> Option<&NetworkPolicy> {
        let PolicyRef { kind: PolicyKind::NetworkPolicy, namespace, name } = policy else { return None };
        self.namespaces.get(namespace)?.network_policies.get(name)
    }

    /// A ClusterNetworkPolicy.
    pub fn cluster_policy(&self, policy: &PolicyRef) -> Option<&ClusterNetworkPolicy> {
        let PolicyRef { kind: PolicyKind::ClusterNetworkPolicy, namespace: _, name } = policy else { return None };
        self.cluster.get(name)
    }

    /// Every ClusterNetworkPolicy, by name.
    pub fn cluster_policies(&self) -> impl Iterator<Item = &ClusterNetworkPolicy> {
        self.cluster.iter()
    }

    /// Whether there is a policy of this name.
    pub fn has_policy(&self, policy: &PolicyRef) -> bool {
        match policy.kind {
            PolicyKind::NetworkPolicy => self.network_policy(policy).is_some(),
            PolicyKind::ClusterNetworkPolicy => self.cluster_policy(policy).is_some(),
        }
    }

    /// Whether a policy is staged; `None` if there is none of this name.
    pub fn is_staged(&self, policy: &PolicyRef) -> Option<bool> {
        match policy.kind {
            PolicyKind::NetworkPolicy => self.network_policy(policy).map(|policy| policy.staged),
            PolicyKind::ClusterNetworkPolicy => self.cluster_policy(policy).map(|policy| policy.staged),
        }
    }

    /// Every node, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// Every NetworkPolicy, by namespace and name.
    pub fn network_policies(&self) -> impl Iterator<Item = &NetworkPolicy> {
        self.namespaces.values().flat_map(|shelf| shelf.network_policies.values())
    }

    /// The NetworkPolicies that isolate a pod in a direction, by name.
    pub fn isolating<'a>(
        &'a self,
        pod: &'a Pod,
        direction: Direction,
        view: View,
    ) -> impl Iterator<Item = &'a NetworkPolicy> {
        let shelf = self.namespaces.get(&pod.key.namespace);
        let names =
            shelf.into_iter().flat_map(|shelf| shelf.may_select(pod).into_iter().map(move |name| (shelf, name)));
        let policies = names.filter_map(|(shelf, name)| shelf.network_policies.get(name));
        let counts = move |policy: &&NetworkPolicy| view.counts(policy.staged);
        policies.filter(counts).filter(move |policy| policy.rules(direction).is_some() && policy.selects(pod))
    }

    /// The ClusterNetworkPolicies of a tier with rules for a pod and direction, in the order in which
    /// they are asked.
    pub fn ruling(&self, pod: &Pod, tier: Tier, direction: Direction, view: View) -> Vec<&ClusterNetworkPolicy> {
        let mut policies = self.cluster.selecting(pod, &self.namespace_labels(&pod.key.namespace));
        policies.retain(|policy| policy.tier == tier && view.counts(policy.staged));
        policies.retain(|policy| !policy.rules(direction).is_empty());
        policies.sort_unstable_by_key(|policy| policy.rank());
        policies
    }

    /// Whether a staged policy has a say in a direction of a pod.
    pub fn is_touched_by_staged(&self, pod: &Pod, direction: Direction) -> bool {
        let mut cluster = self.cluster.selecting(pod, &self.namespace_labels(&pod.key.namespace)).into_iter();
        self.isolating(pod, direction, View::WithStaged).any(|policy| policy.staged)
            || cluster.any(|policy| policy.staged && !policy.rules(direction).is_empty())
    }

    /// The pods that a policy selects, by namespace and name.
    pub fn selected(&self, policy: &PolicyRef) -> Vec<&Pod> {
        match policy.kind {
            PolicyKind::NetworkPolicy => match self.network_policy(policy) {
                Some(network_policy) => {
                    let shelf = self.namespaces.get(&policy.namespace);
                    let mut pods: Vec<&Pod> =
                        shelf.into_iter().flat_map(|shelf| shelf.selected(network_policy)).collect();
                    pods.sort_unstable_by_key(|pod| &pod.key);
                    pods
                }
                None => Vec::new(),
            },
            PolicyKind::ClusterNetworkPolicy => {
                self.cluster_policy(policy).map(|policy| self.cluster_selected(policy)).unwrap_or_default()
            }
        }
    }

    fn cluster_selected<'a>(&'a self, policy: &'a ClusterNetworkPolicy) -> Vec<&'a Pod> {
        let mut pods = Vec::new();
        for (name, shelf) in &self.namespaces {
            let labels = shelf.namespace_labels(name);
            if !policy.subject.namespaces.matches(&labels) {
                continue;
            }
            let selects = |pod: &&Pod| policy.selects(pod, &labels);
            match shelf.labelled.candidates(&policy.subject.pods) {
                None => pods.extend(shelf.pods.values().map(AsRef::as_ref).filter(selects)),
                Some(keys) => {
                    pods.extend(keys.filter_map(|key| shelf.pods.get(key)).map(AsRef::as_ref).filter(selects))
                }
            }
        }
        pods.sort_unstable_by_key(|pod| &pod.key);
        pods
    }

    /// The labels of a namespace, known or not.
    pub fn namespace_labels(&self, name: &str) -> Labels {
        self.namespaces.get(name).map_or_else(|| bare(name), |shelf| shelf.namespace_labels(name))
    }

    /// What identity stands for this pod. `None` if it is not known, or no peer: hostNetwork
    /// pods are their node, and the addresses of finished ones are free for others.
    pub fn identity_key(&self, key: &PodKey) -> Option<IdentityKey> {
        self.pod(key).filter(|pod| pod.is_peer()).map(|pod| self.identity_of(pod))
    }

    /// What identity stands for a pod in this index's namespaces, be the pod in it or not.
    pub fn identity_of(&self, pod: &Pod) -> IdentityKey {
        IdentityKey {
            namespace: pod.key.namespace.clone(),
            namespace_labels: self.namespace_labels(&pod.key.namespace),
            labels: pod.labels.filtered(|key| self.counts(key)),
            service_account: pod.service_account.clone(),
        }
    }

    /// Whether pod labels with this key are part of the identity.
    fn counts(&self, key: &str) -> bool {
        !self.config.excluded_labels.contains(key) || self.selected.contains_key(key)
    }

    fn put_namespace(&mut self, namespace: Namespace) -> Touched {
        let name = namespace.name().to_owned();
        let shelf = self.namespaces.entry(name.clone()).or_default();
        let old = shelf.namespace_labels(&name);
        let new = namespace.labels().clone();
        shelf.namespace = Some(namespace);
        self.relabelled(&name, &old, &new)
    }

    fn drop_namespace(&mut self, name: &str) -> Touched {
        let Some(shelf) = self.namespaces.get_mut(name) else { return Touched::default() };
        let Some(old) = shelf.namespace.take() else { return Touched::default() };
        self.tidy(name);
        self.relabelled(name, old.labels(), &bare(name))
    }

    /// What it touches that a namespace has other labels now.
    fn relabelled(&self, name: &str, old: &Labels, new: &Labels) -> Touched {
        if old == new {
            return Touched::default();
        }
        let pods = self.namespaces.get(name).into_iter().flat_map(|shelf| shelf.pods.keys());
        let pods: BTreeSet<PodKey> = pods.cloned().collect();
        let rules = if self.cluster.tells_apart(old, new) { pods.clone() } else { BTreeSet::new() };
        Touched { rules, identities: pods, nodes: false }
    }

    fn swap_node(&mut self, name: &str, new: Option<Node>) -> Touched {
        let old = self.nodes.remove(name);
        let nodes = old != new;
        self.nodes.extend(new.map(|node| (name.to_owned(), node)));
        Touched { nodes, ..Touched::default() }
    }

    fn put_pod(&mut self, pod: Arc<Pod>) -> Touched {
        let shelf = self.namespaces.entry(pod.key.namespace.clone()).or_default();
        let key = pod.key.clone();
        let (rules, identity) = shelf.pods.get(&key).map_or((true, true), |old| difference(old, &pod));
        shelf.swap_pod(&key, Some(pod));
        Touched {
            rules: rules.then(|| key.clone()).into_iter().collect(),
            identities: identity.then_some(key).into_iter().collect(),
            nodes: false,
        }
    }

    fn drop_pod(&mut self, key: &PodKey) -> Touched {
        let Some(shelf) = self.namespaces.get_mut(&key.namespace) else { return Touched::default() };
        if shelf.swap_pod(key, None).is_none() {
            return Touched::default();
        }
        self.tidy(&key.namespace);
        Touched { rules: BTreeSet::from([key.clone()]), identities: BTreeSet::from([key.clone()]), nodes: false }
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
        touched.identities = self.recount(
            old.iter().flat_map(NetworkPolicy::pod_selectors),
            new.iter().flat_map(NetworkPolicy::pod_selectors),
        );
        self.tidy(namespace);
        touched
    }

    /// The same without a namespace.
    fn swap_cluster_policy(&mut self, name: &str, new: Option<ClusterNetworkPolicy>) -> Touched {
        let old = self.cluster.swap(name, new.clone());
        let mut touched = Touched::default();
        if old != new {
            let selected = [&old, &new].into_iter().flatten().flat_map(|policy| self.cluster_selected(policy));
            touched.rules = selected.map(|pod| pod.key.clone()).collect();
        }
        touched.identities = self.recount(
            old.iter().flat_map(ClusterNetworkPolicy::pod_selectors),
            new.iter().flat_map(ClusterNetworkPolicy::pod_selectors),
        );
        touched
    }

    /// Counts the label keys that selectors name. Returns the pods for which a key begins or
    /// ceases to count.
    fn recount<'a>(
        &mut self,
        old: impl Iterator<Item = &'a Selector>,
        new: impl Iterator<Item = &'a Selector>,
    ) -> BTreeSet<PodKey> {
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

    fn excluded_keys<'a>(&self, selectors: impl Iterator<Item = &'a Selector>) -> BTreeSet<String> {
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
