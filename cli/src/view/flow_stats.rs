//! The ledger of flows.

use proto::bulkhead::admin::v1 as pb;
use serde::Serialize;

use super::all;

/// The whole answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct FlowStats {
    pub(crate) events: Events,
    pub(crate) readers: Readers,
    pub(crate) exporters: Vec<Exporter>,
    pub(crate) problems: Vec<String>,
}

impl From<pb::FlowStatsResponse> for FlowStats {
    fn from(answer: pb::FlowStatsResponse) -> Self {
        let pb::FlowStatsResponse { observed, kept, dropped, readers, exporters, problems } = answer;
        Self {
            events: Events { observed, kept, dropped: all(dropped) },
            readers: readers.unwrap_or_default().into(),
            exporters: all(exporters),
            problems,
        }
    }
}

/// Events of the kernel: observed = kept + dropped.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Events {
    pub(crate) observed: u64,
    pub(crate) kept: u64,
    pub(crate) dropped: Vec<Dropped>,
}

/// How many, and why.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Dropped {
    pub(crate) reason: String,
    pub(crate) count: u64,
}

impl From<pb::Dropped> for Dropped {
    fn from(pb::Dropped { reason, count }: pb::Dropped) -> Self {
        Self { reason, count }
    }
}

/// Clients of the flow API: passed = delivered + filtered + lost.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Readers {
    pub(crate) now: u64,
    pub(crate) passed: u64,
    pub(crate) delivered: u64,
    pub(crate) filtered: u64,
    pub(crate) lost: u64,
}

impl From<pb::FlowReaders> for Readers {
    fn from(pb::FlowReaders { now, passed, delivered, filtered, lost }: pb::FlowReaders) -> Self {
        Self { now, passed, delivered, filtered, lost }
    }
}

/// An exporter: carried + observed + aggregates = exported + filtered + aggregated + spooled + dropped.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Exporter {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) carried: u64,
    pub(crate) observed: u64,
    pub(crate) exported: u64,
    pub(crate) filtered: u64,
    pub(crate) aggregated: u64,
    pub(crate) aggregates: u64,
    pub(crate) spooled: u64,
    pub(crate) dropped: Vec<Dropped>,
    pub(crate) spool_bytes: u64,
    pub(crate) retries: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) trouble: String,
}

impl From<pb::Exporter> for Exporter {
    fn from(exporter: pb::Exporter) -> Self {
        let pb::Exporter {
            name,
            kind,
            carried,
            observed,
            exported,
            filtered,
            aggregated,
            aggregates,
            spooled,
            dropped,
            spool_bytes,
            retries,
            trouble,
        } = exporter;
        let dropped = all(dropped);
        Self {
            name,
            kind,
            carried,
            observed,
            exported,
            filtered,
            aggregated,
            aggregates,
            spooled,
            dropped,
            spool_bytes,
            retries,
            trouble,
        }
    }
}
