//! Services and EndpointSlices in, writes to the maps FRONTENDS, BACKENDS and GONE out. No I/O, no clock.
//!
//! ```text
//!  Service, EndpointSlice --Index::apply--> who claims which address and port, who serves for it
//!                                             | Index::plan: of what has changed only
//!                                             v
//!  what the maps hold (Found) ------------> [Write], in an order in which packets find something right at any moment
//! ```
//!
//! * A port of a Service in one family of addresses ([`PortId`]) has a set of backends: a number, and places 0 to
//!   `count` - 1 of it in BACKENDS. A frontend names the set and the count.
//! * A backend that is new is written at the place `count` before the count rises; it takes the place of one that has
//!   gone, if there is one. Of those that have gone without another in their place the last ones of the set fill the
//!   gaps; then the count falls, then the places at the end go.
//! * GONE gets a backend before it leaves the set, so that a daemon that ends in between loses none. The entry goes
//!   after a sweep that began after the backend had left ([`Index::swept`]).
//! * An index that begins with what its predecessor left keeps the numbers of sets and the order of places.
#![forbid(unsafe_code)]

mod found;
mod index;
mod ports;
mod settle;
mod tables;
mod view;

pub use found::{Found, Write};
pub use index::{Index, Plan};
pub use ports::{PortId, address};
pub use tables::{Capacity, Refusal};
pub use view::{BackendState, BackendView, Clash, PortState, PortView, ServiceView};
