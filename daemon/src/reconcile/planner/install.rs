//! Rule sets: which are wanted, under which numbers, and what has to be written for them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use datapath_abi::{
    addr::Addr,
    endpoint::RulesPtr,
    identity,
    policy::{PeerEntry, PeerKey, PortKey, RulesetInfo},
};
use policy::{
    RuleSet, RuleTable, Universe,
    lower::{Limits, LowerError, Peer, What, lower_within},
};

use super::{Planner, Tables, draft::Draft, port_sets::PortSets};
use crate::reconcile::{change::Change, mirror::Mirror};

/// A rule set that some endpoint wants.
#[derive(Clone, Debug)]
pub(super) struct Set {
    pub(super) number: u32,
    pub(super) table: Arc<RuleTable>,
    /// What was put into the maps, once it was; after a restart not known until lowered.
    pub(super) installed: Option<RuleSet>,
    /// Why the last attempt to put it there failed.
    pub(super) refused: Option<(String, String)>,
    /// Nobody wanted it when somebody came, went or changed whom it speaks of: what was put into the
    /// maps is not what it says now.
    stale: bool,
}

/// What has become of the rule sets that were there before.
#[derive(Debug, Default)]
pub(super) struct Changed {
    /// Those that say something else about somebody who was there before: what was decided under
    /// them is to be asked again.
    pub(super) bumped: BTreeSet<u32>,
    /// What those that were lowered again said before.
    pub(super) before: BTreeMap<u32, RuleSet>,
}

/// Which numbers of rule sets are free. Even ones: the odd one after each is that of its second stage.
#[derive(Debug)]
struct Numbers {
    taken: BTreeSet<u32>,
    /// Rule sets in the kernel that no list knows, by digest.
    found: HashMap<[u8; 16], u32>,
    next: u32,
}

impl Numbers {
    fn new<'a>(sets: impl Iterator<Item = &'a Set>, mirror: &Mirror) -> Self {
        let mut taken: BTreeSet<u32> = sets.map(|set| set.number).collect();
        let unknown = mirror.rulesets.iter().filter(|(number, _)| !taken.contains(number) && *number % 2 == 0);
        let found = unknown.map(|(number, info)| (info.digest, *number)).collect();
        taken.extend(mirror.rulesets.keys());
        Self { taken, found, next: 2 }
    }

    /// A number for a rule set: the one it has in the kernel, or a free one.
    fn take(&mut self, digest: &[u8; 16], mirror: &Mirror) -> u32 {
        if let Some(number) = self.found.remove(digest) {
            return number;
        }
        let empty = |number: u32| {
            let entries =
                |number| mirror.peers_of(number).next().is_some() || mirror.regions_of(number).next().is_some();
            !entries(number) && !entries(number | 1)
        };
        while self.next < RulesPtr::MAX_RULESET - 1 && (self.taken.contains(&self.next) || !empty(self.next)) {
            self.next += 2;
        }
        self.taken.insert(self.next);
        self.next
    }
}

/// One stage of a rule set: what lies under one number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stage<'a> {
    pub(super) peers: &'a BTreeMap<u32, Peer>,
    regions: &'a BTreeMap<(Addr, u8), Peer>,
}

/// The number under which the second stage of a rule set lies.
pub(super) const fn second_of(number: u32) -> u32 {
    RulesPtr::new(0, 0, number).after_pass().ruleset()
}

/// The stages of a rule set with their numbers.
pub(super) fn stages(number: u32, rules: &RuleSet) -> Vec<(u32, Stage<'_>)> {
    let first = Stage { peers: &rules.peers, regions: &rules.regions };
    let second = rules.second.as_ref().map(|stage| Stage { peers: &stage.peers, regions: &stage.regions });
    std::iter::once((number, first)).chain(second.map(|stage| (second_of(number), stage))).collect()
}

