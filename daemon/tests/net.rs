//! The daemon's `net` in real network namespaces: each test makes its own and removes them.
//!
//! Needs root; without it every test says so and does nothing.

#[path = "net/filters.rs"]
mod filters;
#[path = "net/links.rs"]
mod links;
#[path = "net/masquerade.rs"]
mod masquerade;
#[path = "net/namespace.rs"]
mod namespace;
#[path = "net/netns.rs"]
mod netns;
#[path = "net/node.rs"]
mod node;
#[path = "net/overlay.rs"]
mod overlay;
#[path = "net/wiring.rs"]
mod wiring;
