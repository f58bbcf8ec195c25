//! Records of one exporter that its receiver has not taken yet, on disk: bounded, in order, whole after a crash at any
//! byte.
//!
//! ```text
//!   append --> 00000000000000000042.seg   frames, one a record: length, CRC, head, payload
//!              00000000000000000977.seg   named by their first record's number; only the last one grows
//!   read  <--  cursor                     what has been taken, and which losses have been told
//! ```
//!
//! Numbers of records are consecutive for as long as the folder lives, so that whatever is missing is counted, whoever
//! has lost it. When the bound is reached or the disk is full the oldest segment goes. Blocks; whoever calls it is on
//! a thread that may.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use flows::ledger::ExportLoss;

mod cursor;
pub mod frame;

use cursor::Cursor;
pub use frame::{Frame, Head, Losses, Part};

/// Bounds of a segment's size, in bytes; within them a sixteenth of the spool.
const SEGMENT_BYTES: (u64, u64) = (64 << 10, 16 << 20);
/// Bytes that are read from a segment in one go.
const READ_BYTES: u64 = 1 << 20;

/// How much, and how safe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of all segments.
    pub max_bytes: u64,
    /// How much of the newest a power cut may take; zero: nothing that [`Spool::append`] has returned from.
    pub sync_every: Duration,
}

/// A segment that is there.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Segment {
    /// Number of its first record.
    first: u64,
    /// Number of the record behind its last.
    end: u64,
    bytes: u64,
}

/// What is read to be sent.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Batch {
    /// Records and marks, in order.
    pub frames: Vec<Frame>,
    /// Records that are missing in front of them, not yet told, and why.
    pub missing: Vec<(ExportLoss, u64)>,
    /// Number of the record behind the last.
    pub end: u64,
    /// Losses that the receiver has been told.
    pub told: Losses,
    /// Node epoch and sequence of the last record that was taken.
    pub after: (u64, u64),
    /// Records in `frames`.
    pub records: u64,
    /// Records that were found to be damaged on the way.
    pub damaged: u64,
}

/// What an append has come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Appended {
    /// Records that had to go to make room.
    pub evicted: u64,
    /// The records did not even find room in an empty spool: they were not written.
    pub refused: bool,
}

/// What was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Found {
    /// Records that wait, those included that turn out to be damaged.
    pub records: u64,
    /// Bytes at the end of the newest segment that were no whole frame.
    pub torn_bytes: u64,
    /// Losses told in the newest record.
    pub losses: Losses,
}

/// The spool.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    limits: Limits,
    segments: VecDeque<Segment>,
    /// The last segment; none before the first record.
    open: Option<File>,
    /// Number of the next record.
    next: u64,
    cursor: Cursor,
    /// Records up to here, exclusively, are with the sender, who keeps them until they are acknowledged.
    in_flight: u64,
    /// Records that are gone without having been told, oldest first. They lie behind those in flight.
    untold: Vec<(ExportLoss, u64)>,
    /// How many of `untold` are in flight themselves, and so lie in front of it.
    telling: usize,
    /// Losses that the newest frame tells.
    newest: Losses,
    synced: Instant,
    dirty: bool,
}

fn segment_path(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("{first:020}.seg"))
}

