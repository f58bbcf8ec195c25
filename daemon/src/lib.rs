//! The node agent.
pub mod app;
pub mod datapath;
pub mod net;
pub mod reconcile;
pub mod source;
pub mod ipam;
pub mod mac;
pub mod state;
