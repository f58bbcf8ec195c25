//! Rule sets: which are wanted, under which numbers, and what has to be written for them.
//!
//! What is written into a rule set in force concerns nobody whom a packet may stand for: entries of identities
//! that are about to come. Those of identities that have gone go later, or when the identity comes back. Whatever
//! else changes is written completely under a new number, to which the pointers then swing.

mod write;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use datapath_abi::{
    addr::Addr,
    endpoint::RulesPtr,
    identity,
    policy::{PeerKey, RulesetInfo},
};
use policy::{
    RuleSet, RuleTable,
    lower::{Delta, Limits, LowerError, Peer, What, delta, lower_within},
};

use self::write::Refused;
use super::{Planner, Tables, draft::Draft};
use crate::reconcile::mirror::Mirror;

/// A rule set that some endpoint wants.
#[derive(Clone, Debug)]
pub(super) struct Set {
    pub(super) number: u32,
    pub(super) table: Arc<RuleTable>,
    /// What was put into the maps, once it was; after a restart not known until lowered.
    pub(super) installed: Option<RuleSet>,
    /// Why the last attempt to put it there failed.
    pub(super) refused: Option<Refused>,
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
    /// What leads those that have changed back to what they said before.
    pub(super) back: BTreeMap<u32, Delta>,
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
        let mut unknown: Vec<([u8; 16], u32)> = unknown.map(|(number, info)| (info.digest, *number)).collect();
        // Of two with one digest the one that is in force.
        let in_use: BTreeSet<u32> = mirror.rulesets_in_use().collect();
        unknown.sort_by_key(|(_, number)| in_use.contains(number));
        taken.extend(mirror.rulesets.keys());
        Self { taken, found: unknown.into_iter().collect(), next: 2 }
    }

    /// The number that a rule set has in the kernel.
    fn found(&mut self, digest: &[u8; 16]) -> Option<u32> {
        self.found.remove(digest)
    }

    /// A number under which nothing lies.
    fn free(&mut self, mirror: &Mirror) -> u32 {
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
    pub(super) regions: &'a BTreeMap<(Addr, u8), Peer>,
}

/// The number of the rule set that an entry belongs to, whichever stage it is of.
pub(super) const fn first_of(number: u32) -> u32 {
    number & !1
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

/// What rule sets consist of, as far as that is known.
#[derive(Debug)]
pub(super) struct Wanted<'a>(BTreeMap<u32, &'a RuleSet>);

impl<'a> Wanted<'a> {
    pub(super) fn new(sets: impl Iterator<Item = &'a Set>) -> Self {
        Self(sets.filter_map(|set| Some((set.number, set.installed.as_ref()?))).collect())
    }

