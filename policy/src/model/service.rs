//! Services and what serves for them. Policy looks at neither: what becomes of them is in crate `services`.

use std::fmt;
use std::net::IpAddr;

use super::Protocol;

/// Names a Service, or an EndpointSlice. Prints as `namespace/name`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ServiceKey {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ServiceKey {
    /// From its two parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// `spec.type` of a Service.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum ServiceType {
    /// Reached at its own addresses inside of the cluster.
    #[default]
    ClusterIp,
    /// And at a port of each node.
    NodePort,
    /// And at an address that others provide.
    LoadBalancer,
    /// A name for another name: nothing is sent to it.
    ExternalName,
}

impl ServiceType {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::ClusterIp, Self::NodePort, Self::LoadBalancer, Self::ExternalName];

    /// As the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClusterIp => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
            Self::ExternalName => "ExternalName",
        }
    }
}

impl fmt::Display for ServiceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A port of a Service.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ServicePort {
    /// Name; empty if it is the only one and has none. Unique in its Service.
    pub name: String,
    /// Protocol. Unique in its Service together with the number.
    pub protocol: Protocol,
    /// Number at the Service's addresses, 1 to 65535.
    pub port: u16,
}

/// A Service.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Service {
    /// Namespace and name.
    pub key: ServiceKey,
    /// `metadata.creationTimestamp` in seconds since 1970; `None` for what no API server has made.
    pub created: Option<i64>,
    /// Type.
    pub service_type: ServiceType,
    /// `clusterIP: None`: names are resolved to the backends themselves.
    pub headless: bool,
    /// Its addresses in the cluster in [`super::canonical_ip`] form, one of each family at most. None if it is headless,
    /// of type ExternalName, or nobody has given it one.
    pub cluster_ips: Vec<IpAddr>,
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// Value of the label `service.kubernetes.io/service-proxy-name`: somebody else translates it.
    pub proxy: Option<String>,
}

impl Service {
    /// A Service of type ClusterIP without addresses and ports.
    pub fn new(key: ServiceKey) -> Self {
        Self {
            key,
            created: None,
            service_type: ServiceType::ClusterIp,
            headless: false,
            cluster_ips: Vec::new(),
            ports: Vec::new(),
            proxy: None,
        }
    }
}

/// `addressType` of an EndpointSlice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum AddressType {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// Names, which nobody here resolves.
    Fqdn,
}

impl AddressType {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ipv4, Self::Ipv6, Self::Fqdn];

    /// As the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
            Self::Fqdn => "FQDN",
        }
    }
}

/// A port of all endpoints of a slice.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct EndpointPort {
    /// Name: that of the Service's port.
    pub name: String,
    /// Protocol: that of the Service's port.
    pub protocol: Protocol,
    /// Number at the endpoints, 1 to 65535.
    pub port: u16,
}

/// One who serves.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Endpoint {
    /// The first of its addresses, which is the only one that means anything, in [`super::canonical_ip`] form.
    pub ip: IpAddr,
    /// `conditions.ready`, true where nothing is said.
    pub ready: bool,
    /// `conditions.serving`, true where nothing is said.
    pub serving: bool,
    /// `conditions.terminating`, false where nothing is said.
    pub terminating: bool,
}

/// An EndpointSlice.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct EndpointSlice {
    /// Namespace and name.
    pub key: ServiceKey,
    /// Name of the Service in the same namespace, the label `kubernetes.io/service-name`; `None` if it is for none.
    pub service: Option<String>,
    /// What its addresses are.
    pub address_type: AddressType,
    /// Ports of each endpoint; those without a number, which say nothing to us, are left out.
    pub ports: Vec<EndpointPort>,
    /// Who serves; of type FQDN nobody.
    pub endpoints: Vec<Endpoint>,
}

impl EndpointSlice {
    /// The Service it is for.
    pub fn service_key(&self) -> Option<ServiceKey> {
        self.service.as_ref().map(|name| ServiceKey::new(&self.key.namespace, name))
    }
}
