//! What nobody refers to any more.

use std::collections::{BTreeMap, BTreeSet};

use policy::RuleSet;

use super::{Planner, install::stages};
use crate::reconcile::{change::Change, mirror::Mirror};

impl Planner {
    /// What nobody refers to any more. To be carried out when every packet that was under way at
    /// the last swing is through.
    pub fn garbage(&mut self, mirror: &Mirror) -> Vec<Change> {
        let in_use: BTreeSet<u32> = mirror.rulesets_in_use().filter(|number| *number != 0).collect();
        let kept: BTreeMap<u32, Option<&RuleSet>> = self
            .sets
            .values()
            .map(|set| (set.number, if set.refused.is_none() { set.installed.as_ref() } else { None }))
            .collect();
        // A second stage lives as long as its first.
        let first_of = |number: u32| number & !1;
        let stays = |number: u32| in_use.contains(&first_of(number));
        let mut changes = Vec::new();
        let mut referenced = BTreeSet::new();
        for (&key, entry) in &mirror.peers {
            let wanted = match kept.get(&first_of(key.ruleset)) {
                Some(Some(rules)) => {
                    let stages = stages(first_of(key.ruleset), rules);
                    let stage = stages.iter().find(|(number, _)| *number == key.ruleset);
                    stage.is_some_and(|(_, stage)| stage.peers.contains_key(&key.identity))
                }
                // Frozen: refused since, but in force.
                _ => true,
            };
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
