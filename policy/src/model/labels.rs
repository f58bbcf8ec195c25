//! A set of labels. Cheap to clone: thousands of pods share the labels of one namespace.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Labels of an object, each key once, in order of keys. Prints as `a=1,b=2`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Labels(Arc<BTreeMap<String, String>>);

impl Labels {
    /// The value of a key, `None` if the object has no such label.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Whether there is a label with this key.
    pub fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Keys and values in order of keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// All of them, shared.
    pub fn map(&self) -> Arc<BTreeMap<String, String>> {
        self.0.clone()
    }

    /// Whether somebody else holds these very labels.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// Whether these are the very same ones, not only equal.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Number of labels.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same labels with `key` set to `value`.
    #[must_use]
    pub fn with(self, key: &str, value: &str) -> Self {
        if self.get(key) == Some(value) {
            return self;
        }
        let mut map = Arc::unwrap_or_clone(self.0);
        map.insert(key.to_owned(), value.to_owned());
        Self(Arc::new(map))
    }

    /// The labels whose key satisfies `keep`; shares memory when that is all of them.
    #[must_use]
    pub fn filtered(&self, keep: impl Fn(&str) -> bool) -> Self {
        if self.0.keys().all(|key| keep(key)) {
            return self.clone();
        }
        self.iter().filter(|(key, _)| keep(key)).collect()
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Labels {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(labels: I) -> Self {
        Self(Arc::new(labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect()))
    }
}

impl From<BTreeMap<String, String>> for Labels {
    fn from(map: BTreeMap<String, String>) -> Self {
        Self(Arc::new(map))
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (key, value)) in self.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            write!(f, "{comma}{key}={value}")?;
        }
        Ok(())
    }
}
