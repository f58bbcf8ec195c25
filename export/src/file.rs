//! A file of lines that is rotated by size and age. It only ever holds whole lines: what a crash or a full disk has
//! cut is taken back. Blocks; whoever calls it is on a thread that may.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use flows::calendar::Stamp;

/// How far from the end a line's beginning is looked for. Ours are shorter by far.
const LONGEST_LINE: u64 = 1 << 20;
/// Readable by the group, which log shippers are put into.
const MODE: u32 = 0o640;
/// What a file is called while it is being compressed.
const UNFINISHED: &str = ".gz.part";

/// When a new file is begun, and what becomes of the old ones.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rotation {
    /// A file does not grow beyond this, in bytes.
    pub max_bytes: u64,
    /// Nor does it get older than this.
    pub max_age: Option<Duration>,
    /// How many rotated files are kept.
    pub keep: usize,
    /// Whether they are compressed by gzip.
    pub compress: bool,
}

/// The file.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    rotation: Rotation,
    file: File,
    /// Bytes in it, whole lines all of them.
    size: u64,
    began: SystemTime,
}

impl LogFile {
    /// Opens it behind what is there.
    ///
    /// # Errors
    /// It cannot be opened, read or cut.
    pub fn open(path: &Path, rotation: Rotation) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(MODE).open(path)?;
        let size = whole_lines(&mut file)?;
        file.set_len(size)?;
        let metadata = file.metadata()?;
        let began = metadata.created().unwrap_or_else(|_| SystemTime::now());
        Ok(Self { path: path.to_owned(), rotation, file, size, began })
    }

    /// Whether the path still leads to the file that is open: somebody may have moved or removed it.
    pub fn is_in_place(&self) -> bool {
        match (fs::metadata(&self.path), self.file.metadata()) {
            (Ok(there), Ok(ours)) => (there.dev(), there.ino()) == (ours.dev(), ours.ino()),
            _ => false,
        }
    }

    /// Appends whole lines, in a new file if it is time for one. Whether the file was rotated.
    ///
    /// # Errors
    /// Nothing was written then, as far as can be seen from here.
    pub fn append(&mut self, lines: &[u8], now: SystemTime) -> io::Result<bool> {
        let Rotation { max_bytes, max_age, .. } = self.rotation;
        let too_old = max_age.is_some_and(|most| now.duration_since(self.began).is_ok_and(|age| age >= most));
        let rotate = self.size > 0 && (too_old || self.size + lines.len() as u64 > max_bytes);
        if rotate {
            self.rotate(now)?;
        }
        if let Err(error) = self.file.write_all(lines) {
            // A part of it may be there.
            self.file.set_len(self.size)?;
            return Err(error);
        }
        self.size += lines.len() as u64;
        Ok(rotate)
    }

    fn rotate(&mut self, now: SystemTime) -> io::Result<()> {
        self.file.sync_all()?;
        let mut at = now;
        let aside = loop {
            let aside = rotated(&self.path, at);
            if !aside.exists() && !compressed(&aside).exists() {
                break aside;
            }
            at += Duration::from_millis(1);
        };
        fs::rename(&self.path, aside)?;
        *self = Self { began: now, ..Self::open(&self.path, self.rotation.clone())? };
        Ok(())
    }

    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// The disk says it is not.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Bytes up to the end of the last whole line.
fn whole_lines(file: &mut File) -> io::Result<u64> {
    let size = file.metadata()?.len();
    let from = size.saturating_sub(LONGEST_LINE);
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(from))?;
    file.take(LONGEST_LINE).read_to_end(&mut tail)?;
    Ok(match tail.iter().rposition(|byte| *byte == b'\n') {
        Some(end) => from + end as u64 + 1,
        None => from,
    })
}

/// Name and extension of a file: `flows` and `.ndjson`.
fn parts(path: &Path) -> (String, String) {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => (stem.to_owned(), format!(".{extension}")),
        _ => (name.into_owned(), String::new()),
    }
}

/// `flows.ndjson` of a moment: `flows-20260102T030405.678Z.ndjson`.
fn rotated(path: &Path, at: SystemTime) -> PathBuf {
    let (stem, extension) = parts(path);
    path.with_file_name(format!("{stem}-{}{extension}", Stamp::of(at).compact()))
}

fn compressed(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".gz");
    path.with_file_name(name)
}

/// Rotated files of `path`, oldest first, and unfinished ones.
fn rotated_files(path: &Path) -> io::Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let (stem, extension) = parts(path);
    let (mut done, mut unfinished) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(path.parent().unwrap_or(Path::new(".")))? {
        let file = entry?.path();
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(rest) = name.strip_prefix(&stem).and_then(|rest| rest.strip_prefix('-')) else { continue };
        if let Some(rest) = rest.strip_suffix(UNFINISHED) {
            if rest.strip_suffix(&extension).is_some_and(Stamp::is_compact) {
                unfinished.push(file);
            }
            continue;
        }
        let rest = rest.strip_suffix(".gz").unwrap_or(rest);
        if rest.strip_suffix(&extension).is_some_and(Stamp::is_compact) {
            done.push(file);
        }
    }
    done.sort();
    Ok((done, unfinished))
}

/// Removes rotated files that are too many and compresses the others. Takes its time; touches no file that is being
/// written. One call at a time for a path.
///
/// # Errors
/// What could not be done is left for the next time.
pub fn tidy(path: &Path, rotation: &Rotation) -> io::Result<()> {
    let (mut files, unfinished) = rotated_files(path)?;
    for file in unfinished {
        fs::remove_file(file)?;
    }
    for file in files.drain(..files.len().saturating_sub(rotation.keep)) {
        fs::remove_file(file)?;
    }
    if rotation.compress {
        for file in files.iter().filter(|file| file.extension().is_none_or(|extension| extension != "gz")) {
            compress(file)?;
        }
    }
    Ok(())
}

fn compress(path: &Path) -> io::Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(UNFINISHED);
    let part = PathBuf::from(part);
    let to = OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(&part)?;
    let mut encoder = flate2::write::GzEncoder::new(to, flate2::Compression::fast());
    io::copy(&mut File::open(path)?, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    fs::rename(&part, compressed(path))?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests;
