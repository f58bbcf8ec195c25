//! Rule table and known identities -> entries, in the terms of `datapath_abi::policy`. Port sets
//! stay by content here; whoever writes the maps numbers them. Knows nothing of Kubernetes.
//!
//! The kernel takes the first entry it finds, so entries are flattened:
//!
//! * PEERS: the entry of an identity holds what its class and "any" would have said, too; an
//!   entry that says the same as the class below it is left out.
//! * PORTS: the entry of a port prefix holds what shorter prefixes and `otherwise` would have said.
//! * REGIONS: blocks and exceptions cut the address space into prefixes; the entry of a prefix
//!   holds what all blocks around it say. A hole in a block is an entry of its own.
//!
//! PEERS and REGIONS are two answers of which the kernel takes the one with the greater
//! precedence, PEERS' if both are equal.

mod error;
mod peers;
mod ports;
mod regions;
mod text;
mod universe;

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use datapath_abi::addr::Addr;
use datapath_abi::endpoint::RulesPtr;
use datapath_abi::identity::CLASS_ANY;
use datapath_abi::policy::{Decision, Verdict};

use crate::compile::{RuleRef, RuleTable};
use crate::model::Action;

pub use error::{LowerError, What};
pub use ports::{Peer, PortPrefix, PortSet, prefixes};
pub use regions::region_key;
pub use universe::{Identity, NotAPodNumber, PodAddress, Universe};

/// What a pod's pointer to its rules leads to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RuleSet {
    /// Flags of [`RulesPtr`].
    pub flags: u8,
    /// PEERS: by identity, or by a `CLASS_` of [`datapath_abi::identity`].
    pub peers: BTreeMap<u32, Peer>,
    /// REGIONS: by first address and length of the prefix in the 128-bit form.
    pub regions: BTreeMap<(Addr, u8), Peer>,
}

impl RuleSet {
    /// Of an isolated pod.
    fn new(peers: BTreeMap<u32, Peer>, regions: BTreeMap<(Addr, u8), Peer>) -> Self {
        let mut flags = RulesPtr::ISOLATED;
        if peers::identities(&peers) > 0 {
            flags |= RulesPtr::HAS_PEERS;
        }
        if peers.range(CLASS_ANY..).next().is_some() {
            flags |= RulesPtr::HAS_CLASSES;
        }
        if !regions.is_empty() {
            flags |= RulesPtr::HAS_REGIONS;
        }
        Self { flags, peers, regions }
    }

    /// Number of entries in PEERS and REGIONS.
    pub fn entries(&self) -> usize {
        self.peers.len() + self.regions.len()
    }
}

/// Gives each rule the number by which the kernel names it in flow events.
pub trait Cookies {
    /// The number of a rule, always the same one.
    fn cookie(&mut self, rule: &RuleRef) -> NonZeroU32;
}

/// Cookies from 1 upward, in the order in which they are first asked for, and back.
#[derive(Clone, Debug, Default)]
pub struct CookieTable {
    numbers: BTreeMap<RuleRef, NonZeroU32>,
    rules: Vec<RuleRef>,
}

impl CookieTable {
    /// The rule that a number names.
    pub fn rule(&self, cookie: u32) -> Option<&RuleRef> {
        self.rules.get(usize::try_from(cookie).ok()?.checked_sub(1)?)
    }
}

impl Cookies for CookieTable {
    fn cookie(&mut self, rule: &RuleRef) -> NonZeroU32 {
        if let Some(number) = self.numbers.get(rule) {
            return *number;
        }
        self.rules.push(rule.clone());
        let number = u32::try_from(self.rules.len()).ok().and_then(NonZeroU32::new);
        let number = number.expect("there are fewer than 2^32 rules, which would not fit into memory");
        self.numbers.insert(rule.clone(), number);
        number
    }
}

/// How large a rule set may grow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Entries in PEERS of one rule set.
    pub peers: usize,
    /// Entries in REGIONS of one rule set.
    pub regions: usize,
    /// Entries in PORTS of one port set.
    pub ports: usize,
}

impl Default for Limits {
    /// A quarter of the maps' default capacities (`datapath_abi::maps::ALL`) for one rule set,
    /// and 4096 port prefixes for one port set.
    fn default() -> Self {
        Self { peers: 32_768, regions: 16_384, ports: 4_096 }
    }
}

/// Lowers a table for the identities known now.
///
/// # Errors
///
/// When the result would exceed [`Limits::default`]; the error names the policy that takes most.
pub fn lower(table: &RuleTable, universe: &Universe, cookies: &mut impl Cookies) -> Result<RuleSet, LowerError> {
    lower_within(table, universe, cookies, &Limits::default())
}

/// The same with limits of the caller's choice.
///
/// # Errors
///
/// When the result would exceed `limits`; the error names the policy that takes most.
pub fn lower_within(
    table: &RuleTable,
    universe: &Universe,
    cookies: &mut impl Cookies,
    limits: &Limits,
) -> Result<RuleSet, LowerError> {
    if !table.is_isolated() {
        return Ok(RuleSet::default());
    }
    let mut flatten = flatten(table, cookies, limits);
    let (peers, split) = peers::peers(table, universe, &mut flatten, limits.peers)?;
    let regions = regions::regions(table, universe, split, &mut flatten, limits.regions)?;
    Ok(RuleSet::new(peers, regions))
}

/// What [`lower_within`] gives now, made from what it gave before and the numbers of the identities that
/// came, went, or changed their pods in between. Costs as much as these identities, not as all.
///
/// # Errors
///
/// As [`lower_within`]. `old` is the caller's to keep then.
pub fn lower_again(
    old: &RuleSet,
    table: &RuleTable,
    universe: &Universe,
    changed: impl IntoIterator<Item = u32>,
    cookies: &mut impl Cookies,
    limits: &Limits,
) -> Result<RuleSet, LowerError> {
    // A name may mean other addresses for whoever changed, and those may lie in any block.
    if !table.is_isolated() || table.rules.iter().any(|rule| rule.ports.has_names()) {
        return lower_within(table, universe, cookies, limits);
    }
    let mut flatten = flatten(table, cookies, limits);
    let RuleSet { flags: _, mut peers, regions } = old.clone();
    for number in changed {
        match peers::peer(table, universe, number, &mut flatten)? {
            Some(peer) => peers.insert(number, peer),
            None => peers.remove(&number),
        };
    }
    if peers::identities(&peers) > limits.peers {
        // Lowering all of it fails with an error that says who takes how much.
        return lower_within(table, universe, cookies, limits);
    }
    Ok(RuleSet::new(peers, regions))
}

fn flatten<'a>(table: &'a RuleTable, cookies: &mut impl Cookies, limits: &Limits) -> ports::Flatten<'a> {
    let decisions = table.rules.iter().map(|rule| Decision {
        cookie: cookies.cookie(&rule.rule).get(),
        precedence: rule.precedence.0,
        verdict: match rule.action {
            Action::Allow => Verdict::Allow,
            Action::Deny => Verdict::Deny,
        } as u8,
        pad: 0,
    });
    ports::Flatten::new(table, decisions.collect(), limits.ports)
}
