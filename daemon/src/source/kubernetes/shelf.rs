//! What the API server has told of one kind of object, and what follows from what it tells next. Does no
//! I/O.
//!
//! A list replaces what was known before: what it does not name has gone while nobody watched, and
//! is gone only when the list is complete, so that a list that breaks off takes nothing away.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::DefaultHasher},
    hash::{Hash as _, Hasher as _},
};

use objects::{ObjectError, ObjectName, Problem};
use policy::model::{Object, ObjectKey};

use crate::source::{Origin, SourceError, SourceEvent, SourceProblem};

/// Where objects come from, as messages and status say it.
pub(super) const PLACE: &str = "API server";

/// One thing that is told of a kind.
#[derive(Debug)]
pub(super) enum Told {
    /// A list begins.
    ListBegins,
    /// An object is there, as part of a list or because it has changed.
    Present(Box<Result<Object, Refused>>),
    /// An object is gone.
    Gone(ObjectKey),
    /// The list is complete.
    ListEnds,
    /// There is no such kind here: nobody can have made an object of it.
    NoSuchKind,
}

/// An object that cannot be used.
#[derive(Debug)]
pub(super) struct Refused {
    /// What names it, if its name makes sense.
    pub(super) key: Option<ObjectKey>,
    /// What it says of itself.
    pub(super) name: ObjectName,
    /// What is wrong with it; at least one.
    pub(super) problems: Vec<Problem>,
    /// What stands in for it while there is no good version.
    pub(super) closed: Option<Box<Object>>,
}

/// What is known of one kind.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    /// Objects in force, with a digest of what they are.
    known: HashMap<ObjectKey, u64>,
    /// Those of them that stand in for one that is refused.
    closed: BTreeSet<ObjectKey>,
    /// What the list that is under way has named.
    listed: Option<BTreeSet<ObjectKey>>,
    /// Objects that are refused.
    errors: BTreeMap<ObjectName, SourceError>,
    /// A list was complete once.
    synced: bool,
}

impl Shelf {
    /// Whether all that was there at the start has been told.
    pub(super) fn is_synced(&self) -> bool {
        self.synced
    }

    /// What stands wrong.
    pub(super) fn errors(&self) -> impl Iterator<Item = &SourceError> {
        self.errors.values()
    }

    /// Keys of the objects in force.
    pub(super) fn keys(&self) -> impl Iterator<Item = &ObjectKey> {
        self.known.keys()
    }

    /// Takes in what is told, and adds what follows to `events`.
    pub(super) fn take(&mut self, told: Told, events: &mut Vec<SourceEvent>) {
        match told {
            Told::ListBegins => self.listed = Some(BTreeSet::new()),
            Told::Present(object) => match *object {
                Ok(object) => self.accept(object, events),
                Err(refused) => self.refuse(refused, events),
            },
            Told::Gone(key) => {
                if let Some(listed) = &mut self.listed {
                    listed.remove(&key);
                }
                self.forget(&key, events);
            }
            Told::ListEnds => {
                self.synced = true;
                if let Some(listed) = self.listed.take() {
                    let gone: BTreeSet<ObjectKey> =
                        self.known.keys().filter(|key| !listed.contains(key)).cloned().collect();
                    for key in gone {
                        self.forget(&key, events);
                    }
                    let refused = self.errors.iter().filter(|(_, error)| match &error.key {
                        Some(key) => !listed.contains(key),
                        None => true,
                    });
                    let gone: Vec<ObjectName> = refused.map(|(name, _)| name.clone()).collect();
                    events.extend(gone.iter().filter_map(|name| self.errors.remove(name)).map(SourceEvent::Resolved));
                }
            }
            Told::NoSuchKind => {
                self.listed = Some(BTreeSet::new());
                self.take(Told::ListEnds, events);
            }
        }
    }

    fn accept(&mut self, object: Object, events: &mut Vec<SourceEvent>) {
        let key = object.key();
        if let Some(listed) = &mut self.listed {
            listed.insert(key.clone());
        }
        let name = ObjectName::from(&key);
        events.extend(self.errors.remove(&name).map(SourceEvent::Resolved));
        self.closed.remove(&key);
        self.put(key, object, events);
    }

