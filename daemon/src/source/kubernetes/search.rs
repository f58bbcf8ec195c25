//! Which number a key gets: pure. It begins at a number that follows from the key, so that keys keep their distance and
//! the same key comes back to the same number; what is somebody else's is passed over.
//!
//! ```text
//!   Create n --Created--> Done n
//!       |--Exists--> Read n --Is(the key)--> Done n
//!                        |--Is(another)--> Create n+1
//!                        |--Gone--> Create n
//! ```
//!
//! Who finds the number there has it as well as who has made it, so that all who look for one at a time find the same. Two
//! numbers for one key come about only if one before them was given back meanwhile: then the lowest counts.

use policy::{IdentityKey, identity::SHARED_NUMBERS};
use sha2::{Digest as _, Sha256};

/// Most questions to the server for one key: each tells of a number of somebody else's that no watch has told of yet.
const MOST_QUESTIONS: u32 = 256;

/// What to do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Make this number stand for the key.
    Create(u32),
    /// Find out what it stands for.
    Read(u32),
    /// It is the key's.
    Done(u32),
    /// None is free, or too many were not.
    Exhausted,
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    /// It stands for the key now.
    Created,
    /// It stands for somebody.
    Exists,
    /// It stands for this.
    Is(IdentityKey),
    /// It stands for what we cannot read, so for somebody else.
    Unreadable,
    /// It stands for nobody any more.
    Gone,
}

/// A search for the number of a key.
#[derive(Debug)]
pub(super) struct Search<'a> {
    key: &'a IdentityKey,
    number: u32,
    asked: u32,
}

impl<'a> Search<'a> {
    /// Begins. `taken` are the numbers of others, as far as that is known.
    pub(super) fn begin(key: &'a IdentityKey, taken: impl Fn(u32) -> bool) -> (Self, Step) {
        let mut search = Self { key, number: first(key), asked: 0 };
        let step = search.create(taken);
        (search, step)
    }

    /// Goes on.
    pub(super) fn next(&mut self, answer: Answer, taken: impl Fn(u32) -> bool) -> Step {
        match answer {
            Answer::Created => Step::Done(self.number),
            Answer::Exists => Step::Read(self.number),
            Answer::Is(key) if key == *self.key => Step::Done(self.number),
            Answer::Is(_) | Answer::Unreadable => {
                self.number = after(self.number);
                self.create(taken)
            }
            Answer::Gone => self.create(taken),
        }
    }

    fn create(&mut self, taken: impl Fn(u32) -> bool) -> Step {
        self.asked += 1;
        let start = self.number;
        while taken(self.number) {
            self.number = after(self.number);
            if self.number == start {
                return Step::Exhausted;
            }
        }
        if self.asked > MOST_QUESTIONS { Step::Exhausted } else { Step::Create(self.number) }
    }
}

fn after(number: u32) -> u32 {
    if number >= *SHARED_NUMBERS.end() { *SHARED_NUMBERS.start() } else { number + 1 }
}

