//! Why a peer or a port is not what a rule asks for.

use std::collections::BTreeSet;
use std::fmt;

use ipnetwork::IpNetwork;

use crate::model::{IpBlock, NamespaceScope, Peer, Peers, Pod, PodKey, Port, PortRange, PortSpec, Ports, Protocol};
use crate::selector::{Requirement, Selector};
use crate::world::{End, Flow, World};

/// Why somebody is not one of a rule's peers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PeerMismatch {
    /// The rule selects pods, and it is none.
    NotAPod(End),
    /// The rule selects pods, and hostNetwork pods are their node.
    HostNetwork(PodKey),
    /// The rule selects pods, and this one has succeeded or failed.
    Finished(PodKey),
    /// The rule selects pods, and the index knows none of this name.
    Unknown(PodKey),
    /// The rule means pods of its own namespace.
    OtherNamespace {
        /// The policy's namespace.
        wanted: String,
        /// The peer's namespace.
        found: String,
    },
    /// The labels of its namespace do not meet a requirement.
    NamespaceLabel(LabelMismatch),
    /// Its labels do not meet a requirement.
    PodLabel(LabelMismatch),
    /// Its address is not in the block.
    OutsideBlock(IpBlock),
    /// Its address is in an exception of the block.
    Excepted {
        /// The block.
        block: IpBlock,
        /// The exception.
        except: IpNetwork,
    },
    /// The rule selects nodes, and it is the address of none.
    NotANode,
    /// The labels of the node do not meet a requirement.
    NodeLabel {
        /// The node.
        node: String,
        /// What it lacks.
        mismatch: LabelMismatch,
    },
    /// The rule names domains, which nothing matches yet.
    Domains,
    /// The rule has a list of peers, and nobody is in it.
    Nobody,
}

/// A requirement that labels do not meet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LabelMismatch {
    /// What was required.
    pub requirement: Requirement,
    /// The value of that label, `None` if there is no such label.
    pub found: Option<String>,
}

/// Why a port is not one of a rule's ports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PortMismatch {
    /// The rule means another protocol.
    Protocol(Port),
    /// The rule means other ports of this protocol.
    Number {
        /// Protocol.
        protocol: Protocol,
        /// Ports.
        wanted: PortRange,
    },
    /// The destination pod gives that name to other ports.
    NamedOther {
        /// The name.
        name: String,
        /// What it stands for there.
        stands_for: BTreeSet<u16>,
    },
    /// The destination pod has no port of that name for this protocol.
    NoSuchName {
        /// The name.
        name: String,
        /// The pod.
        pod: PodKey,
    },
    /// The rule names a port, and only pods have port names.
    NoNames {
        /// The name.
        name: String,
    },
    /// The rule has a list of ports, and none is in it.
    NoPort,
}

/// The pod behind an end, if selectors can match it.
pub(super) fn selectable<'a>(world: &World<'a>, end: &End) -> Result<&'a Pod, PeerMismatch> {
    let End::Pod(key, _) = end else { return Err(PeerMismatch::NotAPod(end.clone())) };
    match world.index().pod(key) {
        None => Err(PeerMismatch::Unknown(key.clone())),
        Some(pod) if pod.host_network => Err(PeerMismatch::HostNetwork(key.clone())),
        Some(pod) if pod.finished => Err(PeerMismatch::Finished(key.clone())),
        Some(pod) => Ok(pod),
    }
}

/// Why `end` is none of `peers`; empty if it is one.
pub(super) fn peers(world: &World<'_>, own: &str, peers: &Peers, end: &End) -> Vec<PeerMismatch> {
    let Peers::These(peers) = peers else { return Vec::new() };
    let reasons: Result<Vec<_>, ()> = peers.iter().map(|it| peer(world, own, it, end).err().ok_or(())).collect();
    match reasons {
        Ok(reasons) if reasons.is_empty() => vec![PeerMismatch::Nobody],
        Ok(reasons) => reasons,
        Err(()) => Vec::new(),
    }
}

fn peer(world: &World<'_>, own: &str, peer: &Peer, end: &End) -> Result<(), PeerMismatch> {
    let (namespaces, pods) = match peer {
        Peer::Pods { namespaces, pods } => (namespaces, pods),
        Peer::Block(block) => {
            return match block.except().iter().find(|hole| hole.contains(end.ip())) {
                _ if block.contains(end.ip()) => Ok(()),
                Some(hole) => Err(PeerMismatch::Excepted { block: block.clone(), except: *hole }),
                None => Err(PeerMismatch::OutsideBlock(block.clone())),
            };
        }
        Peer::Nodes(selector) => return node(world, selector, end),
        Peer::Domains(_) => return Err(PeerMismatch::Domains),
    };
    let pod = selectable(world, end)?;
    match namespaces {
        NamespaceScope::Own if pod.key.namespace != own => {
            let (wanted, found) = (own.to_owned(), pod.key.namespace.clone());
            return Err(PeerMismatch::OtherNamespace { wanted, found });
        }
        NamespaceScope::Own => {}
        NamespaceScope::Matching(selector) => {
            let labels = world.index().identity_of(pod).namespace_labels;
            if let Some(unmet) = selector.unmet(&labels) {
                return Err(PeerMismatch::NamespaceLabel(LabelMismatch::new(unmet, labels.get(&unmet.key))));
            }
        }
    }
    match pods.unmet(&pod.labels) {
        Some(unmet) => Err(PeerMismatch::PodLabel(LabelMismatch::new(unmet, pod.labels.get(&unmet.key)))),
        None => Ok(()),
    }
}

