//! Namespace, Pod, Node and the policies as policy needs them, already parsed and defaulted.
//!
//! Only types whose values all make sense: who reads a manifest (`objects`) does the checking and
//! reports errors by object and field. Nothing here knows YAML, JSON or the API server.

mod block;
mod cluster_policy;
mod few;
mod labels;
mod network_policy;
mod node;
mod port;
mod service;

use std::fmt;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

pub use block::{IpBlock, IpBlockError, canonical_ip, canonical_network, network_contains};
pub use cluster_policy::{ClusterNetworkPolicy, ClusterRule, Subject, Tier};
pub use few::Few;
pub use labels::Labels;
pub use network_policy::{Action, NamespaceScope, NetworkPolicy, Peer, Peers, Port, PortSpec, Ports, Precedence, Rule};
pub use node::Node;
pub use port::{PortRange, PortRangeError, Protocol};
pub use service::{AddressType, Endpoint, EndpointPort, EndpointSlice, Service, ServiceKey, ServicePort, ServiceType};

/// Label that the control plane sets on every namespace, with the namespace's name as value
/// (Kubernetes documentation, "Well-Known Labels").
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// A namespace.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Namespace {
    name: String,
    labels: Labels,
}

impl Namespace {
    /// With the label [`NAMESPACE_NAME_LABEL`] set to its name, whatever `labels` says about it:
    /// an API server does the same, and a folder of files must behave alike.
    pub fn new(name: impl Into<String>, labels: Labels) -> Self {
        let name = name.into();
        let labels = labels.with(NAMESPACE_NAME_LABEL, &name);
        Self { name, labels }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its labels, [`NAMESPACE_NAME_LABEL`] among them.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }
}

/// Names a pod. Prints as `namespace/name`. A pointer: a dozen tables know each pod by it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PodKey(Arc<PodName>);

/// The two parts of a [`PodKey`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PodName {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl PodKey {
    /// From its two parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self(Arc::new(PodName { namespace: namespace.into(), name: name.into() }))
    }
}

impl Deref for PodKey {
    type Target = PodName;

    fn deref(&self) -> &PodName {
        &self.0
    }
}

impl fmt::Display for PodKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A port that a container of a pod gave a name. Unnamed container ports mean nothing to policy.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ContainerPort {
    /// Name, as a policy writes it.
    pub name: String,
    /// Protocol; a policy's rule must name the same one.
    pub protocol: Protocol,
    /// Number, 1 to 65535.
    pub port: u16,
}

/// What runs a pod: a Deployment, a StatefulSet, a Job. Policy does not look at it; flow records
/// and previews name pods by it. Prints as `Deployment web`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Workload {
    /// Kind, as the API writes it.
    pub kind: String,
    /// Name, in the namespace of the pod.
    pub name: String,
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// A pod.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Pod {
    /// Namespace and name.
    pub key: PodKey,
    /// UID, empty if there is none (a file, a synthetic pod).
    pub uid: String,
    /// Labels.
    pub labels: Labels,
    /// Service account; `default` unless the pod names another.
    pub service_account: String,
    /// All its addresses (`status.podIPs`), in [`canonical_ip`] form.
    pub ips: Few<IpAddr>,
    /// Named ports of all its containers. The same name may stand for several numbers when
    /// several containers use it; a rule that names it then means all of them.
    pub ports: Few<ContainerPort>,
    /// It lives in its node's network namespace: policy neither restricts it nor selects it as a
    /// peer, its traffic is the node's.
    pub host_network: bool,
    /// Phase Succeeded or Failed: its addresses may belong to another pod already, so it is no
    /// longer a peer.
    pub finished: bool,
    /// What runs it; `None` if it stands for itself.
    pub workload: Option<Workload>,
}

impl Pod {
    /// A running pod without labels, addresses and ports. This is also what a workload gets that
    /// is known by namespace and name only, because nobody wrote a Pod object for it.
    pub fn new(key: PodKey) -> Self {
        Self {
            key,
            uid: String::new(),
            labels: Labels::default(),
            service_account: "default".to_owned(),
            ips: Few::default(),
            ports: Few::default(),
            host_network: false,
            finished: false,
            workload: None,
        }
    }

    /// Whether rules may admit it as a peer by its labels.
    pub fn is_peer(&self) -> bool {
        !self.host_network && !self.finished
    }

    /// The numbers that a named port stands for on this pod; none if it has no such port.
    pub fn named_port<'a>(&'a self, protocol: Protocol, name: &'a str) -> impl Iterator<Item = u16> + 'a {
        named_port(&self.ports, protocol, name)
    }
}

