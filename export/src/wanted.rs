//! Which parts of a record an exporter wants. A field mask in the words of the flow API (`source.labels`), asked once
//! per exporter and not once per record. What makes an event an event is always sent: time, verdict, why.

use flows::observer::{Mask, MaskError};

/// Parts of one end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct WantedEnd {
    pub(crate) address: bool,
    pub(crate) identity: bool,
    pub(crate) cluster: bool,
    pub(crate) namespace: bool,
    pub(crate) labels: bool,
    pub(crate) pod: bool,
    pub(crate) workload: bool,
    pub(crate) names: bool,
    pub(crate) service: bool,
}

/// Parts of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wanted {
    pub(crate) uid: bool,
    pub(crate) protocol: bool,
    pub(crate) source: WantedEnd,
    pub(crate) destination: WantedEnd,
    pub(crate) node: bool,
    pub(crate) direction: bool,
    /// The policies that decided.
    pub(crate) policies: bool,
    pub(crate) interface: bool,
    /// Of a lookup what was asked, and what came of it.
    pub(crate) lookup: bool,
    pub(crate) summary: bool,
    /// What the flow API has no field for: counters, rules, times of the connection.
    pub(crate) details: bool,
}

impl Wanted {
    /// From paths as of the flow API's field mask; none means everything.
    ///
    /// # Errors
    /// A path that is no field.
    pub fn of(paths: &[String]) -> Result<Self, MaskError> {
        let mask = Mask::exactly(paths)?;
        let end = |end: &str| WantedEnd {
            address: mask.keeps(&format!("IP.{end}")),
            identity: mask.keeps(&format!("{end}.identity")),
            cluster: mask.keeps(&format!("{end}.cluster_name")),
            namespace: mask.keeps(&format!("{end}.namespace")),
            labels: mask.keeps(&format!("{end}.labels")),
            pod: mask.keeps(&format!("{end}.pod_name")),
            workload: mask.keeps(&format!("{end}.workloads")),
            names: mask.keeps(&format!("{end}_names")),
            service: mask.keeps(&format!("{end}_service")),
        };
        let any = |paths: &[&str]| paths.iter().any(|path| mask.keeps(path));
        Ok(Self {
            uid: mask.keeps("uuid"),
            protocol: mask.keeps("l4"),
            source: end("source"),
            destination: end("destination"),
            node: mask.keeps("node_name"),
            direction: mask.keeps("traffic_direction"),
            policies: any(&["egress_allowed_by", "ingress_allowed_by", "egress_denied_by", "ingress_denied_by"]),
            interface: mask.keeps("interface"),
            lookup: mask.keeps("l7"),
            summary: mask.keeps("Summary"),
            details: mask.keeps("extensions"),
        })
    }

    /// Everything.
    pub fn everything() -> Self {
        Self::of(&[]).expect("no path is wrong among none")
    }
}
