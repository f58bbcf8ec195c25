//! The folder: which files it holds, what is appended to which, what goes when. Blocks; whoever calls it is on a
//! thread that may.
//!
//! Files are numbered in the order in which their records came. A log of number N becomes the table of number N:
//! written beside (`.new`), synced, renamed, the folder synced, and only then the log is removed. So wherever a crash
//! comes between, there is either a whole log or a whole table; if there are both, the table holds all of the log.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use flows::FlowRecord;

use crate::{Error, cell::Cell, columns, log, table};

mod compaction;
mod names;

pub use compaction::Compaction;
pub use names::{File as Named, list};

const HOUR_NS: u64 = 3_600_000_000_000;
/// Records may come that much out of the order of time before it means that the clock was set back.
const DISORDER_NS: u64 = 60_000_000_000;
/// Bounds of a log's size, in bytes; within them a sixteenth of the history. What is beyond is the hour's next table.
const LOG_BYTES: (u64, u64) = (256 << 10, 64 << 20);

/// How much is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of all files.
    pub max_bytes: u64,
    /// Files whose newest record is older go; zero: none goes for its age.
    pub max_age: Duration,
}

/// A file whose content does not change any more, or the open log.
#[derive(Clone, Debug)]
struct Piece {
    path: PathBuf,
    is_log: bool,
    rows: u64,
    bytes: u64,
    /// Least and greatest time of its records.
    times: (u64, u64),
}

/// The log that grows.
#[derive(Debug)]
struct Open {
    number: u64,
    writer: log::Writer,
    /// Hour of its records, since 1970; `None`: it has none yet.
    hour: Option<u64>,
}

/// Records that were encoded, to be appended together.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Where each ends, and its time.
    ends: Vec<(usize, u64)>,
    /// Records that are too long to be kept.
    pub refused: u64,
}

impl Batch {
    /// Adds a record.
    pub fn push(&mut self, record: &FlowRecord) {
        if log::encode(record, &mut self.bytes) {
            self.ends.push((self.bytes.len(), record.time_unix_ns));
        } else {
            self.refused += 1;
        }
    }

    /// Records in it.
    pub fn len(&self) -> u64 {
        self.ends.len() as u64
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

/// What was done with records.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// Written.
    pub written: u64,
    /// Not written: the disk was full although nothing old was left to go.
    pub refused: u64,
    /// Old ones that went for room.
    pub evicted: u64,
    /// Old ones that went for their age.
    pub expired: u64,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// Records in all files.
    pub rows: u64,
    /// Bytes at the end of logs that were no whole frame.
    pub torn_bytes: u64,
    /// Files that are left as they are.
    pub problems: Vec<Error>,
}

/// The history's folder.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    limits: Limits,
    pieces: BTreeMap<u64, Piece>,
    open: Option<Open>,
    next: u64,
}

fn sync_folder(path: &Path) -> Result<(), Error> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(Error::disk(path))
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::disk(path)(error)),
        _ => Ok(()),
    }
}

