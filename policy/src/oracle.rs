//! The API's text as directly as code can say it: slow on purpose, and sharing no code with
//! [`crate::compile`](mod@crate::compile) and [`crate::lower`](mod@crate::lower), nor with their
//! selectors, blocks and port ranges. Tests hold the two against each other.
//!
//! Quotes are from the field descriptions of `networking.k8s.io/v1` (k8s.io/api, types.go), from the
//! Kubernetes documentation, "Network Policies", and from the field descriptions of
//! `policy.networking.k8s.io/v1alpha2` (network-policy-api, clusternetworkpolicy_types.go).

use std::net::IpAddr;
use std::sync::Arc;

use datapath_abi::policy::Direction;
use ipnetwork::IpNetwork;

use crate::model::{
    Action, ClusterNetworkPolicy, ClusterRule, IpBlock, Labels, Namespace, NamespaceScope, NetworkPolicy, Node, Object,
    Peer, Peers, Pod, Port, PortSpec, Ports, Rule, Tier,
};
use crate::selector::{Operator, Selector};
use crate::world::{End, Flow};

/// All objects, as a heap.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    namespaces: Vec<Namespace>,
    pods: Vec<Pod>,
    nodes: Vec<Node>,
    policies: Vec<NetworkPolicy>,
    cluster_policies: Vec<ClusterNetworkPolicy>,
}

/// What one end says, and which tier said it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ruling {
    /// No tier has a say here.
    Exempt,
    /// A rule of the Admin tier accepts (true) or denies.
    Admin(bool),
    /// NetworkPolicy allows it, or isolates without allowing it.
    NetworkPolicy(bool),
    /// A rule of the Baseline tier accepts (true) or denies, or passes on, behind which all may talk.
    Baseline(bool),
    /// No tier has decided.
    Default,
}

impl Ruling {
    /// Whether that lets it pass.
    pub fn allows(self) -> bool {
        match self {
            Self::Exempt | Self::Default => true,
            Self::Admin(allows) | Self::NetworkPolicy(allows) | Self::Baseline(allows) => allows,
        }
    }
}

impl Oracle {
    /// From objects, each of them once. Staged policies do not count: they are "evaluated, not enforced".
    pub fn new(objects: impl IntoIterator<Item = Object>) -> Self {
        let mut oracle = Self::with_staged(objects);
        oracle.policies.retain(|policy| !policy.staged);
        oracle.cluster_policies.retain(|policy| !policy.staged);
        oracle
    }

    /// The same as if the staged ones were enforced.
    pub fn with_staged(objects: impl IntoIterator<Item = Object>) -> Self {
        let mut oracle = Self::default();
        for object in objects {
            match object {
                Object::Namespace(namespace) => oracle.namespaces.push(namespace),
                Object::Pod(pod) => oracle.pods.push(Arc::unwrap_or_clone(pod)),
                Object::Node(node) => oracle.nodes.push(node),
                Object::Service(_) | Object::EndpointSlice(_) => {}
                Object::NetworkPolicy(policy) => oracle.policies.push(policy),
                Object::ClusterNetworkPolicy(policy) => oracle.cluster_policies.push(policy),
            }
        }
        oracle
    }

    /// Whether a connection may be opened. "For a connection from a source pod to a destination
    /// pod to be allowed, both the egress policy on the source pod and the ingress policy on the
    /// destination pod need to allow the connection."
    pub fn allows(&self, flow: &Flow) -> bool {
        // "a Pod cannot block access to itself"
        if let (End::Pod(source, _), End::Pod(destination, _)) = (&flow.source, &flow.destination)
            && source == destination
        {
            return true;
        }
        self.egress_allows(flow) && self.ingress_allows(flow)
    }

    /// Whether the source's egress policies allow it.
    pub fn egress_allows(&self, flow: &Flow) -> bool {
        self.ruling(Direction::Egress, flow).allows()
    }

    /// Whether the destination's ingress policies allow it.
    pub fn ingress_allows(&self, flow: &Flow) -> bool {
        self.ruling(Direction::Ingress, flow).allows()
    }

