//! Under which names pods have resolved addresses: by pod, so that nobody gives a name to what others talk to, and for as
//! long as the answer said, and a little longer.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

/// Most addresses of one pod.
pub(crate) const MOST_OF_POD: usize = 256;
/// Most addresses of all pods.
pub(crate) const MOST: usize = 8192;
/// Most names of one address.
pub(crate) const MOST_NAMES: usize = 4;
/// Longest that a name is believed, whatever the answer says, seconds.
pub(crate) const MOST_TTL_S: u32 = 3600;
/// How long a name is good beyond that, seconds: programs connect a little later than they ask.
pub(crate) const GRACE_S: u32 = 60;

const NS_PER_S: u64 = 1_000_000_000;

/// See the module.
#[derive(Debug, Default)]
pub struct Names {
    pods: HashMap<u32, Pod>,
    /// Addresses of all pods.
    count: usize,
    /// Number of the next use.
    uses: u64,
}

#[derive(Debug, Default)]
struct Pod {
    addresses: HashMap<IpAddr, Known>,
    /// By when they were used last.
    by_use: BTreeMap<u64, IpAddr>,
}

#[derive(Debug)]
struct Known {
    /// Newest first, as they are shown.
    names: Arc<[String]>,
    /// Since when and until when, CLOCK_MONOTONIC in nanoseconds, in the same order.
    times: Vec<(u64, u64)>,
    used: u64,
}

impl Names {
    /// The pod in `slot` was told at `now_ns` that the address belongs to the name, for `ttl_s` seconds.
    pub fn learn(&mut self, slot: u32, address: IpAddr, name: &str, now_ns: u64, ttl_s: u32) {
        let until_ns = now_ns.saturating_add(u64::from(ttl_s.min(MOST_TTL_S) + GRACE_S) * NS_PER_S);
        self.uses += 1;
        let used = self.uses;
        let pod = self.pods.entry(slot).or_default();
        if let Some(known) = pod.addresses.get_mut(&address) {
            pod.by_use.remove(&known.used);
            pod.by_use.insert(used, address);
            known.used = used;
            known.learn(name, now_ns, until_ns);
            return;
        }
        if pod.addresses.len() >= MOST_OF_POD {
            self.count -= pod.forget_oldest();
        }
        let known = Known { names: [name.to_owned()].into(), times: vec![(now_ns, until_ns)], used };
        pod.addresses.insert(address, known);
        pod.by_use.insert(used, address);
        self.count += 1;
        if self.count > MOST {
            // Whoever has most.
            let largest = self.pods.values_mut().max_by_key(|pod| pod.addresses.len());
            self.count -= largest.map_or(0, Pod::forget_oldest);
        }
    }

    /// Names under which the pod in `slot` knew the address at `then_ns`, the last one first.
    pub fn names(&mut self, slot: u32, address: IpAddr, then_ns: u64) -> Option<Arc<[String]>> {
        let pod = self.pods.get_mut(&slot)?;
        let known = pod.addresses.get_mut(&address)?;
        self.uses += 1;
        pod.by_use.remove(&known.used);
        known.used = self.uses;
        pod.by_use.insert(known.used, address);
        known.at(then_ns)
    }

    /// Forgets what the pod in `slot` was told.
    pub fn forget(&mut self, slot: u32) {
        if let Some(pod) = self.pods.remove(&slot) {
            self.count -= pod.addresses.len();
        }
    }

    /// How many addresses have names.
    pub fn count(&self) -> usize {
        self.count
    }
}

impl Pod {
    /// Forgets the address that was not used for longest. How many are gone.
    fn forget_oldest(&mut self) -> usize {
        match self.by_use.pop_first() {
            Some((_, address)) => usize::from(self.addresses.remove(&address).is_some()),
            None => 0,
        }
    }
}

