//! The identities that have a number, and the pods behind them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use datapath_abi::identity::{FIRST_POD, MAX};
use thiserror::Error;

use crate::identity::IdentityKey;
use crate::model::{ContainerPort, Pod, PodKey, Protocol, named_port};

/// Everybody a selector can match, by identity number.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Universe {
    identities: BTreeMap<u32, Identity>,
    by_namespace: BTreeMap<String, BTreeSet<u32>>,
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
    pub ips: BTreeSet<IpAddr>,
    /// Its named ports.
    pub ports: BTreeSet<ContainerPort>,
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
        self.by_namespace.entry(key.namespace.clone()).or_default().insert(number);
        self.identities.insert(number, Identity { key, pods: BTreeMap::new() });
        Ok(())
    }

    /// Removes an identity and its pods.
    pub fn remove(&mut self, number: u32) -> Option<Identity> {
        let identity = self.identities.remove(&number)?;
        let namespace = &identity.key.namespace;
        if let Some(numbers) = self.by_namespace.get_mut(namespace) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.by_namespace.remove(namespace);
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

    /// The identities of one namespace.
    pub fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = (u32, &Identity)> {
        let numbers = self.by_namespace.get(namespace).into_iter().flatten();
        numbers.filter_map(|number| Some((*number, self.identities.get(number)?)))
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