    /// What one end says of it, and which tier.
    pub fn ruling(&self, direction: Direction, flow: &Flow) -> Ruling {
        let (subject, peer) = match direction {
            Direction::Egress => (&flow.source, &flow.destination),
            Direction::Ingress => (&flow.destination, &flow.source),
        };
        // "traffic to and from the node where a Pod is running is always allowed"; for egress the
        // field descriptions do not say so, and we follow those.
        if direction == Direction::Ingress && matches!(peer, End::LocalNode(_)) {
            return Ruling::Exempt;
        }
        let Some(pod) = self.find_pod(subject) else { return Ruling::Exempt };
        // "hostNetwork pods are ignored when matching podSelector and namespaceSelector"; "Note that
        // host-networked pods are not included in subject selection."
        if pod.host_network {
            return Ruling::Exempt;
        }
        // "The Admin tier takes precedence over all other policies. [...] If Admin tier has made a final
        // decision (Accept or Deny) on a connection, then no further evaluation is done."
        match self.tier(Tier::Admin, direction, pod, peer, flow) {
            Some(Action::Allow) => return Ruling::Admin(true),
            Some(Action::Deny) => return Ruling::Admin(false),
            // "Pass: Skips all further ClusterNetworkPolicy rules in the current tier for the selected
            // traffic, and passes evaluation to the next tier."
            Some(Action::Pass) | None => {}
        }
        // "v1.NetworkPolicy always makes a final decision for selected pods. Further evaluation only
        // happens for Pods not selected by a v1.NetworkPolicy."
        if let Some(allows) = self.network_policies(direction, pod, peer, flow) {
            return Ruling::NetworkPolicy(allows);
        }
        // "If Baseline tier has made a final decision (Accept or Deny) on a connection, then no further
        // evaluation is done. If a given connection wasn't allowed or denied by any of the tiers, the
        // default kubernetes policy is applied, which says that all pods can communicate with each other."
        match self.tier(Tier::Baseline, direction, pod, peer, flow) {
            Some(Action::Allow | Action::Pass) => Ruling::Baseline(true),
            Some(Action::Deny) => Ruling::Baseline(false),
            None => Ruling::Default,
        }
    }

    /// What a tier of ClusterNetworkPolicy does with it: "Policies with lower priority values have
    /// higher precedence"; "a rule that appears at the top of the ingress rules would take the highest
    /// precedence". Of equal priorities "the implementation can apply any": we take names in order.
    fn tier(&self, tier: Tier, direction: Direction, subject: &Pod, peer: &End, flow: &Flow) -> Option<Action> {
        let mut policies: Vec<&ClusterNetworkPolicy> =
            self.cluster_policies.iter().filter(|policy| policy.tier == tier).collect();
        policies.sort_by(|a, b| a.priority.cmp(&b.priority).then_with(|| a.name.cmp(&b.name)));
        for policy in policies {
            let namespace = self.namespace_meets(&policy.subject.namespaces, subject);
            if !namespace || !meets(&policy.subject.pods, &subject.labels) {
                continue;
            }
            let rules = match direction {
                Direction::Ingress => &policy.ingress,
                Direction::Egress => &policy.egress,
            };
            for ClusterRule { name: _, action, rule } in rules {
                // "If an implementation sees no fields are set [...] it should fail closed. For "Accept"
                // rules, "fail closed" means: "treat the rule as matching no traffic". For "Deny" and
                // "Pass" rules, "fail closed" means: "treat the rule as a 'Deny all' rule"." Domain names
                // are a field that we do not know what to do with.
                let names_domains =
                    matches!(&rule.peers, Peers::These(peers) if peers.iter().any(|it| matches!(it, Peer::Domains(_))));
                if names_domains && matches!(action, Action::Deny | Action::Pass) {
                    return Some(Action::Deny);
                }
                if self.rule_matches(rule, "", direction, subject, peer, flow) {
                    return Some(*action);
                }
            }
        }
        None
    }

    /// What NetworkPolicy says; nothing if none selects the pod in this direction.
    fn network_policies(&self, direction: Direction, subject: &Pod, peer: &End, flow: &Flow) -> Option<bool> {
        let mut isolated = false;
        let mut allowed = false;
        for policy in &self.policies {
            let rules = match direction {
                Direction::Ingress => &policy.ingress,
                Direction::Egress => &policy.egress,
            };
            let Some(rules) = rules else { continue };
            let selects = policy.namespace == subject.key.namespace && meets(&policy.pod_selector, &subject.labels);
            if selects {
                isolated = true;
                // "the union of the ingress rules": additive, order does not matter.
                let own = &policy.namespace;
                allowed |= rules.iter().any(|rule| self.rule_matches(rule, own, direction, subject, peer, flow));
            }
        }
        // "If no policies select a pod, all traffic is allowed": isolation is per direction.
        isolated.then_some(allowed)
    }

    fn rule_matches(
        &self,
        rule: &Rule,
        own_namespace: &str,
        direction: Direction,
        subject: &Pod,
        peer: &End,
        flow: &Flow,
    ) -> bool {
        // "matches all sources (traffic not restricted by source)"
        let from = match &rule.peers {
            Peers::Anyone => true,
            Peers::These(peers) => peers.iter().any(|it| self.peer_matches(it, own_namespace, peer)),
        };
        // A named port is one of the destination pod.
        let destination = match direction {
            Direction::Ingress => Some(subject),
            Direction::Egress => self.find_pod(peer).filter(|pod| !pod.host_network && !pod.finished),
        };
        let on = match &rule.ports {
            Ports::All => true,
            Ports::These(ports) => ports.iter().any(|port| port_matches(port, destination, flow)),
        };
        from && on
    }

