//! The three-way check: what the API's text says, what compiled rules say on paper, and what the
//! kernel's programs do, for the same random worlds and packets. Any difference is a bug in one of three.
//!
//! ```text
//!  generate --> Scenario: objects come and go, packets are sent      (text: one reads and writes it by hand)
//!                  |
//!                 play ----- truth: who is who, and what the objects really say
//!                  |            |
//!     +------------+------------+-------------------+
//!     |                         |                   |
//!  oracle                 compile, lower,      node: planner, maps, programs,
//!  (literal API text)     map_model (paper)    one run of a program for each packet
//!     |                         |                   |
//!     +---- track: connections -+                   |
//!     |                         |                   |
//!     +------------+------------+-------------------+
//!                  |
//!             Difference --> shrink --> the smallest scenario that shows it, who stands alone, and why
//! ```
//!
//! Not here: malformed packets, senders that lie, ICMP errors, time that passes; the tests of `tests`
//! have those.
#![forbid(unsafe_code)]

pub mod differ;
pub mod generate;
pub mod node;
pub mod paper;
pub mod play;
pub mod random;
pub mod run;
pub mod scenario;
pub mod shrink;
pub mod text;
pub mod track;
pub mod truth;