/// The numbers that `name` stands for among `ports`.
pub(crate) fn named_port<'a>(
    ports: &'a [ContainerPort],
    protocol: Protocol,
    name: &'a str,
) -> impl Iterator<Item = u16> + 'a {
    ports.iter().filter(move |port| port.protocol == protocol && port.name == name).map(|port| port.port)
}

/// Kind of a policy object. The order is the order in which rules of one standing are named.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PolicyKind {
    /// `networking.k8s.io/v1` NetworkPolicy.
    NetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha2` ClusterNetworkPolicy.
    ClusterNetworkPolicy,
}

impl PolicyKind {
    /// The `kind` of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NetworkPolicy => "NetworkPolicy",
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
        }
    }
}

impl fmt::Display for PolicyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Names a policy object. Prints as `NetworkPolicy namespace/name` or `ClusterNetworkPolicy name`.
/// The UID is no part of it: a policy that is deleted and created again with the same content is the same set of rules.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PolicyRef {
    /// Kind.
    pub kind: PolicyKind,
    /// Namespace; empty for kinds that have none.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl PolicyRef {
    /// A NetworkPolicy.
    pub fn network_policy(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { kind: PolicyKind::NetworkPolicy, namespace: namespace.into(), name: name.into() }
    }

    /// A ClusterNetworkPolicy.
    pub fn cluster(name: impl Into<String>) -> Self {
        Self { kind: PolicyKind::ClusterNetworkPolicy, namespace: String::new(), name: name.into() }
    }
}

impl fmt::Display for PolicyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, namespace, name } = self;
        match kind {
            PolicyKind::NetworkPolicy => write!(f, "{kind} {namespace}/{name}"),
            PolicyKind::ClusterNetworkPolicy => write!(f, "{kind} {name}"),
        }
    }
}

/// Anything that a source tells. Pods are many, and who keeps them keeps the same one.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Object {
    /// A namespace.
    Namespace(Namespace),
    /// A pod.
    Pod(Arc<Pod>),
    /// A node.
    Node(Node),
    /// A Service.
    Service(Service),
    /// An EndpointSlice.
    EndpointSlice(EndpointSlice),
    /// A network policy.
    NetworkPolicy(NetworkPolicy),
    /// A cluster network policy.
    ClusterNetworkPolicy(ClusterNetworkPolicy),
}

impl Object {
    /// What names it.
    pub fn key(&self) -> ObjectKey {
        match self {
            Self::Namespace(namespace) => ObjectKey::Namespace(namespace.name.clone()),
            Self::Pod(pod) => ObjectKey::Pod(pod.key.clone()),
            Self::Node(node) => ObjectKey::Node(node.name.clone()),
            Self::Service(service) => ObjectKey::Service(service.key.clone()),
            Self::EndpointSlice(slice) => ObjectKey::EndpointSlice(slice.key.clone()),
            Self::NetworkPolicy(policy) => ObjectKey::Policy(policy.policy_ref()),
            Self::ClusterNetworkPolicy(policy) => ObjectKey::Policy(policy.policy_ref()),
        }
    }
}

/// Names an object.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ObjectKey {
    /// A namespace, by name.
    Namespace(String),
    /// A pod.
    Pod(PodKey),
    /// A node, by name.
    Node(String),
    /// A Service.
    Service(ServiceKey),
    /// An EndpointSlice.
    EndpointSlice(ServiceKey),
    /// A policy of any kind.
    Policy(PolicyRef),
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace(name) => write!(f, "Namespace {name}"),
            Self::Pod(key) => write!(f, "Pod {key}"),
            Self::Node(name) => write!(f, "Node {name}"),
            Self::Service(key) => write!(f, "Service {key}"),
            Self::EndpointSlice(key) => write!(f, "EndpointSlice {key}"),
            Self::Policy(policy) => policy.fmt(f),
        }
    }
}

impl From<Namespace> for Object {
    fn from(namespace: Namespace) -> Self {
        Self::Namespace(namespace)
    }
}

impl From<Pod> for Object {
    fn from(pod: Pod) -> Self {
        Self::Pod(Arc::new(pod))
    }
}

impl From<NetworkPolicy> for Object {
    fn from(policy: NetworkPolicy) -> Self {
        Self::NetworkPolicy(policy)
    }
}

impl From<ClusterNetworkPolicy> for Object {
    fn from(policy: ClusterNetworkPolicy) -> Self {
        Self::ClusterNetworkPolicy(policy)
    }
}

impl From<Node> for Object {
    fn from(node: Node) -> Self {
        Self::Node(node)
    }
}

impl From<Service> for Object {
    fn from(service: Service) -> Self {
        Self::Service(service)
    }
}

impl From<EndpointSlice> for Object {
    fn from(slice: EndpointSlice) -> Self {
        Self::EndpointSlice(slice)
    }
}
