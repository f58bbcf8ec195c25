//! The two sides that need no kernel: the oracle, which reads the API's text, and the rules as compile and
//! lower write them, looked up in the model of the maps.

use std::{cell::RefCell, collections::BTreeMap};

use datapath_abi::{endpoint::RulesPtr, policy::Direction, reason::DropReason};
use policy::{
    compile::{RuleRef, RuleTable, compile, compile_staged},
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
    /// As if the staged policies were enforced.
    with_staged: Oracle,
    world: World<'a>,
    sets: RefCell<BTreeMap<(PodKey, Direction), Set>>,
    /// `None`: no staged policy has a say there.
    staged: RefCell<BTreeMap<(PodKey, Direction), Option<Set>>>,
}

#[derive(Debug)]
struct Set {
    table: RuleTable,
    rules: RuleSet,
    cookies: CookieTable,
}

impl<'a> Paper<'a> {
    /// Of objects, and an index of them.
    pub fn new(objects: &[Object], index: &'a Index) -> Self {
        let oracle = Oracle::new(objects.iter().cloned());
        let with_staged = Oracle::with_staged(objects.iter().cloned());
        let (sets, staged) = (RefCell::default(), RefCell::default());
        Self { oracle, with_staged, world: World::new(index), sets, staged }
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

    /// The same, if the staged policies were enforced.
    pub fn oracle_with_staged(&self) -> &Oracle {
        &self.with_staged
    }

    /// What rules on paper would say if the staged policies were enforced; `None` if those have no say
    /// there, or rules are not asked.
    pub fn staged(&self, direction: Direction, flow: &Flow) -> Option<Said> {
        let (subject, peer) = asked(direction, flow)?;
        let mut staged = self.staged.borrow_mut();
        let set = staged
            .entry((subject.clone(), direction))
            .or_insert_with(|| compile_staged(self.world.index(), subject, direction).map(|table| self.lowered(table)));
        set.as_ref().map(|set| self.look_up(set, peer, flow))
    }

    /// Whether any rules are in force for a pod, which could decide about somebody; staged ones not counted.
    pub fn is_ruled(&self, direction: Direction, subject: &PodKey) -> bool {
        self.with_set(direction, subject, |set| RulesPtr::new(0, set.rules.flags, 0).is_ruled())
    }

    fn with_set<T>(&self, direction: Direction, subject: &PodKey, read: impl FnOnce(&Set) -> T) -> T {
        let mut sets = self.sets.borrow_mut();
        let set = sets
            .entry((subject.clone(), direction))
            .or_insert_with(|| self.lowered(compile(self.world.index(), subject, direction)));
        read(set)
    }

    fn lowered(&self, table: RuleTable) -> Set {
        let mut cookies = CookieTable::default();
        let rules = lower(&table, self.world.universe(), &mut cookies).expect("a world is small");
        Set { table, rules, cookies }
    }

    fn look_up(&self, Set { table, rules, cookies }: &Set, peer: &End, flow: &Flow) -> Said {
        match self.world.look_up(table, rules, cookies, peer, flow) {
            Side::Exempt(_) | Side::Open => Said::Passes(None),
            Side::Allowed(rule) => Said::Passes(Some(rule)),
            Side::Denied(rule) => Said::Refuses(Some(DropReason::DenyRule), Some(rule)),
            Side::Isolated(_) => Said::Refuses(Some(DropReason::DefaultDeny), None),
        }
    }
}

/// Whose rules are asked, and about whom; `None` if none are: the pod's own node may always reach it.
fn asked(direction: Direction, flow: &Flow) -> Option<(&PodKey, &End)> {
    match flow.seen_from(direction) {
        (End::Pod(..), End::LocalNode(_)) if direction == Direction::Ingress => None,
        (End::Pod(subject, _), peer) => Some((subject, peer)),
        _ => None,
    }
}

/// The second side: compile, lower, model of the maps.
impl Rules for Paper<'_> {
    fn side(&self, direction: Direction, flow: &Flow) -> Said {
        let Some((subject, peer)) = asked(direction, flow) else { return Said::Passes(None) };
        self.with_set(direction, subject, |set| self.look_up(set, peer, flow))
    }
}
