//! Numbers for rules and identities.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use datapath_abi::identity;
use policy::{IdentityKey, compile::RuleRef, lower::Cookies};

use super::given::Given;

/// Cookies that depend on nothing but the rule, so that a restarted daemon gives the same ones
/// and what conntrack remembers keeps its meaning. Two rules with one hash: the later one takes
/// the next free number.
#[derive(Clone, Debug, Default)]
pub struct HashCookies {
    numbers: HashMap<RuleRef, NonZeroU32>,
    rules: HashMap<NonZeroU32, RuleRef>,
}

impl HashCookies {
    /// The rule behind a cookie.
    pub fn rule(&self, cookie: u32) -> Option<&RuleRef> {
        self.rules.get(&NonZeroU32::new(cookie)?)
    }

    /// Every cookie and its rule.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &RuleRef)> {
        self.rules.iter().map(|(cookie, rule)| (cookie.get(), rule))
    }
}

impl Cookies for HashCookies {
    fn cookie(&mut self, rule: &RuleRef) -> NonZeroU32 {
        if let Some(&cookie) = self.numbers.get(rule) {
            return cookie;
        }
        let mut cookie = NonZeroU32::new(fnv1a(&rule.to_string())).unwrap_or(NonZeroU32::MIN);
        while self.rules.contains_key(&cookie) {
            cookie = cookie.checked_add(1).unwrap_or(NonZeroU32::MIN);
        }
        self.numbers.insert(rule.clone(), cookie);
        self.rules.insert(cookie, rule.clone());
        cookie
    }
}