impl Known {
    fn learn(&mut self, name: &str, now_ns: u64, until_ns: u64) {
        match self.names.iter().position(|known| known == name) {
            Some(place) => {
                let (since_ns, before_ns) = self.times[place];
                // What had run out is known anew.
                let since_ns = if before_ns < now_ns { now_ns } else { since_ns };
                self.times[place] = (since_ns, until_ns.max(before_ns));
                if place != 0 {
                    let mut names = self.names.to_vec();
                    names[..=place].rotate_right(1);
                    self.times[..=place].rotate_right(1);
                    self.names = names.into();
                }
            }
            None => {
                let older = self.names.iter().take(MOST_NAMES - 1).cloned();
                self.names = std::iter::once(name.to_owned()).chain(older).collect();
                self.times.truncate(MOST_NAMES - 1);
                self.times.insert(0, (now_ns, until_ns));
            }
        }
    }

    fn at(&self, then_ns: u64) -> Option<Arc<[String]>> {
        let holds = |&(since_ns, until_ns): &(u64, u64)| (since_ns..=until_ns).contains(&then_ns);
        if self.times.iter().all(holds) {
            return Some(self.names.clone());
        }
        let names: Arc<[String]> = self
            .names
            .iter()
            .zip(&self.times)
            .filter(|(_, times)| holds(times))
            .map(|(name, _)| name.clone())
            .collect();
        (!names.is_empty()).then_some(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = NS_PER_S;

    fn address(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    #[test]
    fn a_name_is_the_pods_that_was_told_and_for_as_long_as_it_was() {
        let mut names = Names::default();
        names.learn(1, address(9), "a.example", 10 * S, 30);
        assert_eq!(*names.names(1, address(9), 10 * S).unwrap(), ["a.example"]);
        assert_eq!(*names.names(1, address(9), 100 * S).unwrap(), ["a.example"], "a minute longer");
        for (slot, ip, then) in [(1, 9, 101 * S), (1, 9, 9 * S), (2, 9, 10 * S), (1, 8, 10 * S)] {
            assert_eq!(names.names(slot, address(ip), then), None, "{slot} {ip} {then}");
        }
        names.forget(1);
        assert_eq!((names.names(1, address(9), 10 * S), names.count()), (None, 0));
    }

    #[test]
    fn an_hour_is_the_longest() {
        let mut names = Names::default();
        names.learn(1, address(9), "a.example", 0, u32::MAX);
        assert!(names.names(1, address(9), 3660 * S).is_some());
        assert!(names.names(1, address(9), 3661 * S).is_none());
    }

    #[test]
    fn the_last_name_comes_first_and_others_while_they_hold() {
        let mut names = Names::default();
        for (at, name) in [(0, "a"), (1, "b"), (2, "c"), (3, "d"), (4, "e"), (50, "b")] {
            names.learn(1, address(9), name, at * S, 0);
        }
        assert_eq!(*names.names(1, address(9), 50 * S).unwrap(), ["b", "e", "d", "c"]);
        assert_eq!(*names.names(1, address(9), 63 * S).unwrap(), ["b", "e", "d"]);
        assert_eq!(*names.names(1, address(9), 100 * S).unwrap(), ["b"]);
        names.learn(1, address(9), "e", 200 * S, 0);
        assert_eq!(names.names(1, address(9), 150 * S), None, "between two times");
    }

    #[test]
    fn a_pod_has_its_share_and_loses_what_it_uses_least() {
        let mut names = Names::default();
        for number in 0..MOST_OF_POD as u32 {
            names.learn(1, address(number), "a", 0, 0);
        }
        names.names(1, address(0), 0);
        names.learn(1, address(u32::MAX), "a", 0, 0);
        assert_eq!(names.count(), MOST_OF_POD);
        assert!(names.names(1, address(0), 0).is_some());
        assert!(names.names(1, address(1), 0).is_none());
    }

    #[test]
    fn all_together_have_no_more_than_their_share() {
        let mut names = Names::default();
        names.learn(0, address(0), "a", 0, 0);
        for slot in 1..=MOST as u32 / MOST_OF_POD as u32 {
            for number in 0..MOST_OF_POD as u32 {
                names.learn(slot, address(number), "a", 0, 0);
            }
        }
        assert_eq!(names.count(), MOST);
        assert!(names.names(0, address(0), 0).is_some(), "who has little keeps it");
        let held: usize = names.pods.values().map(|pod| pod.addresses.len()).sum();
        assert_eq!(held, MOST);
    }
}
