//! Endpoints, and the pointers to their rules.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use datapath_abi::{
    addr::Addr,
    endpoint::{Endpoint, RulesPtr, Swing},
    identity,
    policy::Direction,
};
use policy::{
    RuleSet,
    lower::{Delta, Peer},
};

use super::{DIRECTIONS, Planner, draft::Draft, install::Changed};
use crate::reconcile::{
    change::{Change, Refusal, Remains},
    endpoint::LocalEndpoint,
    mirror::Mirror,
};

/// Isolated, and nothing is allowed.
pub(super) const DENIED: RulesPtr = RulesPtr::new(0, RulesPtr::ISOLATED, 0);

impl Planner {
    /// Points every endpoint at its rules; makes and clears entries of ENDPOINTS.
    pub(super) fn point(
        &mut self,
        mirror: &Mirror,
        draft: &mut Draft<'_>,
        changed: &Changed,
        moved: &[(u32, u32)],
    ) -> Vec<Refusal> {
        let moves = Moves::new(moved);
        let in_use: BTreeSet<u32> = mirror.rulesets_in_use().collect();
        let mut asked_again: BTreeMap<u32, bool> = BTreeMap::new();
        for set in self.sets.values().filter(|set| in_use.contains(&set.number)) {
            let back = changed.back.get(&set.number);
            let again = changed.bumped.contains(&set.number)
                || set.installed.as_ref().is_some_and(|now| moves.matter(now, back));
            asked_again.insert(set.number, again);
        }
        let mut next = mirror.generation.max(1);
        let mut refusals = Vec::new();
        for endpoint in self.endpoints.values() {
            let fresh = self.fresh(endpoint);
            let found = mirror
                .endpoints
                .get(&endpoint.slot)
                .filter(|found| Endpoint { rules: found.rules, identity: found.identity, ..fresh } == **found);
            let mut rules = found.map_or([0; 2], |found| found.rules);
            let mut would_be = [0; 2];
            for direction in DIRECTIONS {
                let at = direction as usize;
                let current = RulesPtr(rules[at]);
                let (wanted, refusal) = self.pointer(endpoint, direction, found.map(|_| current));
                refusals.extend(refusal);
                let (staged, refusal) = self.staged_pointer(endpoint, direction);
                refusals.extend(refusal);
                would_be[at] = staged.0;
                let has_staged = if staged.0 == 0 { 0 } else { RulesPtr::HAS_STAGED };
                let flags = wanted.flags() & !RulesPtr::HAS_STAGED | has_staged;
                let wanted = RulesPtr::new(0, flags, wanted.ruleset());
                let same = (wanted.flags(), wanted.ruleset()) == (current.flags(), current.ruleset());
                let again = wanted.ruleset() != 0 && asked_again.get(&wanted.ruleset()).copied().unwrap_or(false);
                // A new endpoint never starts with a word that another has had, open ones included:
                // conntrack knows endpoints by it.
                if !same || again || found.is_none() || current.generation() == 0 {
                    rules[at] = RulesPtr::new(next as u32, wanted.flags(), wanted.ruleset()).0;
                    next += 1;
                }
            }
            draft.put_staged(endpoint.slot, would_be);
            let entry = Endpoint { rules, ..fresh };
            match found {
                None => draft.put_endpoint(endpoint, entry),
                Some(found) if *found != entry => {
                    draft.swing(Swing { rules, slot: endpoint.slot, identity: entry.identity });
                }
                Some(_) => {}
            }
            if mirror.interfaces.get(&endpoint.ifindex) != Some(&endpoint.slot) {
                draft.put_interface(endpoint.ifindex, endpoint.slot);
            }
        }
        for (&ifindex, slot) in &mirror.interfaces {
            if self.endpoints.get(slot).is_none_or(|endpoint| endpoint.ifindex != ifindex) {
                draft.clear(Change::DropInterface(ifindex));
            }
        }
        for &slot in mirror.endpoints.keys() {
            if !self.endpoints.contains_key(&slot) {
                draft.clear(Change::ClearEndpoint(slot));
            }
        }
        for &slot in mirror.staged.keys() {
            if !self.endpoints.contains_key(&slot) {
                draft.clear(Change::PutStaged(slot, [0; 2]));
            }
        }
        if next != mirror.generation.max(1) || mirror.generation == 0 {
            draft.set_generation(next);
        }
        refusals.sort();
        refusals
    }

    /// Where STAGED should lead for an endpoint: 0 if no staged policy has a say, or what it says found
    /// no room. Its generation means nothing, but tells a pointer to no rules from none.
    fn staged_pointer(&self, endpoint: &LocalEndpoint, direction: Direction) -> (RulesPtr, Option<Refusal>) {
        let Some((digest, table)) = self.staged.get(&(endpoint.slot, direction)) else {
            return (RulesPtr::default(), None);
        };
        if table.is_open() {
            return (RulesPtr::new(1, 0, 0), None);
        }
        let set = self.sets.get(digest);
        match set.map(|set| (set.number, set.installed.as_ref(), &set.refused)) {
            Some((number, Some(rules), None)) => (RulesPtr::new(1, rules.flags, number), None),
            found => {
                let (reason, fix) = found.and_then(|(.., refused)| refused.clone()).unwrap_or_default();
                // The others are enforced, whatever becomes of these.
                let mut policies = table.policies();
                policies.retain(|policy| self.index.is_staged(policy) == Some(true));
                let (pod, remains) = (endpoint.pod.clone(), Remains::Unevaluated);
                (RulesPtr::default(), Some(Refusal { pod, direction, policies, reason, fix, remains }))
            }
        }
    }

