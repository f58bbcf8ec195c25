//! A policy of either kind, as far as both are told about in the same way.

use policy::{
    Direction, Index,
    model::{Action, ClusterNetworkPolicy, NetworkPolicy, Pod, PolicyKind, PolicyRef, Rule},
};

/// A policy of an index.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found<'a> {
    /// One of a namespace.
    Network(&'a NetworkPolicy),
    /// One of the cluster.
    Cluster(&'a ClusterNetworkPolicy),
}

/// A rule of either kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct FoundRule<'a> {
    /// Its name, empty if it has none.
    pub(super) name: &'a str,
    pub(super) action: Action,
    pub(super) rule: &'a Rule,
}

impl<'a> Found<'a> {
    pub(super) fn of(index: &'a Index, policy: &PolicyRef) -> Option<Self> {
        match policy.kind {
            PolicyKind::NetworkPolicy => index.network_policy(policy).map(Self::Network),
            PolicyKind::ClusterNetworkPolicy => index.cluster_policy(policy).map(Self::Cluster),
        }
    }

    pub(super) fn policy_ref(self) -> PolicyRef {
        match self {
            Self::Network(policy) => policy.policy_ref(),
            Self::Cluster(policy) => policy.policy_ref(),
        }
    }

    /// The namespace that a peer without one means; empty if there is none.
    pub(super) fn own(self) -> &'a str {
        match self {
            Self::Network(policy) => &policy.namespace,
            Self::Cluster(_) => "",
        }
    }

    /// Path of the field that says whom it selects.
    pub(super) fn subject_field(self) -> &'static str {
        match self {
            Self::Network(_) => "spec.podSelector",
            Self::Cluster(_) => "spec.subject",
        }
    }

    /// Its rules for a direction; `None` if it has no say there.
    pub(super) fn rules(self, direction: Direction) -> Option<Vec<FoundRule<'a>>> {
        match self {
            Self::Network(policy) => policy.rules(direction).map(|rules| {
                let found = |rule| FoundRule { name: "", action: Action::Allow, rule };
                rules.iter().map(found).collect()
            }),
            Self::Cluster(policy) => {
                let rules = policy.rules(direction);
                let found = rules.iter().map(|rule| FoundRule {
                    name: rule.name.as_deref().unwrap_or_default(),
                    action: rule.action,
                    rule: &rule.rule,
                });
                (!rules.is_empty()).then(|| found.collect())
            }
        }
    }

    /// Whether it selects a pod of a namespace with these labels.
    pub(super) fn selects(self, pod: &Pod, namespace: &policy::model::Labels) -> bool {
        match self {
            Self::Network(policy) => policy.selects(pod),
            Self::Cluster(policy) => policy.selects(pod, namespace),
        }
    }
}
