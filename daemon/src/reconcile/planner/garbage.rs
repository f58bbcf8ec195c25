//! What nobody refers to any more. Looks at what plans have left behind, and once, after a start, at everything.

use std::collections::{BTreeMap, BTreeSet};

use datapath_abi::policy::{PeerEntry, PeerKey};

use super::{
    Planner,
    install::{Wanted, first_of},
};
use crate::reconcile::{change::Change, mirror::Mirror};

impl Planner {
    /// How many plans were made.
    pub fn round(&self) -> u64 {
        self.round
    }

    /// Whether something is to be removed as soon as it may be.
    pub fn has_garbage(&self, mirror: &Mirror) -> bool {
        let in_use: BTreeSet<u32> = mirror.rulesets_in_use().collect();
        !self.swept || !self.gone.is_empty() || mirror.rulesets.keys().any(|number| !in_use.contains(number))
    }

    /// What nobody refers to any more. To be carried out when every packet that was under way at
    /// the last swing is through.
    pub fn garbage(&mut self, mirror: &Mirror) -> Vec<Change> {
        self.garbage_until(mirror, self.round)
    }

    /// The same, when those are through that were under way at the swing of the plan which was made in this
    /// [`Self::round`], though others may be under way since.
    pub fn garbage_until(&mut self, mirror: &Mirror, round: u64) -> Vec<Change> {
        let in_use: BTreeSet<u32> = mirror.rulesets_in_use().filter(|number| *number != 0).collect();
        let stays = |lately: &BTreeMap<u32, u64>, number: u32| {
            in_use.contains(&first_of(number)) || lately.get(&first_of(number)).is_some_and(|last| *last > round)
        };
        let mut doomed: BTreeMap<PeerKey, PeerEntry> = BTreeMap::new();
        let mut changes = Vec::new();
        let mut regions = Vec::new();
        let left: Vec<u32> = mirror.rulesets.keys().copied().filter(|number| !stays(&self.lately, *number)).collect();
        for &number in &left {
            for ruleset in [number, number | 1] {
                let peers = mirror.peers_of(ruleset);
                doomed.extend(peers.map(|(identity, entry)| (PeerKey { ruleset, identity }, *entry)));
                regions.extend(mirror.regions_of(ruleset).map(|(at, entry)| ((ruleset, at), *entry)));
            }
            changes.push(Change::DropRuleset(number));
        }
        self.lately.retain(|number, last| in_use.contains(number) || *last > round);
        let wanted = Wanted::new(self.sets.values());
        self.gone.retain(|key, since| {
            if *since > round {
                return true;
            }
            if let Some(entry) = mirror.peers.get(key).filter(|_| !wanted.holds(key)) {
                doomed.insert(*key, *entry);
            }
            false
        });
        if !self.swept {
            self.swept = true;
            for (key, entry) in &mirror.peers {
                if !stays(&self.lately, key.ruleset) || !wanted.holds(key) && !self.gone.contains_key(key) {
                    doomed.insert(*key, *entry);
                }
            }
            let known: BTreeSet<u32> = left.iter().copied().collect();
            let others = mirror
                .regions
                .iter()
                .filter(|((ruleset, ..), _)| !known.contains(&first_of(*ruleset)) && !stays(&self.lately, *ruleset));
            regions.extend(others.map(|(&(ruleset, addr, length), entry)| ((ruleset, (addr, length)), *entry)));
        }
        let idle = mirror.idle_without(doomed.values().chain(regions.iter().map(|(_, entry)| entry)));
        let mut removed: Vec<Change> = doomed.into_keys().map(Change::DropPeer).collect();
        removed.extend(
            regions.into_iter().map(|((ruleset, (addr, length)), _)| Change::DropRegion(ruleset, addr, length)),
        );
        for portset in idle {
            removed.extend(mirror.ports_of(portset).map(Change::DropPort));
            if let Some(port_sets) = &mut self.port_sets {
                port_sets.remove(portset);
            }
        }
        removed.append(&mut changes);
        self.sets.retain(|_, set| in_use.contains(&set.number) || set.refused.is_some());
        removed
    }
}
