//! What is asked of whoever keeps records for longer than the ring does. The flow API reads it in front of the ring;
//! who keeps them, and where, lives elsewhere.

use std::fmt;

use crate::{FlowRecord, filter::FilterSet};

/// Which records, of all that were kept.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Not older, nanoseconds since 1970.
    pub since: u64,
    /// Not newer.
    pub until: u64,
    /// What matches.
    pub filters: FilterSet,
    /// Only so many of the newest of them.
    pub last: Option<u64>,
}

/// What was found in one go.
#[derive(Debug, Default)]
pub struct Batch {
    /// Records that are wanted, oldest first.
    pub records: Vec<FlowRecord>,
    /// Rows that were looked at and are not.
    pub left_out: u64,
    /// There is no more.
    pub done: bool,
}

/// One reader's way through what was kept.
pub trait Walk: Send + fmt::Debug {
    /// Goes on, by a bounded number of rows. Blocks.
    fn next(&mut self) -> Batch;

    /// Epoch and sequence of the last row that was passed, wanted or not.
    fn after(&self) -> Option<(u64, u64)>;
}

/// Keeps records.
pub trait Past: Send + Sync + fmt::Debug {
    /// Begins at the oldest. Blocks.
    ///
    /// # Errors
    /// Why it cannot be read, in words for the client.
    fn walk(&self, wanted: Wanted) -> Result<Box<dyn Walk>, String>;
}
