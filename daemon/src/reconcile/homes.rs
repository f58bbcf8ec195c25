//! Pure: which pods have an address. Nearly always it is one, so that a set for each address would be mostly air.

use std::collections::BTreeSet;

use policy::model::PodKey;

/// Pods by address.
#[derive(Debug)]
pub(super) struct Homes<A>(BTreeSet<(A, PodKey)>);

impl<A> Default for Homes<A> {
    fn default() -> Self {
        Self(BTreeSet::new())
    }
}

impl<A: Ord + Copy> Homes<A> {
    /// A pod has this address.
    pub(super) fn insert(&mut self, address: A, pod: PodKey) {
        self.0.insert((address, pod));
    }

    /// A pod has it no longer.
    pub(super) fn remove(&mut self, address: A, pod: PodKey) {
        self.0.remove(&(address, pod));
    }

    /// Who has it, in order.
    pub(super) fn at(&self, address: A) -> impl Iterator<Item = &PodKey> {
        let first = PodKey::new("", "");
        self.0.range((address, first)..).take_while(move |(at, _)| *at == address).map(|(_, pod)| pod)
    }

    /// Every address that somebody has, once for each who does.
    pub(super) fn addresses(&self) -> impl Iterator<Item = A> {
        self.0.iter().map(|(address, _)| *address)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
