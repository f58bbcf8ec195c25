//! The node agent.
pub mod datapath;
pub mod source;
