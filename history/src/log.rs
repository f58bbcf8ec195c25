//! The log of the open hour: frames, appended. The first says which columns there are, each of the others is a row.
//! Whatever a crash has left behind the last whole frame is nothing.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use flows::{
    FlowRecord,
    frame::{self, Unwrapped},
};

use crate::{
    Error, SCHEMA_VERSION,
    cell::Cell,
    codec,
    columns::{self, NotARecord},
    pool::Pools,
};

/// Of the frames, not of the columns.
const FORMAT: u8 = 1;
const HEAD: u8 = 0;
const ROW: u8 = 1;
/// Longest body. A row takes some hundred bytes.
pub const MOST_BODY: usize = 1 << 20;
/// Bytes that are read in one go.
const READ_BYTES: usize = 128 << 10;

/// What a frame holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body<'a> {
    /// Version of the columns and their names, in front of all rows.
    Head(u64, Vec<String>),
    /// A row, in the order of the head's names.
    Row(Vec<Cell<'a>>),
}

/// What lies at a place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decoded<'a> {
    /// A body, in a frame of so many bytes.
    Body(Body<'a>, usize),
    /// Not as many bytes as a frame needs.
    Short,
    /// No frame of ours.
    Damaged,
}

/// Reads the frame at the front of `bytes`.
pub fn decode(bytes: &[u8]) -> Decoded<'_> {
    let (body, length) = match frame::unwrap(bytes, 2..=MOST_BODY) {
        Unwrapped::Body(body, length) => (body, length),
        Unwrapped::Short => return Decoded::Short,
        Unwrapped::Damaged => return Decoded::Damaged,
    };
    let (FORMAT, kind) = (body[0], body[1]) else { return Decoded::Damaged };
    let Ok(cells) = codec::decode(&body[2..]) else { return Decoded::Damaged };
    match (kind, &*cells) {
        (ROW, _) => Decoded::Body(Body::Row(cells), length),
        (HEAD, [Cell::Number(version), Cell::Many(names)]) => {
            let names = names.iter().map(|it| it.as_text().unwrap_or_default().to_owned()).collect();
            Decoded::Body(Body::Head(*version, names), length)
        }
        _ => Decoded::Damaged,
    }
}

