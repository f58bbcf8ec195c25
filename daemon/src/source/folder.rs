//! A folder of manifests as a state machine: contents of files in, events out. No I/O.
//!
//! Rules, each with a test:
//! * A document that is refused leaves the last good version of its object in force. When it does
//!   not even tell which object it is, everything last known from its file stays.
//! * Where there is no good version of a policy, one stands in that denies what it selects. It does not count
//!   beside a good definition elsewhere.
//! * Of several definitions of an object the first one counts: by name of file, then by place in
//!   it. When that one goes, the next takes over.
//! * Files that change together (a rename) are one change: nothing is deleted and applied again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use objects::{DocumentResult, Limits, Outcome, parse_documents_within};
use policy::model::{Object, ObjectKey};

use super::{Origin, SourceError, SourceEvent, SourceProblem, SourceStatus};

#[cfg(test)]
mod tests;

/// What happened to a file or folder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// The file has this content now.
    Content(Vec<u8>),
    /// It is there but cannot be read. What was known from it stays.
    Unreadable(String),
    /// Changes of it are noticed late.
    Slow(String),
    /// It is no more; or what was wrong with a folder is no more.
    Removed,
}

/// All files of a folder and what follows from them.
#[derive(Debug, Default)]
pub struct Folder {
    limits: Limits,
    files: BTreeMap<String, File>,
    /// Which files define an object. The first counts.
    holders: BTreeMap<ObjectKey, BTreeSet<String>>,
    in_force: BTreeMap<ObjectKey, Held>,
    /// Errors of definitions that do not count because another file's does.
    duplicates: BTreeMap<ObjectKey, BTreeSet<SourceError>>,
}

/// One file: what it defines, last good versions included, and what is wrong with it.
#[derive(Clone, Debug, Default)]
struct File {
    objects: BTreeMap<ObjectKey, Held>,
    errors: BTreeSet<SourceError>,
}

#[derive(Clone, Debug)]
struct Held {
    object: Arc<Object>,
    origin: Origin,
    /// Stands in for one that is refused.
    closed: bool,
}

impl Folder {
    /// An empty folder whose files are read within `limits`.
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Takes in what happened to some files at once and says what follows.
    pub fn update(&mut self, changes: impl IntoIterator<Item = (String, Change)>) -> Vec<SourceEvent> {
        let (mut changed, mut touched) = (BTreeMap::<String, File>::new(), BTreeSet::new());
        for (name, change) in changes {
            let empty = File::default();
            let old = changed.get(&name).or_else(|| self.files.get(&name)).unwrap_or(&empty);
            let new = old.changed(&name, change, self.limits);
            touched.extend(old.objects.keys().chain(new.objects.keys()).cloned());
            changed.insert(name, new);
        }
        // What an error says of an object depends on the other files that have it.
        let holders = touched.iter().filter_map(|key| self.holders.get(key)).flatten();
        let concerned: BTreeSet<String> = changed.keys().chain(holders).cloned().collect();
        let errors_before = self.errors(&concerned, &touched);
        for (name, file) in changed {
            self.replace(name, file);
        }
        let (mut applied, mut deleted) = (Vec::new(), Vec::new());
        for key in touched.iter().cloned() {
            self.duplicates.remove(&key);
            match self.settle(&key) {
                Some((held, duplicates)) => {
                    if !duplicates.is_empty() {
                        self.duplicates.insert(key.clone(), duplicates);
                    }
                    let before = self.in_force.insert(key, held.clone());
                    if before.is_none_or(|before| before.object != held.object) {
                        applied.push(held);
                    }
                }
                None => {
                    self.holders.remove(&key);
                    if self.in_force.remove(&key).is_some() {
                        deleted.push(key);
                    }
                }
            }
        }
        let errors_after = self.errors(&concerned, &touched);
        // What isolates goes before what is isolated, and leaves after it.
        applied.sort_by_key(|held| rank(&held.object.key()));
        deleted.sort_by_key(|key| std::cmp::Reverse(rank(key)));
        let applied = applied
            .into_iter()
            .map(|Held { object, origin, closed: _ }| SourceEvent::Apply(Arc::unwrap_or_clone(object), origin));
        let resolved = errors_before.difference(&errors_after).cloned().map(SourceEvent::Resolved);
        let appeared = errors_after.difference(&errors_before).cloned().map(SourceEvent::Error);
        applied.chain(deleted.into_iter().map(SourceEvent::Delete)).chain(resolved).chain(appeared).collect()
    }

    fn replace(&mut self, name: String, file: File) {
        let old = self.files.remove(&name).unwrap_or_default();
        for key in old.objects.keys().filter(|key| !file.objects.contains_key(key)) {
            if let Some(holders) = self.holders.get_mut(key) {
                holders.remove(&name);
            }
        }
        for key in file.objects.keys() {
            self.holders.entry(key.clone()).or_default().insert(name.clone());
        }
        if !file.objects.is_empty() || !file.errors.is_empty() {
            self.files.insert(name, file);
        }
    }

    /// What stands wrong in some files, and with who defines some objects more than once.
    fn errors(&self, files: &BTreeSet<String>, keys: &BTreeSet<ObjectKey>) -> BTreeSet<SourceError> {
        let of_files = files.iter().filter_map(|name| self.files.get(name)).flat_map(|file| &file.errors);
        let duplicates = keys.iter().filter_map(|key| self.duplicates.get(key)).flatten();
        of_files.map(|error| self.as_it_is(error)).chain(duplicates.cloned()).collect()
    }

