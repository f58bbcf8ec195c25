//! What has changed since the last plan about those whom rules may speak of.

use std::collections::{BTreeMap, BTreeSet};

use datapath_abi::identity;
use policy::{IdentityKey, RuleTable, Universe};

use super::Planner;

/// Identities that came, went, or whose pods changed; and nodes.
#[derive(Debug, Default)]
pub(super) struct Stirred {
    /// What their numbers stand for, without pods.
    identities: Universe,
    /// Whether each had pods when the last plan was made.
    was_there: BTreeMap<u32, bool>,
    /// Whether labels or addresses of nodes have changed.
    pub(super) nodes: bool,
}

impl Stirred {
    /// Notes an identity before anything about it changes in `universe`; `key` if it may be new there.
    pub(super) fn note(&mut self, number: u32, universe: &Universe, key: Option<&IdentityKey>) {
        if self.was_there.contains_key(&number) {
            return;
        }
        let known = universe.get(number);
        if let Some(key) = known.map(|identity| identity.key()).or(key) {
            self.identities.insert(number, key.clone()).expect("Identities gives numbers of pods only");
            self.was_there.insert(number, known.is_some());
        }
    }

    /// The identities for which a table may say something else than it did. If only pods came or went of one, that
    /// is so if it matters what they call their ports.
    fn concerned(&self, table: &RuleTable, universe: &Universe) -> BTreeSet<u32> {
        let mut numbers = table.concerned(&self.identities);
        if !table.has_names() {
            let there = |number: &u32| self.was_there.get(number).copied().unwrap_or(false);
            numbers.retain(|number| !there(number) || universe.get(*number).is_none());
        }
        numbers
    }
}

impl Planner {
    /// The identities for which a table may say something else than at the last plan.
    pub(super) fn concerned(&self, table: &RuleTable) -> BTreeSet<u32> {
        self.stirred.concerned(table, &self.universe)
    }

    /// Whether a table may say something else about nodes.
    pub(super) fn nodes_concern(&self, table: &RuleTable) -> bool {
        self.stirred.nodes && table.names_nodes()
    }

    /// Whether a packet may bear this identity until the plan that is being made is carried out. Classes
    /// stand for somebody always.
    pub(super) fn is_carried(&self, who: u32) -> bool {
        if who > identity::MAX {
            return true;
        }
        match (&self.carried, self.stirred.was_there.get(&who)) {
            (Some(found), _) => found.contains(&who),
            (None, Some(was_there)) => *was_there,
            (None, None) => self.universe.get(who).is_some(),
        }
    }

    /// Whether a packet may bear it before and after.
    pub(super) fn stays_carried(&self, who: u32) -> bool {
        self.is_carried(who) && (who > identity::MAX || self.universe.get(who).is_some())
    }
}
