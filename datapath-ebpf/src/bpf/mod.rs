//! What only runs in the kernel: packet pointers, maps, helpers.

pub(crate) mod conntrack;
pub(crate) mod control;
pub(crate) mod count;
pub(crate) mod dns;
pub(crate) mod event;
pub(crate) mod forward;
pub(crate) mod kernel;
pub(crate) mod maps;
pub(crate) mod overlay;
pub(crate) mod packet;
pub(crate) mod policy;
pub(crate) mod rare;
pub(crate) mod rewrite;
pub(crate) mod service;
pub(crate) mod steps;
pub(crate) mod uplink;
