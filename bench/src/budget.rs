//! What the design's section 10 allows, and what was found.

use serde::Serialize;

/// One line of it.
#[derive(Debug, Serialize)]
pub(crate) struct Budget {
    pub(crate) what: String,
    pub(crate) limit: f64,
    pub(crate) found: f64,
    pub(crate) unit: &'static str,
    pub(crate) met: bool,
}