impl Folder {
    /// Opens what is there, or begins anew. What a crash has left half done is taken back or finished.
    ///
    /// # Errors
    /// The folder cannot be made, read or written. A file that cannot be read is left alone and told.
    pub fn open(path: &Path, limits: Limits) -> Result<(Self, Found), Error> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(Error::disk(path))?;
        let mut folder = Self { path: path.to_owned(), limits, pieces: BTreeMap::new(), open: None, next: 1 };
        let mut found = Found::default();
        for name in names::half_done(path)? {
            remove(&name)?;
        }
        for (number, file) in names::list(path)? {
            folder.next = folder.next.max(number + 1);
            if let (Some(log), Some(_)) = (&file.log, &file.table) {
                remove(log)?;
            }
            let piece = match (&file.log, &file.table) {
                (_, Some(table)) => Piece::table(table),
                (Some(log), None) => Piece::log(log),
                (None, None) => continue,
            };
            match piece {
                Ok((piece, torn)) => {
                    found.torn_bytes += torn;
                    if piece.rows == 0 {
                        remove(&piece.path)?;
                        continue;
                    }
                    found.rows += piece.rows;
                    folder.pieces.insert(number, piece);
                }
                Err(error @ Error::Disk { .. }) => return Err(error),
                Err(error) => found.problems.push(error),
            }
        }
        // The newest log goes on, if nothing has come after it.
        if let Some((&number, piece)) = folder.pieces.last_key_value()
            && piece.is_log
        {
            let writer = log::Writer::open(&piece.path, piece.bytes)?;
            folder.open = Some(Open { number, writer, hour: Some(piece.times.0 / HOUR_NS) });
        }
        sync_folder(path)?;
        Ok((folder, found))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.pieces.values().map(|piece| piece.bytes).sum()
    }

    /// Records in all files.
    pub fn rows(&self) -> u64 {
        self.pieces.values().map(|piece| piece.rows).sum()
    }

    fn log_bytes(&self) -> u64 {
        (self.limits.max_bytes / 16).clamp(LOG_BYTES.0, LOG_BYTES.1)
    }

    /// Appends records. When the disk is full the oldest files go until there is room.
    ///
    /// # Errors
    /// The disk is broken rather than full. What the outcome so far was is lost with it; nothing of the batch counts as
    /// written then.
    pub fn append(&mut self, batch: &Batch) -> Result<Outcome, Error> {
        let mut outcome = Outcome { refused: batch.refused, ..Outcome::default() };
        let mut rest = &batch.ends[..];
        let mut start = 0;
        while let Some(&(_, first)) = rest.first() {
            self.close_unless(first, true)?;
            let hour = first / HOUR_NS;
            let count = rest.iter().take_while(|(_, time)| fits(hour, *time)).count();
            let (now, later) = rest.split_at(count.max(1));
            let end = now.last().map_or(start, |(end, _)| *end);
            let times = now.iter().map(|(_, time)| *time);
            let times = (times.clone().min().unwrap_or(first), times.max().unwrap_or(first));
            loop {
                match self.write(&batch.bytes[start..end], now.len() as u64, times) {
                    Ok(()) => {
                        outcome.written += now.len() as u64;
                        break;
                    }
                    Err(error) if error.is_full() => match self.evict()? {
                        Some(rows) => outcome.evicted += rows,
                        None => {
                            outcome.refused += now.len() as u64;
                            break;
                        }
                    },
                    Err(error) => return Err(error),
                }
            }
            (rest, start) = (later, end);
        }
        Ok(outcome)
    }

    fn write(&mut self, frames: &[u8], rows: u64, times: (u64, u64)) -> Result<(), Error> {
        if self.open.is_none() {
            let path = names::log(&self.path, self.next);
            let writer = log::Writer::open(&path, 0)?;
            let piece = Piece { path, is_log: true, rows: 0, bytes: writer.bytes(), times };
            self.pieces.insert(self.next, piece);
            self.open = Some(Open { number: self.next, writer, hour: None });
            self.next += 1;
            sync_folder(&self.path)?;
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        open.writer.append(frames)?;
        open.hour.get_or_insert(times.0 / HOUR_NS);
        if let Some(piece) = self.pieces.get_mut(&open.number) {
            piece.rows += rows;
            piece.bytes = open.writer.bytes();
            piece.times = (piece.times.0.min(times.0), piece.times.1.max(times.1));
        }
        Ok(())
    }

    /// Makes what was appended durable.
    ///
    /// # Errors
    /// The disk says it is not.
    pub fn sync(&mut self) -> Result<(), Error> {
        self.open.as_mut().map_or(Ok(()), |open| open.writer.sync())
    }

    /// Closes the log if its hour is not that of `now`, nanoseconds since 1970, or if it is full.
    ///
    /// # Errors
    /// The disk says no.
    pub fn close_if_over(&mut self, now: u64) -> Result<(), Error> {
        self.close_unless(now, false)
    }

    fn close_unless(&mut self, time: u64, coming: bool) -> Result<(), Error> {
        let most = self.log_bytes();
        let Some(open) = &mut self.open else { return Ok(()) };
        let over = match open.hour {
            // A record of the hour before may still come just after its end.
            Some(hour) if coming => !fits(hour, time),
            Some(hour) => !fits(hour, time) && !fits(hour, time.saturating_sub(1_000_000_000)),
            None => false,
        };
        if over || open.writer.bytes() >= most {
            open.writer.sync()?;
            self.open = None;
        }
        Ok(())
    }

    /// Closes the log, whatever its hour.
    ///
    /// # Errors
    /// The disk says no.
    pub fn close(&mut self) -> Result<(), Error> {
        self.sync()?;
        self.open = None;
        Ok(())
    }

    /// The oldest log that can be made a table now. While it is at it, others may be appended to; then tell
    /// [`Folder::compacted`].
    pub fn to_compact(&self) -> Option<Compaction> {
        let open = self.open.as_ref().map(|open| open.number);
        let (&number, piece) = self.pieces.iter().find(|(number, piece)| piece.is_log && Some(**number) != open)?;
        let table = names::table(&self.path, number, piece.times.0);
        Some(Compaction { number, log: piece.path.clone(), table })
    }

    /// The log is a table now, and gone.
    ///
    /// # Errors
    /// The table cannot be read, which was written just now.
    pub fn compacted(&mut self, done: &Compaction) -> Result<(), Error> {
        match self.pieces.get_mut(&done.number) {
            Some(piece) => *piece = Piece::table(&done.table)?.0,
            // It had to go meanwhile.
            None => remove(&done.table)?,
        }
        Ok(())
    }

    /// Removes what is too old at `now`, nanoseconds since 1970, and what is too much.
    ///
    /// # Errors
    /// The disk says no.
    pub fn retain(&mut self, now: u64) -> Result<Outcome, Error> {
        let mut outcome = Outcome::default();
        let open = self.open.as_ref().map(|open| open.number);
        if !self.limits.max_age.is_zero() {
            let age = u64::try_from(self.limits.max_age.as_nanos()).unwrap_or(u64::MAX);
            let limit = now.saturating_sub(age);
            let old = |(number, piece): &(&u64, &Piece)| piece.times.1 < limit && Some(**number) != open;
            for number in self.pieces.iter().filter(old).map(|(number, _)| *number).collect::<Vec<_>>() {
                outcome.expired += self.remove_piece(number)?;
            }
        }
        while self.bytes() > self.limits.max_bytes {
            match self.evict()? {
                Some(rows) => outcome.evicted += rows,
                None => break,
            }
        }
        Ok(outcome)
    }

    /// Removes the oldest file but the open log; how many records that were.
    ///
    /// # Errors
    /// The disk says no.
    pub fn evict(&mut self) -> Result<Option<u64>, Error> {
        let open = self.open.as_ref().map(|open| open.number);
        let Some(number) = self.pieces.keys().copied().find(|number| Some(*number) != open) else { return Ok(None) };
        self.remove_piece(number).map(Some)
    }

    fn remove_piece(&mut self, number: u64) -> Result<u64, Error> {
        let Some(piece) = self.pieces.get(&number) else { return Ok(0) };
        remove(&piece.path)?;
        Ok(self.pieces.remove(&number).map_or(0, |piece| piece.rows))
    }
}