    /// What is refused in one file denies nothing where another has a version that counts.
    fn as_it_is(&self, error: &SourceError) -> SourceError {
        let counts = error.key.as_ref().and_then(|key| self.in_force.get(key)).is_some_and(|held| !held.closed);
        SourceError { closed: error.closed && !counts, ..error.clone() }
    }

    /// The definition of an object that counts, and errors for those that do not.
    fn settle(&self, key: &ObjectKey) -> Option<(Held, BTreeSet<SourceError>)> {
        let held = || self.holders.get(key).into_iter().flatten().filter_map(|it| self.files.get(it)?.objects.get(key));
        let mut good = held().filter(|held| !held.closed);
        let winner = good.next().or_else(|| held().next())?;
        // Who stands in has an error of his own.
        let losers = good.map(|loser| duplicate(key, &winner.origin, &loser.origin));
        Some((winner.clone(), losers.collect()))
    }

    /// Files that define something or have something wrong with them.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// What is in force and what stands wrong.
    pub fn status(&self, synced: bool) -> SourceStatus {
        let of_files = self.files.values().flat_map(|file| &file.errors).map(|error| self.as_it_is(error));
        let errors: BTreeSet<SourceError> = of_files.chain(self.duplicates.values().flatten().cloned()).collect();
        SourceStatus {
            synced,
            objects: self.in_force.iter().map(|(key, held)| (key.clone(), held.origin.clone())).collect(),
            errors: errors.into_iter().collect(),
        }
    }
}

fn rank(key: &ObjectKey) -> u8 {
    match key {
        ObjectKey::Namespace(_) | ObjectKey::Node(_) => 0,
        ObjectKey::Policy(_) => 1,
        ObjectKey::Pod(_) => 2,
        // Backends before what stands for them.
        ObjectKey::EndpointSlice(_) => 3,
        ObjectKey::Service(_) => 4,
    }
}

fn duplicate(key: &ObjectKey, winner: &Origin, loser: &Origin) -> SourceError {
    SourceError {
        place: loser.file.clone(),
        key: Some(key.clone()),
        problem: SourceProblem::Duplicate { winner: winner.clone(), loser: loser.clone() },
        kept: 0,
        closed: false,
    }
}

impl File {
    fn changed(&self, name: &str, change: Change, limits: Limits) -> Self {
        match change {
            Change::Content(bytes) => self.read(name, parse_documents_within(name, &bytes, limits)),
            Change::Unreadable(reason) => self.keep(name, SourceProblem::Unreadable(reason), self.objects.len()),
            Change::Slow(reason) => self.keep(name, SourceProblem::Slow(reason), 0),
            Change::Removed => Self::default(),
        }
    }

    fn keep(&self, name: &str, problem: SourceProblem, kept: usize) -> Self {
        let error = SourceError { place: name.to_owned(), key: None, problem, kept, closed: false };
        Self { objects: self.objects.clone(), errors: BTreeSet::from([error]) }
    }

    fn read(&self, name: &str, results: Vec<DocumentResult>) -> Self {
        let mut new = Self::default();
        let mut refused = Vec::new();
        for DocumentResult { document, item, line, name: _, key, outcome, closed } in results {
            let origin = Origin { file: name.to_owned(), document, item, line };
            match outcome {
                Outcome::Skipped { .. } => {}
                Outcome::Refused(error) => {
                    let held = closed.map(|object| Held { object: Arc::from(object), origin, closed: true });
                    refused.push((key, error, held));
                }
                Outcome::Object(object) => {
                    let key = object.key();
                    match new.objects.get(&key) {
                        Some(first) => {
                            new.errors.insert(duplicate(&key, &first.origin, &origin));
                        }
                        None => {
                            new.objects.insert(key, Held { object: Arc::from(object), origin, closed: false });
                        }
                    }
                }
            }
        }
        // A refused document that names its object keeps that object; one that does not may have
        // been any of those that are missing now. Who only stands in makes room for another who does.
        for (key, _, held) in &mut refused {
            let Some(key) = key else { continue };
            let last_good = self.objects.get(key).is_some_and(|held| !held.closed);
            if let Some(held) = held.take_if(|_| !last_good && !new.objects.contains_key(key)) {
                new.objects.insert(key.clone(), held);
            }
        }
        let named: BTreeSet<ObjectKey> = refused.iter().filter_map(|(key, ..)| key.clone()).collect();
        let missing = self.objects.iter().filter(|(key, _)| !new.objects.contains_key(key));
        let (mut kept, others): (Vec<_>, Vec<_>) = missing.partition(|(key, _)| named.contains(key));
        let last_good: BTreeSet<&ObjectKey> =
            kept.iter().filter(|(_, held)| !held.closed).map(|(key, _)| *key).collect();
        let may_be_any = refused.iter().any(|(key, ..)| key.is_none());
        let others_kept = others.len();
        if may_be_any {
            kept.extend(others);
        }
        new.objects.extend(kept.into_iter().map(|(key, held)| (key.clone(), held.clone())));
        for (key, error, _) in refused {
            let kept = key.as_ref().map_or(others_kept, |key| usize::from(last_good.contains(key)));
            let closed = key.as_ref().and_then(|key| new.objects.get(key)).is_some_and(|held| held.closed);
            let problem = SourceProblem::Refused(error);
            new.errors.insert(SourceError { place: name.to_owned(), key, problem, kept, closed });
        }
        new
    }
}
