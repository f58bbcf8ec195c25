//! I/O: the gRPC service that the CNI plugin calls. Conversion is in [`convert`]; what is done is
//! behind [`Handler`].

pub mod convert;
mod service;

pub use service::{Handler, Service, Verb};
