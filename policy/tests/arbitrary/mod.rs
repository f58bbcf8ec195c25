//! Random objects and flows, out of small stocks of names, labels and addresses, so that things
//! meet. Addresses, blocks and ports are chosen to nest and to overlap.
#![allow(dead_code)]

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use policy::identity::IdentityKey;
use policy::model::{
    Action, ClusterNetworkPolicy, ClusterRule, ContainerPort, IpBlock, Labels, Namespace, NamespaceScope,
    NetworkPolicy, Node, Object, Peer, Peers, Pod, PodKey, Port, PortRange, PortSpec, Protocol, Rule, Subject, Tier,
};
use policy::selector::{Operator, Requirement, Selector, Values};
use policy::world::{End, Flow};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

const NAMESPACES: [&str; 3] = ["a", "b", "c"];
/// The last one is on the default exclusion list of identities.
const KEYS: [&str; 3] = ["app", "tier", "pod-template-hash"];
const VALUES: [&str; 3] = ["", "x", "y"];
const PORT_NAMES: [&str; 2] = ["web", "dns"];
const PORTS: [u16; 6] = [0, 53, 80, 81, 8080, 65535];
/// Nobody has these.
const OUTSIDE: [&str; 6] = ["10.0.0.200", "10.0.1.7", "192.0.2.1", "fd00::c8", "fd01::7", "2001:db8::1"];

pub(crate) fn protocol() -> impl Strategy<Value = Protocol> {
    select(&Protocol::ALL[..])
}

fn labels() -> impl Strategy<Value = Labels> {
    btree_map(select(&KEYS[..]), select(&VALUES[..]), 0..3).prop_map(Labels::from_iter)
}

fn values() -> impl Strategy<Value = Values> {
    vec(select(&VALUES[..]), 1..3).prop_map(|list| Values::new(list).unwrap())
}

fn requirement(keys: &'static [&'static str]) -> impl Strategy<Value = Requirement> {
    let operator = prop_oneof![
        3 => values().prop_map(Operator::In),
        1 => values().prop_map(Operator::NotIn),
        1 => Just(Operator::Exists),
        1 => Just(Operator::DoesNotExist),
    ];
    (select(keys), operator).prop_map(|(key, operator)| Requirement { key: key.to_owned(), operator })
}

pub(crate) fn selector() -> impl Strategy<Value = Selector> {
    let some = vec(requirement(&KEYS), 1..3).prop_map(Selector::new);
    prop_oneof![1 => Just(Selector::everything()), 2 => some]
}

fn namespace_selector() -> impl Strategy<Value = Selector> {
    let by_name = vec(select(&NAMESPACES[..]), 1..3).prop_map(|names| {
        let operator = Operator::In(Values::new(names).unwrap());
        Selector::new([Requirement { key: "kubernetes.io/metadata.name".to_owned(), operator }])
    });
    prop_oneof![selector(), by_name]
}

/// Networks around the pods' addresses, among them some that hold all of one family or more.
fn network() -> impl Strategy<Value = IpNetwork> {
    let v4 = (0u8..16, select(&[0u8, 1, 8, 24, 28, 29, 30, 31, 32][..]))
        .prop_map(|(host, prefix)| format!("10.0.0.{host}/{prefix}"));
    let v6 = (0u8..16, select(&[0u8, 8, 64, 96, 112, 124, 126, 127, 128][..]))
        .prop_map(|(host, prefix)| format!("fd00::{host:x}/{prefix}"));
    // Around IPv4 in the kernel's form of addresses, yet no IPv4 address is in it.
    let around = select(&["::/0", "::/1", "::/80", "::/95", "::ffff:0:0/96", "::ffff:10.0.0.0/124"][..]);
    prop_oneof![4 => v4, 3 => v6, 1 => around.prop_map(str::to_owned)].prop_map(|text| text.parse().unwrap())
}

fn block() -> impl Strategy<Value = IpBlock> {
    // Exceptions that the API would refuse are left out one by one.
    (network(), vec(network(), 0..4)).prop_map(|(cidr, holes)| {
        let fits = |hole: &IpNetwork| IpBlock::new(cidr, [*hole]).is_ok();
        IpBlock::new(cidr, holes.into_iter().filter(fits)).unwrap()
    })
}

pub(crate) fn peer() -> impl Strategy<Value = Peer> {
    prop_oneof![
        selector().prop_map(|pods| Peer::Pods { namespaces: NamespaceScope::Own, pods }),
        (namespace_selector(), selector())
            .prop_map(|(namespaces, pods)| Peer::Pods { namespaces: NamespaceScope::Matching(namespaces), pods }),
        block().prop_map(Peer::Block),
    ]
}

