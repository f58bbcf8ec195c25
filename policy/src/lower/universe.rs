//! The identities that have a number, and the pods behind them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use datapath_abi::identity::{FIRST_POD, MAX};
use thiserror::Error;

use crate::compile::{PodMatch, TableNamespaces};
use crate::identity::IdentityKey;
use crate::model::{ContainerPort, Few, Labels, Node, Pod, PodKey, Protocol, named_port};
use crate::postings::Postings;
use crate::selector::Selector;

/// Everybody a selector can match: pods by identity number, nodes by name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Universe {
    identities: BTreeMap<u32, Identity>,
    namespaces: BTreeMap<String, Shelf>,
    nodes: BTreeMap<String, Node>,
}

/// The identities of one namespace.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Shelf {
    numbers: BTreeSet<u32>,
    /// By label of their pods.
    labelled: Postings<u32>,
    /// The labels that the namespace has according to them, with how many say so. More than one
    /// while the namespace's labels change.
    versions: BTreeMap<Labels, usize>,
}

impl Shelf {
    fn put(&mut self, number: u32, key: &IdentityKey) {
        self.numbers.insert(number);
        self.labelled.put_all(&key.labels, &number);
        match self.versions.get_mut(&key.namespace_labels) {
            Some(count) => *count += 1,
            None => drop(self.versions.insert(key.namespace_labels.clone(), 1)),
        }
    }

    fn take(&mut self, number: u32, key: &IdentityKey) {
        self.numbers.remove(&number);
        self.labelled.take_all(&key.labels, &number);
        if let Some(count) = self.versions.get_mut(&key.namespace_labels) {
            *count -= 1;
            if *count == 0 {
                self.versions.remove(&key.namespace_labels);
            }
        }
    }
}

/// An identity and its pods.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    key: IdentityKey,
    pods: BTreeMap<PodKey, PodAddress>,
}

/// Where a pod is reached.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct PodAddress {
    /// Its addresses.
    pub ips: Few<IpAddr>,
    /// Its named ports.
    pub ports: Few<ContainerPort>,
}

/// A number that no pod identity can have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("{number} is not an identity number of pods: those go from {FIRST_POD} to {MAX}")]
pub struct NotAPodNumber {
    /// The number.
    pub number: u32,
}

impl Identity {
    /// What the number stands for.
    pub fn key(&self) -> &IdentityKey {
        &self.key
    }

    /// Its pods.
    pub fn pods(&self) -> &BTreeMap<PodKey, PodAddress> {
        &self.pods
    }
}

impl PodAddress {
    /// The numbers that a named port stands for here.
    pub fn named_port<'a>(&'a self, protocol: Protocol, name: &'a str) -> impl Iterator<Item = u16> + 'a {
        named_port(&self.ports, protocol, name)
    }
}

impl From<&Pod> for PodAddress {
    fn from(pod: &Pod) -> Self {
        Self { ips: pod.ips.clone(), ports: pod.ports.clone() }
    }
}

impl Universe {
    /// Adds an identity, without pods. If the number stands for the same key already, its pods
    /// stay; if it stood for another, that one and its pods go.
    ///
    /// # Errors
    ///
    /// When the number is reserved or above 24 bits.
    pub fn insert(&mut self, number: u32, key: IdentityKey) -> Result<(), NotAPodNumber> {
        if !(FIRST_POD..=MAX).contains(&number) {
            return Err(NotAPodNumber { number });
        }
        if self.identities.get(&number).is_some_and(|identity| identity.key == key) {
            return Ok(());
        }
        self.remove(number);
        self.namespaces.entry(key.namespace.clone()).or_default().put(number, &key);
        self.identities.insert(number, Identity { key, pods: BTreeMap::new() });
        Ok(())
    }

    /// Removes an identity and its pods.
    pub fn remove(&mut self, number: u32) -> Option<Identity> {
        let identity = self.identities.remove(&number)?;
        let namespace = &identity.key.namespace;
        if let Some(shelf) = self.namespaces.get_mut(namespace) {
            shelf.take(number, &identity.key);
            if shelf.numbers.is_empty() {
                self.namespaces.remove(namespace);
            }
        }
        Some(identity)
    }

    /// Says that a pod has this identity, and where it is reached. Returns whether that is new.
    /// Nothing happens if the identity is not there.
    pub fn put_pod(&mut self, number: u32, pod: PodKey, address: PodAddress) -> bool {
        let Some(identity) = self.identities.get_mut(&number) else { return false };
        let new = identity.pods.get(&pod) != Some(&address);
        identity.pods.insert(pod, address);
        new
    }

    /// Says that a pod no longer has this identity. Returns whether it had.
    pub fn remove_pod(&mut self, number: u32, pod: &PodKey) -> bool {
        self.identities.get_mut(&number).is_some_and(|identity| identity.pods.remove(pod).is_some())
    }

    /// What is known of a number.
    pub fn get(&self, number: u32) -> Option<&Identity> {
        self.identities.get(&number)
    }

    /// Every identity by number.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Identity)> {
        self.identities.iter().map(|(number, identity)| (*number, identity))
    }

    /// The numbers of the identities that a selector matches.
    pub fn matching(&self, pods: &PodMatch) -> BTreeSet<u32> {
        let mut numbers = BTreeSet::new();
        match &pods.namespaces {
            TableNamespaces::Named(name) => {
                self.namespaces.get(name).into_iter().for_each(|shelf| self.collect(shelf, pods, &mut numbers));
            }
            TableNamespaces::Matching(selector) => {
                let any = |shelf: &&Shelf| shelf.versions.keys().any(|labels| selector.matches(labels));
                self.namespaces.values().filter(any).for_each(|shelf| self.collect(shelf, pods, &mut numbers));
            }
        }
        numbers
    }

    fn collect(&self, shelf: &Shelf, pods: &PodMatch, numbers: &mut BTreeSet<u32>) {
        let matches = |number: &&u32| self.get(**number).is_some_and(|identity| pods.matches(&identity.key));
        match shelf.labelled.candidates(&pods.pods) {
            Some(candidates) => numbers.extend(candidates.filter(matches)),
            None => numbers.extend(shelf.numbers.iter().filter(matches)),
        }
    }

    /// Says which nodes there are, and no others. Returns whether that is new.
    pub fn set_nodes<'a>(&mut self, nodes: impl IntoIterator<Item = &'a Node>) -> bool {
        let nodes = nodes.into_iter().map(|node| (node.name.clone(), node.clone())).collect();
        let new = self.nodes != nodes;
        self.nodes = nodes;
        new
    }

    /// The addresses of the nodes that a selector matches.
    pub fn node_addresses<'a>(&'a self, selector: &'a Selector) -> impl Iterator<Item = IpAddr> + 'a {
        let nodes = self.nodes.values().filter(|node| selector.matches(&node.labels));
        nodes.flat_map(|node| node.ips.iter().copied())
    }

    /// Number of identities.
    pub fn len(&self) -> usize {
        self.identities.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.identities.is_empty()
    }
}
