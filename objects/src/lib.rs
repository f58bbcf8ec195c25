//! Kubernetes manifests to the objects of the policy model, and errors that their author can act
//! upon. No I/O: bytes in, results out.
//!
//! ```text
//!  bytes --split--> chunk --yaml/json--> Node --decode--> k8s_openapi type --namespace/pod/
//!          one per          tree that            unknown fields,            network_policy-->
//!          document         knows lines          wrong types                policy::model
//! ```
//!
//! * [`parse_documents`] is the way in for files. An error costs its own document only.
//! * [`namespace`](mod@namespace), [`pod`](mod@pod), [`cluster_node`], [`service`](mod@service),
//!   [`endpoint_slice`](mod@endpoint_slice), [`network_policy`](mod@network_policy) and
//!   [`cluster_policy`](mod@cluster_policy) are the way in for objects that an API server gave: the same checks
//!   from there on.
//! * The annotation [`ENFORCEMENT`] stages a policy of either kind.
//! * A field that Kubernetes 1.33 does not know is refused; so is whatever its API server would refuse.
//!   Namespace and name have the form it asks for. Missing namespaces are `default`.
//! * [`identity`](mod@identity) reads and writes our own kind, by which nodes share numbers.
//! * [`settings`] reads files of our own with the same reader.
//! * [`fuzz`] is the entry for fuzzers.
#![forbid(unsafe_code)]

mod closed;
pub mod cluster_node;
pub mod cluster_policy;
mod decode;
mod document;
pub mod endpoint_slice;
mod error;
mod findings;
pub mod fuzz;
pub mod identity;
mod json;
mod kind;
mod metadata;
pub mod namespace;
mod nearest;
pub mod network_policy;
mod node;
mod path;
pub mod pod;
mod scalar;
mod selector;
pub mod service;
pub mod settings;
mod split;
mod syntax;
mod workload;
mod yaml;

pub use document::{DocumentResult, Limits, Outcome, parse_documents, parse_documents_within};
pub use error::{ObjectError, ObjectName, Problem};
pub use kind::Kind;
pub use metadata::{DEFAULT_NAMESPACE, ENFORCEMENT, STAGED};
pub use path::{FieldPath, Segment};
pub use workload::workload;