impl Planner {
    /// Puts every wanted rule set into the maps.
    pub(super) fn install(&mut self, mirror: &Mirror, draft: &mut Draft<'_>) -> Changed {
        let ruled = |tables: &Tables| -> BTreeMap<[u8; 16], Arc<RuleTable>> {
            let tables = tables.values().filter(|(_, table)| !table.is_open());
            tables.map(|(digest, table)| (*digest, table.clone())).collect()
        };
        let (wanted, staged) = (ruled(&self.tables), ruled(&self.staged));
        // What is enforced comes first, should there be no room for both.
        let only_staged = staged.into_iter().filter(|(digest, _)| !wanted.contains_key(digest));
        let only_staged: BTreeMap<[u8; 16], Arc<RuleTable>> = only_staged.collect();
        let in_use: BTreeSet<u32> = mirror.rulesets_in_use().collect();
        let is_wanted = |digest: &[u8; 16]| wanted.contains_key(digest) || only_staged.contains_key(digest);
        self.sets.retain(|digest, set| is_wanted(digest) || in_use.contains(&set.number));
        // One that is on its way out may be wanted again before it is gone.
        for (_, set) in self.sets.iter_mut().filter(|(digest, _)| !is_wanted(digest)) {
            set.stale |= self.stirred.concerns(&set.table);
        }
        let mut all = Changed::default();
        let mut numbers = None;
        for (digest, table) in wanted.into_iter().chain(only_staged) {
            let known = self.sets.get(&digest);
            let settled = known.is_some_and(|set| set.installed.is_some() && set.refused.is_none() && !set.stale);
            if settled && !self.stirred.concerns(&table) {
                continue;
            }
            let number = match known {
                Some(set) => set.number,
                None => numbers.get_or_insert_with(|| Numbers::new(self.sets.values(), mirror)).take(&digest, mirror),
            };
            let limits =
                Limits { peers: self.capacity.peers, regions: self.capacity.regions, ports: self.capacity.ports };
            let result = lower_within(&table, &self.universe, &mut self.cookies, &limits)
                .map_err(|error| too_large(&error))
                .and_then(|lowered| {
                    self.stage(mirror, draft, number, &digest, &lowered)?;
                    Ok(lowered)
                });
            let old = self.sets.remove(&digest).and_then(|set| set.installed);
            let (installed, refused) = match result {
                Ok(lowered) => {
                    let changed = match &old {
                        Some(old) => changes_for_anyone(old, &lowered, &self.universe, &self.born),
                        // Found in the kernel, content not known: what had to be written or
                        // taken away was not there. Nor do we know who went meanwhile: a
                        // connection of theirs may have been admitted by an entry that can wait.
                        None => {
                            let written = draft.touched(number) || draft.touched(second_of(number));
                            mirror.rulesets.contains_key(&number) && (written || has_more(mirror, number, &lowered))
                        }
                    };
                    let retired = self.retire_at_once(mirror, draft, number, &lowered);
                    if changed || retired {
                        all.bumped.insert(number);
                    }
                    if let Some(old) = old {
                        all.before.insert(number, old);
                    }
                    (Some(lowered), None)
                }
                Err(refusal) => (old, Some(refusal)),
            };
            self.sets.insert(digest, Set { number, table, installed, refused, stale: false });
        }
        all
    }