fn port() -> impl Strategy<Value = Port> {
    let range = (select(&PORTS[..]), 0u16..200)
        .prop_map(|(from, more)| PortSpec::Numbers(PortRange::new(from, from.saturating_add(more)).unwrap()));
    let spec = prop_oneof![
        2 => select(&PORTS[..]).prop_map(|port| PortSpec::Numbers(PortRange::single(port))),
        1 => range,
        1 => Just(PortSpec::Numbers(PortRange::ALL)),
        2 => select(&PORT_NAMES[..]).prop_map(|name| PortSpec::Named(name.to_owned())),
    ];
    (protocol(), spec).prop_map(|(protocol, port)| Port { protocol, port })
}

fn rule() -> impl Strategy<Value = Rule> {
    (vec(peer(), 0..3), vec(port(), 0..3)).prop_map(|(peers, ports)| Rule { peers: peers.into(), ports: ports.into() })
}

pub(crate) fn network_policy() -> impl Strategy<Value = NetworkPolicy> {
    let rules = || option::weighted(0.7, vec(rule(), 0..3));
    let subjects = prop_oneof![2 => Just(Selector::everything()), 1 => selector()];
    let staged = prop::bool::weighted(0.15);
    (select(&NAMESPACES[..]), select(&["p", "q", "r"][..]), subjects, rules(), rules(), staged).prop_map(
        |(namespace, name, pod_selector, ingress, egress, staged)| NetworkPolicy {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            pod_selector,
            ingress,
            egress,
            staged,
        },
    )
}

fn cluster_peer() -> impl Strategy<Value = Peer> {
    prop_oneof![
        6 => (namespace_selector(), selector())
            .prop_map(|(namespaces, pods)| Peer::Pods { namespaces: NamespaceScope::Matching(namespaces), pods }),
        6 => network().prop_map(|cidr| Peer::Block(IpBlock::new(cidr, []).unwrap())),
        3 => selector().prop_map(Peer::Nodes),
        1 => Just(Peer::Domains(vec!["example.com".to_owned()])),
    ]
}

fn cluster_rule() -> impl Strategy<Value = ClusterRule> {
    let action = select(&[Action::Allow, Action::Deny, Action::Pass][..]);
    (action, vec(cluster_peer(), 1..3), vec(port(), 0..3)).prop_map(|(action, peers, mut ports)| {
        // The objects refuse a port's name beside Nodes, which have none.
        if peers.iter().any(|peer| matches!(peer, Peer::Nodes(_))) {
            for port in &mut ports {
                if matches!(port.port, PortSpec::Named(_)) {
                    port.port = PortSpec::Numbers(PortRange::single(PORTS[1]));
                }
            }
        }
        ClusterRule { name: None, action, rule: Rule { peers: Peers::These(peers), ports: ports.into() } }
    })
}

/// Few priorities, so that some are equal.
pub(crate) fn cluster_policy() -> impl Strategy<Value = ClusterNetworkPolicy> {
    let subject = (prop_oneof![Just(Selector::everything()), namespace_selector()], selector())
        .prop_map(|(namespaces, pods)| Subject { namespaces, pods });
    let rules = || vec(cluster_rule(), 0..4);
    let tier = select(&Tier::ALL[..]);
    let staged = prop::bool::weighted(0.2);
    (select(&["k", "l", "m", "n"][..]), tier, 0u16..3, subject, rules(), rules(), staged).prop_map(
        |(name, tier, priority, subject, ingress, egress, staged)| ClusterNetworkPolicy {
            name: name.to_owned(),
            tier,
            priority,
            subject,
            ingress,
            egress,
            staged,
        },
    )
}

/// The last address is a pod's, too.
pub(crate) fn node() -> impl Strategy<Value = Node> {
    let ips = vec(select(&["10.0.0.14", "10.0.0.15", "fd00::e", "fd00::f", "10.0.0.3"][..]), 0..3);
    (select(&["one", "two"][..]), labels(), ips).prop_map(|(name, labels, ips)| Node {
        name: name.to_owned(),
        labels,
        ips: ips.into_iter().map(|ip| ip.parse().unwrap()).collect(),
        ..Node::default()
    })
}

fn container_ports() -> impl Strategy<Value = BTreeSet<ContainerPort>> {
    let port = (select(&PORT_NAMES[..]), protocol(), select(&PORTS[1..]))
        .prop_map(|(name, protocol, port)| ContainerPort { name: name.to_owned(), protocol, port });
    vec(port, 0..3).prop_map(BTreeSet::from_iter)
}

