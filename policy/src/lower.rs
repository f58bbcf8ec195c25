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
//! precedence, PEERS' if both are equal. If that answer is Pass, it asks the rule set's second stage.

mod delta;
mod error;
mod peers;
mod ports;
mod regions;
mod stages;
mod text;
mod universe;

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use datapath_abi::addr::Addr;
use datapath_abi::endpoint::RulesPtr;
use datapath_abi::identity::{CLASS_ANY, MAX};
use datapath_abi::policy::Decision;

use crate::compile::{RuleRef, RuleTable};

use ports::Flatten;
use stages::Stages;

pub use delta::{Delta, delta};
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
    /// What is asked where these say Pass. In the maps it goes by the rule set's number plus one; the
    /// flags are those of both.
    pub second: Option<Stage>,
}

/// The second stage of a rule set: the same two maps.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stage {
    /// PEERS.
    pub peers: BTreeMap<u32, Peer>,
    /// REGIONS.
    pub regions: BTreeMap<(Addr, u8), Peer>,
}

impl Stage {
    fn flags(&self) -> u8 {
        let mut flags = 0;
        if self.peers.range(..=MAX).next().is_some() {
            flags |= RulesPtr::HAS_PEERS;
        }
        if self.peers.range(CLASS_ANY..).next().is_some() {
            flags |= RulesPtr::HAS_CLASSES;
        }
        if !self.regions.is_empty() {
            flags |= RulesPtr::HAS_REGIONS;
        }
        flags
    }
}

impl RuleSet {
    fn new(isolated: bool, first: Stage, second: Option<Stage>) -> Self {
        let isolated = if isolated { RulesPtr::ISOLATED } else { 0 };
        let flags = isolated | first.flags() | second.as_ref().map_or(0, Stage::flags);
        let Stage { peers, regions } = first;
        Self { flags, peers, regions, second }
    }

    /// Says again which kinds of entries there are.
    fn reflag(&mut self) {
        let first = Stage { peers: std::mem::take(&mut self.peers), regions: std::mem::take(&mut self.regions) };
        *self = Self::new(self.flags & RulesPtr::ISOLATED != 0, first, self.second.take());
    }

    /// Number of entries in PEERS and REGIONS.
    pub fn entries(&self) -> usize {
        let second = self.second.as_ref().map_or(0, |stage| stage.peers.len() + stage.regions.len());
        self.peers.len() + self.regions.len() + second
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
    /// Entries in PORTS of all port sets of one stage of a rule set.
    pub port_sets: usize,
}

impl Default for Limits {
    /// A quarter of the maps' default capacities (`datapath_abi::maps::ALL`) for one rule set,
    /// and 4096 port prefixes for one port set.
    fn default() -> Self {
        Self { peers: 32_768, regions: 16_384, ports: 4_096, port_sets: 16_384 }
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
    if table.is_open() {
        return Ok(RuleSet::default());
    }
    stages::check_ranks(table)?;
    let stages = Stages::of(table);
    let decisions = stages.decisions(cookies);
    let stage = |table: &RuleTable, decisions: &[Decision]| -> Result<Stage, LowerError> {
        let mut flatten = Flatten::new(table, decisions.to_vec(), limits);
        let (peers, split) = peers::peers(table, universe, &mut flatten, limits.peers)?;
        let regions = regions::regions(table, universe, split, &mut flatten, limits.regions)?;
        Ok(Stage { peers, regions })
    };
    let first = stage(&stages.first, &decisions)?;
    let second = match &stages.second {
        Some(second) => Some(stage(second, &decisions[decisions.len() - second.rules.len()..])?),
        None => None,
    };
    Ok(RuleSet::new(table.is_isolated(), first, second))
}
