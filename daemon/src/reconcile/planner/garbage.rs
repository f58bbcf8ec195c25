//! What nobody refers to any more.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Planner,
    install::{Stage, stages},
};
use crate::reconcile::{change::Change, mirror::Mirror};

impl Planner {
    /// What nobody refers to any more. To be carried out when every packet that was under way at
    /// the last swing is through.
    pub fn garbage(&mut self, mirror: &Mirror) -> Vec<Change> {
        let in_use: BTreeSet<u32> = mirror.rulesets_in_use().filter(|number| *number != 0).collect();
        // Not those that were refused since: what is in force of them stays as it is.
        let settled = self.sets.values().filter(|set| set.refused.is_none());
        let kept: BTreeMap<u32, BTreeMap<u32, Stage<'_>>> = settled
            .filter_map(|set| Some((set.number, stages(set.number, set.installed.as_ref()?).into_iter().collect())))
            .collect();
        // A second stage lives as long as its first.
        let first_of = |number: u32| number & !1;
        let stays = |number: u32| in_use.contains(&first_of(number));
        let mut changes = Vec::new();
        let mut referenced = BTreeSet::new();
        for (&key, entry) in &mirror.peers {
            let wanted = kept.get(&first_of(key.ruleset)).is_none_or(|stages| {
                stages.get(&key.ruleset).is_some_and(|stage| stage.peers.contains_key(&key.identity))
            });
            if stays(key.ruleset) && wanted {
                referenced.insert(entry.portset);
            } else {
                changes.push(Change::DropPeer(key));
            }
        }
        for (&(ruleset, addr, length), entry) in &mirror.regions {
            if stays(ruleset) {
                referenced.insert(entry.portset);
            } else {
                changes.push(Change::DropRegion(ruleset, addr, length));
            }
        }
        for &key in mirror.ports.keys() {
            if !referenced.contains(&key.portset) {
                changes.push(Change::DropPort(key));
            }
        }
        self.port_sets.retain(&referenced);
        for &number in mirror.rulesets.keys() {
            if !stays(number) {
                changes.push(Change::DropRuleset(number));
            }
        }
        self.sets.retain(|_, set| in_use.contains(&set.number) || set.refused.is_some());
        changes
    }
}