/// FNV-1a, 32 bits (draft-eastlake-fnv, section 6).
fn fnv1a(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// What identity numbers stand for on this node. A number of its own is not given to another key before all others
/// have had their turn, so that what a late packet or record says stays true. In a cluster [`Given`] numbers come first:
/// a key has one of this node's own only while it has none of those.
#[derive(Clone, Debug)]
pub struct Identities {
    /// The number that each key has.
    by_key: BTreeMap<IdentityKey, u32>,
    /// What each number stands for, in the kernel too. Several may stand for one key: it has moved from one to the other.
    by_number: BTreeMap<u32, IdentityKey>,
    /// What the cluster says that numbers stand for.
    given: Given,
    /// Numbers that mean something else to the cluster.
    clashes: BTreeSet<u32>,
    /// Numbers that were seen without anybody who has them, and when first; nobody has asked for them since.
    idle: BTreeMap<u32, Duration>,
    next: u32,
    /// Numbers given out or back, and not written down since.
    unkept: BTreeSet<u32>,
    /// The greatest that this node gives out by itself; tests have fewer.
    last: u32,
}

/// Every number that this node may give out is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("all identity numbers from {first} to {last} are in use", first = identity::FIRST_POD)]
pub struct Exhausted {
    /// The greatest.
    last: u32,
}

impl Default for Identities {
    fn default() -> Self {
        Self {
            by_key: BTreeMap::new(),
            by_number: BTreeMap::new(),
            given: Given::default(),
            clashes: BTreeSet::new(),
            idle: BTreeMap::new(),
            next: identity::FIRST_POD,
            unkept: BTreeSet::new(),
            last: identity::MAX,
        }
    }
}

impl Identities {
    /// With what was written down, and beyond what the kernel holds: a number that is in a map
    /// but in no list could stand for somebody else.
    pub fn restore(known: impl IntoIterator<Item = (u32, IdentityKey)>, highest_found: u32) -> Self {
        Self::default().with(known, highest_found)
    }

    /// The same in a cluster, whose numbers this node leaves alone: those that it gives out by itself are below.
    /// `highest_found` is of those.
    pub fn restore_beside_shared(known: impl IntoIterator<Item = (u32, IdentityKey)>, highest_found: u32) -> Self {
        Self { last: identity::FIRST_SHARED - 1, ..Self::default() }.with(known, highest_found)
    }

    fn with(mut self, known: impl IntoIterator<Item = (u32, IdentityKey)>, highest_found: u32) -> Self {
        for (number, key) in known {
            if (identity::FIRST_POD..=identity::MAX).contains(&number) && !self.by_number.contains_key(&number) {
                // A key that has moved has the shared one, which is the greater.
                let has = self.by_key.entry(key.clone()).or_insert(number);
                *has = number.max(*has);
                self.by_number.insert(number, key);
            }
        }
        let highest = self.by_number.range(..=self.last).next_back().map_or(0, |(number, _)| *number);
        self.next = self.after(highest.max(highest_found).max(identity::FIRST_POD - 1));
        self
    }

    /// Goes on with the turn where it was when this was written down: it may have been beyond all that are known.
    #[must_use]
    pub fn resume(mut self, next: u32) -> Self {
        if (self.next..=self.last).contains(&next) {
            self.next = next;
        }
        self
    }

    /// Whose turn it is, if it is free.
    pub const fn next(&self) -> u32 {
        self.next
    }

    /// Numbers that mean something else than what is written down.
    pub fn unkept(&self) -> &BTreeSet<u32> {
        &self.unkept
    }

    /// All is written down.
    pub fn kept(&mut self) {
        self.unkept.clear();
    }

    /// The number of a key: the cluster's, the one it has, or else a new one.
    pub fn number(&mut self, key: &IdentityKey) -> Result<u32, Exhausted> {
        let has = self.by_key.get(key).copied();
        let number = match (self.usable(key), has) {
            (Some(shared), _) => shared,
            (None, Some(has)) if self.given.key(has).is_none_or(|given| given == key) => has,
            // None, or one that the cluster means somebody else by.
            (None, _) => self.free()?,
        };
        self.given.note_lost(number);
        self.idle.remove(&number);
        if has != Some(number) {
            self.by_key.insert(key.clone(), number);
        }
        self.hold(number, key);
        Ok(number)
    }

    /// From now on a number stands for a key here.
    fn hold(&mut self, number: u32, key: &IdentityKey) {
        if self.by_number.get(&number) != Some(key) {
            self.unkept.insert(number);
            self.by_number.insert(number, key.clone());
        }
    }

    /// The number that the cluster gives a key, unless it still stands for somebody else here.
    fn usable(&self, key: &IdentityKey) -> Option<u32> {
        self.given.numbers(key).find(|number| self.by_number.get(number).is_none_or(|here| here == key))
    }

    fn free(&mut self) -> Result<u32, Exhausted> {
        let start = self.next;
        let mut number = start;
        while self.by_number.contains_key(&number) || self.given.key(number).is_some() {
            number = self.after(number);
            if number == start {
                return Err(Exhausted { last: self.last });
            }
        }
        self.next = self.after(number);
        Ok(number)
    }

    /// The cluster says what a number stands for, or that it stands for nobody. Returns what it stood for before.
    pub(super) fn give(&mut self, number: u32, key: Option<Arc<IdentityKey>>) -> Option<Arc<IdentityKey>> {
        let here = self.by_number.get(&number);
        if key.as_deref().zip(here).is_some_and(|(given, here)| given != here) {
            self.clashes.insert(number);
        } else {
            self.clashes.remove(&number);
        }
        let before = self.given.put(number, key);
        let in_use = self.by_number.get(&number).is_some_and(|key| self.by_key.get(key) == Some(&number));
        if in_use {
            self.given.note_lost(number);
        }
        before
    }

    /// A number of the cluster's stands for its key here, too, if it stands for nobody else yet. Returns the key then.
    pub(super) fn adopt(&mut self, number: u32) -> Option<Arc<IdentityKey>> {
        let key = self.given.shared_key(number)?;
        if self.by_number.get(&number).is_some_and(|here| *here != *key) {
            return None;
        }
        self.hold(number, &key);
        Some(key)
    }

    /// What the cluster says.
    pub fn given(&self) -> &Given {
        &self.given
    }

    /// The number that a key has.
    pub(super) fn current(&self, key: &IdentityKey) -> Option<u32> {
        self.by_key.get(key).copied()
    }

    /// Numbers that mean one thing to the cluster and stand for another here, until nobody has them any more.
    pub fn clashes(&self) -> &BTreeSet<u32> {
        &self.clashes
    }

    /// Gives a number back.
    pub fn release(&mut self, number: u32) {
        if let Some(key) = self.by_number.remove(&number) {
            if self.by_key.get(&key) == Some(&number) {
                self.by_key.remove(&key);
            }
            self.given.forget_lost(number);
            self.clashes.remove(&number);
            self.idle.remove(&number);
            self.unkept.insert(number);
        }
    }

    /// The numbers that nobody has had, and nobody has asked for, for as long as `grace`, as far as anybody has
    /// looked. `now` is of a clock that never goes back.
    pub fn idle(&mut self, has: impl Fn(u32) -> bool, now: Duration, grace: Duration) -> Vec<u32> {
        self.idle.retain(|number, _| !has(*number));
        for &number in self.by_number.keys().filter(|number| !has(**number)) {
            self.idle.entry(number).or_insert(now);
        }
        let long = self.idle.iter().filter(|(_, since)| now.saturating_sub(**since) >= grace);
        long.map(|(number, _)| *number).collect()
    }

    /// With few numbers, so that they come again soon.
    #[cfg(test)]
    pub(super) fn of(count: u32) -> Self {
        Self { last: identity::FIRST_POD + count - 1, ..Self::default() }
    }

    const fn after(&self, number: u32) -> u32 {
        if number >= self.last { identity::FIRST_POD } else { number + 1 }
    }

    /// What a number stands for.
    pub fn key(&self, number: u32) -> Option<&IdentityKey> {
        self.by_number.get(&number)
    }

    /// All, by number.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &IdentityKey)> {
        self.by_number.iter().map(|(&number, key)| (number, key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_every_number_is_taken_those_who_have_one_keep_it_and_one_that_is_released_serves_again() {
        let key = |name: &str| IdentityKey { namespace: name.to_owned(), ..fixture_key() };
        let mut identities = Identities { last: identity::FIRST_POD + 2, ..Identities::default() };
        let numbers = ["a", "b", "c"].map(|name| identities.number(&key(name)).unwrap());
        assert_eq!(numbers, [identity::FIRST_POD, identity::FIRST_POD + 1, identity::FIRST_POD + 2]);
        assert_eq!(identities.number(&key("d")), Err(Exhausted { last: identity::FIRST_POD + 2 }));
        assert_eq!(identities.number(&key("b")), Ok(numbers[1]));
        identities.release(numbers[1]);
        assert_eq!(identities.number(&key("d")), Ok(numbers[1]));
        assert_eq!(identities.number(&key("b")), Err(Exhausted { last: identity::FIRST_POD + 2 }));
    }

    fn fixture_key() -> IdentityKey {
        IdentityKey {
            namespace: String::new(),
            namespace_labels: Default::default(),
            labels: Default::default(),
            service_account: "default".to_owned(),
        }
    }
}
