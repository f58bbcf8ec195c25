//! EndpointSlice: who serves for a Service, and in which state.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use policy::model::{self, AddressType, EndpointPort, ServiceKey};

use crate::error::Problem;
use crate::findings::Findings;
use crate::path::{FieldPath, Quoted};
use crate::syntax::Malformed;
use crate::{metadata, network_policy, syntax};

/// Label with the name of the Service that a slice is for (Kubernetes documentation, "EndpointSlices").
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// Validates an EndpointSlice and turns it into the model's. Of an endpoint's addresses the first counts; a condition
/// that is not given is true, but for `terminating` (reference of `discovery.k8s.io/v1`).
///
/// # Errors
///
/// Everything that is wrong with it, by field.
pub fn endpoint_slice(object: &EndpointSlice) -> Result<model::EndpointSlice, Vec<Problem>> {
    let mut findings = Findings::default();
    let EndpointSlice { metadata: meta, address_type, endpoints, ports: _ } = object;
    let name = metadata::name(meta, syntax::dns_subdomain, &mut findings);
    let namespace = metadata::namespace(meta, &mut findings);
    let labels = metadata::labels(meta, &mut findings);
    let ports = ports(object, &mut findings);
    let known = AddressType::ALL.into_iter().find(|known| known.as_str() == address_type);
    if known.is_none() {
        let what = match address_type.as_str() {
            "" => "there is no addressType".to_owned(),
            other => format!("there is no addressType {}", Quoted(other)),
        };
        findings.add(&FieldPath::of(&["addressType"]), what, "use IPv4, IPv6 or FQDN");
    }
    let endpoints = known
        .map(|known| self::endpoints(known, endpoints.as_deref().unwrap_or_default(), &mut findings))
        .unwrap_or_default();
    let key = namespace.zip(name).map(|(namespace, name)| ServiceKey { namespace, name });
    findings.finish(key.zip(known).map(|(key, address_type)| model::EndpointSlice {
        key,
        service: labels.get(SERVICE_NAME_LABEL).filter(|name| !name.is_empty()).map(str::to_owned),
        address_type,
        ports,
        endpoints,
    }))
}

fn ports(object: &EndpointSlice, findings: &mut Findings) -> Vec<EndpointPort> {
    let path = FieldPath::of(&["ports"]);
    let mut names = BTreeSet::new();
    let mut ports = Vec::new();
    for (index, given) in object.ports.iter().flatten().enumerate() {
        let path = path.index(index);
        let name = given.name.as_deref().unwrap_or_default();
        if !name.is_empty() {
            findings.check(&path.key("name"), name, syntax::dns_label(name));
        }
        if !names.insert(name) {
            let what = format!("the port name {} is given twice", Quoted(name));
            findings.add(&path.key("name"), what, "give each port its own name");
        }
        let protocol = network_policy::protocol(&path.key("protocol"), given.protocol.as_deref(), findings);
        let Some(number) = given.port else { continue };
        let number = findings.check_shown(&path.key("port"), number, syntax::port_number(number));
        if let Some((port, protocol)) = number.zip(protocol) {
            ports.push(EndpointPort { name: name.to_owned(), protocol, port });
        }
    }
    ports
}

fn endpoints(kind: AddressType, given: &[Endpoint], findings: &mut Findings) -> Vec<model::Endpoint> {
    let path = FieldPath::of(&["endpoints"]);
    let mut endpoints = Vec::new();
    for (index, endpoint) in given.iter().enumerate() {
        let path = path.index(index).key("addresses");
        let Some(text) = endpoint.addresses.first() else {
            findings.add(&path, "there is no address", "write one");
            continue;
        };
        if kind == AddressType::Fqdn {
            continue;
        }
        let Some(ip) = findings.check(&path.index(0), text, address(kind, text)) else { continue };
        let conditions = endpoint.conditions.clone().unwrap_or_default();
        endpoints.push(model::Endpoint {
            ip,
            ready: conditions.ready.unwrap_or(true),
            serving: conditions.serving.unwrap_or(true),
            terminating: conditions.terminating.unwrap_or(false),
        });
    }
    endpoints
}

/// An address at which somebody else can serve: the API server refuses what would lead back to whoever sends.
fn address(kind: AddressType, text: &str) -> Result<IpAddr, Malformed> {
    const ELSEWHERE: &str = "name an address that others can reach";
    let ip = model::canonical_ip(syntax::ip(text)?);
    match (kind, ip) {
        (AddressType::Ipv4, IpAddr::V6(_)) => {
            return Err(Malformed { what: "is not an IPv4 address", fix: "put it into a slice of addressType IPv6" });
        }
        (AddressType::Ipv6, IpAddr::V4(_)) => {
            return Err(Malformed { what: "is not an IPv6 address", fix: "put it into a slice of addressType IPv4" });
        }
        _ => {}
    }
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    match ip {
        _ if ip.is_unspecified() => Err(Malformed { what: "is nobody's address", fix: ELSEWHERE }),
        _ if ip.is_loopback() => Err(Malformed { what: "is a loopback address", fix: ELSEWHERE }),
        _ if link_local => Err(Malformed { what: "is a link-local address", fix: ELSEWHERE }),
        _ if ip.is_multicast() => Err(Malformed { what: "is a multicast address", fix: ELSEWHERE }),
        _ => Ok(ip),
    }
}
