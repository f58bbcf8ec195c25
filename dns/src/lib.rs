//! DNS as pods see it: from the packets that the programs tell of to lookups, and to names of addresses.
//!
//! ```text
//!  DnsPacket, bytes (ring buffer)
//!        |
//!        v
//!   stream (TCP: where messages begin) --> message (parsed, bounded)
//!                                              |
//!                                              v
//!                         Tracker: query and answer of one connection, id and question
//!                                              |
//!                              +---------------+--------------+
//!                              v                              v
//!                    Lookup: a flow record           Names: by pod, name of an address
//! ```
//!
//! Everything that comes in may have been made by an enemy: a pod, or the server it has asked. Whatever is kept is bounded,
//! by pod and in whole. No clock, no I/O.

pub mod lookup;
mod message;
mod names;
mod stream;
mod tracker;

pub use lookup::{Answer, Data, Lookup, Outcome, Question, Record};
pub use message::{Message, Unreadable, parse};
pub use names::Names;
pub use tracker::{Figures, Told, Tracker};
