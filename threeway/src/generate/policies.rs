//! Random policies.

use ipnetwork::IpNetwork;
use policy::{
    model::{
        Action, ClusterNetworkPolicy, ClusterRule, IpBlock, NamespaceScope, NetworkPolicy, Node, Peer, Peers, Port,
        PortRange, PortSpec, Protocol, Rule, Subject, Tier,
    },
    selector::{Operator, Requirement, Selector, Values},
};

use super::{KEYS, NAMESPACES, PORT_NAMES, PORTS, VALUES};
use crate::random::Random;

/// One of nine NetworkPolicies, with anything in it.
pub(super) fn network_policy(random: &mut Random) -> NetworkPolicy {
    NetworkPolicy {
        namespace: random.pick(&NAMESPACES).to_owned(),
        name: random.pick(&["p", "q", "r"]).to_owned(),
        pod_selector: if random.chance(60) { Selector::everything() } else { selector(random) },
        ingress: rules(random),
        egress: rules(random),
        staged: random.chance(15),
    }
}

/// One of four ClusterNetworkPolicies; few priorities, so that some are equal.
pub(super) fn cluster_policy(random: &mut Random) -> ClusterNetworkPolicy {
    let namespaces = if random.chance(50) { Selector::everything() } else { namespace_selector(random) };
    ClusterNetworkPolicy {
        name: random.pick(&["k", "l", "m", "n"]).to_owned(),
        tier: random.pick(&Tier::ALL),
        priority: random.below(3) as u16,
        subject: Subject { namespaces, pods: selector(random) },
        ingress: random.several(0..=3, cluster_rule),
        egress: random.several(0..=3, cluster_rule),
        staged: random.chance(20),
    }
}

/// The same policy with one thing changed.
pub(super) fn altered_cluster(mut policy: ClusterNetworkPolicy, random: &mut Random) -> ClusterNetworkPolicy {
    match random.below(5) {
        0 => policy.priority = random.below(3) as u16,
        1 => policy.staged = !policy.staged,
        2 => policy.subject.pods = selector(random),
        3 => policy.ingress = random.several(0..=3, cluster_rule),
        _ => policy.egress = random.several(0..=3, cluster_rule),
    }
    policy
}

fn cluster_rule(random: &mut Random) -> ClusterRule {
    let action = random.pick(&[Action::Allow, Action::Deny, Action::Pass]);
    let peers = random.several(1..=2, cluster_peer);
    let mut ports = random.several(0..=2, port);
    // The API has no ports by name beside anybody who gives them none.
    if !peers.iter().all(|peer| matches!(peer, Peer::Pods { .. })) {
        ports.retain(|port| !matches!(port.port, PortSpec::Named(_)));
    }
    ClusterRule { name: None, action, rule: Rule { peers: Peers::These(peers), ports: ports.into() } }
}

fn cluster_peer(random: &mut Random) -> Peer {
    match random.below(16) {
        0..=6 => {
            Peer::Pods { namespaces: NamespaceScope::Matching(namespace_selector(random)), pods: selector(random) }
        }
        7..=12 => Peer::Block(IpBlock::new(network(random), []).expect("there is no exception")),
        13..=14 => Peer::Nodes(selector(random)),
        _ => Peer::Domains(vec!["example.com".to_owned()]),
    }
}

/// One of two nodes. The last address is a pod's, too.
pub(super) fn node(random: &mut Random) -> Node {
    let pairs = random.several(0..=2, |random| (random.pick(&KEYS), random.pick(&VALUES)));
    let ips =
        random.several(0..=2, |random| random.pick(&["10.0.0.14", "10.0.0.15", "fd00::e", "fd00::f", "10.0.0.3"]));
    Node {
        name: random.pick(&["one", "two"]).to_owned(),
        labels: pairs.into_iter().collect(),
        ips: ips.into_iter().map(|ip| ip.parse().expect("an address")).collect(),
        ..Node::default()
    }
}

fn rules(random: &mut Random) -> Option<Vec<Rule>> {
    random.chance(70).then(|| random.several(0..=2, rule))
}

