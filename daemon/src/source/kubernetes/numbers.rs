//! Identity numbers that the whole cluster shares, as the API server has them: what is known of each, without I/O.
//! [`registry`](super::registry) makes, marks and removes them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use objects::{ObjectError, ObjectName, Problem, identity};
use policy::IdentityKey;

use super::shelf::PLACE;
use crate::source::{SourceError, SourceEvent, SourceProblem};

/// One thing that is told of Identities.
#[derive(Debug)]
pub(super) enum Told {
    /// A list begins.
    ListBegins,
    /// One is there.
    Present(Box<Entry>),
    /// One is there that cannot be used.
    Refused { name: String, problems: Vec<Problem> },
    /// The one of this name is gone.
    Gone(String),
    /// The list is complete.
    ListEnds,
    /// The kind is not installed here: with the reason.
    Without(String),
}

/// An Identity.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) number: u32,
    pub(super) key: Arc<IdentityKey>,
    pub(super) uid: String,
    /// `metadata.resourceVersion`.
    pub(super) version: String,
    /// Marked as unused: since when that is known here.
    pub(super) unused: Option<Instant>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    known: BTreeMap<u32, Entry>,
    by_key: BTreeMap<Arc<IdentityKey>, BTreeSet<u32>>,
    errors: BTreeMap<String, SourceError>,
    /// What the list that is under way has named.
    listed: Option<BTreeSet<String>>,
    /// A list was complete once.
    available: bool,
    /// It was told whether there are any.
    settled: bool,
    /// What follows from what requests have told, until the watch tells of it.
    unsent: Vec<SourceEvent>,
}

impl Numbers {
    /// Whether it is known which there are, or that there are none.
    pub(super) fn is_settled(&self) -> bool {
        self.settled
    }

    /// Whether the cluster has such numbers.
    pub(super) fn is_available(&self) -> bool {
        self.available
    }

    /// What stands wrong.
    pub(super) fn errors(&self) -> impl Iterator<Item = &SourceError> {
        self.errors.values()
    }

    /// What is known of a number.
    #[cfg(test)]
    fn get(&self, number: u32) -> Option<&Entry> {
        self.known.get(&number)
    }