/// Where to begin: the same on every node.
pub(super) fn first(key: &IdentityKey) -> u32 {
    let mut hasher = Sha256::new();
    let mut text = |text: &str| {
        hasher.update((text.len() as u64).to_be_bytes());
        hasher.update(text);
    };
    text(&key.namespace);
    text(&key.service_account);
    for labels in [&key.namespace_labels, &key.labels] {
        text(&labels.len().to_string());
        labels.iter().for_each(|(key, value)| {
            text(key);
            text(value);
        });
    }
    let digest = hasher.finalize();
    let word = digest.iter().take(8).fold(0_u64, |word, byte| word << 8 | u64::from(*byte));
    let (first, last) = (*SHARED_NUMBERS.start(), *SHARED_NUMBERS.end());
    first + (word % u64::from(last - first + 1)) as u32
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use policy::model::Labels;
    use proptest::prelude::*;

    use super::*;

    fn key(name: u32) -> IdentityKey {
        IdentityKey {
            namespace: "shop".to_owned(),
            namespace_labels: Labels::default(),
            labels: Labels::default().with("app", &name.to_string()),
            service_account: "default".to_owned(),
        }
    }

    #[test]
    fn beginnings_are_in_range_apart_and_depend_on_every_part_of_the_key() {
        let many: BTreeSet<u32> = (0..2000).map(|name| first(&key(name))).collect();
        assert!(many.iter().all(|number| SHARED_NUMBERS.contains(number)));
        assert!(many.len() >= 1998, "{}", many.len());
        let labels = Labels::default().with("a", "b");
        let one = IdentityKey { labels: labels.clone(), ..key(1) };
        let other = IdentityKey { labels: Labels::default(), namespace_labels: labels, ..key(1) };
        let third = IdentityKey { namespace: "default".into(), service_account: "shop".into(), ..key(1) };
        let all = [&key(1), &one, &other, &third].map(first);
        assert_eq!(BTreeSet::from(all).len(), 4, "{all:?}");
    }

    #[test]
    fn what_is_taken_is_passed_over_without_a_question_and_none_free_is_told() {
        let key = key(1);
        let start = first(&key);
        let (mut search, step) = Search::begin(&key, |number| number == start);
        assert_eq!(step, Step::Create(start + 1));
        assert_eq!(search.next(Answer::Exists, |_| false), Step::Read(start + 1));
        assert_eq!(search.next(Answer::Unreadable, |_| false), Step::Create(start + 2));
        assert_eq!(search.next(Answer::Created, |_| false), Step::Done(start + 2));
        assert_eq!(Search::begin(&key, |_| true).1, Step::Exhausted);
        let (mut search, mut step) = Search::begin(&key, |_| false);
        let mut asked = 0;
        while step != Step::Exhausted {
            asked += 1;
            step = match step {
                Step::Create(_) => search.next(Answer::Exists, |_| false),
                _ => search.next(Answer::Unreadable, |_| false),
            };
        }
        assert_eq!(asked, 2 * MOST_QUESTIONS);
        assert_eq!(after(*SHARED_NUMBERS.end()), *SHARED_NUMBERS.start());
    }

    /// Few numbers, so that keys meet: all keys begin at one of two places, by which others already are.
    fn crowd(keys: &[IdentityKey], others: usize) -> BTreeMap<u32, IdentityKey> {
        let near = keys.iter().flat_map(|key| (0..others as u32).map(|step| first(key).saturating_add(step)));
        near.filter(|number| SHARED_NUMBERS.contains(number)).map(|number| (number, key(9999))).collect()
    }

    proptest! {
        /// Several nodes look for the numbers of a few keys, one step at a time in any order, while numbers are given
        /// back: each ends with a number that is its key's at that moment, and of the numbers of a key one is the lowest
        /// for all. Without giving back there is just one.
        #[test]
        fn whoever_looks_for_a_key_at_a_time_finds_the_same_number(
            wanted in prop::collection::vec(0..3_u32, 1..6),
            others in 0..3_usize,
            order in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..120),
            give_back in any::<bool>(),
        ) {
            let keys: Vec<IdentityKey> = wanted.iter().map(|name| key(*name)).collect();
            let mut server = crowd(&keys, others);
            let mut searches: Vec<(Search<'_>, Step)> = keys.iter().map(|key| Search::begin(key, |_| false)).collect();
            let mut found: BTreeMap<usize, u32> = BTreeMap::new();
            let rest = (0..searches.len()).cycle().take(searches.len() * 40).map(|at| (at, false));
            let first_ones: Vec<(usize, bool)> =
                order.into_iter().map(|(at, back)| (at.index(searches.len()), back)).collect();
            for (at, back) in first_ones.into_iter().chain(rest) {
                let (search, step) = &mut searches[at];
                let answer = match *step {
                    Step::Create(number) if server.contains_key(&number) => Answer::Exists,
                    Step::Create(number) => {
                        server.insert(number, keys[at].clone());
                        Answer::Created
                    }
                    Step::Read(number) => server.get(&number).cloned().map_or(Answer::Gone, Answer::Is),
                    Step::Done(_) | Step::Exhausted => continue,
                };
                *step = search.next(answer, |_| false);
                if let Step::Done(number) = *step {
                    prop_assert_eq!(server.get(&number), Some(&keys[at]));
                    found.insert(at, number);
                }
                if back && give_back {
                    // Somebody else's is given back.
                    let other = server.iter().find(|(_, it)| **it == key(9999)).map(|(number, _)| *number);
                    other.map(|number| server.remove(&number));
                }
            }
            prop_assert_eq!(found.len(), keys.len(), "all have ended");
            for (at, key) in keys.iter().enumerate() {
                let numbers: Vec<u32> = server.iter().filter(|(_, it)| *it == key).map(|it| *it.0).collect();
                prop_assert!(numbers.contains(&found[&at]));
                prop_assert!(give_back || numbers.len() == 1, "{:?}", numbers);
            }
        }
    }
}