    fn peer_matches(&self, peer: &Peer, own_namespace: &str, end: &End) -> bool {
        match peer {
            // "Networks matches both regular IP traffic and ICMP traffic"; "cluster-internal traffic will
            // be checked against the rule as well".
            Peer::Block(block) => in_block(block, end.ip()),
            // "It selects the nodeIPs as the peer type by matching on the IPs present in the
            // node.Status.Addresses field of the node. [...] if present but empty, it selects all Nodes."
            Peer::Nodes(selector) => {
                let nodes = self.nodes.iter().filter(|node| meets(selector, &node.labels));
                nodes.into_iter().any(|node| node.ips.iter().any(|ip| *ip == end.ip()))
            }
            Peer::Domains(_) => false,
            Peer::Pods { namespaces, pods } => {
                let Some(pod) = self.find_pod(end) else { return false };
                // "Note that host-networked pods are not included in this type of peer."
                if pod.host_network || pod.finished {
                    return false;
                }
                let namespace = match namespaces {
                    NamespaceScope::Own => pod.key.namespace == own_namespace,
                    NamespaceScope::Matching(selector) => self.namespace_meets(selector, pod),
                };
                namespace && meets(pods, &pod.labels)
            }
        }
    }

    fn namespace_meets(&self, selector: &Selector, pod: &Pod) -> bool {
        let known = self.namespaces.iter().find(|it| it.name() == pod.key.namespace);
        match known {
            Some(namespace) => meets(selector, namespace.labels()),
            None => {
                // An API server would have set this one label at least.
                let name = ("kubernetes.io/metadata.name", pod.key.namespace.as_str());
                meets(selector, &[name].into_iter().collect())
            }
        }
    }

    fn find_pod(&self, end: &End) -> Option<&Pod> {
        let End::Pod(key, _) = end else { return None };
        self.pods.iter().find(|pod| pod.key == *key)
    }
}

/// `labels.Selector` of apimachinery: "An empty label selector matches all objects"; a key that
/// is missing satisfies NotIn and DoesNotExist.
fn meets(selector: &Selector, labels: &Labels) -> bool {
    for requirement in selector.requirements() {
        let value = labels.iter().find(|(key, _)| *key == requirement.key).map(|(_, value)| value);
        let met = match (&requirement.operator, value) {
            (Operator::Exists, None) | (Operator::In(_), None) => false,
            (Operator::DoesNotExist, None) | (Operator::NotIn(_), None) => true,
            (Operator::Exists, Some(_)) => true,
            (Operator::DoesNotExist, Some(_)) => false,
            (Operator::In(list), Some(value)) => list.iter().any(|it| it == value),
            (Operator::NotIn(list), Some(value)) => list.iter().all(|it| it != value),
        };
        if !met {
            return false;
        }
    }
    true
}

/// "cidr is a string representing the IPBlock"; "except is a slice of CIDRs that should not be
/// included within an IPBlock". It matches pods' addresses like any other.
fn in_block(block: &IpBlock, ip: IpAddr) -> bool {
    in_cidr(block.cidr(), ip) && !block.except().iter().any(|hole| in_cidr(*hole, ip))
}

/// Bit by bit, each family for itself.
fn in_cidr(cidr: IpNetwork, ip: IpAddr) -> bool {
    let bit = |octets: &[u8], at: u8| octets[usize::from(at / 8)] >> (7 - at % 8) & 1;
    match (cidr.ip(), ip) {
        (IpAddr::V4(net), IpAddr::V4(ip)) => {
            (0..cidr.prefix()).all(|at| bit(&net.octets(), at) == bit(&ip.octets(), at))
        }
        (IpAddr::V6(net), IpAddr::V6(ip)) => {
            (0..cidr.prefix()).all(|at| bit(&net.octets(), at) == bit(&ip.octets(), at))
        }
        _ => false,
    }
}

/// "If this field is not provided, this matches all port names and numbers"; "If present, only
/// traffic on the specified protocol AND port will be matched"; endPort: "the range of ports from
/// port to endPort, inclusive"; a name is "a numerical or named port on a pod".
fn port_matches(port: &Port, destination: Option<&Pod>, flow: &Flow) -> bool {
    let protocol = match port.protocol {
        crate::model::Protocol::Tcp => 6,
        crate::model::Protocol::Udp => 17,
        crate::model::Protocol::Sctp => 132,
    };
    if flow.proto != protocol {
        return false;
    }
    match &port.port {
        PortSpec::Numbers(range) => range.from() <= flow.port && flow.port <= range.to(),
        PortSpec::Named(name) => {
            let ports = destination.into_iter().flat_map(|pod| &pod.ports);
            ports.into_iter().any(|it| it.name == *name && it.protocol == port.protocol && it.port == flow.port)
        }
    }
}
