//! Wiring: the only module that knows all others.

pub mod engine;
pub mod knowledge;