    /// Whether an entry is part of its rule set, or may be.
    pub(super) fn holds(&self, key: &PeerKey) -> bool {
        let number = first_of(key.ruleset);
        self.0.get(&number).is_none_or(|rules| {
            let mut stages = stages(number, rules).into_iter();
            stages.any(|(ruleset, stage)| ruleset == key.ruleset && stage.peers.contains_key(&key.identity))
        })
    }
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
        let idle = self.sets.iter().filter(|(digest, set)| !is_wanted(digest) && !set.stale);
        let stale = idle.filter(|(_, set)| self.nodes_concern(&set.table) || !self.concerned(&set.table).is_empty());
        for digest in stale.map(|(digest, _)| *digest).collect::<Vec<_>>() {
            self.sets.entry(digest).and_modify(|set| set.stale = true);
        }
        let mut all = Changed::default();
        let mut numbers = None;
        for (digest, table) in wanted.into_iter().chain(only_staged) {
            let known = self.sets.get(&digest);
            let settled = known.is_some_and(|set| set.installed.is_some() && set.refused.is_none() && !set.stale);
            let concerned = if settled { self.concerned(&table) } else { BTreeSet::new() };
            let whole = !settled || self.nodes_concern(&table);
            if !whole && concerned.is_empty() {
                continue;
            }
            let mut known = self.sets.remove(&digest);
            if let Some(set) = known.as_mut().filter(|_| !whole)
                && self.extend(mirror, draft, set, &concerned, &mut all)
            {
                self.sets.extend(known.map(|set| (digest, set)));
                continue;
            }
            let set = self.rewrite(mirror, draft, &digest, table, known, &mut numbers, &mut all);
            self.sets.insert(digest, set);
        }
        self.take_back(draft, &mut all);
        all
    }

    /// Nothing waits to go of somebody who comes back, for packets will stand for him again: what is not wanted goes
    /// before his address is written. A packet that was under way when he went may have been admitted by it, so what
    /// was decided under these rules is asked again.
    fn take_back(&mut self, draft: &mut Draft<'_>, all: &mut Changed) {
        let Self { gone, sets, universe, .. } = self;
        let wanted = Wanted::new(sets.values());
        gone.retain(|key, _| {
            let back = universe.get(key.identity).is_some();
            if back && !wanted.holds(key) {
                draft.drop_peer(*key);
                all.bumped.insert(first_of(key.ruleset));
            }
            !back
        });
    }

    fn limits(&self) -> Limits {
        Limits {
            peers: self.capacity.peers,
            regions: self.capacity.regions,
            ports: self.capacity.ports,
            port_sets: self.capacity.ports,
        }
    }

    /// Brings a rule set in force up to date where it is, for identities that have come or gone. False, and
    /// nothing has changed, if that would not do.
    fn extend(
        &mut self,
        mirror: &Mirror,
        draft: &mut Draft<'_>,
        set: &mut Set,
        concerned: &BTreeSet<u32>,
        all: &mut Changed,
    ) -> bool {
        let limits = self.limits();
        let Some(rules) = &mut set.installed else { return false };
        let found = delta(rules, &set.table, &self.universe, concerned.iter().copied(), &mut self.cookies, &limits);
        let Ok(Some(delta)) = found else { return false };
        if delta.identities().any(|who| self.stays_carried(who)) {
            return false;
        }
        let stages = [(set.number, &delta.first), (second_of(set.number), &delta.second)];
        let entries = stages.map(|(ruleset, entries)| {
            entries.iter().map(move |(&identity, peer)| (PeerKey { ruleset, identity }, peer.as_ref()))
        });
        let entries: Vec<_> = entries.into_iter().flatten().collect();
        let written = self.write(mirror, draft, |writing| {
            entries.iter().filter_map(|(key, peer)| peer.map(|peer| (*key, peer))).for_each(|(key, peer)| {
                writing.peer(key, peer);
            });
        });
        match written {
            Ok(()) => {
                self.gone.extend(entries.iter().filter(|(_, peer)| peer.is_none()).map(|(key, _)| (*key, self.round)));
                all.back.insert(set.number, rules.change(delta));
            }
            Err(refused) => set.refused = Some(refused),
        }
        true
    }

    /// Writes a rule set as a whole: where it is if nobody notices, else under a new number.
    #[expect(clippy::too_many_arguments, reason = "a step of one function, taken out for its length")]
    fn rewrite(
        &mut self,
        mirror: &Mirror,
        draft: &mut Draft<'_>,
        digest: &[u8; 16],
        table: Arc<RuleTable>,
        known: Option<Set>,
        numbers: &mut Option<Numbers>,
        all: &mut Changed,
    ) -> Set {
        let numbers = numbers.get_or_insert_with(|| {
            let others = self.sets.values().chain(&known);
            Numbers::new(others, mirror)
        });
        let (number, old) = match known {
            Some(set) => (Some(set.number), set.installed),
            None => (numbers.found(digest), None),
        };
        let limits = self.limits();
        let lowered = match lower_within(&table, &self.universe, &mut self.cookies, &limits) {
            Ok(lowered) => lowered,
            Err(error) => {
                let number = number.unwrap_or_else(|| numbers.free(mirror));
                return Set { number, table, installed: old, refused: Some(too_large(&error)), stale: false };
            }
        };
        let here = number.filter(|number| self.may_become(mirror, *number, &lowered));
        let place = here.unwrap_or_else(|| numbers.free(mirror));
        let mut result = self.write_all(mirror, draft, place, digest, &lowered).map(|()| place);
        if let (Err(_), None, Some(number)) = (&result, here, number)
            && self.only_adds(mirror, number, &lowered)
        {
            // There is no room for both, but each packet is under the old rules or the new ones all the same.
            result = self.write_all(mirror, draft, number, digest, &lowered).map(|()| number);
            if result.is_ok() {
                all.bumped.insert(number);
            }
        }
        match result {
            Ok(place) => {
                self.leave_to_go(mirror, place, &lowered);
                match &old {
                    Some(old) if Some(place) == number => drop(all.back.insert(place, way_back(old, &lowered))),
                    Some(_) => {}
                    // Found in the kernel, content not known: what had to be written was not there. Nor do we know
                    // who went meanwhile: a connection of theirs may have been admitted by an entry that can wait.
                    None if mirror.rulesets.contains_key(&place) => {
                        let written = draft.touched(place) || draft.touched(second_of(place));
                        if written || has_more(mirror, place, &lowered) {
                            all.bumped.insert(place);
                        }
                    }
                    None => {}
                }
                Set { number: place, table, installed: Some(lowered), refused: None, stale: false }
            }
            Err(refused) => {
                let number = number.unwrap_or(place);
                Set { number, table, installed: old, refused: Some(refused), stale: false }
            }
        }
    }

    /// Adds a rule set's entries to the draft, or nothing and the reason why.
    fn write_all(
        &mut self,
        mirror: &Mirror,
        draft: &mut Draft<'_>,
        number: u32,
        digest: &[u8; 16],
        lowered: &RuleSet,
    ) -> Result<(), Refused> {
        self.write(mirror, draft, |writing| {
            for (ruleset, Stage { peers, regions }) in stages(number, lowered) {
                for (&identity, peer) in peers {
                    writing.peer(PeerKey { ruleset, identity }, peer);
                }
                for (&(addr, length), peer) in regions {
                    writing.region((ruleset, addr, length), peer);
                }
            }
            writing.ruleset(number, RulesetInfo { digest: *digest });
        })
    }

    /// Whether what lies under a number can become this without anybody's noticing.
    fn may_become(&self, mirror: &Mirror, number: u32, lowered: &RuleSet) -> bool {
        let empty = (BTreeMap::new(), BTreeMap::new());
        let empty = Stage { peers: &empty.0, regions: &empty.1 };
        let used = self.lately.contains_key(&number);
        let wanted = stages(number, lowered);
        [number, second_of(number)].into_iter().all(|ruleset| {
            let Stage { peers, regions } = wanted.iter().find(|(it, _)| *it == ruleset).map_or(empty, |(_, it)| *it);
            let same = |who: u32, peer: &Peer| {
                let found = mirror.peers.get(&PeerKey { ruleset, identity: who });
                found.is_some() && found.copied() == self.entry(peer)
            };
            let extra = |who: u32| !peers.contains_key(&who);
            let extra_region = || mirror.regions_of(ruleset).any(|(at, _)| !regions.contains_key(&at));
            let regions_differ = || {
                let mut here = regions.iter();
                here.any(|(&(addr, length), peer)| !self.is_there(mirror, (ruleset, addr, length), peer))
            };
            if used {
                peers.iter().all(|(&who, peer)| !self.is_carried(who) || same(who, peer))
                    && !mirror.peers_of(ruleset).any(|(who, _)| extra(who) && self.stays_carried(who))
                    && !extra_region()
                    && !regions_differ()
            } else {
                !mirror.peers_of(ruleset).any(|(who, _)| extra(who)) && !extra_region()
            }
        })
    }

    /// Whether a rule set in force lacks entries of single identities, each of which is all that a packet of
    /// theirs would see of the difference.
    fn only_adds(&self, mirror: &Mirror, number: u32, lowered: &RuleSet) -> bool {
        let mut present = lowered.peers.iter().filter_map(|(&who, peer)| {
            let found = mirror.peers.get(&PeerKey { ruleset: number, identity: who })?;
            Some((found, peer))
        });
        let same = present.all(|(found, peer)| Some(*found) == self.entry(peer));
        let classes =
            lowered.peers.range(identity::MAX + 1..).map(|(&who, _)| PeerKey { ruleset: number, identity: who });
        let mut regions = lowered.regions.iter();
        lowered.second.is_none()
            && same
            && classes.into_iter().all(|key| mirror.peers.contains_key(&key))
            && regions.all(|(&(addr, length), peer)| self.is_there(mirror, (number, addr, length), peer))
            && mirror.regions_of(number).count() == lowered.regions.len()
            && !mirror.peers_of(number).any(|(who, _)| self.stays_carried(who) && !lowered.peers.contains_key(&who))
    }

    /// Whether a region says just this in the kernel. One that is not there does not, nor does any while no port set
    /// is like the wanted one's.
    fn is_there(&self, mirror: &Mirror, at: (u32, Addr, u8), peer: &Peer) -> bool {
        mirror.regions.get(&at).is_some_and(|found| self.entry(peer) == Some(*found))
    }

    /// Notes what of a rule set is to be removed when no packet needs it any more.
    fn leave_to_go(&mut self, mirror: &Mirror, number: u32, lowered: &RuleSet) {
        let Self { gone, round, .. } = self;
        for (ruleset, Stage { peers, .. }) in stages(number, lowered) {
            let extra = mirror.peers_of(ruleset).filter(|(who, _)| !peers.contains_key(who));
            gone.extend(extra.map(|(identity, _)| (PeerKey { ruleset, identity }, *round)));
        }
    }
}

