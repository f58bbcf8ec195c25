//! Numbers for rules and identities.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    num::NonZeroU32,
    time::Duration,
};

use datapath_abi::identity;
use policy::{IdentityKey, compile::RuleRef, lower::Cookies};

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

/// Identity numbers of this node. A number is not given to another key before all others have
/// had their turn, so that what a late packet or record says stays true.
#[derive(Clone, Debug)]
pub struct Identities {
    by_key: BTreeMap<IdentityKey, u32>,
    by_number: BTreeMap<u32, IdentityKey>,
    /// Numbers that were seen without anybody who has them, and when first; nobody has asked for them since.
    idle: BTreeMap<u32, Duration>,
    next: u32,
    /// Numbers given out or back, and not written down since.
    unkept: BTreeSet<u32>,
    /// The greatest that is given out; tests have fewer.
    last: u32,
}

/// Every number is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("all identity numbers from {first} to {last} are in use", first = identity::FIRST_POD, last = identity::MAX)]
pub struct Exhausted;

impl Default for Identities {
    fn default() -> Self {
        Self {
            by_key: BTreeMap::new(),
            by_number: BTreeMap::new(),
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
        let mut identities = Self::default();
        for (number, key) in known {
            if (identity::FIRST_POD..=identity::MAX).contains(&number)
                && !identities.by_key.contains_key(&key)
                && !identities.by_number.contains_key(&number)
            {
                identities.by_key.insert(key.clone(), number);
                identities.by_number.insert(number, key);
            }
        }
        let highest = identities.by_number.keys().next_back().copied().unwrap_or(0).max(highest_found);
        identities.next = identities.after(highest.max(identity::FIRST_POD - 1));
        identities
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

    /// The number of a key, a new one if it has none.
    pub fn number(&mut self, key: &IdentityKey) -> Result<u32, Exhausted> {
        if let Some(&number) = self.by_key.get(key) {
            self.idle.remove(&number);
            return Ok(number);
        }
        let start = self.next;
        let mut number = start;
        while self.by_number.contains_key(&number) {
            number = self.after(number);
            if number == start {
                return Err(Exhausted);
            }
        }
        self.next = self.after(number);
        self.unkept.insert(number);
        self.by_key.insert(key.clone(), number);
        self.by_number.insert(number, key.clone());
        Ok(number)
    }

    /// Gives a number back.
    pub fn release(&mut self, number: u32) {
        if let Some(key) = self.by_number.remove(&number) {
            self.by_key.remove(&key);
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
        assert_eq!(identities.number(&key("d")), Err(Exhausted));
        assert_eq!(identities.number(&key("b")), Ok(numbers[1]));
        identities.release(numbers[1]);
        assert_eq!(identities.number(&key("d")), Ok(numbers[1]));
        assert_eq!(identities.number(&key("b")), Err(Exhausted));
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
