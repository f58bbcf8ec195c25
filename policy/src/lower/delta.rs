//! What an identity that comes, goes or changes its pods changes of a rule set, without a look at all others.
//! Whether the difference may be written into a rule set in force is not decided here.

use std::collections::BTreeMap;

use super::error::LowerError;
use super::peers::{OneByOne, Split, identities};
use super::ports::{Flatten, Peer};
use super::stages::Stages;
use super::universe::Universe;
use super::{Cookies, Limits, RuleSet, Stage};
use crate::compile::{RuleTable, TablePeers};

/// Entries of PEERS that a rule set should have now, or no longer, where that differs from what it has.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Delta {
    /// In the first stage, by identity. `None`: no entry.
    pub first: BTreeMap<u32, Option<Peer>>,
    /// In the second one.
    pub second: BTreeMap<u32, Option<Peer>>,
}

impl Delta {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.first.is_empty() && self.second.is_empty()
    }

    /// The identities whose entries change, some twice.
    pub fn identities(&self) -> impl Iterator<Item = u32> {
        self.first.keys().chain(self.second.keys()).copied()
    }
}

impl RuleSet {
    /// Carries out a difference. Returns the one that leads back.
    pub fn change(&mut self, delta: Delta) -> Delta {
        let swap = |peers: &mut BTreeMap<u32, Peer>, entries: BTreeMap<u32, Option<Peer>>| {
            let swapped = entries.into_iter().map(|(number, peer)| match peer {
                Some(peer) => (number, peers.insert(number, peer)),
                None => (number, peers.remove(&number)),
            });
            swapped.collect()
        };
        let Delta { first, second } = delta;
        let first = swap(&mut self.peers, first);
        let second = self.second.as_mut().map(|stage| swap(&mut stage.peers, second)).unwrap_or_default();
        self.reflag();
        Delta { first, second }
    }
}

/// How `old`, which `table` was lowered to, differs from what [`super::lower_within`] would give now, if since
/// then the identities with these numbers came, went or changed their pods, and nothing else happened.
/// Costs as much as these identities, not as all. `None`: only lowering all of it will tell.
///
/// # Errors
///
/// When the policies' rules for one of them are too many.
pub fn delta(
    old: &RuleSet,
    table: &RuleTable,
    universe: &Universe,
    changed: impl IntoIterator<Item = u32>,
    cookies: &mut impl Cookies,
    limits: &Limits,
) -> Result<Option<Delta>, LowerError> {
    if table.is_open() {
        return Ok(Some(Delta::default()));
    }
    if table.has_names() && by_address(old, table) {
        return Ok(None);
    }
    let stages = Stages::of(table);
    if stages.second.is_some() != old.second.is_some() {
        return Ok(None);
    }
    let decisions = stages.decisions(cookies);
    let changed: Vec<u32> = changed.into_iter().collect();
    let mut split = Split::new();
    let mut of_stage = |table: &RuleTable, old: &BTreeMap<u32, Peer>| -> Result<_, LowerError> {
        let decisions = decisions[decisions.len() - table.rules.len()..].to_vec();
        let mut flatten = Flatten::new(table, decisions, limits);
        let one_by_one = OneByOne::new(table, &mut flatten)?;
        let mut entries: BTreeMap<u32, Option<Peer>> = BTreeMap::new();
        for &number in &changed {
            let peer = match universe.get(number) {
                Some(identity) => one_by_one.entry(identity, &mut flatten, &mut split)?,
                None => None,
            };
            if old.get(&number) != peer.as_ref() {
                entries.insert(number, peer);
            }
        }
        let more = entries.iter().filter(|(number, peer)| peer.is_some() && !old.contains_key(number)).count();
        let fewer = entries.values().filter(|peer| peer.is_none()).count();
        let fits = identities(old) + more - fewer <= limits.peers;
        Ok(fits.then_some(entries))
    };
    let first = of_stage(&stages.first, &old.peers)?;
    let second = match (&stages.second, &old.second) {
        (Some(table), Some(Stage { peers, .. })) => of_stage(table, peers)?,
        _ => Some(BTreeMap::new()),
    };
    // What does not fit is to be refused with an error that says who takes how much.
    let delta = first.zip(second).map(|(first, second)| Delta { first, second });
    Ok(delta.filter(|_| split.is_empty()))
}

/// Whether something may be said by address that depends on the pods there are: what port names mean.
fn by_address(old: &RuleSet, table: &RuleTable) -> bool {
    let said = !old.regions.is_empty() || old.second.as_ref().is_some_and(|stage| !stage.regions.is_empty());
    let in_blocks = |peers: &TablePeers| matches!(peers, TablePeers::These { blocks, .. } if !blocks.is_empty());
    said || table.rules.iter().any(|rule| rule.ports.has_names() && in_blocks(&rule.peers))
}
