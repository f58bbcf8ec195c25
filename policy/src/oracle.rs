//! The API's text as directly as code can say it: slow on purpose, and sharing no code with
//! [`crate::compile`](mod@crate::compile) and [`crate::lower`](mod@crate::lower), nor with their
//! selectors, blocks and port ranges. Tests hold the two against each other.
//!
//! Quotes are from the field descriptions of `networking.k8s.io/v1` (k8s.io/api, types.go) and
//! from the Kubernetes documentation, "Network Policies".

use std::net::IpAddr;

use datapath_abi::policy::Direction;
use ipnetwork::IpNetwork;

use crate::model::{
    IpBlock, Labels, Namespace, NamespaceScope, NetworkPolicy, Object, Peer, Peers, Pod, Port, PortSpec, Ports, Rule,
};
use crate::selector::{Operator, Selector};
use crate::world::{End, Flow};

/// All objects, as a heap.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    namespaces: Vec<Namespace>,
    pods: Vec<Pod>,
    policies: Vec<NetworkPolicy>,
}

impl Oracle {
    /// From objects, each of them once.
    pub fn new(objects: impl IntoIterator<Item = Object>) -> Self {
        let mut oracle = Self::default();
        for object in objects {
            match object {
                Object::Namespace(namespace) => oracle.namespaces.push(namespace),
                Object::Pod(pod) => oracle.pods.push(pod),
                Object::NetworkPolicy(policy) => oracle.policies.push(policy),
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
        self.side_allows(Direction::Egress, &flow.source, &flow.destination, flow)
    }

    /// Whether the destination's ingress policies allow it.
    pub fn ingress_allows(&self, flow: &Flow) -> bool {
        // "traffic to and from the node where a Pod is running is always allowed"; for egress the
        // field descriptions do not say so, and we follow those.
        if matches!(flow.source, End::LocalNode(_)) {
            return true;
        }
        self.side_allows(Direction::Ingress, &flow.destination, &flow.source, flow)
    }

    fn side_allows(&self, direction: Direction, subject: &End, peer: &End, flow: &Flow) -> bool {
        let Some(subject) = self.find_pod(subject) else { return true };
        // "hostNetwork pods are ignored when matching podSelector and namespaceSelector"
        if subject.host_network {
            return true;
        }
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
                allowed |= rules.iter().any(|rule| self.rule_allows(rule, policy, direction, subject, peer, flow));
            }
        }
        // "If no policies select a pod, all traffic is allowed": isolation is per direction.
        allowed || !isolated
    }

    fn rule_allows(
        &self,
        rule: &Rule,
        policy: &NetworkPolicy,
        direction: Direction,
        subject: &Pod,
        peer: &End,
        flow: &Flow,
    ) -> bool {
        // "matches all sources (traffic not restricted by source)"
        let from = match &rule.peers {
            Peers::Anyone => true,
            Peers::These(peers) => peers.iter().any(|it| self.peer_matches(it, policy, peer)),
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

    fn peer_matches(&self, peer: &Peer, policy: &NetworkPolicy, end: &End) -> bool {
        match peer {
            Peer::Block(block) => in_block(block, end.ip()),
            Peer::Pods { namespaces, pods } => {
                let Some(pod) = self.find_pod(end) else { return false };
                if pod.host_network || pod.finished {
                    return false;
                }
                let namespace = match namespaces {
                    NamespaceScope::Own => pod.key.namespace == policy.namespace,
                    NamespaceScope::Matching(selector) => {
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
                };
                namespace && meets(pods, &pod.labels)
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
