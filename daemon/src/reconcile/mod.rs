//! Pure: wanted against found, to an ordered list of changes. Touches no map itself.
//!
//! ```text
//!   objects, local endpoints, host addresses          what the kernel holds
//!                  |                                            |
//!               Planner  ----------------- plan ------------  Mirror
//!                                           |                   ^
//!                                    Plan { changes, refusals } |
//!                                           |                   |
//!                                   the caller carries out each change and tells the mirror
//! ```
//!
//! Order of a plan, so that no packet ever sees half of a change: entries nobody refers to yet
//! (ports, peers, regions), then addresses and endpoints, then the swing of each endpoint's
//! pointer, then, after a grace period, what nobody refers to any more.

mod change;
mod claims;
mod endpoint;
mod given;
mod homes;
mod mirror;
mod numbers;
mod planner;
mod wardrobe;

pub use change::{Change, Plan, Refusal, Remains};
pub use endpoint::{EndpointKey, LocalEndpoint};
pub use given::Given;
pub use mirror::{Capacity, Mirror};
pub use numbers::{HashCookies, Identities};
pub use planner::{DirectionView, EndpointView, Planner, Unshared};

#[cfg(test)]
mod tests;
