//! Counters of the programs, and entries of the maps.

use proto::bulkhead::admin::v1 as pb;
use serde::Serialize;

use super::all;

/// The whole answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Counters {
    pub(crate) counters: Vec<Counter>,
    pub(crate) scalars: Vec<Scalar>,
}

impl From<pb::CountersResponse> for Counters {
    fn from(pb::CountersResponse { counters, scalars }: pb::CountersResponse) -> Self {
        Self { counters: all(counters), scalars: all(scalars) }
    }
}

/// Packets by hook and reason.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Counter {
    pub(crate) hook: String,
    pub(crate) reason: u32,
    pub(crate) reason_name: String,
    pub(crate) reason_text: String,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

impl From<pb::Counter> for Counter {
    fn from(pb::Counter { hook, reason, reason_name, reason_text, packets, bytes }: pb::Counter) -> Self {
        Self { hook, reason, reason_name, reason_text, packets, bytes }
    }
}

/// A number that belongs to no packet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Scalar {
    pub(crate) name: String,
    pub(crate) value: u64,
}

impl From<pb::Scalar> for Scalar {
    fn from(pb::Scalar { name, value }: pb::Scalar) -> Self {
        Self { name, value }
    }
}

/// One entry of a map as text, or a note about the map.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum MapEntry {
    Entry { map: String, key: String, value: String },
    Note { map: String, note: String },
}

impl From<pb::MapEntry> for MapEntry {
    fn from(pb::MapEntry { map, key, value, note }: pb::MapEntry) -> Self {
        if note.is_empty() { Self::Entry { map, key, value } } else { Self::Note { map, note } }
    }
}