impl Spool {
    /// Opens what is there, or begins anew. What a crash has left half written is cut off.
    ///
    /// # Errors
    /// The folder cannot be made, read or written.
    pub fn open(folder: &Path, limits: Limits) -> io::Result<(Self, Found)> {
        fs::create_dir_all(folder)?;
        let mut firsts = Vec::new();
        for entry in fs::read_dir(folder)? {
            let name = entry?.file_name().into_string().unwrap_or_default();
            if let Some(first) = name.strip_suffix(".seg").and_then(|number| number.parse::<u64>().ok()) {
                firsts.push(first);
            }
        }
        firsts.sort_unstable();
        let (mut segments, mut found) = (VecDeque::new(), Found::default());
        for (position, &first) in firsts.iter().enumerate() {
            let path = segment_path(folder, first);
            let scan = scan(&path, first)?;
            if position + 1 == firsts.len() {
                let size = fs::metadata(&path)?.len();
                if size > scan.bytes {
                    found.torn_bytes = size - scan.bytes;
                    OpenOptions::new().write(true).open(&path)?.set_len(scan.bytes)?;
                }
                found.losses = scan.losses;
            } else if let Some(losses) = (scan.losses != Losses::default()).then_some(scan.losses) {
                found.losses = losses;
            }
            let bytes = if position + 1 == firsts.len() { scan.bytes } else { fs::metadata(&path)?.len() };
            segments.push_back(Segment { first, end: scan.end, bytes });
        }
        let oldest = segments.front().map_or(1, |segment: &Segment| segment.first);
        let newest = segments.back().map_or(oldest, |segment| segment.end);
        let kept = Cursor::read(folder);
        let mut cursor = kept.unwrap_or_else(|| Cursor::at(oldest));
        // A power cut may have taken records that were sent, or the cursor that said so.
        let next = newest.max(cursor.next);
        cursor.next = cursor.next.max(1);
        for (loss, told) in found.losses.0.iter_mut().zip(cursor.told.0) {
            *loss = (*loss).max(told);
        }
        // What was evicted is gone for good; the receiver has not been told, else the cursor would be behind it.
        let evicted = segments.front().map_or(0, |segment| segment.first.saturating_sub(cursor.next));
        let untold = if evicted > 0 { vec![(ExportLoss::SpoolFull, evicted)] } else { Vec::new() };
        found.records = next - cursor.next - evicted;
        let mut spool = Self {
            folder: folder.to_owned(),
            limits,
            segments,
            open: None,
            next,
            in_flight: cursor.next,
            cursor,
            untold,
            telling: 0,
            newest: found.losses,
            synced: Instant::now(),
            dirty: false,
        };
        if kept.is_none() {
            // From here on it is known where the receiver is, also if it never takes anything.
            spool.cursor.write(folder)?;
        }
        spool.forget_taken();
        if spool.segments.is_empty() || next > newest {
            // Numbers in a segment are consecutive.
            spool.begin_segment()?;
        } else if let Some(last) = spool.segments.back() {
            spool.open = Some(OpenOptions::new().append(true).open(segment_path(folder, last.first))?);
        }
        Ok((spool, found))
    }

    /// Number of records that wait, with those that turn out to be missing when they are read.
    pub fn waiting(&self) -> u64 {
        self.next - self.cursor.next
    }

