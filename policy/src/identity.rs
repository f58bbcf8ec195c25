//! Which pods are one and the same to policy.
//!
//! Everything that a selector can see of a pod, without the labels that make each pod unique and
//! mean nothing. Pods with equal keys share one number; the numbers are the caller's business.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;

use crate::model::Labels;

/// Numbers that mean the same on every node of a cluster.
pub const SHARED_NUMBERS: RangeInclusive<u32> = datapath_abi::identity::FIRST_SHARED..=datapath_abi::identity::MAX;

/// Labels that controllers put on pods to tell them apart, or to tell generations of one
/// workload apart. Sources: Kubernetes documentation, "Well-Known Labels, Annotations and
/// Taints", and the API types of ReplicaSet, StatefulSet, DaemonSet and Job.
pub const DEFAULT_EXCLUDED_LABELS: &[&str] = &[
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-completion-index",
    "batch.kubernetes.io/job-name",
    "controller-revision-hash",
    "controller-uid",
    "job-name",
    "pod-template-generation",
    "pod-template-hash",
    "statefulset.kubernetes.io/pod-name",
];

/// What counts as identity.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Keys of pod labels that do not count, unless a policy's pod selector names them.
    pub excluded_labels: BTreeSet<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self { excluded_labels: DEFAULT_EXCLUDED_LABELS.iter().map(|&key| key.to_owned()).collect() }
    }
}

/// What an identity number stands for. Prints as
/// `shop{kubernetes.io/metadata.name=shop}/default{app=web}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct IdentityKey {
    /// Namespace.
    pub namespace: String,
    /// All labels of the namespace.
    pub namespace_labels: Labels,
    /// The pod's labels that count.
    pub labels: Labels,
    /// Service account.
    pub service_account: String,
}

impl fmt::Display for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, namespace_labels, labels, service_account } = self;
        write!(f, "{namespace}{{{namespace_labels}}}/{service_account}{{{labels}}}")
    }
}
