//! The half of the datapath that needs no kernel: bytes to tuples, state transitions, verdicts.
//! Plain functions, tested on the host; the programs in `main.rs` are built from them.
//! No helper calls, no maps, no unsafe.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod csum;
pub mod ct;
pub mod decide;
pub mod parse;
pub mod uplink;
