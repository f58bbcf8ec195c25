//! Numbers that mean the same in the whole cluster, as it tells of them. Rules speak of each from then on, whether a
//! pod has it yet or not: a packet may carry it before any watch has told of its sender.

use std::{collections::BTreeSet, sync::Arc};

use datapath_abi::identity;
use policy::{
    IdentityKey,
    model::{Pod, PodKey},
};

use super::Planner;

/// An identity that pods have and that the cluster has no number for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Unshared {
    /// The identity.
    pub key: IdentityKey,
    /// Whether one of its pods runs here.
    pub local: bool,
}

impl Planner {
    /// The cluster says what numbers stand for; `None`: for nobody.
    pub fn give(&mut self, told: impl IntoIterator<Item = (u32, Option<Arc<IdentityKey>>)>) {
        for (number, key) in told {
            if !identity::is_shared(number) || self.identities.given().key(number) == key.as_deref() {
                continue;
            }
            let before = self.identities.give(number, key.clone());
            let here = self.identities.key(number).cloned();
            for key in before.as_deref().into_iter().chain(key.as_deref()).chain(&here) {
                self.renumber_all(key);
            }
            self.settle_given(number);
        }
    }

    /// Those who have a key may have another number than they should.
    fn renumber_all(&mut self, key: &IdentityKey) {
        let number = self.identities.current(key);
        if let Some(identity) = number.and_then(|number| self.universe.get(number)) {
            self.dirty.identities.extend(identity.pods().keys().cloned());
        }
    }

    /// Rules speak of a number if the cluster does and it stands for nobody else here.
    fn settle_given(&mut self, number: u32) {
        match self.identities.adopt(number) {
            Some(key) if self.universe.get(number).is_none() => {
                self.stirred.note(number, &self.universe, Some(&key));
                self.universe.insert(number, IdentityKey::clone(&key)).expect("only shared numbers are taken in");
            }
            Some(_) => {}
            None => {
                if let Some(identity) = self.universe.get(number)
                    && identity.pods().is_empty()
                {
                    self.stirred.note(number, &self.universe, None);
                    self.universe.remove(number);
                }
            }
        }
    }

    /// A number that no pod has any more stands for nobody, unless the cluster says so.
    pub(super) fn leave_if_empty(&mut self, number: u32) {
        let Some(identity) = self.universe.get(number) else { return };
        if identity.pods().is_empty() && self.identities.given().key(number) != Some(identity.key()) {
            self.universe.remove(number);
        }
    }

    /// Numbers were given back: they may stand for somebody else now, if the cluster says so.
    pub(super) fn take_up_given(&mut self, released: &BTreeSet<u32>) {
        for number in released {
            if let Some(key) = self.identities.given().shared_key(*number) {
                self.renumber_all(&key);
                self.settle_given(*number);
            }
        }
    }

    /// Identities of pods that the cluster has no number for.
    pub fn unshared(&self) -> BTreeSet<Unshared> {
        let own = self.universe.iter().take_while(|(number, _)| !identity::is_shared(*number));
        let lost =
            self.identities.given().lost().iter().filter_map(|number| Some((*number, self.universe.get(*number)?)));
        let wanting = own.chain(lost).map(|(_, identity)| identity);
        let wanting = wanting.filter(|identity| {
            !identity.pods().is_empty() && self.identities.given().numbers(identity.key()).next().is_none()
        });
        let unshared = wanting.map(|identity| {
            let local = self.endpoints.values().any(|endpoint| identity.pods().contains_key(&endpoint.pod));
            Unshared { key: identity.key().clone(), local }
        });
        unshared.collect()
    }

    /// The cluster's numbers that no pod has.
    pub fn unused(&self) -> BTreeSet<u32> {
        let unused = self.identities.given().all().map(|(number, _)| number);
        unused.filter(|number| self.universe.get(*number).is_none_or(|it| it.pods().is_empty())).collect()
    }

    /// The identity that a pod has or will have, and its number in the cluster.
    pub fn standing(&self, pod: &PodKey) -> (IdentityKey, Option<u32>) {
        let key = match self.index.pod(pod) {
            Some(pod) => self.index.identity_of(pod),
            None => self.index.identity_of(&Pod::new(pod.clone())),
        };
        let number = self.identities.given().numbers(&key).next();
        (key, number)
    }

    /// Whether every shared number means here what it means to the cluster.
    pub fn is_in_step(&self) -> bool {
        self.identities.clashes().is_empty()
    }
}
