//! Policies in words: selectors, peers, ports as an operator would say them. And who is meant: the
//! pods of an index by namespace, asked what a peer matches.

use std::{collections::BTreeMap, net::IpAddr};

use policy::{
    Index,
    model::{IpBlock, Labels, NamespaceScope, Peer, Peers, Pod, PortRange, PortSpec, Ports},
    selector::Selector,
};

use super::found::Found;

/// `pods of shop with app=db`, `pods with app=db in namespaces with team=a`.
pub(super) fn selects(policy: Found<'_>) -> String {
    match policy {
        Found::Network(policy) if policy.pod_selector.is_everything() => format!("all pods of {}", policy.namespace),
        Found::Network(policy) => {
            format!("pods of {} with {}", policy.namespace, requirements(&policy.pod_selector))
        }
        Found::Cluster(policy) => pods_in(&policy.subject.namespaces, &policy.subject.pods),
    }
}

fn pods_in(namespaces: &Selector, pods: &Selector) -> String {
    let whom = pods_words(pods);
    match namespaces.is_everything() {
        true => format!("{whom} in every namespace"),
        false => format!("{whom} in namespaces with {}", requirements(namespaces)),
    }
}

fn pods_words(pods: &Selector) -> String {
    match pods.is_everything() {
        true => "all pods".to_owned(),
        false => format!("pods with {}", requirements(pods)),
    }
}

/// `app=web, tier in (a,b), !old`.
fn requirements(selector: &Selector) -> String {
    selector.requirements().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// `pods with app=web in namespaces with team=a`, `192.0.2.0/24 without 192.0.2.7/32`.
pub(super) fn peer(peer: &Peer) -> String {
    match peer {
        Peer::Pods { namespaces: NamespaceScope::Own, pods } => pods_words(pods),
        Peer::Pods { namespaces: NamespaceScope::Matching(namespaces), pods } => pods_in(namespaces, pods),
        Peer::Nodes(nodes) if nodes.is_everything() => "every node".to_owned(),
        Peer::Nodes(nodes) => format!("nodes with {}", requirements(nodes)),
        Peer::Domains(names) => format!("domains {} (not yet matched)", names.join(", ")),
        Peer::Block(block) => block_words(block),
    }
}

fn block_words(block: &IpBlock) -> String {
    let holes: Vec<String> = block.except().iter().map(ToString::to_string).collect();
    let without = if holes.is_empty() { String::new() } else { format!(" without {}", holes.join(", ")) };
    format!("{}{without}", block.cidr())
}

/// `tcp 5432`, `udp 53-60`, `tcp named web`, `every sctp port`.
pub(super) fn port(port: &policy::model::Port) -> String {
    let policy::model::Port { protocol, port } = port;
    let protocol = protocol.as_str().to_ascii_lowercase();
    match port {
        PortSpec::Numbers(PortRange::ALL) => format!("every {protocol} port"),
        PortSpec::Numbers(range) => format!("{protocol} {range}"),
        PortSpec::Named(name) => format!("{protocol} named {name}"),
    }
}

/// A rule's peers, none for anybody.
pub(super) fn peers(peers: &Peers) -> &[Peer] {
    match peers {
        Peers::Anyone => &[],
        Peers::These(peers) => peers,
    }
}

/// A rule's ports, none for every port.
pub(super) fn ports(ports: &Ports) -> &[policy::model::Port] {
    match ports {
        Ports::All => &[],
        Ports::These(ports) => ports,
    }
}

/// All pods, by namespace.
#[derive(Debug)]
pub(super) struct Cluster<'a> {
    namespaces: BTreeMap<&'a str, Town<'a>>,
}

#[derive(Debug)]
struct Town<'a> {
    labels: Labels,
    pods: Vec<&'a Pod>,
}

impl<'a> Cluster<'a> {
    /// Of an index. Pods that have finished do not count.
    pub(super) fn new(index: &'a Index) -> Self {
        let mut namespaces: BTreeMap<&str, Town<'_>> = BTreeMap::new();
        for pod in index.pods().filter(|pod| !pod.finished) {
            let name = pod.key.namespace.as_str();
            let town = namespaces
                .entry(name)
                .or_insert_with(|| Town { labels: index.namespace_labels(name), pods: Vec::new() });
            town.pods.push(pod);
        }
        Self { namespaces }
    }

