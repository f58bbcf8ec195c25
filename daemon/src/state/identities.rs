//! Keeps what identity numbers stand for written down, at a cost that does not grow with their number: what has changed
//! goes into a small file, and now and then all of it into the large one.

use std::{collections::BTreeMap, sync::Arc};

use super::{Identities, IdentitiesSince, IdentityRecord, StateDir, StateError};

/// Numbers that the small file has at most.
const MOST_SINCE: usize = 256;

/// What is written down.
#[derive(Debug)]
pub struct IdentityBook {
    dir: Arc<StateDir>,
    /// What is in the small file, or should be.
    since: IdentitiesSince,
    /// The large file is not the one that the small one goes with.
    stale: bool,
}

impl IdentityBook {
    /// Goes on after what was found with this edition. The first time all is written.
    pub fn new(dir: Arc<StateDir>, edition: u64) -> Self {
        Self { dir, since: IdentitiesSince { edition, ..IdentitiesSince::default() }, stale: true }
    }

    /// Writes down what numbers stand for now, `None` for nobody; `all` of them if need be. `next` is whose turn it
    /// is. What could not be written is tried again the next time, with what is to be written then.
    ///
    /// # Errors
    /// The file system refused.
    pub fn keep(
        &mut self,
        changed: BTreeMap<u32, Option<IdentityRecord>>,
        next: u32,
        all: impl FnOnce() -> Vec<IdentityRecord>,
    ) -> Result<(), StateError> {
        self.since.next = next;
        self.since.changed.extend(changed);
        if !self.stale && self.since.changed.len() <= MOST_SINCE {
            return self.dir.put_identities_since(&self.since);
        }
        // Whether it was written is not known when it fails: then the next one is another.
        self.stale = true;
        self.since.edition += 1;
        self.dir.put_identities(&Identities { identities: all(), next, edition: self.since.edition })?;
        self.since.changed.clear();
        self.stale = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Durability;

    fn record(number: u32, namespace: u32) -> IdentityRecord {
        IdentityRecord {
            number,
            namespace: format!("n{namespace}"),
            namespace_labels: BTreeMap::new(),
            labels: BTreeMap::new(),
            service_account: "default".to_owned(),
        }
    }

    /// Numbers come, go and come back for others; after each change the folder tells just what they are.
    #[test]
    fn what_is_read_is_what_was_kept_last_whichever_file_it_is_in() {
        let folder = tempfile::tempdir().unwrap();
        let mut all: BTreeMap<u32, IdentityRecord> = BTreeMap::new();
        let mut whole = 0;
        for life in 0..3_u32 {
            let (dir, opened) = StateDir::open(folder.path(), Durability::Process, "boot-1").unwrap();
            assert_eq!(opened.identities.identities, all.values().cloned().collect::<Vec<_>>());
            let mut book = IdentityBook::new(Arc::new(dir), opened.identities.edition);
            for round in 0..MOST_SINCE as u32 + 44 {
                let number = 256 + round * 7 % 400;
                let now = (round % 3 != 2).then(|| record(number, round + life));
                match &now {
                    Some(record) => drop(all.insert(number, record.clone())),
                    None => drop(all.remove(&number)),
                }
                let everybody = || {
                    whole += 1;
                    all.values().cloned().collect()
                };
                book.keep([(number, now)].into(), number + 1, everybody).unwrap();
                if round % 50 == 0 {
                    let read = book.dir.load().unwrap().identities;
                    assert_eq!(read.identities, all.values().cloned().collect::<Vec<_>>());
                    assert_eq!(read.next, number + 1);
                }
            }
        }
        assert_eq!(whole, 6, "at each start, and once when the small file was full");
    }

    /// A crash between the two files: the small one goes with a large one that is no more.
    #[test]
    fn what_has_changed_since_another_edition_means_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (dir, _) = StateDir::open(folder.path(), Durability::Process, "boot-1").unwrap();
        let since = IdentitiesSince { edition: 1, changed: [(256, None), (257, Some(record(257, 1)))].into(), next: 9 };
        dir.put_identities(&Identities { identities: vec![record(256, 0)], next: 5, edition: 1 }).unwrap();
        dir.put_identities_since(&since).unwrap();
        let read = dir.load().unwrap().identities;
        assert_eq!((read.identities, read.next), (vec![record(257, 1)], 9));
        dir.put_identities(&Identities { identities: vec![record(256, 2)], next: 6, edition: 2 }).unwrap();
        let read = dir.load().unwrap().identities;
        assert_eq!((read.identities, read.next), (vec![record(256, 2)], 6));
    }
}