/// Whether a record of that time belongs into the log of that hour.
fn fits(hour: u64, time: u64) -> bool {
    let start = hour.saturating_mul(HOUR_NS);
    (start.saturating_sub(DISORDER_NS)..start.saturating_add(HOUR_NS)).contains(&time)
}

impl Piece {
    fn table(path: &Path) -> Result<(Self, u64), Error> {
        let table::Summary { rows, times } = table::Reader::open(path)?.summary();
        let bytes = fs::metadata(path).map_err(Error::disk(path))?.len();
        let times = times.unwrap_or_default();
        Ok((Self { path: path.to_owned(), is_log: false, rows, bytes, times }, 0))
    }

    /// And how many bytes behind it are no whole frame.
    fn log(path: &Path) -> Result<(Self, u64), Error> {
        let mut reader = log::Reader::open(path)?;
        let (mut rows, mut times) = (0, (u64::MAX, 0));
        while let Some(time) = reader.next(|cells| cells.get(columns::TIME).and_then(Cell::as_number))? {
            rows += 1;
            let time = time.unwrap_or_default();
            times = (times.0.min(time), times.1.max(time));
        }
        let bytes = reader.position();
        let torn = fs::metadata(path).map_err(Error::disk(path))?.len().saturating_sub(bytes);
        Ok((Self { path: path.to_owned(), is_log: true, rows, bytes, times }, torn))
    }
}

#[cfg(test)]
pub(crate) mod tests;