    /// The pods that a policy selects.
    pub(super) fn selected(&self, policy: Found<'_>) -> Vec<&'a Pod> {
        let towns = self.namespaces.iter();
        let towns = towns.filter(|(name, _)| matches!(policy, Found::Cluster(_)) || **name == policy.own());
        let selected =
            |town: &'_ Town<'a>| town.pods.iter().copied().filter(|pod| policy.selects(pod, &town.labels)).collect();
        towns.flat_map(|(_, town)| -> Vec<&'a Pod> { selected(town) }).collect()
    }

    /// The pods that any of a rule's peers match. `own` is the namespace of its policy.
    pub(super) fn matched(&self, own: &str, rule: &Peers) -> Vec<&'a Pod> {
        match rule {
            Peers::Anyone => self.peers().collect(),
            Peers::These(list) => {
                let one = |town: &'_ Town<'a>, pod: &Pod| list.iter().any(|peer| admits(own, peer, &town.labels, pod));
                let towns = self.namespaces.values();
                towns
                    .flat_map(|town| town.pods.iter().copied().filter(move |pod| one(town, pod)))
                    .filter(|pod| pod.is_peer())
                    .collect()
            }
        }
    }

    /// Whether a peer matches any pod.
    pub(super) fn matches_any(&self, own: &str, peer: &Peer) -> bool {
        let mut towns = self.namespaces.values();
        towns.any(|town| town.pods.iter().any(|pod| pod.is_peer() && admits(own, peer, &town.labels, pod)))
    }

    fn peers(&self) -> impl Iterator<Item = &'a Pod> {
        self.namespaces.values().flat_map(|town| &town.pods).copied().filter(|pod| pod.is_peer())
    }
}

/// Whether a peer matches a pod whose namespace has these labels, a block by whichever of its
/// addresses.
fn admits(own: &str, peer: &Peer, namespace: &Labels, pod: &Pod) -> bool {
    match peer {
        Peer::Block(block) => pod.ips.iter().any(|ip| block.contains(*ip)),
        Peer::Pods { .. } => by_labels(own, peer, namespace, pod),
        Peer::Nodes(_) | Peer::Domains(_) => false,
    }
}

fn by_labels(own: &str, peer: &Peer, namespace: &Labels, pod: &Pod) -> bool {
    let Peer::Pods { namespaces, pods } = peer else { return false };
    let there = match namespaces {
        NamespaceScope::Own => pod.key.namespace == own,
        NamespaceScope::Matching(selector) => selector.matches(namespace),
    };
    there && pods.matches(&pod.labels)
}

/// The first of a rule's peers that matches somebody: a pod, or an address that is nobody's.
pub(super) fn admitting<'r>(
    index: &Index,
    own: &str,
    rule: &'r Peers,
    pod: Option<&Pod>,
    ip: IpAddr,
) -> Option<&'r Peer> {
    let labels = pod.map(|pod| index.identity_of(pod).namespace_labels);
    peers(rule).iter().find(|peer| match (peer, pod, &labels) {
        (Peer::Block(block), ..) => block.contains(ip),
        (Peer::Pods { .. }, Some(pod), Some(labels)) => pod.is_peer() && by_labels(own, peer, labels, pod),
        (Peer::Nodes(nodes), ..) => index.nodes().any(|node| nodes.matches(&node.labels) && node.ips.contains(&ip)),
        (Peer::Pods { .. } | Peer::Domains(_), ..) => false,
    })
}

/// The first of a rule's ports that holds a port; `owner` is the pod whose port names count.
pub(super) fn admitting_port<'r>(
    rule: &'r Ports,
    owner: Option<&Pod>,
    proto: u8,
    number: u16,
) -> Option<&'r policy::model::Port> {
    ports(rule).iter().filter(|port| port.protocol.number() == proto).find(|port| match &port.port {
        PortSpec::Numbers(range) => range.contains(number),
        PortSpec::Named(name) => owner.is_some_and(|pod| pod.named_port(port.protocol, name).any(|its| its == number)),
    })
}
