//! Why a table was not lowered: it would not fit.

use std::collections::BTreeMap;
use std::fmt;

use thiserror::Error;

use crate::compile::RuleTable;
use crate::model::PolicyRef;

/// A rule set that would be too large.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{policy} takes {share} of {needed} {what}, more than the {limit} that one rule set may have: {}", .what.fix())]
pub struct LowerError {
    /// What there is too much of.
    pub what: What,
    /// How many, counted until it was clear that they are too many.
    pub needed: usize,
    /// How many there may be.
    pub limit: usize,
    /// The policy whose rules need most of them.
    pub policy: PolicyRef,
    /// How many of them its rules take part in.
    pub share: usize,
}

/// What a rule set can have too much of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// Entries for identities.
    Peers,
    /// Entries for address prefixes.
    Regions,
    /// Port prefixes of one peer.
    Ports,
}

impl What {
    const fn fix(self) -> &'static str {
        match self {
            Self::Peers => "select fewer pods, or all of them with an empty namespaceSelector",
            Self::Regions => "use fewer or wider ipBlocks and exceptions",
            Self::Ports => "use fewer or wider port ranges",
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Peers => "entries for identities",
            Self::Regions => "entries for address prefixes",
            Self::Ports => "port prefixes for one peer",
        })
    }
}

/// Counts who needs how many, so that an error can name the one that needs most.
#[derive(Debug)]
pub(super) struct Budget {
    what: What,
    limit: usize,
    needed: usize,
    shares: BTreeMap<usize, usize>,
}

impl Budget {
    pub(super) fn new(what: What, limit: usize) -> Self {
        Self { what, limit, needed: 0, shares: BTreeMap::new() }
    }

    /// One more, which these rules (places in the table) take part in.
    pub(super) fn take(&mut self, table: &RuleTable, rules: impl IntoIterator<Item = usize>) -> Result<(), LowerError> {
        self.needed += 1;
        for rule in rules {
            *self.shares.entry(rule).or_insert(0) += 1;
        }
        if self.needed <= self.limit {
            return Ok(());
        }
        let mut by_policy: BTreeMap<&PolicyRef, usize> = BTreeMap::new();
        for (rule, share) in &self.shares {
            let policy = &table.rules[*rule].rule.policy;
            let most = by_policy.entry(policy).or_insert(0);
            *most = (*most).max(*share);
        }
        let worst = by_policy.into_iter().rev().max_by_key(|(_, share)| *share);
        let (policy, share) = worst.expect("what takes space comes from a rule");
        Err(LowerError { what: self.what, needed: self.needed, limit: self.limit, policy: policy.clone(), share })
    }
}