fn wrap(kind: u8, cells: &[Cell<'_>], out: &mut Vec<u8>) {
    let mut body = vec![FORMAT, kind];
    codec::encode(cells, &mut body);
    frame::wrap(&body, out);
}

/// Writes a log's first frame behind `out`.
pub fn encode_head(out: &mut Vec<u8>) {
    let names = columns::all().iter().map(|it| Cell::text(&it.name)).collect();
    wrap(HEAD, &[Cell::number(SCHEMA_VERSION), Cell::Many(names)], out);
}

/// Writes a record's frame behind `out`. False: it is too long to be kept, and was not written.
pub fn encode(record: &FlowRecord, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    wrap(ROW, &columns::row(record), out);
    let fits = out.len() - start <= MOST_BODY;
    if !fits {
        out.truncate(start);
    }
    fits
}

/// The log that grows.
#[derive(Debug)]
pub struct Writer {
    file: File,
    path: PathBuf,
    bytes: u64,
    dirty: bool,
}

impl Writer {
    /// Goes on behind `bytes` of a log, which is made if there is none. What stands behind them is cut off.
    ///
    /// # Errors
    /// The disk says no.
    pub fn open(path: &Path, bytes: u64) -> Result<Self, Error> {
        let open = || {
            let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
            file.set_len(bytes)?;
            io::Result::Ok(file)
        };
        let file = open().map_err(Error::disk(path))?;
        let mut writer = Self { file, path: path.to_owned(), bytes, dirty: false };
        if bytes == 0 {
            let mut head = Vec::new();
            encode_head(&mut head);
            writer.append(&head)?;
        }
        Ok(writer)
    }

    /// Length.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends whole frames, or nothing.
    ///
    /// # Errors
    /// The disk says no.
    pub fn append(&mut self, frames: &[u8]) -> Result<(), Error> {
        if let Err(source) = self.file.write_all(frames) {
            // A part of it may be there.
            self.file.set_len(self.bytes).map_err(Error::disk(&self.path))?;
            return Err(Error::Disk { path: self.path.clone(), source });
        }
        self.bytes += frames.len() as u64;
        self.dirty = true;
        Ok(())
    }

    /// Makes durable what was appended.
    ///
    /// # Errors
    /// The disk says no.
    pub fn sync(&mut self) -> Result<(), Error> {
        if self.dirty {
            self.file.sync_data().map_err(Error::disk(&self.path))?;
            self.dirty = false;
        }
        Ok(())
    }
}

/// Reads a log from its front to the last whole frame that is there.
#[derive(Debug)]
pub struct Reader {
    file: File,
    path: PathBuf,
    buffer: Vec<u8>,
    start: usize,
    position: u64,
    /// For each of our columns, where it lies in the file's rows.
    places: Vec<Option<usize>>,
}

impl Reader {
    /// Opens a log. One without a whole head has no rows.
    ///
    /// # Errors
    /// It cannot be read, or is of another version.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::disk(path))?;
        let path = path.to_owned();
        let mut reader = Self { file, path, buffer: Vec::new(), start: 0, position: 0, places: Vec::new() };
        reader.fill()?;
        let (version, names, length) = match decode(&reader.buffer) {
            Decoded::Body(Body::Head(version, names), length) => (version, names, length),
            Decoded::Body(Body::Row(_), _) | Decoded::Short | Decoded::Damaged => return Ok(reader),
        };
        if version != SCHEMA_VERSION {
            return Err(Error::Version { path: reader.path, found: version.to_string() });
        }
        let place = |column: &columns::Column| names.iter().position(|name| *name == column.name);
        reader.places = columns::all().iter().map(place).collect();
        (reader.start, reader.position) = (length, length as u64);
        Ok(reader)
    }

    /// Bytes up to the end of the last whole frame that was read; 0: not even the head is whole.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// False: there is no more.
    fn fill(&mut self) -> Result<bool, Error> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let got = (&mut self.file).take(READ_BYTES as u64).read_to_end(&mut self.buffer);
        Ok(got.map_err(Error::disk(&self.path))? > 0)
    }

    /// Hands the next row, in the order of our columns, to `each`. `None`: no whole one is there now.
    ///
    /// # Errors
    /// The disk says no.
    pub fn next<T>(&mut self, each: impl FnOnce(&[Cell<'_>]) -> T) -> Result<Option<T>, Error> {
        if self.places.is_empty() {
            return Ok(None);
        }
        while frame::unwrap(&self.buffer[self.start..], 2..=MOST_BODY) == Unwrapped::Short {
            if !self.fill()? {
                return Ok(None);
            }
        }
        let Decoded::Body(Body::Row(mut cells), length) = decode(&self.buffer[self.start..]) else { return Ok(None) };
        let mut take = |place: &Option<usize>| place.and_then(|at| cells.get_mut(at)).map(std::mem::take);
        let ours: Vec<Cell<'_>> = self.places.iter().map(|place| take(place).unwrap_or_default()).collect();
        self.start += length;
        self.position += length as u64;
        Ok(Some(each(&ours)))
    }

    /// The next record. `None`: no whole one is there now.
    ///
    /// # Errors
    /// The disk says no, or a row is whole and yet no record.
    pub fn record(&mut self, pools: &mut Pools) -> Result<Option<FlowRecord>, Error> {
        let found: Option<Result<FlowRecord, NotARecord>> = self.next(|cells| columns::record(cells, pools))?;
        found.transpose().map_err(|wrong| Error::damaged(&self.path, wrong))
    }
}
