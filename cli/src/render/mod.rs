//! From own types to what is printed. No requests, no decisions. JSON needs no code here: it is
//! the own types' serde form, see `view`; only flows have a form that others have fixed.

pub(crate) mod counters;
pub(crate) mod endpoint;
pub(crate) mod explain;
pub(crate) mod flow_json;
mod flow_lookup;
pub(crate) mod flow_reason;
pub(crate) mod flow_stats;
pub(crate) mod flow_table;
pub(crate) mod identity;
pub(crate) mod out;
pub(crate) mod policy;
pub(crate) mod proto_json;
pub(crate) mod service;
pub(crate) mod status;
pub(crate) mod table;
pub(crate) mod text;
pub(crate) mod top;
