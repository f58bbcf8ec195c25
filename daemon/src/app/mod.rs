//! Wiring: the only module that knows all others.

mod able;
pub mod admin;
mod adopt;
mod answers;
pub mod attachments;
mod chores;
pub mod engine;
mod events;
pub mod flows;
pub mod gate;
pub mod handler;
mod identities;
pub mod install;
pub mod knowledge;
mod neighbours;
mod paths;
mod relief;
pub mod run;
mod serve;
pub mod sharing;
pub mod source;
mod takeover;
