//! Flow records: from an event of the kernel to what a person or a SIEM reads.
//!
//! ```text
//!  FlowEvent (ring buffer)            what the cluster knows (Context)
//!        |                                     |
//!        v                                     v
//!  Pipeline::batch().push() ------> enrich::enrich() --> FlowRecord
//!        |                                                   |
//!     Ledger: observed = kept + dropped{reason}              v
//!                                                          Ring (last N, many readers)
//!                                                            |
//!                              filter::FilterSet ---> observer::Observer --> clients
//!                                                     (convert: record -> proto)
//! ```
//!
//! Nothing here touches the kernel, the network stack or the Kubernetes API: events come in as
//! values, clients come in through whatever listener the daemon mounts the services on.

pub mod aggregate;
pub mod calendar;
pub mod clock;
pub mod enrich;
pub mod filter;
#[cfg(any(test, feature = "test-util"))]
pub mod fixture;
pub mod frame;
pub mod intake;
pub mod ledger;
pub mod notice;
pub mod observer;
pub mod past;
pub mod pipeline;
pub mod record;
pub mod redact;
pub mod ring;
mod uuid;

pub use observer::{Observer, ObserverConfig};
pub use pipeline::Pipeline;
pub use record::FlowRecord;
pub use ring::Ring;
pub use uuid::{ParseUuidError, Uuid};
