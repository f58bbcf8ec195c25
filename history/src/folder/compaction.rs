//! A log becomes a table: each step can be the last one before a crash.

use std::{
    fs,
    io::{self, BufWriter, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use super::{remove, sync_folder};
use crate::{Error, log, table};

/// What turns a log into a table, on any thread.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Compaction {
    pub(super) number: u64,
    pub(super) log: PathBuf,
    pub(super) table: PathBuf,
}

impl Compaction {
    pub(super) fn new_path(&self) -> PathBuf {
        self.table.with_extension("parquet.new")
    }

    /// Does it. Safe to be cut off anywhere, and to be done again.
    ///
    /// # Errors
    /// The disk says no: the log is still there.
    pub fn run(&self) -> Result<(), Error> {
        let written = self.write();
        if written.is_err() {
            // Room for others; the next start would remove it as well.
            let _ = remove(&self.new_path());
        }
        written?;
        self.rename()?;
        remove(&self.log)
    }

    pub(crate) fn write(&self) -> Result<(), Error> {
        let path = self.new_path();
        let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        let file = file.map_err(Error::disk(&path))?;
        // Parquet's errors wrap those of the disk.
        let refused = |error| match error {
            parquet::errors::ParquetError::External(source) => match source.downcast::<io::Error>() {
                Ok(source) => Error::disk(&path)(*source),
                Err(other) => Error::disk(&path)(io::Error::other(other)),
            },
            other => Error::disk(&path)(io::Error::other(other)),
        };
        let mut writer = table::Writer::new(BufWriter::new(file)).map_err(refused)?;
        let mut reader = log::Reader::open(&self.log)?;
        while let Some(pushed) = reader.next(|cells| writer.push(cells))? {
            pushed.map_err(refused)?;
        }
        let mut file = writer.finish().map_err(refused)?;
        file.flush().map_err(Error::disk(&path))?;
        file.get_ref().sync_all().map_err(Error::disk(&path))
    }

    pub(crate) fn rename(&self) -> Result<(), Error> {
        fs::rename(self.new_path(), &self.table).map_err(Error::disk(&self.table))?;
        sync_folder(self.table.parent().unwrap_or(Path::new("/")))
    }
}
