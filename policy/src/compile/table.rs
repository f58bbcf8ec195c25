//! The rules of one pod and direction, in the API's terms.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeSet;
use std::fmt;

use datapath_abi::policy::Direction;

use crate::identity::IdentityKey;
use crate::lower::Universe;
use crate::model::{Action, IpBlock, PolicyRef, PortRange, Precedence, Protocol};
use crate::selector::Selector;

/// Names a rule. Of several rules of one precedence that match, the one with the lowest
/// `RuleRef` is named as the deciding one: by kind, namespace and name of its policy, then by
/// direction, then by its place there. Prints as `NetworkPolicy shop/db ingress[0]`, or
/// `ClusterNetworkPolicy guard ingress[0]`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RuleRef {
    /// The policy.
    pub policy: PolicyRef,
    /// Which of its lists.
    pub direction: Direction,
    /// Place in the list, from 0.
    pub index: u32,
}

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = match self.direction {
            Direction::Egress => "egress",
            Direction::Ingress => "ingress",
        };
        write!(f, "{} {direction}[{}]", self.policy, self.index)
    }
}

/// The rules of a pod for one direction. Equal tables are equal rule sets.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct RuleTable {
    /// Which direction.
    pub direction: Direction,
    /// The NetworkPolicies that isolate the pod, sorted. None: what no rule matches passes.
    pub isolated_by: Vec<PolicyRef>,
    /// Rules in the order of [`TableRule::rank`]: the first that matches decides.
    pub rules: Vec<TableRule>,
}

impl RuleTable {
    /// The table of a pod that no policy isolates or has rules for.
    pub const fn open(direction: Direction) -> Self {
        Self { direction, isolated_by: Vec::new(), rules: Vec::new() }
    }

    /// Whether what no rule matches is denied.
    pub fn is_isolated(&self) -> bool {
        !self.isolated_by.is_empty()
    }

    /// Whether everything passes, as there is nothing to ask.
    pub fn is_open(&self) -> bool {
        !self.is_isolated() && self.rules.is_empty()
    }

    /// Every policy that has a say, sorted: those that isolate, and those that have rules.
    pub fn policies(&self) -> Vec<PolicyRef> {
        let mut policies = self.isolated_by.clone();
        for rule in &self.rules {
            // Rules of one policy stand side by side, or their policy isolates.
            if policies.last() != Some(&rule.rule.policy) {
                policies.push(rule.rule.policy.clone());
            }
        }
        policies.sort_unstable();
        policies.dedup();
        policies
    }

    /// Whether what a rule matches depends on which nodes there are.
    pub fn names_nodes(&self) -> bool {
        let named = |rule: &TableRule| matches!(&rule.peers, TablePeers::These { nodes, .. } if !nodes.is_empty());
        self.rules.iter().any(named)
    }

    /// Which of these identities any rule looks at: those for which [`Self::concerns`] holds.
    pub fn concerned(&self, identities: &Universe) -> BTreeSet<u32> {
        let mut found = BTreeSet::new();
        for rule in &self.rules {
            let named = rule.ports.has_names();
            let everybody = match &rule.peers {
                TablePeers::Anyone => named,
                TablePeers::These { pods, blocks, nodes: _ } => {
                    let looking = pods.iter().filter(|pods| named || !pods.is_every_pod());
                    looking.for_each(|pods| found.extend(identities.matching(pods)));
                    named && !blocks.is_empty()
                }
            };
            if everybody {
                return identities.iter().map(|(number, _)| number).collect();
            }
        }
        found
    }

    /// Whether the meaning of any rule depends on what ports are called on its destination.
    pub fn has_names(&self) -> bool {
        self.rules.iter().any(|rule| rule.ports.has_names())
    }

    /// Whether any rule looks at this identity: with a selector that matches it, or with an
    /// address block or a port name, whose meaning depends on addresses and ports of its pods.
    /// When an identity comes, goes, or changes its pods, only the rule sets for which this holds
    /// have to be lowered again.
    pub fn concerns(&self, identity: &IdentityKey) -> bool {
        self.rules.iter().any(|rule| match (&rule.peers, rule.ports.has_names()) {
            (TablePeers::Anyone, named) => named,
            (TablePeers::These { pods, blocks, nodes: _ }, named) => {
                let selected = pods.iter().any(|pods| (named || !pods.is_every_pod()) && pods.matches(identity));
                selected || (named && !blocks.is_empty())
            }
        })
    }
}