    /// All, by number.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.known.values()
    }

    /// The one that counts of a key's.
    pub(super) fn of(&self, key: &IdentityKey) -> Option<&Entry> {
        self.known.get(self.by_key.get(key)?.first()?)
    }

    /// Whether a number is known to be somebody else's than `key`'s. That another node has made it for the same key may be told
    /// at any moment, also to who has just asked whether there is one.
    pub(super) fn is_taken(&self, number: u32, key: &IdentityKey) -> bool {
        self.known.get(&number).is_some_and(|entry| *entry.key != *key) || self.errors.contains_key(&number.to_string())
    }

    /// Takes in what is told, and adds what follows to `events`.
    pub(super) fn take(&mut self, told: Told, events: &mut Vec<SourceEvent>) {
        events.append(&mut self.unsent);
        match told {
            Told::ListBegins => self.listed = Some(BTreeSet::new()),
            Told::Present(entry) => {
                let name = entry.number.to_string();
                self.named(&name);
                let before = self.known.get(&entry.number);
                if before.is_some_and(|before| before.uid == entry.uid && before.key != entry.key) {
                    let what = "spec was changed: a number stands for one thing as long as it is there";
                    let problem = Problem::new(
                        &objects::FieldPath::of(&["spec"]),
                        what,
                        "delete it: agents make those that are needed",
                    );
                    return self.refuse(name, vec![problem], true, events);
                }
                events.extend(self.errors.remove(&name).map(SourceEvent::Resolved));
                self.put(*entry, events);
            }
            Told::Refused { name, problems } => {
                self.named(&name);
                // It stood for somebody: what it stands for is not known, so for nobody.
                let kept = name.parse().is_ok_and(|number: u32| self.known.contains_key(&number));
                self.refuse(name, problems, kept, events);
            }
            Told::Gone(name) => {
                if let Some(listed) = &mut self.listed {
                    listed.remove(&name);
                }
                self.forget(&name, events);
            }
            Told::ListEnds => {
                if let Some(listed) = self.listed.take() {
                    let known = self.known.keys().map(ToString::to_string).chain(self.errors.keys().cloned());
                    let gone: BTreeSet<String> = known.filter(|name| !listed.contains(name)).collect();
                    gone.iter().filter(|name| !name.is_empty()).for_each(|name| self.forget(name, events));
                }
                self.settled = true;
                // The kind itself.
                events.extend(self.errors.remove("").map(SourceEvent::Resolved));
                if !self.available {
                    self.available = true;
                    events.push(SourceEvent::NumbersShared);
                }
            }
            Told::Without(reason) => {
                self.settled = true;
                self.listed = None;
                let error = SourceError {
                    place: format!("{PLACE}, {}", identity::KIND),
                    key: None,
                    problem: SourceProblem::Slow(reason),
                    kept: 0,
                    closed: false,
                };
                self.note(String::new(), error, events);
            }
        }
    }

    fn named(&mut self, name: &str) {
        if let Some(listed) = &mut self.listed {
            listed.insert(name.to_owned());
        }
    }

    /// Takes in what a request has told, of which the watch tells later; then it follows, unless who asked has said so
    /// before.
    pub(super) fn learn(&mut self, entry: Entry) {
        let mut events = std::mem::take(&mut self.unsent);
        self.put(entry, &mut events);
        self.unsent = events;
    }

    fn put(&mut self, entry: Entry, events: &mut Vec<SourceEvent>) {
        let Entry { number, key, .. } = entry.clone();
        let before = self.known.insert(number, entry);
        let since = before.as_ref().and_then(|before| before.unused);
        if let Some(entry) = self.known.get_mut(&number)
            && entry.unused.is_some()
        {
            // It counts from the first time.
            entry.unused = since.or(entry.unused);
        }
        if before.as_ref().map(|before| &before.key) == Some(&key) {
            return;
        }
        if let Some(before) = before {
            self.unlink(number, &before.key);
        }
        self.by_key.entry(key.clone()).or_default().insert(number);
        events.push(SourceEvent::Number(number, Some(key)));
    }

    fn unlink(&mut self, number: u32, key: &Arc<IdentityKey>) {
        if let Some(numbers) = self.by_key.get_mut(key) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.by_key.remove(key);
            }
        }
    }

    fn forget(&mut self, name: &str, events: &mut Vec<SourceEvent>) {
        events.extend(self.errors.remove(name).map(SourceEvent::Resolved));
        let Ok(number) = name.parse() else { return };
        if let Some(entry) = self.known.remove(&number) {
            self.unlink(number, &entry.key);
            events.push(SourceEvent::Number(number, None));
        }
    }

    fn refuse(&mut self, name: String, problems: Vec<Problem>, kept: bool, events: &mut Vec<SourceEvent>) {
        let object = ObjectName { kind: identity::KIND.to_owned(), namespace: None, name: Some(name.clone()) };
        let error = SourceError {
            place: PLACE.to_owned(),
            key: None,
            problem: SourceProblem::Refused(ObjectError {
                source_name: PLACE.to_owned(),
                document: 0,
                item: None,
                line: 0,
                object: Some(object),
                problems,
            }),
            kept: usize::from(kept),
            closed: false,
        };
        self.note(name, error, events);
    }

    fn note(&mut self, name: String, error: SourceError, events: &mut Vec<SourceEvent>) {
        if self.errors.get(&name) != Some(&error) {
            events.extend(self.errors.insert(name, error.clone()).map(SourceEvent::Resolved));
            events.push(SourceEvent::Error(error));
        }
    }
}

#[cfg(test)]
mod tests {
    use policy::model::Labels;

    use super::*;

    fn key(name: &str) -> Arc<IdentityKey> {
        Arc::new(IdentityKey {
            namespace: name.to_owned(),
            namespace_labels: Labels::default(),
            labels: Labels::default(),
            service_account: "default".to_owned(),
        })
    }

    fn present(number: u32, name: &str, uid: &str) -> Told {
        let entry = Entry { number, key: key(name), uid: uid.into(), version: "1".into(), unused: None };
        Told::Present(Box::new(entry))
    }

    /// What follows, in short.
    fn told(numbers: &mut Numbers, all: impl IntoIterator<Item = Told>) -> Vec<String> {
        let mut events = Vec::new();
        all.into_iter().for_each(|it| numbers.take(it, &mut events));
        let short = |event: &SourceEvent| match event {
            SourceEvent::Number(number, Some(key)) => format!("{number} {}", key.namespace),
            SourceEvent::Number(number, None) => format!("{number} nobody"),
            SourceEvent::NumbersShared => "shared".to_owned(),
            SourceEvent::Error(error) => format!("! {error}"),
            SourceEvent::Resolved(_) => "ok".to_owned(),
            other => panic!("{other:?}"),
        };
        events.iter().map(short).collect()
    }

