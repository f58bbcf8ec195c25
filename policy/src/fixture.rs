//! Objects for tests, in one line each: `pod("a/web").label("app", "web").ip("10.0.0.1")`, and
//! whole worlds as text ([`text::parse`]). Only for tests: what does not parse panics.

pub mod text;

use crate::index::Index;
use crate::model::{
    ContainerPort, IpBlock, Labels, Namespace, NamespaceScope, NetworkPolicy, Object, Peer, Peers, Pod, PodKey, Ports,
    Protocol, Rule, canonical_ip,
};
use crate::selector::Selector;

/// An index of these objects.
pub fn index(objects: impl IntoIterator<Item = impl Into<Object>>) -> Index {
    let mut index = Index::default();
    for object in objects {
        index.apply(object.into());
    }
    index
}

/// A namespace with these labels.
pub fn namespace<'a>(name: &str, labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Object {
    Namespace::new(name, labels.into_iter().collect()).into()
}

/// The key `namespace/name`.
pub fn key(path: &str) -> PodKey {
    let (namespace, name) = split(path);
    PodKey::new(namespace, name)
}

fn split(path: &str) -> (&str, &str) {
    path.split_once('/').unwrap_or_else(|| panic!("{path:?} is not namespace/name"))
}

/// A pod to be.
#[derive(Clone, Debug)]
pub struct PodBuilder(Pod);

/// A running pod `namespace/name` without labels, addresses and ports.
pub fn pod(path: &str) -> PodBuilder {
    PodBuilder(Pod::new(key(path)))
}

impl PodBuilder {
    /// Adds a label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.0.labels = self.0.labels.with(key, value);
        self
    }

    /// Sets all labels.
    #[must_use]
    pub fn labels(mut self, labels: Labels) -> Self {
        self.0.labels = labels;
        self
    }

    /// Adds an address.
    #[must_use]
    pub fn ip(mut self, ip: &str) -> Self {
        let ip = ip.parse().unwrap_or_else(|error| panic!("{ip:?}: {error}"));
        self.0.ips.insert(canonical_ip(ip));
        self
    }

    /// Adds a named container port.
    #[must_use]
    pub fn port(mut self, name: &str, protocol: Protocol, port: u16) -> Self {
        self.0.ports.insert(ContainerPort { name: name.to_owned(), protocol, port });
        self
    }

    /// Sets the service account.
    #[must_use]
    pub fn service_account(mut self, name: &str) -> Self {
        name.clone_into(&mut self.0.service_account);
        self
    }

    /// Sets the UID.
    #[must_use]
    pub fn uid(mut self, uid: &str) -> Self {
        uid.clone_into(&mut self.0.uid);
        self
    }

    /// Puts it into its node's network namespace.
    #[must_use]
    pub fn host_network(mut self) -> Self {
        self.0.host_network = true;
        self
    }

    /// Lets it have succeeded or failed.
    #[must_use]
    pub fn finished(mut self) -> Self {
        self.0.finished = true;
        self
    }

    /// The pod.
    pub fn build(self) -> Pod {
        self.0
    }
}

impl From<PodBuilder> for Object {
    fn from(builder: PodBuilder) -> Self {
        builder.0.into()
    }
}

/// A policy to be.
#[derive(Clone, Debug)]
pub struct PolicyBuilder(NetworkPolicy);

/// A NetworkPolicy `namespace/name` for the pods that `selector` selects, such as `{app=web}`. It
/// isolates in no direction yet.
pub fn policy(path: &str, selector: &str) -> PolicyBuilder {
    let (namespace, name) = split(path);
    PolicyBuilder(NetworkPolicy {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        pod_selector: self::selector(selector),
        ingress: None,
        egress: None,
        staged: false,
    })
}

impl PolicyBuilder {
    /// Isolates for ingress, and allows what these rules match.
    #[must_use]
    pub fn ingress(mut self, rules: impl IntoIterator<Item = RuleBuilder>) -> Self {
        self.0.ingress.get_or_insert_default().extend(rules.into_iter().map(|rule| rule.0));
        self
    }

    /// Isolates for egress, and allows what these rules match.
    #[must_use]
    pub fn egress(mut self, rules: impl IntoIterator<Item = RuleBuilder>) -> Self {
        self.0.egress.get_or_insert_default().extend(rules.into_iter().map(|rule| rule.0));
        self
    }

    /// Lets it be evaluated only.
    #[must_use]
    pub fn staged(mut self) -> Self {
        self.0.staged = true;
        self
    }

    /// The policy.
    pub fn build(self) -> NetworkPolicy {
        self.0
    }
}

impl From<PolicyBuilder> for Object {
    fn from(builder: PolicyBuilder) -> Self {
        builder.0.into()
    }
}

/// A rule to be.
#[derive(Clone, Debug)]
pub struct RuleBuilder(Rule);

/// The rule `{}`: anyone, on every port.
pub fn rule() -> RuleBuilder {
    RuleBuilder(Rule { peers: Peers::Anyone, ports: Ports::All })
}

impl RuleBuilder {
    /// Adds a peer.
    #[must_use]
    pub fn peer(mut self, peer: Peer) -> Self {
        match &mut self.0.peers {
            Peers::These(peers) => peers.push(peer),
            Peers::Anyone => self.0.peers = Peers::These(vec![peer]),
        }
        self
    }

    /// Adds a port, such as `TCP/80`, `UDP/1000-2000`, `SCTP/*` or `TCP/http`.
    #[must_use]
    pub fn port(mut self, port: &str) -> Self {
        let port = text::port(port).unwrap_or_else(|error| panic!("{error}"));
        match &mut self.0.ports {
            Ports::These(ports) => ports.push(port),
            Ports::All => self.0.ports = Ports::These(vec![port]),
        }
        self
    }

    /// The rule.
    pub fn build(self) -> Rule {
        self.0
    }
}

/// Pods of the policy's own namespace.
pub fn pods(selector: &str) -> Peer {
    Peer::Pods { namespaces: NamespaceScope::Own, pods: self::selector(selector) }
}

/// Pods of the namespaces that match.
pub fn pods_in(namespaces: &str, selector: &str) -> Peer {
    Peer::Pods { namespaces: NamespaceScope::Matching(self::selector(namespaces)), pods: self::selector(selector) }
}

/// Addresses.
pub fn block(cidr: &str, except: &[&str]) -> Peer {
    let network = |text: &&str| text.parse().unwrap_or_else(|error| panic!("{text:?}: {error}"));
    let block = IpBlock::new(network(&cidr), except.iter().map(network));
    Peer::Block(block.unwrap_or_else(|error| panic!("{error}")))
}

/// A selector as it prints: `{app=web, tier in (a,b), !old}`.
pub fn selector(text: &str) -> Selector {
    text::selector(text).unwrap_or_else(|error| panic!("{error}"))
}

/// A protocol and port without names, such as `TCP/80` or `ICMP`, as IANA number and port.
pub fn proto_port(text: &str) -> (u8, u16) {
    text::proto_port(text).unwrap_or_else(|error| panic!("{error}"))
}
