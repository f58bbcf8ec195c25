//! The node agent: a ring of I/O around plans.
//!
//! ```text
//!   source (folder)      cni (plugin)        net (addresses)         I/O
//!        \                  |                  /
//!         +----------- app (wiring, engine) --+
//!                 |                    |
//!   endpoint ipam reconcile      flows (other crate)                 pure
//!                 |                    |
//!   datapath (maps, programs)    telemetry, admin API, flow_api   state        I/O
//! ```
//!
//! `source net datapath cni state telemetry flow_api` do not import each other; `endpoint ipam reconcile`
//! are pure and import none of them; `app` imports all.

pub mod app;
pub mod args;
pub mod cni;
pub mod commands;
pub mod config;
pub mod datapath;
pub mod endpoint;
pub mod flow_api;
pub mod ipam;
pub mod mac;
pub mod net;
pub mod reconcile;
pub mod source;
pub mod state;
pub mod telemetry;
pub mod uplink;
pub mod words;
