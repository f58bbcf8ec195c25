//! Equal things read from many rows become one thing in memory: a row's pods and policies are those of the rows
//! before. Bounded: when it is full it starts anew.

use std::{collections::HashMap, sync::Arc};

use flows::record::{IdentityInfo, Node, PodInfo, PolicyInfo, RuleInfo, ServiceInfo};

/// Things of one type that are kept at most.
const MOST: usize = 2048;

/// Things by a word that most of them have to themselves.
#[derive(Debug)]
pub(crate) struct Pool<T>(HashMap<String, Arc<T>>);

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: PartialEq> Pool<T> {
    /// `value`, or one that is equal.
    pub(crate) fn share(&mut self, word: &str, value: T) -> Arc<T> {
        if let Some(known) = self.0.get_mut(word) {
            if **known != value {
                *known = Arc::new(value);
            }
            return known.clone();
        }
        if self.0.len() >= MOST {
            self.0.clear();
        }
        let value = Arc::new(value);
        self.0.insert(word.to_owned(), value.clone());
        value
    }
}

/// Everything that records share.
#[derive(Debug, Default)]
pub struct Pools {
    pub(crate) nodes: Pool<Node>,
    pub(crate) pods: Pool<PodInfo>,
    pub(crate) identities: Pool<IdentityInfo>,
    pub(crate) services: Pool<ServiceInfo>,
    pub(crate) policies: Pool<PolicyInfo>,
    pub(crate) rules: Pool<RuleInfo>,
}
