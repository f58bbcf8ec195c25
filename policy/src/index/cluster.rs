//! The policies without a namespace, filed so that a pod finds those that may select it.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{ClusterNetworkPolicy, Labels, Pod};
use crate::postings::{Postings, narrowest};
use crate::selector::Values;

/// Every ClusterNetworkPolicy.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct ClusterShelf {
    policies: BTreeMap<String, ClusterNetworkPolicy>,
    /// Names by the labels of which a pod must have one to be selected.
    by_pod: Postings<String>,
    /// Names of the others, by the labels of which its namespace must have one.
    by_namespace: Postings<String>,
    /// Names of those that no one label decides about.
    broad: BTreeSet<String>,
}

/// Where a policy is filed.
enum Place<'a> {
    Pod(&'a str, &'a Values),
    Namespace(&'a str, &'a Values),
    Broad,
}

fn place(policy: &ClusterNetworkPolicy) -> Place<'_> {
    match (narrowest(&policy.subject.pods), narrowest(&policy.subject.namespaces)) {
        (Some((key, values)), _) => Place::Pod(key, values),
        (None, Some((key, values))) => Place::Namespace(key, values),
        (None, None) => Place::Broad,
    }
}

impl ClusterShelf {
    pub(super) fn get(&self, name: &str) -> Option<&ClusterNetworkPolicy> {
        self.policies.get(name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &ClusterNetworkPolicy> {
        self.policies.values()
    }

    /// Puts a policy in, or takes it out; returns what was there.
    pub(super) fn swap(&mut self, name: &str, new: Option<ClusterNetworkPolicy>) -> Option<ClusterNetworkPolicy> {
        let name = name.to_owned();
        let old = self.policies.remove(&name);
        match old.as_ref().map(place) {
            None => {}
            Some(Place::Pod(key, values)) => values.iter().for_each(|value| self.by_pod.take(key, value, &name)),
            Some(Place::Namespace(key, values)) => {
                values.iter().for_each(|value| self.by_namespace.take(key, value, &name));
            }
            Some(Place::Broad) => drop(self.broad.remove(&name)),
        }
        match new.as_ref().map(place) {
            None => {}
            Some(Place::Pod(key, values)) => values.iter().for_each(|value| self.by_pod.put(key, value, &name)),
            Some(Place::Namespace(key, values)) => {
                values.iter().for_each(|value| self.by_namespace.put(key, value, &name));
            }
            Some(Place::Broad) => drop(self.broad.insert(name.clone())),
        }
        if let Some(new) = new {
            self.policies.insert(name, new);
        }
        old
    }

    /// The policies that select a pod in a namespace with these labels, by name.
    pub(super) fn selecting(&self, pod: &Pod, namespace: &Labels) -> Vec<&ClusterNetworkPolicy> {
        let by_pod = pod.labels.iter().flat_map(|(key, value)| self.by_pod.under(key, value));
        let by_namespace = namespace.iter().flat_map(|(key, value)| self.by_namespace.under(key, value));
        let names: BTreeSet<&String> = by_pod.chain(by_namespace).chain(&self.broad).collect();
        let policies = names.into_iter().filter_map(|name| self.policies.get(name));
        policies.filter(|policy| policy.selects(pod, namespace)).collect()
    }

    /// Whether a namespace that changes its labels comes into some subject or leaves it.
    pub(super) fn tells_apart(&self, old: &Labels, new: &Labels) -> bool {
        let selectors = self.policies.values().map(|policy| &policy.subject.namespaces);
        selectors.into_iter().any(|selector| selector.matches(old) != selector.matches(new))
    }
}
