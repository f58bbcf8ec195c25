//! The pure middle: policy objects in, rules and map entries out. No I/O, no clock, no randomness.
//!
//! ```text
//!  model::Object --apply/delete--> Index --compile--> RuleTable --lower--> RuleSet
//!                                    |                (API terms:           (map terms: identities,
//!                                    |                 selectors, blocks,    regions, port prefixes;
//!                                    |                 ports; has a digest)  looked up as the kernel does)
//!                                    |                                          ^
//!                                    +--identity_key--> numbers (the caller's) --+-- Universe
//! ```
//!
//! * [`model`], [`selector`]: what an object says once it is parsed. Impossible states cannot be built.
//! * [`identity`]: which pods are one and the same to policy.
//! * [`index`]: all objects, and which pods an event touches.
//! * [`compile`](mod@compile): one pod and direction -> the rules that hold, in the API's terms.
//! * [`lower`](mod@lower): rules and the known identities -> entries. Knows nothing of Kubernetes.
//! * [`map_model`]: what the kernel programs do with these entries, in plain code.
//! * [`world`]: a whole flow between two ends, through the rule sets of both.
//! * [`explain`](mod@explain): why that flow got that verdict, rule by rule.
//!
//! Order of policies, per direction: Admin tier of ClusterNetworkPolicy, then NetworkPolicy (final for a
//! pod that one isolates), then Baseline tier, then everything passes. A staged policy counts in
//! [`compile_staged`] alone.
//!
//! Text in any form is parsed elsewhere (`objects`); numbers for identities, rule sets and port
//! sets are given by the caller.
#![forbid(unsafe_code)]

pub mod compile;
pub mod explain;
#[cfg(feature = "test-util")]
pub mod fixture;
pub mod identity;
pub mod index;
pub mod lower;
pub mod map_model;
pub mod model;
#[cfg(feature = "test-util")]
pub mod oracle;
mod postings;
pub mod selector;
pub mod world;

pub use compile::{RuleTable, compile, compile_staged};
pub use datapath_abi::policy::Direction;
pub use explain::{Explanation, explain};
pub use identity::IdentityKey;
pub use index::{Index, Touched, View};
pub use lower::{RuleSet, Universe, lower};
