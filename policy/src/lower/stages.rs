//! How many times the programs have to ask: once, or once more after a Pass.
//!
//! A Pass of the Admin tier ends that tier, so no rule of it that comes later counts, but those of the
//! next tier do. Precedence alone cannot say that when the Pass is found by identity and a later Deny
//! by address: the programs take the greater of two answers, and cannot ask one map for its second.
//! So a table with such a Pass becomes two stages, of which the second holds what comes after the
//! Admin tier, and is asked only by those who were passed on.

use std::borrow::Cow;

use datapath_abi::policy::{Decision, Verdict};

use super::Cookies;
use super::error::{LowerError, What};
use crate::compile::{RuleTable, TableRule};
use crate::model::{Action, Precedence};

/// What is to be lowered.
#[derive(Debug)]
pub(super) struct Stages<'a> {
    /// Asked first.
    pub(super) first: Cow<'a, RuleTable>,
    /// Asked where the first one says Pass.
    pub(super) second: Option<RuleTable>,
}

impl<'a> Stages<'a> {
    pub(super) fn of(table: &'a RuleTable) -> Self {
        let is_pass = |rule: &TableRule| rule.precedence.is_admin() && rule.action == Action::Pass;
        let admin = table.rules.iter().take_while(|rule| rule.precedence.is_admin()).count();
        // What the tier ends with passes on without being told to.
        let needed = table.rules[..admin].iter().rposition(|rule| !is_pass(rule)).map_or(0, |last| last + 1);
        let first = if needed == admin {
            Cow::Borrowed(table)
        } else {
            let rules = table.rules[..needed].iter().chain(&table.rules[admin..]).cloned().collect();
            Cow::Owned(RuleTable { rules, isolated_by: table.isolated_by.clone(), direction: table.direction })
        };
        let rest = &table.rules[admin..];
        let anything_below = table.is_isolated() || !rest.is_empty();
        let second = (anything_below && table.rules[..needed].iter().any(is_pass)).then(|| RuleTable {
            rules: rest.to_vec(),
            isolated_by: table.isolated_by.clone(),
            direction: table.direction,
        });
        Self { first, second }
    }

    /// What each rule of the first stage says; those of the second end the list of the first.
    pub(super) fn decisions(&self, cookies: &mut impl Cookies) -> Vec<Decision> {
        let decisions = self.first.rules.iter().map(|rule| {
            let cookie = cookies.cookie(&rule.rule).get();
            let (verdict, cookie) = match rule.action {
                Action::Allow => (Verdict::Allow, cookie),
                Action::Deny => (Verdict::Deny, cookie),
                Action::Pass if rule.precedence.is_baseline() => (Verdict::Allow, cookie),
                Action::Pass if self.second.is_some() => (Verdict::Pass, cookie),
                // Nothing comes after it: passes, and no rule is to be named for that.
                Action::Pass => (Verdict::Allow, 0),
            };
            Decision { cookie, precedence: rule.precedence.0, verdict: verdict as u8, pad: 0 }
        });
        decisions.collect()
    }
}

/// Whether every rule of ClusterNetworkPolicy could get a place of its own.
pub(super) fn check_ranks(table: &RuleTable) -> Result<(), LowerError> {
    let limit = Precedence::TIER_RULES;
    let cluster = table.rules.iter().filter(|rule| rule.precedence != Precedence::NETWORK_POLICY);
    let (admin, baseline): (Vec<_>, Vec<_>) = cluster.partition(|rule| rule.precedence.is_admin());
    for rules in [admin, baseline] {
        let needed = rules.len();
        if needed <= limit {
            continue;
        }
        // Rules of one policy stand side by side.
        let policies = rules.chunk_by(|one, other| one.rule.policy == other.rule.policy);
        let worst =
            policies.rev().max_by_key(|rules| rules.len()).and_then(|rules| rules.first().map(|it| (it, rules)));
        let (first, of_worst) = worst.expect("there are more rules than the limit, so there is one");
        let policy = first.rule.policy.clone();
        return Err(LowerError { what: What::Ranks, needed, limit, policy, share: of_worst.len() });
    }
    Ok(())
}