/// What leads from a rule set to what it was, as far as single identities are concerned.
fn way_back(old: &RuleSet, new: &RuleSet) -> Delta {
    let of_stage = |old: &BTreeMap<u32, Peer>, new: &BTreeMap<u32, Peer>| {
        let numbers: BTreeSet<u32> = old.keys().chain(new.keys()).copied().collect();
        let differ = numbers.into_iter().filter(|number| old.get(number) != new.get(number));
        differ.map(|number| (number, old.get(&number).cloned())).collect()
    };
    let none = BTreeMap::new();
    let second = |rules: &'_ RuleSet| rules.second.as_ref().map(|stage| stage.peers.clone());
    let (old_second, new_second) = (second(old), second(new));
    Delta {
        first: of_stage(&old.peers, &new.peers),
        second: of_stage(old_second.as_ref().unwrap_or(&none), new_second.as_ref().unwrap_or(&none)),
    }
}

/// Whether the kernel admits somebody by an entry of his own whom a rule set has no entry for.
fn has_more(mirror: &Mirror, number: u32, lowered: &RuleSet) -> bool {
    stages(number, lowered)
        .into_iter()
        .any(|(ruleset, Stage { peers, .. })| mirror.peers_of(ruleset).any(|(who, _)| !peers.contains_key(&who)))
}

/// Why a table cannot be lowered, and what to do about it.
fn too_large(error: &LowerError) -> Refused {
    let LowerError { what, needed, limit, policy, share } = error;
    let (map, instead) = match what {
        What::Peers => ("PEERS", "select fewer pods, or all of them with an empty namespaceSelector"),
        What::Regions => ("REGIONS", "use fewer or wider ipBlocks and exceptions"),
        What::Ports => ("PORTS", "use fewer or wider port ranges"),
        What::PortSets => ("PORTS", "use fewer port ranges, or the same for more peers"),
        // No map is to blame.
        What::Ranks => return (error.to_string(), "let fewer policies of one tier select the same pods".to_owned()),
    };
    let reason = format!("{policy} takes {share} of {needed} {what}, more than the {limit} that one rule set may have");
    (reason, format!("{instead}, or raise the capacity of {map} (--map-capacity {map}=N)"))
}
