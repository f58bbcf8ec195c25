//! I/O: the only user of aya. Loads, attaches, reads and writes maps, drains events.

pub mod load;
