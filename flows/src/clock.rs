//! The time of day, for what is logged when; the records' own times come from the pipeline.

use std::time::SystemTime;

/// Now, nanoseconds since 1970.
pub fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