    fn put(&mut self, key: ObjectKey, object: Object, events: &mut Vec<SourceEvent>) {
        let digest = digest(&object);
        if self.known.insert(key, digest) != Some(digest) {
            events.push(SourceEvent::Apply(object, origin()));
        }
    }

    fn refuse(&mut self, refused: Refused, events: &mut Vec<SourceEvent>) {
        let Refused { key, name, problems, closed } = refused;
        if let (Some(listed), Some(key)) = (&mut self.listed, &key) {
            listed.insert(key.clone());
        }
        let good = |shelf: &Self, key: &ObjectKey| shelf.known.contains_key(key) && !shelf.closed.contains(key);
        let kept = key.as_ref().is_some_and(|key| good(self, key));
        if let (Some(key), Some(object), false) = (&key, closed, kept) {
            self.closed.insert(key.clone());
            self.put(key.clone(), *object, events);
        }
        let closed = key.as_ref().is_some_and(|key| self.closed.contains(key));
        let error = SourceError {
            place: PLACE.to_owned(),
            key,
            problem: SourceProblem::Refused(ObjectError {
                source_name: PLACE.to_owned(),
                document: 0,
                item: None,
                line: 0,
                object: Some(name.clone()),
                problems,
            }),
            kept: usize::from(kept),
            closed,
        };
        if self.errors.get(&name) != Some(&error) {
            events.extend(self.errors.insert(name, error.clone()).map(SourceEvent::Resolved));
            events.push(SourceEvent::Error(error));
        }
    }

    fn forget(&mut self, key: &ObjectKey, events: &mut Vec<SourceEvent>) {
        events.extend(self.errors.remove(&ObjectName::from(key)).map(SourceEvent::Resolved));
        self.closed.remove(key);
        if self.known.remove(key).is_some() {
            events.push(SourceEvent::Delete(key.clone()));
        }
    }
}

/// Where an object was read.
pub(super) fn origin() -> Origin {
    Origin { file: PLACE.to_owned(), document: 0, item: None, line: 0 }
}

