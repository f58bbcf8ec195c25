//! Hard moments of a node with the real daemon and plugin: crashes, first packets, live changes, tables
//! and disks that are full, addresses that go from one pod to the next.
//!
//! What is a matter of chance is tried as often as fits into every run; BULKHEAD_CRASHES, BULKHEAD_STARTS,
//! BULKHEAD_CUTS, BULKHEAD_EDITS, BULKHEAD_OPENS, BULKHEAD_REUSES, BULKHEAD_SWING_SECONDS, BULKHEAD_PLAN_SECONDS
//! and BULKHEAD_FLOODS say how often otherwise.

mod atomic;
mod crash;
mod first_packet;
mod flood;
mod full;
mod live;
mod planned;
mod reuse;
