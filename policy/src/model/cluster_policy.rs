//! `policy.networking.k8s.io/v1alpha2` ClusterNetworkPolicy, parsed.
//!
//! What stands in front of NetworkPolicy (tier Admin) and behind it (tier Baseline). Quotes are
//! from the field descriptions of that version.

use std::fmt;

use datapath_abi::policy::Direction;

use super::{Action, Labels, Peer, Peers, Pod, PolicyRef, Rule};
use crate::selector::Selector;

/// Where a ClusterNetworkPolicy stands to NetworkPolicy. In the order in which tiers are asked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Tier {
    /// Before it: "takes precedence over all other policies".
    Admin,
    /// After it, for pods that no NetworkPolicy isolates: "can be overridden by the v1.NetworkPolicy".
    Baseline,
}

impl Tier {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Admin, Self::Baseline];

    /// As the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "Admin",
            Self::Baseline => "Baseline",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A cluster network policy.
///
/// Of two in one tier the one with the lower [`Self::priority`] is asked first; of two with the same
/// priority the one whose name comes first in byte order. The API leaves that open ("the
/// implementation can apply any of the matching policies"); ours is the same on every node and in every run.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ClusterNetworkPolicy {
    /// Name. It has no namespace.
    pub name: String,
    /// Tier.
    pub tier: Tier,
    /// 0 to 1000; the lowest is asked first.
    pub priority: u16,
    /// The pods it applies to.
    pub subject: Subject,
    /// Rules for what the subject receives, in the order in which they are asked.
    pub ingress: Vec<ClusterRule>,
    /// Rules for what the subject sends.
    pub egress: Vec<ClusterRule>,
    /// Evaluated and reported, not enforced.
    pub staged: bool,
}

impl ClusterNetworkPolicy {
    /// What names it.
    pub fn policy_ref(&self) -> PolicyRef {
        PolicyRef::cluster(&self.name)
    }

    /// Its rules for a direction. "CNPs with no ingress rules do not affect ingress traffic."
    pub fn rules(&self, direction: Direction) -> &[ClusterRule] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }

    /// Whether it applies to a pod in a namespace with these labels. "Note that host-networked
    /// pods are not included in subject selection."
    pub fn selects(&self, pod: &Pod, namespace: &Labels) -> bool {
        !pod.host_network && self.subject.namespaces.matches(namespace) && self.subject.pods.matches(&pod.labels)
    }

    /// Every selector over pods in it: its subject and its peers.
    pub fn pod_selectors(&self) -> impl Iterator<Item = &Selector> {
        let rules = self.ingress.iter().chain(&self.egress);
        let peers = rules.flat_map(|rule| rule.rule.peers.pod_selectors());
        std::iter::once(&self.subject.pods).chain(peers)
    }

    /// What its place among all policies of its tier depends on: the lowest is asked first.
    pub fn rank(&self) -> (u16, &str) {
        (self.priority, &self.name)
    }
}

/// Pods by their labels and those of their namespaces. `namespaces: {...}` of the API is every pod there.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Subject {
    /// Labels of the namespace.
    pub namespaces: Selector,
    /// Labels of the pod.
    pub pods: Selector,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pods {} of namespaces {}", self.pods, self.namespaces)
    }
}

/// One rule of a ClusterNetworkPolicy.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ClusterRule {
    /// Name, if its author gave it one. Names nothing twice only if the author saw to it.
    pub name: Option<String>,
    /// What it does.
    pub action: Action,
    /// What it matches.
    pub rule: Rule,
}

impl ClusterRule {
    /// Whether the rule has peers that nothing can match yet, and would let pass what it should stop if
    /// they were left out. The API asks for such a rule to "fail closed": "For 'Deny' and 'Pass' rules,
    /// 'fail closed' means: 'treat the rule as a Deny all rule'". An Accept rule just matches less.
    pub fn fails_closed(&self) -> bool {
        let Peers::These(peers) = &self.rule.peers else { return false };
        self.action != Action::Allow && peers.iter().any(|peer| matches!(peer, Peer::Domains(_)))
    }
}