/// Tells whether an object is another than before. Most updates of a Pod are about what policy does not
/// look at.
fn digest(object: &Object) -> u64 {
    let mut hasher = DefaultHasher::new();
    object.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use policy::model::{Labels, Namespace, Pod, PodKey};

    use super::*;

    fn namespace(name: &str, label: &str) -> Object {
        Object::Namespace(Namespace::new(name, Labels::default().with("l", label)))
    }

    fn present(object: Object) -> Told {
        Told::Present(Box::new(Ok(object)))
    }

    fn refused(name: &str) -> Told {
        let key = ObjectKey::Pod(PodKey::new("a", name));
        Told::Present(Box::new(Err(Refused {
            name: ObjectName::from(&key),
            key: Some(key),
            problems: Vec::new(),
            closed: None,
        })))
    }

    /// What follows, in short.
    fn told(shelf: &mut Shelf, all: impl IntoIterator<Item = Told>) -> Vec<String> {
        let mut events = Vec::new();
        all.into_iter().for_each(|it| shelf.take(it, &mut events));
        let short = |event: &SourceEvent| match event {
            SourceEvent::Apply(object, _) => format!("+ {}", object.key()),
            SourceEvent::Delete(key) => format!("- {key}"),
            SourceEvent::Error(error) => format!("! {} kept {}", error.key.as_ref().expect("a key"), error.kept),
            SourceEvent::Resolved(error) => format!("ok {}", error.key.as_ref().expect("a key")),
            other => panic!("{other:?}"),
        };
        events.iter().map(short).collect()
    }

    #[test]
    fn what_a_complete_list_does_not_name_is_gone() {
        let mut shelf = Shelf::default();
        let first = [Told::ListBegins, present(namespace("a", "1")), present(namespace("b", "1")), Told::ListEnds];
        assert_eq!(told(&mut shelf, first), ["+ Namespace a", "+ Namespace b"]);
        assert!(shelf.is_synced());
        let second = [Told::ListBegins, present(namespace("b", "1")), present(namespace("c", "1"))];
        assert_eq!(told(&mut shelf, second), ["+ Namespace c"], "a list that has not ended takes nothing away");
        assert_eq!(told(&mut shelf, [Told::ListEnds]), ["- Namespace a"]);
    }

    #[test]
    fn a_list_that_breaks_off_and_begins_again_takes_nothing_away() {
        let mut shelf = Shelf::default();
        told(&mut shelf, [Told::ListBegins, present(namespace("a", "1")), Told::ListEnds]);
        let again = [Told::ListBegins, Told::ListBegins, present(namespace("a", "1")), Told::ListEnds];
        assert_eq!(told(&mut shelf, again), [] as [&str; 0]);
    }

    #[test]
    fn an_update_that_changes_nothing_for_us_is_no_event() {
        let mut shelf = Shelf::default();
        let pod = Pod::new(PodKey::new("a", "p"));
        let changed = Pod { finished: true, ..pod.clone() };
        let all = [present(pod.clone().into()), present(pod.into()), present(changed.into())];
        assert_eq!(told(&mut shelf, all), ["+ Pod a/p", "+ Pod a/p"]);
    }

    #[test]
    fn one_stands_in_for_what_was_never_good() {
        let bad = |name: &str, label: &str| {
            let closed = namespace(name, label);
            let key = closed.key();
            let name = ObjectName::from(&key);
            Told::Present(Box::new(Err(Refused {
                key: Some(key),
                name,
                problems: Vec::new(),
                closed: Some(Box::new(closed)),
            })))
        };
        let mut shelf = Shelf::default();
        let events = |shelf: &mut Shelf, it: Told| {
            let mut events = Vec::new();
            shelf.take(it, &mut events);
            events
        };
        let found = events(&mut shelf, bad("a", "1"));
        assert!(matches!(&found[..], [SourceEvent::Apply(..), SourceEvent::Error(it)] if it.closed && it.kept == 0));
        assert_eq!(events(&mut shelf, bad("a", "1")), []);
        assert!(matches!(&events(&mut shelf, bad("a", "2"))[..], [SourceEvent::Apply(..)]), "it selects others");
        let found = events(&mut shelf, present(namespace("a", "3")));
        assert!(matches!(&found[..], [SourceEvent::Resolved(_), SourceEvent::Apply(..)]), "{found:?}");
        let found = events(&mut shelf, bad("a", "4"));
        assert!(matches!(&found[..], [SourceEvent::Error(it)] if !it.closed && it.kept == 1), "{found:?}");
        let found = events(&mut shelf, Told::Gone(namespace("a", "4").key()));
        assert!(matches!(&found[..], [SourceEvent::Resolved(_), SourceEvent::Delete(_)]), "{found:?}");
        assert!(matches!(&events(&mut shelf, bad("a", "5"))[..], [SourceEvent::Apply(..), SourceEvent::Error(_)]));
    }

    #[test]
    fn what_is_refused_stands_until_it_is_mended_or_gone() {
        let mut shelf = Shelf::default();
        assert_eq!(told(&mut shelf, [refused("p"), refused("p")]), ["! Pod a/p kept 0"]);
        let pod = || present(Pod::new(PodKey::new("a", "p")).into());
        assert_eq!(told(&mut shelf, [pod()]), ["ok Pod a/p", "+ Pod a/p"]);
        assert_eq!(told(&mut shelf, [refused("p")]), ["! Pod a/p kept 1"]);
        assert_eq!(told(&mut shelf, [Told::ListBegins, Told::ListEnds]), ["ok Pod a/p", "- Pod a/p"]);
        assert_eq!(told(&mut shelf, [refused("q"), Told::Gone(ObjectKey::Pod(PodKey::new("a", "q")))]).len(), 2);
    }

    #[test]
    fn a_kind_that_does_not_exist_has_no_objects_and_is_synced() {
        let mut shelf = Shelf::default();
        assert_eq!(told(&mut shelf, [Told::NoSuchKind]), [] as [&str; 0]);
        assert!(shelf.is_synced());
    }
}
