//! Flow records kept on the node: what is older than memory, for the API and for any tool that reads Parquet.
//!
//! ```text
//!   flows::Ring --Keeper--> flows-N.log            open: append-only frames, synced every second
//!                               | at the hour's end, or when it is full
//!                               v
//!                           flows-20260102T03Z-N.parquet      the oldest go by age and by size
//!                               |
//!                             Scan  <-- the flow API, `bulkhead flows --dir`
//! ```
//!
//! Pure are `cell` and `columns` (a record as a row, and back) and `codec`; `log`, `table`, `folder` and `scan` touch
//! files, `keeper` is the task that reads the ring. Why so: ADR 0025.
#![forbid(unsafe_code)]

pub mod cell;
pub mod codec;
pub mod columns;
pub mod csv;
mod error;
pub mod folder;
mod keeper;
pub mod log;
mod past;
mod pool;
pub mod rows;
pub mod scan;
pub mod table;

pub use error::Error;
pub use folder::{Folder, Limits};
pub use keeper::{Keeper, Settings};
pub use past::History;
pub use scan::{Scan, Wanted};

/// Version of the columns' meaning, in every file. A column that is added does not change it: readers take what is
/// missing as unknown, and pass over what they do not know.
pub const SCHEMA_VERSION: u64 = 1;
