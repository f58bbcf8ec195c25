//! What belongs to one namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::{Labels, Namespace, NetworkPolicy, Pod, PodKey};
use crate::postings::{Postings, narrowest};

/// What belongs to one namespace. Kept as long as it holds anything.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Shelf {
    pub(super) namespace: Option<Namespace>,
    pub(super) pods: BTreeMap<PodKey, Arc<Pod>>,
    /// Pods by label.
    pub(super) labelled: Postings<PodKey>,
    pub(super) network_policies: BTreeMap<String, NetworkPolicy>,
    /// Names of policies by the labels of which a pod must have one to be selected.
    selecting: Postings<String>,
    /// Names of the policies that no one label decides about.
    broad: BTreeSet<String>,
}

impl Shelf {
    /// Puts a pod in, or takes it out; returns what was there.
    pub(super) fn swap_pod(&mut self, key: &PodKey, new: Option<Arc<Pod>>) -> Option<Arc<Pod>> {
        let old = self.pods.remove(key);
        if old.as_ref().map(|pod| &pod.labels) != new.as_ref().map(|pod| &pod.labels) {
            old.iter().for_each(|pod| self.labelled.take_all(&pod.labels, key));
            new.iter().for_each(|pod| self.labelled.put_all(&pod.labels, key));
        }
        if let Some(new) = new {
            self.pods.insert(new.key.clone(), new);
        }
        old
    }

    /// The same for a policy.
    pub(super) fn swap_network_policy(&mut self, name: &str, new: Option<NetworkPolicy>) -> Option<NetworkPolicy> {
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
    pub(super) fn selected<'a>(&'a self, policy: &'a NetworkPolicy) -> Box<dyn Iterator<Item = &'a Pod> + 'a> {
        match self.labelled.candidates(&policy.pod_selector) {
            None => Box::new(self.pods.values().map(AsRef::as_ref).filter(|pod| policy.selects(pod))),
            Some(keys) => {
                let pods = keys.filter_map(|key| self.pods.get(key)).map(AsRef::as_ref);
                Box::new(pods.filter(|pod| policy.selects(pod)))
            }
        }
    }

    /// The policies that may select a pod, by name.
    pub(super) fn may_select(&self, pod: &Pod) -> BTreeSet<&String> {
        let by_label = pod.labels.iter().flat_map(|(key, value)| self.selecting.under(key, value));
        by_label.chain(&self.broad).collect()
    }

    /// The labels of the namespace called `name`, of which this is the shelf.
    pub(super) fn namespace_labels(&self, name: &str) -> Labels {
        match &self.namespace {
            Some(namespace) => namespace.labels().clone(),
            None => bare(name),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.namespace.is_none() && self.pods.is_empty() && self.network_policies.is_empty()
    }
}

/// The labels of a namespace of which nothing but the name is known.
pub(super) fn bare(name: &str) -> Labels {
    Namespace::new(name, Labels::default()).labels().clone()
}
