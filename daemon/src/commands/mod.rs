//! What the binary can do besides printing help: one file each.

pub mod run;
pub mod uninstall;
pub mod version;