    /// Whether anything is there to be read.
    pub fn is_empty(&self) -> bool {
        self.waiting() == 0 && self.untold.is_empty() && self.newest == self.cursor.told
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    fn segment_bytes(&self) -> u64 {
        (self.limits.max_bytes / 16).clamp(SEGMENT_BYTES.0, SEGMENT_BYTES.1)
    }

    fn begin_segment(&mut self) -> io::Result<()> {
        if let Some(open) = &self.open
            && self.dirty
        {
            open.sync_data()?;
            self.dirty = false;
        }
        let path = segment_path(&self.folder, self.next);
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path);
        let file = match file {
            // Left by a crash before its first record.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                OpenOptions::new().write(true).truncate(true).open(&path)?;
                OpenOptions::new().append(true).open(&path)?
            }
            other => other?,
        };
        self.segments.retain(|segment| segment.first != self.next);
        self.segments.push_back(Segment { first: self.next, end: self.next, bytes: 0 });
        self.open = Some(file);
        File::open(&self.folder)?.sync_all()
    }

    /// Writes records and marks down. Parts are given in order; the spool numbers the records.
    ///
    /// # Errors
    /// The disk is broken rather than full. Nothing was written then.
    pub fn append(&mut self, parts: &[Part]) -> io::Result<Appended> {
        let mut appended = Appended::default();
        if parts.is_empty() {
            return Ok(appended);
        }
        let mut bytes = Vec::new();
        let mut number = self.next;
        for part in parts {
            part.encode(number, &mut bytes);
            number += u64::from(part.payload.is_some());
        }
        let size = bytes.len() as u64;
        if size > self.limits.max_bytes {
            appended.refused = true;
            return Ok(appended);
        }
        while self.bytes() + size > self.limits.max_bytes {
            if !self.evict(&mut appended)? {
                break;
            }
        }
        loop {
            match self.write(&bytes, number) {
                Ok(()) => {
                    self.newest = parts.last().map_or(self.newest, |part| part.losses);
                    break;
                }
                Err(error) if is_full(&error) => {
                    if !self.evict(&mut appended)? {
                        appended.refused = true;
                        return Ok(appended);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        if self.limits.sync_every.is_zero() || self.synced.elapsed() >= self.limits.sync_every {
            self.sync()?;
        }
        Ok(appended)
    }

    fn write(&mut self, bytes: &[u8], end: u64) -> io::Result<()> {
        let full = self.segments.back().is_none_or(|last| last.bytes >= self.segment_bytes());
        if full || self.open.is_none() {
            self.begin_segment()?;
        }
        let (Some(file), Some(segment)) = (&mut self.open, self.segments.back_mut()) else {
            return Err(io::Error::other("no segment is open"));
        };
        if let Err(error) = file.write_all(bytes) {
            // A part of it may be there.
            file.set_len(segment.bytes)?;
            return Err(error);
        }
        segment.bytes += bytes.len() as u64;
        segment.end = end;
        self.next = end;
        self.dirty = true;
        Ok(())
    }

    /// Makes durable what was appended, if that is due.
    ///
    /// # Errors
    /// The disk says it is not.
    pub fn sync_if_due(&mut self) -> io::Result<()> {
        if self.dirty && self.synced.elapsed() >= self.limits.sync_every { self.sync() } else { Ok(()) }
    }

    /// Makes everything appended durable.
    ///
    /// # Errors
    /// The disk says it is not.
    pub fn sync(&mut self) -> io::Result<()> {
        if let Some(file) = &self.open {
            file.sync_data()?;
        }
        self.dirty = false;
        self.synced = Instant::now();
        Ok(())
    }

    /// Removes the oldest segment. False: there is none that holds anything.
    fn evict(&mut self, appended: &mut Appended) -> io::Result<bool> {
        let Some(oldest) = self.segments.front().cloned() else { return Ok(false) };
        if oldest.bytes == 0 {
            return Ok(false);
        }
        if self.segments.len() == 1 {
            self.open = None;
        }
        self.segments.pop_front();
        fs::remove_file(segment_path(&self.folder, oldest.first))?;
        // What is in flight is the sender's to keep; what was taken is no loss.
        let gone = oldest.end.saturating_sub(self.gone_before());
        if gone > 0 {
            appended.evicted += gone;
            match self.untold[self.telling..].last_mut() {
                Some((ExportLoss::SpoolFull, count)) => *count += gone,
                _ => self.untold.push((ExportLoss::SpoolFull, gone)),
            }
        }
        if self.segments.is_empty() {
            self.begin_segment()?;
        }
        Ok(true)
    }

    /// Records before this number were taken, are in flight, or have been counted as lost.
    fn gone_before(&self) -> u64 {
        self.in_flight + self.untold[self.telling..].iter().map(|(_, count)| count).sum::<u64>()
    }

    /// The next records to be sent, at most `most` of them, and not many more than `most_bytes`. They are read again
    /// until [`Spool::taken`] says that they were taken.
    ///
    /// # Errors
    /// They cannot be read. What can be read and is damaged is passed over and counted.
    pub fn read(&mut self, most: usize, most_bytes: usize) -> io::Result<Batch> {
        (self.in_flight, self.telling) = (self.cursor.next, 0);
        // Records before this one are missing, and known to be.
        let mut expected = self.gone_before();
        let mut batch = Batch {
            missing: self.untold.clone(),
            told: self.cursor.told,
            after: self.cursor.after,
            ..Batch::default()
        };
        let (mut size, mut told) = (0, self.cursor.told);
        'segments: for segment in &self.segments {
            if segment.end < expected || (segment.end == expected && segment.end != self.next) {
                continue;
            }
            let mut reader = Reader::open(&segment_path(&self.folder, segment.first), segment.bytes)?;
            while let Some(frame) = reader.next()? {
                let number = frame.head.number;
                // A mark that tells nothing new has been told already.
                let stale = frame.payload.is_none() && frame.head.losses == told;
                if number < expected || stale {
                    continue;
                }
                if batch.frames.len() >= most || size >= most_bytes {
                    break 'segments;
                }
                if number > expected {
                    let (lost, count) = (ExportLoss::SpoolDamaged, number - expected);
                    if !batch.frames.is_empty() {
                        // Told with the next batch, in front of which they are missing.
                        break 'segments;
                    }
                    batch.missing.push((lost, count));
                    batch.damaged += count;
                    expected = number;
                }
                size += frame.payload.as_ref().map_or(0, Vec::len);
                if frame.payload.is_some() {
                    expected += 1;
                    batch.records += 1;
                }
                told = frame.head.losses;
                batch.frames.push(frame);
            }
        }
        if batch.frames.is_empty() && expected < self.next {
            // Nothing but damage up to the end.
            batch.missing.push((ExportLoss::SpoolDamaged, self.next - expected));
            batch.damaged += self.next - expected;
            expected = self.next;
            // What comes is written where it can be read.
            self.open = None;
        }
        if batch.frames.is_empty() && batch.missing.is_empty() {
            // The mark that told of these losses has gone with a segment.
            self.newest = self.cursor.told;
        }
        self.untold.clone_from(&batch.missing);
        self.telling = batch.missing.len();
        batch.end = expected;
        self.in_flight = expected;
        Ok(batch)
    }

    /// The receiver has taken a batch, or refused it for good.
    ///
    /// # Errors
    /// That could not be written down: a successor would send it again.
    pub fn taken(&mut self, batch: &Batch) -> io::Result<()> {
        // What was evicted while the batch was under way lies behind it and stays.
        self.untold.drain(..self.telling);
        self.telling = 0;
        self.cursor.next = batch.end;
        if let Some(last) = batch.frames.last() {
            self.cursor.told = last.head.losses;
            if last.head.sequence != 0 {
                self.cursor.after = (last.head.epoch, last.head.sequence);
            }
        }
        self.in_flight = self.cursor.next;
        self.cursor.write(&self.folder)?;
        self.forget_taken();
        Ok(())
    }

    /// Removes segments of which everything was taken, but for the last, which grows.
    fn forget_taken(&mut self) {
        while self.segments.len() > 1 && self.segments.front().is_some_and(|it| it.end <= self.cursor.next) {
            if let Some(segment) = self.segments.pop_front() {
                // One that stays is forgotten at the next start.
                let _ = fs::remove_file(segment_path(&self.folder, segment.first));
            }
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge
            | io::ErrorKind::WriteZero
    )
}

/// What a segment holds.
struct Scan {
    /// Bytes up to the end of its last whole frame.
    bytes: u64,
    /// Number of the record behind its last.
    end: u64,
    /// Losses that its last frame tells.
    losses: Losses,
}

fn scan(path: &Path, first: u64) -> io::Result<Scan> {
    let mut scan = Scan { bytes: 0, end: first, losses: Losses::default() };
    let size = fs::metadata(path)?.len();
    let mut reader = Reader::open(path, size)?;
    while let Some(frame) = reader.next()? {
        scan.end = frame.head.number + u64::from(frame.payload.is_some());
        scan.losses = frame.head.losses;
        scan.bytes = reader.position;
    }
    Ok(scan)
}

/// Reads frames of a segment, from the front, up to the first that is not whole.
struct Reader {
    file: File,
    buffer: Vec<u8>,
    start: usize,
    /// Where the next frame begins.
    position: u64,
    /// How much of the file there is.
    size: u64,
    read: u64,
}

impl Reader {
    fn open(path: &Path, size: u64) -> io::Result<Self> {
        Ok(Self { file: File::open(path)?, buffer: Vec::new(), start: 0, position: 0, size, read: 0 })
    }

    fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            match frame::decode(&self.buffer[self.start..]) {
                frame::Decoded::Frame(frame, length) => {
                    self.start += length;
                    self.position += length as u64;
                    return Ok(Some(frame));
                }
                frame::Decoded::Damaged => return Ok(None),
                frame::Decoded::Short => {
                    let more = READ_BYTES.min(self.size - self.read);
                    if more == 0 {
                        return Ok(None);
                    }
                    self.buffer.drain(..self.start);
                    self.start = 0;
                    let got = (&mut self.file).take(more).read_to_end(&mut self.buffer)?;
                    if got == 0 {
                        return Ok(None);
                    }
                    self.read += got as u64;
                }
            }
        }
    }
}

#[cfg(test)]
mod power_cut;
#[cfg(test)]
mod tests;
