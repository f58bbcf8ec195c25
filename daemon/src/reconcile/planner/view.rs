//! The plan, for people to look at.

use std::sync::Arc;

use datapath_abi::{endpoint::RulesPtr, policy::Direction};
use policy::{RuleSet, RuleTable, model::Pod};

use super::{Planner, point::DENIED};
use crate::reconcile::{endpoint::LocalEndpoint, mirror::Mirror};

/// One direction of an endpoint, for people.
#[derive(Clone, PartialEq, Debug)]
pub struct DirectionView {
    /// Which.
    pub direction: Direction,
    /// The pointer in force.
    pub rules: RulesPtr,
    /// What should be in force.
    pub table: Arc<RuleTable>,
    /// Whether it is.
    pub complete: bool,
    /// What would be in force with the staged policies; `None` if none of those has a say.
    pub staged: Option<Arc<RuleTable>>,
}

/// An endpoint, for people.
#[derive(Clone, PartialEq, Debug)]
pub struct EndpointView {
    /// The endpoint.
    pub endpoint: LocalEndpoint,
    /// Its identity.
    pub identity: u32,
    /// Its pod.
    pub pod: Pod,
    /// Whether the source has an object for the pod.
    pub has_object: bool,
    /// Egress, ingress.
    pub directions: [DirectionView; 2],
}

impl Planner {
    /// Every endpoint with its rules, by slot.
    pub fn views(&self, mirror: &Mirror) -> Vec<EndpointView> {
        self.endpoints.values().filter_map(|endpoint| self.view(endpoint, mirror)).collect()
    }

    fn view(&self, endpoint: &LocalEndpoint, mirror: &Mirror) -> Option<EndpointView> {
        let in_force = mirror.endpoints.get(&endpoint.slot);
        let direction = |direction: Direction| {
            let (digest, table) = self.tables.get(&(endpoint.slot, direction))?;
            let complete = table.is_open()
                || self.sets.get(digest).is_some_and(|set| set.refused.is_none() && set.installed.is_some());
            let rules = RulesPtr(in_force.map_or(DENIED.0, |entry| entry.rules[direction as usize]));
            let staged = self.staged.get(&(endpoint.slot, direction)).map(|(_, table)| table.clone());
            Some(DirectionView { direction, rules, table: table.clone(), complete, staged })
        };
        Some(EndpointView {
            identity: self.identity_of(endpoint),
            pod: self.index.pod(&endpoint.pod)?.clone(),
            has_object: self.sourced.contains(&endpoint.pod) && !self.orphans.contains(&endpoint.pod),
            directions: [direction(Direction::Egress)?, direction(Direction::Ingress)?],
            endpoint: endpoint.clone(),
        })
    }

    /// How many rule sets there are.
    pub fn rule_sets(&self) -> usize {
        self.sets.len()
    }

    /// The lowered content of a rule set, by number.
    pub fn rule_set(&self, number: u32) -> Option<&RuleSet> {
        self.sets.values().find(|set| set.number == number)?.installed.as_ref()
    }

    /// The table a rule set was made of, by number.
    pub fn rule_table(&self, number: u32) -> Option<&Arc<RuleTable>> {
        self.sets.values().find(|set| set.number == number).map(|set| &set.table)
    }
}
