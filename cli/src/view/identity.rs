//! Identities: the numbers that stand for pods with the same meaning.

use proto::bulkhead::admin::v1 as pb;
use serde::Serialize;

use super::{Labels, labels};

/// One identity. A reserved one has a name and nothing else.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Identity {
    pub(crate) number: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) reserved_name: String,
    pub(crate) namespace: String,
    pub(crate) labels: Labels,
    pub(crate) namespace_labels: Labels,
    pub(crate) service_account: String,
    pub(crate) pods: u32,
    pub(crate) local_pods: u32,
}

impl From<pb::Identity> for Identity {
    fn from(wire: pb::Identity) -> Self {
        let pb::Identity {
            number,
            reserved_name,
            namespace,
            labels: own,
            namespace_labels,
            service_account,
            pods,
            local_pods,
        } = wire;
        Self {
            number,
            reserved_name,
            namespace,
            labels: labels(own),
            namespace_labels: labels(namespace_labels),
            service_account,
            pods,
            local_pods,
        }
    }
}