    #[test]
    fn a_list_replaces_what_was_known_and_the_lowest_of_a_key_counts() {
        let mut numbers = Numbers::default();
        let list = [Told::ListBegins, present(70_002, "a", "1"), present(70_001, "a", "2"), present(70_003, "b", "3")];
        assert_eq!(told(&mut numbers, list), ["70002 a", "70001 a", "70003 b"]);
        assert!(!numbers.is_settled() && !numbers.is_available());
        assert_eq!(told(&mut numbers, [Told::ListEnds]), ["shared"]);
        assert!(numbers.is_settled() && numbers.is_available());
        assert_eq!(numbers.of(&key("a")).map(|entry| entry.number), Some(70_001));
        let again = [Told::ListBegins, present(70_002, "a", "1"), present(70_003, "b", "3"), Told::ListEnds];
        assert_eq!(told(&mut numbers, again), ["70001 nobody"]);
        assert_eq!(numbers.of(&key("a")).map(|entry| entry.number), Some(70_002));
        assert_eq!(told(&mut numbers, [Told::Gone("70003".to_owned())]), ["70003 nobody"]);
        assert!(numbers.of(&key("b")).is_none() && !numbers.is_taken(70_003, &key("a")));
        // Who looks for a number of "a" at this moment finds the one there is.
        assert!(numbers.is_taken(70_002, &key("b")) && !numbers.is_taken(70_002, &key("a")));
        // Removed and made anew while nobody watched.
        assert_eq!(told(&mut numbers, [present(70_002, "c", "4")]), ["70002 c"]);
        assert!(numbers.of(&key("a")).is_none());
    }

    #[test]
    fn one_that_was_changed_or_cannot_be_read_is_told_and_the_rest_works() {
        let mut numbers = Numbers::default();
        told(&mut numbers, [Told::ListBegins, present(70_001, "a", "1"), Told::ListEnds]);
        let said = told(&mut numbers, [present(70_001, "b", "1")]);
        assert!(said.len() == 1 && said[0].contains("Identity 70001") && said[0].contains("spec"), "{said:?}");
        assert_eq!(numbers.get(70_001).map(|entry| entry.key.clone()), Some(key("a")), "it means what it meant");
        assert_eq!(told(&mut numbers, [present(70_001, "a", "1")]), ["ok"]);
        let bad = Told::Refused { name: "12".to_owned(), problems: Vec::new() };
        assert_eq!(told(&mut numbers, [bad]).len(), 1);
        assert_eq!(numbers.errors().count(), 1);
        assert_eq!(told(&mut numbers, [Told::Gone("12".to_owned())]), ["ok"]);
        let refused = Told::Refused { name: "70009".to_owned(), problems: Vec::new() };
        told(&mut numbers, [refused]);
        assert!(numbers.is_taken(70_009, &key("a")), "nobody else gets it");
    }

    #[test]
    fn a_cluster_without_the_kind_is_told_until_it_has_it() {
        let mut numbers = Numbers::default();
        let said = told(&mut numbers, [Told::Without("not installed".to_owned())]);
        assert!(said.len() == 1 && said[0].contains("not installed") && numbers.is_settled(), "{said:?}");
        assert!(!numbers.is_available());
        assert_eq!(told(&mut numbers, [Told::ListBegins, Told::ListEnds]), ["ok", "shared"]);
        // Gone again: what was told holds.
        told(&mut numbers, [present(70_001, "a", "1"), Told::Without("gone".to_owned())]);
        assert!(numbers.is_available() && numbers.get(70_001).is_some());
    }

    #[test]
    fn a_mark_counts_from_when_it_was_seen_first() {
        let mut numbers = Numbers::default();
        let marked = |unused| {
            let entry = Entry { number: 70_001, key: key("a"), uid: "1".into(), version: "2".into(), unused };
            Told::Present(Box::new(entry))
        };
        let first = Instant::now();
        told(&mut numbers, [marked(Some(first)), marked(Some(first + std::time::Duration::from_secs(5)))]);
        assert_eq!(numbers.get(70_001).unwrap().unused, Some(first));
        told(&mut numbers, [marked(None)]);
        assert_eq!(numbers.get(70_001).unwrap().unused, None);
    }
}
