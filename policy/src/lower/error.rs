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
    /// Port prefixes of all peers, those that are the same for several of them once.
    PortSets,
    /// Rules of one tier of ClusterNetworkPolicy, which need a place each.
    Ranks,
}

impl What {
    const fn fix(self) -> &'static str {
        match self {
            Self::Peers => "select fewer pods, or all of them with an empty namespaceSelector",
            Self::Regions => "use fewer or wider ipBlocks and exceptions",
            Self::Ports => "use fewer or wider port ranges",
            Self::PortSets => "use fewer port ranges, or the same for more peers",
            Self::Ranks => "let fewer ClusterNetworkPolicies of one tier select the same pods",
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Peers => "entries for identities",
            Self::Regions => "entries for address prefixes",
            Self::Ports => "port prefixes for one peer",
            Self::PortSets => "port prefixes for all peers",
            Self::Ranks => "rules of one tier",
        })
    }
}

/// Counts who needs how many, so that an error can name the one that needs most.
#[derive(Debug)]
pub(super) struct Budget<'a> {
    what: What,
    limit: usize,
    needed: usize,
    /// Every policy of the table, with its count and the last one it was counted for.
    policies: Vec<(&'a PolicyRef, usize, usize)>,
    /// By place of a rule: its policy's place among these.
    owners: Vec<usize>,
}

impl<'a> Budget<'a> {
    pub(super) fn new(what: What, limit: usize, table: &'a RuleTable) -> Self {
        let mut policies: Vec<(&PolicyRef, usize, usize)> = Vec::new();
        let mut places: BTreeMap<&PolicyRef, usize> = BTreeMap::new();
        let owners = table.rules.iter().map(|rule| {
            *places.entry(&rule.rule.policy).or_insert_with(|| {
                policies.push((&rule.rule.policy, 0, 0));
                policies.len() - 1
            })
        });
        let owners = owners.collect();
        Self { what, limit, needed: 0, policies, owners }
    }

    /// One more, which these rules (places in the table) take part in.
    pub(super) fn take(&mut self, rules: impl IntoIterator<Item = usize>) -> Result<(), LowerError> {
        self.needed += 1;
        for rule in rules {
            let (_, count, last) = &mut self.policies[self.owners[rule]];
            if *last != self.needed {
                *last = self.needed;
                *count += 1;
            }
        }
        if self.needed <= self.limit {
            return Ok(());
        }
        let worst = self.policies.iter().rev().max_by_key(|(_, count, _)| *count);
        let (policy, share, _) = worst.expect("a table that needs entries has rules");
        let (what, needed, limit) = (self.what, self.needed, self.limit);
        Err(LowerError { what, needed, limit, policy: (*policy).clone(), share: *share })
    }
}
