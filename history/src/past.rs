//! The history as the flow API asks for it.

use std::path::PathBuf;

use flows::past::{Batch, Past, Walk, Wanted};
use tracing::warn;

use crate::Scan;

/// Rows that are looked at before the reader's client is asked again whether it still wants more.
const ROWS: usize = 1024;

/// Reads what a [`crate::Keeper`] writes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct History {
    folder: PathBuf,
}

impl History {
    /// Of this folder.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }
}

impl Past for History {
    fn walk(&self, wanted: Wanted) -> Result<Box<dyn Walk>, String> {
        Ok(Box::new(Scan::open(&self.folder, wanted).map_err(|error| error.to_string())?))
    }
}

impl Walk for Scan {
    fn next(&mut self) -> Batch {
        let crate::scan::Batch { records, left_out, problems, done } = Scan::next(self, ROWS);
        for problem in problems {
            // Each is counted at the start, and said in `bulkhead flows stats`.
            warn!(%problem, "History: a file is passed over");
        }
        Batch { records, left_out, done }
    }

    fn after(&self) -> Option<(u64, u64)> {
        Scan::after(self)
    }
}

#[cfg(test)]
mod tests;