/// The same policy with one list made anew.
pub(super) fn altered(mut policy: NetworkPolicy, random: &mut Random) -> NetworkPolicy {
    match random.below(5) {
        0 => policy.pod_selector = selector(random),
        1 => policy.ingress = rules(random),
        2 => policy.egress = rules(random),
        3 => policy.staged = !policy.staged,
        _ => {
            let list = if random.chance(50) { &mut policy.ingress } else { &mut policy.egress };
            match list {
                Some(rules) if !rules.is_empty() => {
                    let at = random.below(rules.len());
                    rules[at] = rule(random);
                }
                other => *other = Some(vec![rule(random)]),
            }
        }
    }
    policy
}

fn rule(random: &mut Random) -> Rule {
    Rule { peers: random.several(0..=2, peer).into(), ports: random.several(0..=2, port).into() }
}

fn peer(random: &mut Random) -> Peer {
    match random.below(3) {
        0 => Peer::Pods { namespaces: NamespaceScope::Own, pods: selector(random) },
        1 => Peer::Pods { namespaces: NamespaceScope::Matching(namespace_selector(random)), pods: selector(random) },
        _ => Peer::Block(block(random)),
    }
}

fn selector(random: &mut Random) -> Selector {
    if random.chance(33) {
        return Selector::everything();
    }
    Selector::new(random.several(1..=2, requirement))
}

fn requirement(random: &mut Random) -> Requirement {
    let values = |random: &mut Random| {
        Values::new(random.several(1..=2, |random| random.pick(&VALUES))).expect("there is one at least")
    };
    let operator = match random.below(6) {
        0..=2 => Operator::In(values(random)),
        3 => Operator::NotIn(values(random)),
        4 => Operator::Exists,
        _ => Operator::DoesNotExist,
    };
    Requirement { key: random.pick(&KEYS).to_owned(), operator }
}

fn namespace_selector(random: &mut Random) -> Selector {
    if random.chance(50) {
        return selector(random);
    }
    let names = random.several(1..=2, |random| random.pick(&NAMESPACES));
    let operator = Operator::In(Values::new(names).expect("there is one at least"));
    Selector::new([Requirement { key: "kubernetes.io/metadata.name".to_owned(), operator }])
}

/// A block around the pods' addresses, some of which hold all of a family or more.
fn block(random: &mut Random) -> IpBlock {
    let cidr = network(random);
    // Exceptions that the API would refuse are left out one by one.
    let fits = |hole: &IpNetwork| IpBlock::new(cidr, [*hole]).is_ok();
    let holes: Vec<_> = random.several(0..=3, network).into_iter().filter(fits).collect();
    IpBlock::new(cidr, holes).expect("each exception fits")
}

fn network(random: &mut Random) -> IpNetwork {
    let number = random.below(16);
    let text = match random.below(8) {
        0..=3 => format!("10.0.0.{number}/{}", random.pick(&[0, 1, 8, 24, 28, 29, 30, 31, 32])),
        4..=6 => format!("fd00::{number:x}/{}", random.pick(&[0, 8, 64, 96, 112, 124, 126, 127, 128])),
        // Around IPv4 in the kernel's form of addresses, yet no IPv4 address is in it, or it is IPv4.
        _ => random.pick(&["::/0", "::/1", "::/80", "::/95", "::ffff:0:0/96", "::ffff:10.0.0.0/124"]).to_owned(),
    };
    text.parse().expect("a network")
}

fn port(random: &mut Random) -> Port {
    let port = match random.below(6) {
        0..=1 => PortSpec::Numbers(PortRange::single(random.pick(&PORTS))),
        2 => {
            let from = random.pick(&PORTS);
            let to = from.saturating_add(random.below(200) as u16);
            PortSpec::Numbers(PortRange::new(from, to).expect("it does not end before it begins"))
        }
        3 => PortSpec::Numbers(PortRange::ALL),
        _ => PortSpec::Named(random.pick(&PORT_NAMES).to_owned()),
    };
    Port { protocol: random.pick(&Protocol::ALL), port }
}
