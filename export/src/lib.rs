//! Flow records to receivers outside: mapping, keeping, sending. Each exporter reads the ring of records on its own,
//! so that one that is slow or fails costs no other one anything.
//!
//! ```text
//!             settings file --config--> Exporter {filters, wanted, target}
//!                                           |
//!   flows::Ring --Intake (filter, tally)-->|-- file:   ocsf --> LogFile, rotated
//!                                           |-- otlp:   otlp --> Spool --> sender --> gRPC
//!                                           |-- syslog: syslog > Spool --> sender --> TLS
//!                                           |
//!        ExporterLedger: carried + observed = exported + filtered + spooled + dropped{reason}
//! ```
//!
//! Pure are `facts`, `ocsf`, `otlp`, `syslog`, `wanted`, `community`, `config`: bytes or records in, bytes out. `file`, `spool`,
//! `sender` and `exporters` do what touches the world.
#![forbid(unsafe_code)]

#[cfg(test)]
mod collector;
mod community;
pub mod config;
mod exporters;
mod facts;
pub mod file;
#[cfg(test)]
mod golden;
mod json;
pub mod ocsf;
pub mod otlp;
mod sender;
pub mod spool;
mod spooled;
pub mod syslog;
pub mod tls;
mod to_file;
mod to_otlp;
mod to_syslog;
mod wanted;

pub(crate) use flows::intake;
pub use flows::notice;

pub use exporters::{Exporters, Options};
pub use sender::BatchLimits;
pub use wanted::Wanted;
