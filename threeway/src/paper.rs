//! The two sides that need no kernel: the oracle, which reads the API's text, and the rules as compile and
//! lower write them, looked up in the model of the maps.

use std::{cell::RefCell, collections::BTreeMap};

use datapath_abi::{policy::Direction, reason::DropReason};
use policy::{
    compile::{RuleRef, RuleTable, compile},
    explain,
    index::Index,
    lower::{CookieTable, RuleSet, lower},
    model::{Object, PodKey},
    oracle::Oracle,
    world::{End, Flow, Side, World},
};

/// What one end's rules say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    /// It may pass; the rule that says so, if one does and this side knows which.
    Passes(Option<RuleRef>),
    /// It may not. Why, and the rule, if this side knows.
    Refuses(Option<DropReason>, Option<RuleRef>),
}

impl Said {
    /// Whether it may pass.
    pub fn passes(&self) -> bool {
        matches!(self, Self::Passes(_))
    }
}

/// Somebody who says what rules say.
pub trait Rules {
    /// The source's egress rules, or the destination's ingress rules. Asked about pods of the node alone.
    fn side(&self, direction: Direction, flow: &Flow) -> Said;
}

/// What objects say until they change.
#[derive(Debug)]
pub struct Paper<'a> {
    oracle: Oracle,
    world: World<'a>,
    sets: RefCell<Sets>,
}

type Sets = BTreeMap<(PodKey, Direction), (RuleTable, RuleSet, CookieTable)>;

impl<'a> Paper<'a> {
    /// Of objects, and an index of them.
    pub fn new(objects: &[Object], index: &'a Index) -> Self {
        let oracle = Oracle::new(objects.iter().cloned());
        Self { oracle, world: World::new(index), sets: RefCell::default() }
    }

    /// Why a flow passes or does not, in words.
    pub fn explain(&self, flow: &Flow) -> String {
        match explain(&self.world, flow) {
            Ok(explanation) => explanation.to_string(),
            Err(error) => format!("{flow}: {error}\n"),
        }
    }
}

impl Rules for Oracle {
    fn side(&self, direction: Direction, flow: &Flow) -> Said {
        let allows = match direction {
            Direction::Egress => self.egress_allows(flow),
            Direction::Ingress => self.ingress_allows(flow),
        };
        if allows { Said::Passes(None) } else { Said::Refuses(None, None) }
    }
}

impl Paper<'_> {
    /// The first side: the API's text.
    pub fn oracle(&self) -> &Oracle {
        &self.oracle
    }
}

/// The second side: compile, lower, model of the maps.
impl Rules for Paper<'_> {
    fn side(&self, direction: Direction, flow: &Flow) -> Said {
        let (End::Pod(subject, _), peer) = flow.seen_from(direction) else { return Said::Passes(None) };
        if direction == Direction::Ingress && matches!(peer, End::LocalNode(_)) {
            return Said::Passes(None);
        }
        let mut sets = self.sets.borrow_mut();
        let (table, rules, cookies) = sets.entry((subject.clone(), direction)).or_insert_with(|| {
            let table = compile(self.world.index(), subject, direction);
            let mut cookies = CookieTable::default();
            let rules = lower(&table, self.world.universe(), &mut cookies).expect("a world is small");
            (table, rules, cookies)
        });
        match self.world.look_up(table, rules, cookies, peer, flow) {
            Side::Exempt(_) | Side::Open => Said::Passes(None),
            Side::Allowed(rule) => Said::Passes(Some(rule)),
            Side::Denied(rule) => Said::Refuses(Some(DropReason::DenyRule), Some(rule)),
            Side::Isolated(_) => Said::Refuses(Some(DropReason::DefaultDeny), None),
        }
    }
}