    /// Adds a rule set's entries to the draft, or nothing and the reason why.
    fn stage(
        &mut self,
        mirror: &Mirror,
        draft: &mut Draft<'_>,
        number: u32,
        digest: &[u8; 16],
        lowered: &RuleSet,
    ) -> Result<(), (String, String)> {
        let mark = draft.mark();
        let mut new_port_sets = Vec::new();
        let mut entry_of = |peer: &Peer, draft: &mut Draft<'_>, port_sets: &mut PortSets| -> PeerEntry {
            let portset = if peer.ports.is_empty() {
                0
            } else if let Some(number) = port_sets.get(&peer.ports) {
                number
            } else {
                new_port_sets.push(peer.ports.clone());
                port_sets.add(&peer.ports, mirror)
            };
            for (prefix, decision) in &peer.ports.entries {
                let key = PortKey { portset, port: prefix.port, proto: prefix.proto, length: prefix.length };
                draft.put_port(key, *decision);
            }
            PeerEntry { portset, lengths: peer.ports.lengths(), otherwise: peer.otherwise }
        };
        for (ruleset, Stage { peers, regions }) in stages(number, lowered) {
            for (&who, peer) in peers {
                let entry = entry_of(peer, draft, &mut self.port_sets);
                draft.put_peer(PeerKey { ruleset, identity: who }, entry);
            }
            for (&(addr, length), peer) in regions {
                let entry = entry_of(peer, draft, &mut self.port_sets);
                draft.put_region((ruleset, addr, length), entry);
            }
        }
        draft.put_ruleset(number, RulesetInfo { digest: *digest });
        if let Some(refusal) = draft.overflow(&self.capacity) {
            draft.rewind(mark);
            for set in new_port_sets {
                self.port_sets.remove(&set);
            }
            return Err(refusal);
        }
        Ok(())
    }

    /// Takes away at once what a live rule set no longer says about somebody who is still there;
    /// says whether there was anything. Entries of those who are gone can wait.
    fn retire_at_once(&self, mirror: &Mirror, draft: &mut Draft<'_>, number: u32, lowered: &RuleSet) -> bool {
        let before = draft.retired();
        // A digest has a second stage always or, when what it says has changed with the build, never:
        // entries of one that is not wanted are collected with the rest.
        for (ruleset, Stage { peers, regions }) in stages(number, lowered) {
            for (who, _) in mirror.peers_of(ruleset) {
                let alive = who > identity::MAX || self.universe.get(who).is_some();
                if alive && !peers.contains_key(&who) {
                    draft.retire(Change::DropPeer(PeerKey { ruleset, identity: who }));
                }
            }
            for ((addr, length), _) in mirror.regions_of(ruleset) {
                if !regions.contains_key(&(addr, length)) {
                    draft.retire(Change::DropRegion(ruleset, addr, length));
                }
            }
        }
        draft.retired() != before
    }
}

/// Whether the kernel admits somebody by an entry of his own whom a rule set has no entry for.
fn has_more(mirror: &Mirror, number: u32, lowered: &RuleSet) -> bool {
    stages(number, lowered)
        .into_iter()
        .any(|(ruleset, Stage { peers, .. })| mirror.peers_of(ruleset).any(|(who, _)| !peers.contains_key(&who)))
}

/// Why a table cannot be lowered, and what to do about it.
fn too_large(error: &LowerError) -> (String, String) {
    let LowerError { what, needed, limit, policy, share } = error;
    let (map, instead) = match what {
        What::Peers => ("PEERS", "select fewer pods, or all of them with an empty namespaceSelector"),
        What::Regions => ("REGIONS", "use fewer or wider ipBlocks and exceptions"),
        What::Ports => ("PORTS", "use fewer or wider port ranges"),
        // No map is to blame.
        What::Ranks => return (error.to_string(), "let fewer policies of one tier select the same pods".to_owned()),
    };
    let reason = format!("{policy} takes {share} of {needed} {what}, more than the {limit} that one rule set may have");
    (reason, format!("{instead}, or raise the capacity of {map} (--map-capacity {map}=N)"))
}

/// Whether a new version of a rule set says anything else about somebody who was there before.
fn changes_for_anyone(old: &RuleSet, new: &RuleSet, universe: &Universe, born: &BTreeSet<u32>) -> bool {
    let (old, new) = (stages(0, old), stages(0, new));
    old.len() != new.len() || old.iter().zip(&new).any(|((_, old), (_, new))| changes_stage(old, new, universe, born))
}

fn changes_stage(old: &Stage<'_>, new: &Stage<'_>, universe: &Universe, born: &BTreeSet<u32>) -> bool {
    if old.regions != new.regions {
        return true;
    }
    let lost = old.peers.iter().any(|(&who, peer)| match new.peers.get(&who) {
        Some(other) => other != peer,
        None => who > identity::MAX || universe.get(who).is_some(),
    });
    lost || new.peers.keys().any(|who| !old.peers.contains_key(who) && !born.contains(who))
}