    /// An endpoint's entry without its rules.
    fn fresh(&self, endpoint: &LocalEndpoint) -> Endpoint {
        Endpoint {
            rules: [0; 2],
            addr6: endpoint.v6.map_or(Addr::ZERO, |ip| Addr::from(IpAddr::V6(ip))),
            addr4: endpoint.v4.map_or(Addr::ZERO, |ip| Addr::from(IpAddr::V4(ip))),
            ifindex: endpoint.ifindex,
            identity: self.identity_of(endpoint),
            mac: endpoint.mac,
            pad: [0; 2],
        }
    }

    /// Where an endpoint's pointer should lead; the generation in it means nothing.
    fn pointer(
        &self,
        endpoint: &LocalEndpoint,
        direction: Direction,
        current: Option<RulesPtr>,
    ) -> (RulesPtr, Option<Refusal>) {
        let Some((digest, table)) = self.tables.get(&(endpoint.slot, direction)) else {
            return (DENIED, None);
        };
        if table.is_open() {
            return (RulesPtr::default(), None);
        }
        let set = self.sets.get(digest);
        let refusal = set.and_then(|set| set.refused.clone());
        match set.and_then(|set| set.installed.as_ref().map(|rules| (set.number, rules.flags))) {
            Some((number, flags)) if refusal.is_none() => (RulesPtr::new(0, flags, number), None),
            installed => {
                let (reason, fix) = refusal.unwrap_or_default();
                let (pointer, remains) = match (installed, current) {
                    // The same rules, not yet extended by what did not fit.
                    (Some((number, flags)), _) => (RulesPtr::new(0, flags, number), Remains::LastComplete),
                    // Open is no rules: a pod that shall be isolated does not stay open.
                    (None, Some(current)) if current.ruleset() != 0 => (current, Remains::LastComplete),
                    (None, _) => (DENIED, Remains::Denied),
                };
                let policies = table.policies();
                let pod = endpoint.pod.clone();
                (pointer, Some(Refusal { pod, direction, policies, reason, fix, remains }))
            }
        }
    }
}

/// Addresses that another identity is behind now: which before, which after.
struct Moves<'a> {
    all: &'a [(u32, u32)],
    /// Those from one class to another.
    between_classes: Vec<(u32, u32)>,
    /// The others by either number.
    by_number: BTreeMap<u32, Vec<(u32, u32)>>,
}

impl<'a> Moves<'a> {
    fn new(all: &'a [(u32, u32)]) -> Self {
        let within = |(before, after): &(u32, u32)| identity::class(*before) == identity::class(*after);
        let (within, between_classes): (Vec<_>, Vec<_>) = all.iter().copied().partition(within);
        let mut by_number: BTreeMap<u32, Vec<(u32, u32)>> = BTreeMap::new();
        for it in within {
            by_number.entry(it.0).or_default().push(it);
            by_number.entry(it.1).or_default().push(it);
        }
        Self { all, between_classes, by_number }
    }

    /// Whether a rule set says something else about one of these now; `back` leads to what it said before.
    fn matter(&self, now: &RuleSet, back: Option<&Delta>) -> bool {
        let differ = |&(before, after): &(u32, u32)| said(now, back, before) != said(now, None, after);
        // Two of one class are told apart by entries of their own alone: look through whichever are fewer.
        let own = now.peers.len() + now.second.as_ref().map_or(0, |stage| stage.peers.len());
        if own >= self.all.len() {
            return self.all.iter().any(differ);
        }
        let second = now.second.iter().flat_map(|stage| stage.peers.keys());
        let own = now.peers.keys().chain(second).copied().chain(back.iter().flat_map(|back| back.identities()));
        let touched = own.filter_map(|number| self.by_number.get(&number)).flatten();
        self.between_classes.iter().chain(touched).any(differ)
    }
}

/// What each stage of a rule set says about an identity, or what it said before: its own entry, its class's, anybody's.
fn said<'a>(rules: &'a RuleSet, back: Option<&'a Delta>, number: u32) -> [Option<&'a Peer>; 2] {
    let of_stage = |peers: &'a BTreeMap<u32, Peer>, back: Option<&'a BTreeMap<u32, Option<Peer>>>| {
        let own = |number: u32| match back.and_then(|back| back.get(&number)) {
            Some(before) => before.as_ref(),
            None => peers.get(&number),
        };
        own(number).or_else(|| own(identity::class(number))).or_else(|| own(identity::CLASS_ANY))
    };
    let first = of_stage(&rules.peers, back.map(|back| &back.first));
    let second = rules.second.as_ref().and_then(|stage| of_stage(&stage.peers, back.map(|back| &back.second)));
    [first, second]
}
