//! Who has a label: lets a selector look at the few objects that can match, not at all of them.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::Labels;
use crate::selector::{Operator, Requirement, Selector, Values};

/// Items by label key and value. Holds nothing for labels that nobody has, so that equal contents
/// are equal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Postings<T> {
    items: BTreeMap<String, BTreeMap<String, BTreeSet<T>>>,
}

impl<T> Default for Postings<T> {
    fn default() -> Self {
        Self { items: BTreeMap::new() }
    }
}

impl<T: Ord + Clone> Postings<T> {
    /// Files an item under one label.
    pub(crate) fn put(&mut self, key: &str, value: &str, item: &T) {
        if let Some(items) = self.items.get_mut(key).and_then(|values| values.get_mut(value)) {
            items.insert(item.clone());
            return;
        }
        let values = self.items.entry(key.to_owned()).or_default();
        values.entry(value.to_owned()).or_default().insert(item.clone());
    }

    /// Takes an item from under one label.
    pub(crate) fn take(&mut self, key: &str, value: &str, item: &T) {
        let Some(values) = self.items.get_mut(key) else { return };
        let Some(items) = values.get_mut(value) else { return };
        items.remove(item);
        if items.is_empty() {
            values.remove(value);
        }
        if values.is_empty() {
            self.items.remove(key);
        }
    }

    /// Files an item under all its labels.
    pub(crate) fn put_all(&mut self, labels: &Labels, item: &T) {
        labels.iter().for_each(|(key, value)| self.put(key, value, item));
    }

    /// Takes an item from under all its labels.
    pub(crate) fn take_all(&mut self, labels: &Labels, item: &T) {
        labels.iter().for_each(|(key, value)| self.take(key, value, item));
    }

    /// The items under one label.
    pub(crate) fn under(&self, key: &str, value: &str) -> impl Iterator<Item = &T> {
        self.items.get(key).and_then(|values| values.get(value)).into_iter().flatten()
    }

    /// The items that a selector can match, perhaps with others; each once if a label has one
    /// value. `None` if that may be any item, also one without labels.
    pub(crate) fn candidates<'a>(&'a self, selector: &'a Selector) -> Option<impl Iterator<Item = &'a T>> {
        let (key, values) = narrowest(selector)?;
        Some(values.iter().flat_map(move |value| self.under(key, value)))
    }
}

/// The requirement of a selector that an object can only meet with one of a few labels: the one
/// with the fewest values. `None` if it has none of this kind.
pub(crate) fn narrowest(selector: &Selector) -> Option<(&str, &Values)> {
    let lists = selector.requirements().iter().filter_map(|Requirement { key, operator }| match operator {
        Operator::In(values) => Some((key.as_str(), values)),
        Operator::NotIn(_) | Operator::Exists | Operator::DoesNotExist => None,
    });
    lists.min_by_key(|(_, values)| values.iter().count())
}
