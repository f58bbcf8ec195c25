//! `networking.k8s.io/v1` NetworkPolicy, parsed and defaulted.
//!
//! Where the API tells "missing" from "empty", or an unset field means something, there is an
//! enum that says which. Defaulting of `policyTypes` has been done: a direction is `Some` if the
//! policy isolates in it.

use std::fmt;

use datapath_abi::policy::Direction;

use super::{IpBlock, PolicyRef, PortRange, Protocol};
use crate::selector::Selector;

/// What a rule does with the traffic it matches.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Action {
    /// Let it pass.
    Allow,
    /// Drop it.
    Deny,
    /// Ask no more rules of this tier, but those of the next. ClusterNetworkPolicy only.
    Pass,
}

/// Standing of a rule: of two rules that match, the one with the greater precedence decides.
/// Rules of equal precedence are additive.
///
/// Every rule of a ClusterNetworkPolicy has its own: those of the Admin tier count down to just above
/// [`Self::NETWORK_POLICY`], those of the Baseline tier count down from just below it. They are places
/// within one rule table, not priorities. 0 is no precedence.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Precedence(pub u16);

impl Precedence {
    /// Every rule of every NetworkPolicy.
    pub const NETWORK_POLICY: Self = Self(0x8000);

    /// How many rules one tier of ClusterNetworkPolicy can have for one pod and direction.
    pub const TIER_RULES: usize = Self::NETWORK_POLICY.0 as usize - 1;

    /// A place counted from 0, as far as there are numbers: [`Self::TIER_RULES`] says how far.
    pub(crate) fn clamped(place: usize) -> Self {
        Self(u16::try_from(place).unwrap_or(u16::MAX))
    }

    /// Whether it is one of the Admin tier.
    pub fn is_admin(self) -> bool {
        self > Self::NETWORK_POLICY
    }

    /// Whether it is one of the Baseline tier.
    pub fn is_baseline(self) -> bool {
        self < Self::NETWORK_POLICY
    }
}

/// A network policy.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct NetworkPolicy {
    /// Namespace: it selects pods of this one only.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// The pods it applies to.
    pub pod_selector: Selector,
    /// `Some`: isolates the selected pods for ingress and allows what these rules match. `None`:
    /// says nothing about ingress.
    pub ingress: Option<Vec<Rule>>,
    /// The same for egress.
    pub egress: Option<Vec<Rule>>,
    /// Evaluated and reported, not enforced.
    pub staged: bool,
}

impl NetworkPolicy {
    /// What names it.
    pub fn policy_ref(&self) -> PolicyRef {
        PolicyRef::network_policy(&self.namespace, &self.name)
    }

    /// Its rules for a direction, `None` if it does not isolate in it.
    pub fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }

    /// Whether it applies to a pod: same namespace, selected by its labels, and not hostNetwork.
    pub fn selects(&self, pod: &super::Pod) -> bool {
        pod.key.namespace == self.namespace && !pod.host_network && self.pod_selector.matches(&pod.labels)
    }

    /// Every selector over pods in it: its subject and its peers.
    pub fn pod_selectors(&self) -> impl Iterator<Item = &Selector> {
        let rules = [&self.ingress, &self.egress].into_iter().flatten().flatten();
        std::iter::once(&self.pod_selector).chain(rules.flat_map(|rule| rule.peers.pod_selectors()))
    }
}

/// One rule of one direction: traffic with one of the peers *and* on one of the ports.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Rule {
    /// `from` or `to`.
    pub peers: Peers,
    /// `ports`.
    pub ports: Ports,
}

/// `from` or `to` of a rule.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Peers {
    /// Missing or empty: everybody, outside the cluster too.
    Anyone,
    /// One of these; none if there are none, which the API cannot write.
    These(Vec<Peer>),
}

impl Peers {
    /// Every selector over pods among them.
    pub fn pod_selectors(&self) -> impl Iterator<Item = &Selector> {
        let peers = match self {
            Self::Anyone => [].iter(),
            Self::These(peers) => peers.iter(),
        };
        peers.filter_map(|peer| match peer {
            Peer::Pods { namespaces: _, pods } => Some(pods),
            Peer::Block(_) | Peer::Nodes(_) | Peer::Domains(_) => None,
        })
    }
}

impl From<Vec<Peer>> for Peers {
    /// As the API reads a list: an empty one is everybody.
    fn from(peers: Vec<Peer>) -> Self {
        if peers.is_empty() { Self::Anyone } else { Self::These(peers) }
    }
}

/// One peer of a rule.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Peer {
    /// Pods, by their labels and the labels of their namespace. A missing podSelector beside a
    /// namespaceSelector is the empty selector.
    Pods {
        /// Where.
        namespaces: NamespaceScope,
        /// Which there.
        pods: Selector,
    },
    /// Addresses, be they of pods or not.
    Block(IpBlock),
    /// Nodes by their labels, which is their addresses. Egress of ClusterNetworkPolicy only.
    Nodes(Selector),
    /// Domain names, which match nothing yet. Egress of ClusterNetworkPolicy only.
    Domains(Vec<String>),
}

/// Namespaces of a peer.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum NamespaceScope {
    /// No namespaceSelector: the policy's own namespace.
    Own,
    /// Namespaces whose labels match; the empty selector is all of them.
    Matching(Selector),
}

/// `ports` of a rule.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Ports {
    /// Missing or empty: every port of every protocol, also of those without ports.
    All,
    /// One of these.
    These(Vec<Port>),
}

impl From<Vec<Port>> for Ports {
    /// As the API reads a list: an empty one is everything.
    fn from(ports: Vec<Port>) -> Self {
        if ports.is_empty() { Self::All } else { Self::These(ports) }
    }
}

/// One entry of `ports`. Prints as `TCP/80`, `UDP/1000-2000`, `TCP/http`, `SCTP/*`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Port {
    /// Protocol.
    pub protocol: Protocol,
    /// Which ports of it.
    pub port: PortSpec,
}

/// Which ports of a protocol.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PortSpec {
    /// By number; [`PortRange::ALL`] if the rule names only a protocol.
    Numbers(PortRange),
    /// By a name that the destination pod gives to a container port.
    Named(String),
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.port {
            PortSpec::Numbers(range) => write!(f, "{}/{range}", self.protocol),
            PortSpec::Named(name) => write!(f, "{}/{name}", self.protocol),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Pass => "pass",
        })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pods { namespaces: NamespaceScope::Own, pods } => write!(f, "pods {pods} of its own namespace"),
            Self::Pods { namespaces: NamespaceScope::Matching(namespaces), pods } => {
                write!(f, "pods {pods} of namespaces {namespaces}")
            }
            Self::Block(block) => write!(f, "addresses {block}"),
            Self::Nodes(nodes) => write!(f, "nodes {nodes}"),
            Self::Domains(names) => write!(f, "domains {}", names.join(", ")),
        }
    }
}

impl fmt::Display for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::These(peers) = self else { return f.write_str("anyone") };
        let list: Vec<String> = peers.iter().map(ToString::to_string).collect();
        f.write_str(&list.join(" or "))
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::These(ports) = self else { return f.write_str("every port") };
        let list: Vec<String> = ports.iter().map(ToString::to_string).collect();
        f.write_str(&list.join(", "))
    }
}