/// A pod with the addresses numbered `host` in either family, both, or none.
fn pod_numbered(host: u8) -> impl Strategy<Value = Pod> {
    let kind = prop_oneof![8 => Just((false, false)), 1 => Just((true, false)), 1 => Just((false, true))];
    let v4: IpAddr = format!("10.0.0.{host}").parse().unwrap();
    let v6: IpAddr = format!("fd00::{host:x}").parse().unwrap();
    let ips = prop_oneof![1 => Just(vec![v4]), 1 => Just(vec![v6]), 2 => Just(vec![v4, v6])];
    let account = select(&["default", "other"][..]);
    (select(&NAMESPACES[..]), labels(), account, ips, container_ports(), kind).prop_map(
        move |(namespace, labels, account, ips, ports, (host_network, finished))| Pod {
            labels,
            service_account: account.to_owned(),
            ips: ips.into_iter().collect(),
            ports: ports.into_iter().collect(),
            host_network,
            finished,
            ..Pod::new(PodKey::new(namespace, format!("pod{host}")))
        },
    )
}

pub(crate) fn namespace() -> impl Strategy<Value = Namespace> {
    (select(&NAMESPACES[..]), labels()).prop_map(|(name, labels)| Namespace::new(name, labels))
}

pub(crate) fn pod() -> impl Strategy<Value = Pod> {
    (0u8..6).prop_flat_map(pod_numbered)
}

/// An identity; the same namespace may have other labels in another one.
pub(crate) fn identity_key() -> impl Strategy<Value = IdentityKey> {
    (namespace(), labels(), select(&["default", "other"][..])).prop_map(|(namespace, labels, account)| IdentityKey {
        namespace: namespace.name().to_owned(),
        namespace_labels: namespace.labels().clone(),
        labels,
        service_account: account.to_owned(),
    })
}

pub(crate) fn object() -> impl Strategy<Value = Object> {
    prop_oneof![
        1 => namespace().prop_map(Object::from),
        2 => pod().prop_map(Object::from),
        2 => network_policy().prop_map(Object::from),
        2 => cluster_policy().prop_map(Object::from),
        1 => node().prop_map(Object::from),
    ]
}

/// Objects with distinct keys.
pub(crate) fn objects() -> impl Strategy<Value = Vec<Object>> {
    let pods: Vec<_> = (0u8..6).map(pod_numbered).collect();
    // Pods that are over, whose addresses now belong to others.
    let ghosts = vec((0u8..6).prop_flat_map(pod_numbered), 0..3);
    let cluster = (vec(cluster_policy(), 0..5), vec(node(), 0..3));
    let parts = (vec(namespace(), 0..4), pods, ghosts, vec(network_policy(), 0..6), cluster);
    parts.prop_map(|(namespaces, pods, ghosts, policies, (cluster, nodes))| {
        let ghosts = ghosts.into_iter().map(|pod| Pod {
            key: PodKey::new(&pod.key.namespace, format!("ghost-{}", pod.key.name)),
            finished: true,
            ..pod
        });
        let all = namespaces.into_iter().map(Object::from);
        let all = all.chain(pods.into_iter().chain(ghosts).map(Object::from));
        let all = all.chain(policies.into_iter().map(Object::from));
        let all = all.chain(cluster.into_iter().map(Object::from)).chain(nodes.into_iter().map(Object::from));
        let mut seen = BTreeSet::new();
        all.filter(|object| seen.insert(object.key())).collect()
    })
}

/// Every end that can be in a world: each pod by each address, nodes, and others.
pub(crate) fn ends(objects: &[Object]) -> Vec<End> {
    let mut ends = Vec::new();
    for object in objects {
        // An address that a finished pod had leads to its present owner.
        if let Object::Pod(pod) = object
            && !pod.key.name.starts_with("ghost-")
        {
            ends.extend(pod.ips.iter().map(|ip| End::Pod(pod.key.clone(), *ip)));
        }
    }
    ends.extend(OUTSIDE.iter().map(|ip| End::Outside(ip.parse().unwrap())));
    ends.extend(["10.0.0.14", "fd00::e"].iter().map(|ip| End::Node(ip.parse().unwrap())));
    ends.extend(["10.0.0.15", "fd00::f"].iter().map(|ip| End::LocalNode(ip.parse().unwrap())));
    ends
}

/// Protocols and ports worth asking about; the last two have no ports.
pub(crate) const PROBES: &[(u8, u16)] = &[
    (6, 0),
    (6, 53),
    (6, 80),
    (6, 81),
    (6, 90),
    (6, 8080),
    (6, 65535),
    (17, 53),
    (17, 80),
    (132, 80),
    (132, 1000),
    (1, 0),
    (58, 0),
];

/// Every flow between the ends of one family.
pub(crate) fn flows(objects: &[Object]) -> impl Iterator<Item = Flow> {
    let ends = ends(objects);
    let pairs: Vec<(End, End)> =
        ends.iter().flat_map(|source| ends.iter().map(move |other| (source.clone(), other.clone()))).collect();
    let one_family = pairs.into_iter().filter(|(source, other)| source.ip().is_ipv4() == other.ip().is_ipv4());
    one_family.flat_map(|(source, destination)| {
        PROBES.iter().map(move |(proto, port)| Flow {
            source: source.clone(),
            destination: destination.clone(),
            proto: *proto,
            port: *port,
        })
    })
}
