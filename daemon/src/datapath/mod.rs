//! I/O: the only user of aya. Loads, attaches, reads and writes maps, drains events.

pub mod attach;
pub mod connections;
pub mod load;
pub mod maps;
pub mod overlay;
pub mod predecessor;
pub mod probe;
mod ranges;
pub mod services;
pub mod sweep;
pub mod uplink;