/// One rule.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct TableRule {
    /// Where it comes from.
    pub rule: RuleRef,
    /// Its standing.
    pub precedence: Precedence,
    /// What it does.
    pub action: Action,
    /// With whom.
    pub peers: TablePeers,
    /// On which ports.
    pub ports: TablePorts,
}

impl TableRule {
    /// The order in which rules are asked: greater precedence first, then by [`RuleRef`].
    pub fn rank(&self, other: &Self) -> Ordering {
        (Reverse(self.precedence), &self.rule).cmp(&(Reverse(other.precedence), &other.rule))
    }
}

/// Peers of a rule.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum TablePeers {
    /// Everybody, known or not.
    Anyone,
    /// One of these pods, or one of these addresses. Sorted, each once. All lists may be empty, when
    /// nothing that the rule names can be matched yet: it then matches nobody.
    These {
        /// Pods by their identity.
        pods: Vec<PodMatch>,
        /// Addresses.
        blocks: Vec<IpBlock>,
        /// Nodes by their labels, which is their addresses.
        nodes: Vec<Selector>,
    },
}

/// Pods by labels.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PodMatch {
    /// Where.
    pub namespaces: TableNamespaces,
    /// Which there.
    pub pods: Selector,
}

impl PodMatch {
    /// Whether pods of this identity match.
    pub fn matches(&self, identity: &IdentityKey) -> bool {
        let namespace = match &self.namespaces {
            TableNamespaces::Named(name) => *name == identity.namespace,
            TableNamespaces::Matching(selector) => selector.matches(&identity.namespace_labels),
        };
        namespace && self.pods.matches(&identity.labels)
    }

    /// Whether every pod matches, whatever its identity.
    pub fn is_every_pod(&self) -> bool {
        let everywhere = matches!(&self.namespaces, TableNamespaces::Matching(selector) if selector.is_everything());
        everywhere && self.pods.is_everything()
    }
}

/// Namespaces of a [`PodMatch`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum TableNamespaces {
    /// This one.
    Named(String),
    /// Those whose labels match.
    Matching(Selector),
}

/// Ports of a rule.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum TablePorts {
    /// Every port of every protocol, also of those without ports.
    All,
    /// One of these. Sorted, each once. Both lists may be empty, when a name stands for nothing
    /// on the subject: the rule then matches nothing.
    These {
        /// By number.
        ranges: Vec<(Protocol, PortRange)>,
        /// By the name that the destination pod gives them. Egress only.
        named: Vec<(Protocol, String)>,
    },
}

impl TablePorts {
    /// Whether the meaning depends on the destination pod.
    pub fn has_names(&self) -> bool {
        matches!(self, Self::These { named, .. } if !named.is_empty())
    }
}

impl fmt::Display for TableNamespaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => write!(f, "namespace {name}"),
            Self::Matching(selector) => write!(f, "namespaces {selector}"),
        }
    }
}

impl fmt::Display for PodMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pods {} of {}", self.pods, self.namespaces)
    }
}

impl fmt::Display for TablePeers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::These { pods, blocks, nodes } = self else { return f.write_str("anyone") };
        let mut list = Vec::new();
        list.extend(pods.iter().map(ToString::to_string));
        list.extend(blocks.iter().map(|block| format!("addresses {block}")));
        list.extend(nodes.iter().map(|nodes| format!("nodes {nodes}")));
        if list.is_empty() { f.write_str("nobody") } else { f.write_str(&list.join(" or ")) }
    }
}

impl fmt::Display for TablePorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::These { ranges, named } = self else { return f.write_str("every port") };
        let mut list = Vec::new();
        list.extend(ranges.iter().map(|(protocol, range)| format!("{protocol}/{range}")));
        list.extend(named.iter().map(|(protocol, name)| format!("{protocol}/{name}")));
        if list.is_empty() { f.write_str("no port") } else { f.write_str(&list.join(", ")) }
    }
}

impl fmt::Display for RuleTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.isolated_by.is_empty() {
            writeln!(f, "not isolated")?;
        } else {
            let names: Vec<String> = self.isolated_by.iter().map(ToString::to_string).collect();
            writeln!(f, "isolated by {}", names.join(", "))?;
        }
        for TableRule { rule, precedence: _, action, peers, ports } in &self.rules {
            writeln!(f, "{rule}: {action} {peers}; {ports}")?;
        }
        Ok(())
    }
}
