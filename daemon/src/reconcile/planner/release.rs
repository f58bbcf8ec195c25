//! Identity numbers that nobody has any more, and when they may stand for somebody else.

use std::{collections::BTreeSet, time::Duration};

use super::Planner;
use crate::reconcile::mirror::Mirror;

impl Planner {
    /// The numbers that may be given back, as far as objects and rules are concerned: for as long as `grace` no pod
    /// has had them, and no entry speaks of them. `now` is of a clock that never goes back. Connections are for the
    /// caller to ask.
    pub fn idle_identities(&mut self, mirror: &Mirror, now: Duration, grace: Duration) -> BTreeSet<u32> {
        let universe = &self.universe;
        let idle = self.identities.idle(|number| universe.get(number).is_some(), now, grace);
        let mut idle: BTreeSet<u32> = idle.into_iter().collect();
        if !idle.is_empty() {
            for number in mirror.carried().into_iter().chain(mirror.peers.keys().map(|key| key.identity)) {
                idle.remove(&number);
            }
        }
        idle
    }

    /// Gives back those of `numbers` that still may be. Returns which.
    pub fn release_identities(
        &mut self,
        mirror: &Mirror,
        numbers: &BTreeSet<u32>,
        now: Duration,
        grace: Duration,
    ) -> BTreeSet<u32> {
        let mut released = self.idle_identities(mirror, now, grace);
        released.retain(|number| numbers.contains(number));
        released.iter().for_each(|number| self.identities.release(*number));
        self.take_up_given(&released);
        released
    }
}
