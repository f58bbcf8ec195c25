//! Results in every version's shape. Inside there is one form, that of 1.1.0 (`wire::CniResult`).
//!
//! What the versions have (CNI SPEC.md of each, spec-upgrades.md):
//!
//! | version | interfaces | addresses | routes |
//! |---|---|---|---|
//! | 0.1.0, 0.2.0 | none | `ip4`, `ip6`: one each, with their routes | dst, gw |
//! | 0.3.0 to 0.4.0 | name, mac, sandbox | `ips` with `version` "4" or "6" | dst, gw |
//! | 1.0.0 | the same | `ips` | dst, gw |
//! | 1.1.0 | and mtu, socketPath, pciID | `ips` | and mtu, advmss, priority, table, scope |

mod parse;
mod render;

#[cfg(test)]
mod tests;

pub(crate) use parse::{ParseError, parse};
pub(crate) use render::{RenderError, render};
