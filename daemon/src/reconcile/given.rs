//! What the cluster says that identity numbers stand for. Whether they stand for that on this node, too, is decided by
//! [`Identities`](super::Identities).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use datapath_abi::identity;
use policy::IdentityKey;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Given {
    keys: BTreeMap<u32, Arc<IdentityKey>>,
    /// Two nodes may have made a number each; the lowest counts, everywhere.
    numbers: BTreeMap<Arc<IdentityKey>, BTreeSet<u32>>,
    /// Shared numbers that this node uses although the cluster does not say so any more.
    lost: BTreeSet<u32>,
}

impl Given {
    /// What a number stands for.
    pub fn key(&self, number: u32) -> Option<&IdentityKey> {
        self.keys.get(&number).map(|key| &**key)
    }

    pub(super) fn shared_key(&self, number: u32) -> Option<Arc<IdentityKey>> {
        self.keys.get(&number).cloned()
    }

    /// The numbers of a key, the one that counts first.
    pub fn numbers(&self, key: &IdentityKey) -> impl Iterator<Item = u32> {
        self.numbers.get(key).into_iter().flatten().copied()
    }

    /// All, by number.
    pub fn all(&self) -> impl Iterator<Item = (u32, &IdentityKey)> {
        self.keys.iter().map(|(number, key)| (*number, &**key))
    }

    /// Shared numbers in use that the cluster does not know any more.
    pub(super) fn lost(&self) -> &BTreeSet<u32> {
        &self.lost
    }

    /// Says what a number stands for from now on. Returns what it stood for.
    pub(super) fn put(&mut self, number: u32, key: Option<Arc<IdentityKey>>) -> Option<Arc<IdentityKey>> {
        let before = match &key {
            Some(key) => self.keys.insert(number, key.clone()),
            None => self.keys.remove(&number),
        };
        if let Some(before) = &before
            && let Some(numbers) = self.numbers.get_mut(before)
        {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.numbers.remove(before);
            }
        }
        if let Some(key) = key {
            self.numbers.entry(key).or_default().insert(number);
            self.lost.remove(&number);
        }
        before
    }

    /// A number is in use: is it lost?
    pub(super) fn note_lost(&mut self, number: u32) {
        if identity::is_shared(number) && !self.keys.contains_key(&number) {
            self.lost.insert(number);
        }
    }

    /// Nobody uses it any more.
    pub(super) fn forget_lost(&mut self, number: u32) {
        self.lost.remove(&number);
    }
}
