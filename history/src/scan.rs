//! Reads a folder, oldest first, while it may be written, compacted and cleared. It goes by numbers: a log that has
//! become a table meanwhile is read as the table, a file that has gone is passed over. Memory is bounded by a few
//! hundred rows, whatever is asked. Blocks.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
};

use flows::FlowRecord;
pub use flows::past::Wanted;

use crate::{
    Error,
    folder::{self, Named},
    log,
    pool::Pools,
    table,
};

/// What was found in one go.
#[derive(Debug, Default)]
pub struct Batch {
    /// Records that are wanted.
    pub records: Vec<FlowRecord>,
    /// Rows that were looked at and are not.
    pub left_out: u64,
    /// Files that cannot be read, and are passed over.
    pub problems: Vec<Error>,
    /// There is no more.
    pub done: bool,
}

#[derive(Debug)]
enum File {
    Log(log::Reader),
    Table(Box<table::Reader>),
}

#[derive(Debug)]
enum Phase {
    /// Counts, from the newest file back, until there are as many as are wanted: files behind, and matches so far.
    Counting(VecDeque<u64>, u64),
    Reading,
}

/// A reader of the folder; see the module.
#[derive(Debug)]
pub struct Scan {
    folder: PathBuf,
    wanted: Wanted,
    phase: Phase,
    /// Files that are still to be read.
    files: VecDeque<(u64, Named)>,
    newest: u64,
    /// The oldest file that was counted.
    start: u64,
    open: Option<File>,
    pools: Pools,
    /// Matches to be passed over, of those that were counted too many.
    surplus: u64,
    /// Epoch and sequence of the last row.
    after: Option<(u64, u64)>,
}

impl Scan {
    /// At the oldest file.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn open(folder: &Path, wanted: Wanted) -> Result<Self, Error> {
        let files: VecDeque<_> = folder::list(folder)?.into_iter().collect();
        let phase = match wanted.last {
            Some(_) => Phase::Counting(files.iter().map(|(number, _)| *number).collect(), 0),
            None => Phase::Reading,
        };
        let newest = files.back().map_or(0, |(number, _)| *number);
        let (folder, pools) = (folder.to_owned(), Pools::default());
        Ok(Self { folder, wanted, phase, files, newest, start: newest + 1, open: None, pools, surplus: 0, after: None })
    }

    /// Epoch and sequence of the last row that was passed, wanted or not.
    pub fn after(&self) -> Option<(u64, u64)> {
        self.after
    }

    /// Goes on by at most `rows`; fewer does not mean that there are no more.
    pub fn next(&mut self, rows: usize) -> Batch {
        let mut batch = Batch::default();
        for _ in 0..rows {
            if !self.step(&mut batch) {
                batch.done = true;
                break;
            }
        }
        batch
    }

    /// False: there is no more.
    fn step(&mut self, batch: &mut Batch) -> bool {
        if self.open.is_none() && !self.open_next(&mut batch.problems) {
            return false;
        }
        let (since, until) = (self.wanted.since, self.wanted.until);
        let record = match &mut self.open {
            Some(File::Log(reader)) => reader.record(&mut self.pools),
            Some(File::Table(reader)) => reader.record(since, until, &mut self.pools),
            None => return true,
        };
        let record = match record {
            Ok(Some(record)) => record,
            Ok(None) => {
                self.open = None;
                return true;
            }
            Err(problem) => {
                // Told once, when it is read.
                if matches!(self.phase, Phase::Reading) {
                    batch.problems.push(problem);
                }
                self.open = None;
                return true;
            }
        };
        let matches = (since..=until).contains(&record.time_unix_ns) && self.wanted.filters.matches(&record);
        match &mut self.phase {
            Phase::Counting(_, count) => *count += u64::from(matches),
            Phase::Reading => {
                self.after = Some((record.node.epoch, record.sequence));
                if matches && self.surplus == 0 {
                    batch.records.push(record);
                } else {
                    self.surplus -= u64::from(matches);
                    batch.left_out += 1;
                }
            }
        }
        true
    }

    /// False: there is none.
    fn open_next(&mut self, problems: &mut Vec<Error>) -> bool {
        if let Phase::Counting(before, count) = &mut self.phase {
            let most = self.wanted.last.unwrap_or(u64::MAX);
            let file = before.pop_back().filter(|_| *count < most);
            if let Some(file) = file.and_then(|number| self.files.iter().find(|(it, _)| *it == number).cloned()) {
                self.open = open(&self.folder, &file).ok().flatten();
                self.start = file.0;
                return true;
            }
            self.surplus = count.saturating_sub(most);
            self.phase = Phase::Reading;
            let start = self.start;
            self.files.retain(|(number, _)| *number >= start);
        }
        let mut next = self.files.pop_front();
        if next.is_none() {
            // A log may have been closed, and another begun, while it was read.
            let later = folder::list(&self.folder).unwrap_or_default().split_off(&(self.newest + 1));
            self.files.extend(later);
            self.newest = self.files.back().map_or(self.newest, |(number, _)| *number);
            next = self.files.pop_front();
        }
        let Some(file) = next else { return false };
        match open(&self.folder, &file) {
            Ok(open) => self.open = open,
            Err(problem) => problems.push(problem),
        }
        true
    }
}

/// `None`: it has gone.
fn open(folder: &Path, (number, file): &(u64, Named)) -> Result<Option<File>, Error> {
    let as_table = |path: &Path| table::Reader::open(path).map(|it| Some(File::Table(Box::new(it))));
    let found = match (&file.table, &file.log) {
        (Some(table), _) => as_table(table),
        (None, Some(log)) => match log::Reader::open(log) {
            Err(error) if error.is_gone() => match folder::list(folder)?.remove(number).and_then(|it| it.table) {
                Some(table) => as_table(&table),
                None => Ok(None),
            },
            other => other.map(|it| Some(File::Log(it))),
        },
        (None, None) => Ok(None),
    };
    match found {
        Err(error) if error.is_gone() => Ok(None),
        other => other,
    }
}

#[cfg(test)]
mod tests;
