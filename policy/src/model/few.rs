//! A small set that is cheap to keep ten thousand times: no room to grow in, shared by its clones.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// A sorted set. Clones are one allocation; reads as a slice; whoever changes it makes a new one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Few<T>(Arc<[T]>);

impl<T: Ord + Clone> Few<T> {
    /// Whether an item is in it.
    pub fn contains(&self, item: &T) -> bool {
        self.0.binary_search(item).is_ok()
    }

    /// Adds an item.
    pub fn insert(&mut self, item: T) {
        if !self.contains(&item) {
            *self = self.iter().cloned().chain([item]).collect();
        }
    }

    /// Keeps the items for which `keep` holds.
    pub fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        if !self.iter().all(&keep) {
            *self = self.iter().filter(|item| keep(item)).cloned().collect();
        }
    }
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: fmt::Debug> fmt::Debug for Few<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(&*self.0).finish()
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: Ord> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut items: Vec<T> = items.into_iter().collect();
        items.sort_unstable();
        items.dedup();
        Self(items.into())
    }
}

impl<T: Ord, const N: usize> From<[T; N]> for Few<T> {
    fn from(items: [T; N]) -> Self {
        items.into_iter().collect()
    }
}

impl<'a, T> IntoIterator for &'a Few<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_set() {
        let mut few = Few::from([3, 1, 3]);
        let kept = few.clone();
        assert_eq!(*few, [1, 3]);
        few.insert(2);
        few.insert(2);
        assert_eq!(*few, [1, 2, 3]);
        few.retain(|item| *item != 1);
        assert!(few == [2, 3].into() && few.contains(&3) && !few.contains(&1));
        assert_eq!(*kept, [1, 3], "who has the same one keeps what he had");
    }
}