fn node(world: &World<'_>, selector: &Selector, end: &End) -> Result<(), PeerMismatch> {
    let mut unmet = None;
    for node in world.index().nodes().filter(|node| node.ips.contains(&end.ip())) {
        match selector.unmet(&node.labels) {
            None => return Ok(()),
            Some(requirement) => {
                let mismatch = LabelMismatch::new(requirement, node.labels.get(&requirement.key));
                unmet = Some(PeerMismatch::NodeLabel { node: node.name.clone(), mismatch });
            }
        }
    }
    Err(unmet.unwrap_or(PeerMismatch::NotANode))
}

impl LabelMismatch {
    fn new(requirement: &Requirement, found: Option<&str>) -> Self {
        Self { requirement: requirement.clone(), found: found.map(str::to_owned) }
    }
}

/// Why a flow's port is none of `ports`; empty if it is one. `destination` is the pod whose port
/// names count.
pub(super) fn ports(ports: &Ports, flow: &Flow, destination: Option<&Pod>) -> Vec<PortMismatch> {
    let Ports::These(ports) = ports else { return Vec::new() };
    let reasons: Result<Vec<_>, ()> = ports.iter().map(|it| port(it, flow, destination).err().ok_or(())).collect();
    match reasons {
        Ok(reasons) if reasons.is_empty() => vec![PortMismatch::NoPort],
        Ok(reasons) => reasons,
        Err(()) => Vec::new(),
    }
}

fn port(port: &Port, flow: &Flow, destination: Option<&Pod>) -> Result<(), PortMismatch> {
    let Port { protocol, port: spec } = port;
    if protocol.number() != flow.proto {
        return Err(PortMismatch::Protocol(port.clone()));
    }
    match (spec, destination) {
        (PortSpec::Numbers(range), _) if range.contains(flow.port) => Ok(()),
        (PortSpec::Numbers(range), _) => Err(PortMismatch::Number { protocol: *protocol, wanted: *range }),
        (PortSpec::Named(name), None) => Err(PortMismatch::NoNames { name: name.clone() }),
        (PortSpec::Named(name), Some(pod)) => {
            let stands_for: BTreeSet<u16> = pod.named_port(*protocol, name).collect();
            match stands_for.contains(&flow.port) {
                true => Ok(()),
                false if stands_for.is_empty() => {
                    Err(PortMismatch::NoSuchName { name: name.clone(), pod: pod.key.clone() })
                }
                false => Err(PortMismatch::NamedOther { name: name.clone(), stands_for }),
            }
        }
    }
}

impl fmt::Display for PeerMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAPod(end) => write!(f, "{end} is no pod, and only pods have labels"),
            Self::HostNetwork(key) => write!(f, "{key} is a hostNetwork pod, which selectors do not match"),
            Self::Finished(key) => write!(f, "{key} has finished, and selectors do not match it any more"),
            Self::Unknown(key) => write!(f, "{key} is not known"),
            Self::OtherNamespace { wanted, found } => write!(f, "the namespace is {found}, not {wanted}"),
            Self::NamespaceLabel(mismatch) => write!(f, "the namespace's {mismatch}"),
            Self::PodLabel(mismatch) => write!(f, "the pod's {mismatch}"),
            Self::OutsideBlock(block) => write!(f, "the address is not in {}", block.cidr()),
            Self::Excepted { block, except } => {
                write!(f, "the address is in {except}, an exception of {}", block.cidr())
            }
            Self::NotANode => f.write_str("the address is that of no node"),
            Self::NodeLabel { node, mismatch } => write!(f, "node {node}'s {mismatch}"),
            Self::Domains => f.write_str("domain names are not matched yet"),
            Self::Nobody => f.write_str("the list of peers is empty"),
        }
    }
}

impl fmt::Display for LabelMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requirement, found } = self;
        match found {
            Some(value) => write!(f, "label {}={value} does not meet {requirement}", requirement.key),
            None => write!(f, "label {} is missing, which does not meet {requirement}", requirement.key),
        }
    }
}

impl fmt::Display for PortMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protocol(port) => write!(f, "the protocol is not that of {port}"),
            Self::Number { protocol, wanted } => write!(f, "the port is not {protocol}/{wanted}"),
            Self::NamedOther { name, stands_for } => {
                let numbers: Vec<String> = stands_for.iter().map(u16::to_string).collect();
                write!(f, "port {name} is {} there", numbers.join(" and "))
            }
            Self::NoSuchName { name, pod } => write!(f, "{pod} has no port named {name} of this protocol"),
            Self::NoNames { name } => write!(f, "port {name} is a name, and only pods have port names"),
            Self::NoPort => f.write_str("the list of ports is empty"),
        }
    }
}
