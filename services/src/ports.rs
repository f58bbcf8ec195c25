//! What a Service claims, and who serves for it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use datapath_abi::addr::Addr;
use datapath_abi::service::{Backend, FrontendKey};
use policy::model::{AddressType, EndpointSlice, Protocol, Service, ServiceKey, ServiceType};

/// A port of a Service in one family of addresses: whoever has the same one has the same set of backends, whatever
/// numbers address and port change to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PortId {
    /// The Service.
    pub service: ServiceKey,
    /// Name of its port; may be empty.
    pub port: String,
    /// Protocol of the port.
    pub protocol: Protocol,
    /// IPv6, not IPv4.
    pub is_v6: bool,
}

/// Who wants an address and port. Of several the least has it: the one that was made first; where none says when, by
/// namespace and name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Claim {
    /// Whether nobody says when it was made, and if somebody does, when.
    made: (bool, i64),
    pub(crate) id: PortId,
}

/// The address and port of a frontend.
pub fn address(key: &FrontendKey) -> SocketAddr {
    SocketAddr::new(IpAddr::from(key.addr), key.port)
}

/// What a Service wants to stand at.
pub(crate) fn claims(service: &Service) -> Vec<(FrontendKey, Claim)> {
    let nothing = service.headless || service.service_type == ServiceType::ExternalName || service.proxy.is_some();
    if nothing {
        return Vec::new();
    }
    let made = (service.created.is_none(), service.created.unwrap_or(0));
    let mut claims = Vec::new();
    for ip in &service.cluster_ips {
        for port in &service.ports {
            let key = FrontendKey {
                addr: Addr::from(*ip),
                port: port.port,
                proto: port.protocol.number(),
                ..FrontendKey::default()
            };
            let id = PortId {
                service: service.key.clone(),
                port: port.name.clone(),
                protocol: port.protocol,
                is_v6: ip.is_ipv6(),
            };
            claims.push((key, Claim { made, id }));
        }
    }
    claims
}

/// In which state one who may serve is, by all that is said about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Condition {
    pub(crate) ready: bool,
    /// Serving still, and about to end: serves where nobody is ready.
    pub(crate) last_resort: bool,
    pub(crate) terminating: bool,
}

/// All who may serve for a port. Whom several slices name is in the best state that one of them says: a pod moves from
/// slice to slice, and the one that says less is the older one.
pub(crate) fn endpoints<'a>(
    slices: impl Iterator<Item = &'a EndpointSlice>,
    id: &PortId,
) -> BTreeMap<Backend, Condition> {
    let family = if id.is_v6 { AddressType::Ipv6 } else { AddressType::Ipv4 };
    let mut all: BTreeMap<Backend, Condition> = BTreeMap::new();
    for slice in slices.filter(|slice| slice.address_type == family) {
        for port in slice.ports.iter().filter(|port| port.name == id.port && port.protocol == id.protocol) {
            for endpoint in &slice.endpoints {
                let backend = Backend { addr: Addr::from(endpoint.ip), port: port.port, ..Backend::default() };
                let condition = all.entry(backend).or_default();
                condition.ready |= endpoint.ready;
                condition.last_resort |= endpoint.serving && endpoint.terminating;
                condition.terminating |= endpoint.terminating;
            }
        }
    }
    all
}

/// Those who serve: who is ready; where nobody is, who serves still although it is about to end.
pub(crate) fn serving(all: &BTreeMap<Backend, Condition>) -> BTreeSet<Backend> {
    let of = |chosen: fn(&Condition) -> bool| -> BTreeSet<Backend> {
        all.iter().filter(|(_, condition)| chosen(condition)).map(|(backend, _)| *backend).collect()
    };
    let ready = of(|condition| condition.ready);
    if ready.is_empty() { of(|condition| condition.last_resort) } else { ready }
}
