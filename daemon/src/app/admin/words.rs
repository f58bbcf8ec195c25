//! Policies in words: selectors, peers, ports as an operator would say them. And who is meant: the
//! pods of an index by namespace, asked what a peer matches.

use std::{collections::BTreeMap, net::IpAddr};

use policy::{
    Index,
    model::{IpBlock, Labels, Namespace, NamespaceScope, NetworkPolicy, Peer, Peers, Pod, PortRange, PortSpec, Ports},
    selector::Selector,
};

/// `pods of shop with app=db`.
pub(super) fn selects(policy: &NetworkPolicy) -> String {
    match policy.pod_selector.is_everything() {
        true => format!("all pods of {}", policy.namespace),
        false => format!("pods of {} with {}", policy.namespace, requirements(&policy.pod_selector)),
    }
}

/// `app=web, tier in (a,b), !old`.
fn requirements(selector: &Selector) -> String {
    selector.requirements().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// `pods with app=web in namespaces with team=a`, `192.0.2.0/24 without 192.0.2.7/32`.
pub(super) fn peer(peer: &Peer) -> String {
    match peer {
        Peer::Pods { namespaces, pods } => {
            let whom = match pods.is_everything() {
                true => "all pods".to_owned(),
                false => format!("pods with {}", requirements(pods)),
            };
            match namespaces {
                NamespaceScope::Own => whom,
                NamespaceScope::Matching(selector) if selector.is_everything() => format!("{whom} in every namespace"),
                NamespaceScope::Matching(selector) => format!("{whom} in namespaces with {}", requirements(selector)),
            }
        }
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
            let town = namespaces.entry(name).or_insert_with(|| Town {
                // One without an object has no label but its name.
                labels: index
                    .namespace(name)
                    .map_or_else(|| Namespace::new(name, Labels::default()).labels().clone(), |it| it.labels().clone()),
                pods: Vec::new(),
            });
            town.pods.push(pod);
        }
        Self { namespaces }
    }

    /// The pods that a policy selects.
    pub(super) fn selected(&self, policy: &NetworkPolicy) -> Vec<&'a Pod> {
        let town = self.namespaces.get(policy.namespace.as_str());
        town.into_iter().flat_map(|town| &town.pods).copied().filter(|pod| policy.selects(pod)).collect()
    }

    /// The pods that any of a rule's peers match.
    pub(super) fn matched(&self, policy: &NetworkPolicy, rule: &Peers) -> Vec<&'a Pod> {
        match rule {
            Peers::Anyone => self.peers().collect(),
            Peers::These(list) => {
                let one =
                    |town: &'_ Town<'a>, pod: &Pod| list.iter().any(|peer| admits(policy, peer, &town.labels, pod));
                let towns = self.namespaces.values();
                towns
                    .flat_map(|town| town.pods.iter().copied().filter(move |pod| one(town, pod)))
                    .filter(|pod| pod.is_peer())
                    .collect()
            }
        }
    }

    /// Whether a peer matches any pod.
    pub(super) fn matches_any(&self, policy: &NetworkPolicy, peer: &Peer) -> bool {
        let mut towns = self.namespaces.values();
        towns.any(|town| town.pods.iter().any(|pod| pod.is_peer() && admits(policy, peer, &town.labels, pod)))
    }

    fn peers(&self) -> impl Iterator<Item = &'a Pod> {
        self.namespaces.values().flat_map(|town| &town.pods).copied().filter(|pod| pod.is_peer())
    }
}

/// Whether a peer matches a pod whose namespace has these labels, a block by whichever of its
/// addresses.
fn admits(policy: &NetworkPolicy, peer: &Peer, namespace: &Labels, pod: &Pod) -> bool {
    match peer {
        Peer::Block(block) => pod.ips.iter().any(|ip| block.contains(*ip)),
        Peer::Pods { .. } => by_labels(policy, peer, namespace, pod),
    }
}

fn by_labels(policy: &NetworkPolicy, peer: &Peer, namespace: &Labels, pod: &Pod) -> bool {
    let Peer::Pods { namespaces, pods } = peer else { return false };
    let there = match namespaces {
        NamespaceScope::Own => pod.key.namespace == policy.namespace,
        NamespaceScope::Matching(selector) => selector.matches(namespace),
    };
    there && pods.matches(&pod.labels)
}

/// The first of a rule's peers that matches somebody: a pod, or an address that is nobody's.
pub(super) fn admitting<'r>(
    index: &Index,
    policy: &NetworkPolicy,
    rule: &'r Peers,
    pod: Option<&Pod>,
    ip: IpAddr,
) -> Option<&'r Peer> {
    let labels = pod.map(|pod| index.identity_of(pod).namespace_labels);
    peers(rule).iter().find(|peer| match (peer, pod, &labels) {
        (Peer::Block(block), ..) => block.contains(ip),
        (Peer::Pods { .. }, Some(pod), Some(labels)) => pod.is_peer() && by_labels(policy, peer, labels, pod),
        (Peer::Pods { .. }, ..) => false,
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
