//! Service: addresses and ports at which it stands for others. How it got them, and what else proxies do for it, is
//! passed over.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use policy::model::{self, ServiceKey, ServicePort, ServiceType};

use crate::error::Problem;
use crate::findings::Findings;
use crate::nearest::nearest;
use crate::path::{FieldPath, Quoted};
use crate::{metadata, network_policy, syntax};

/// Label of a Service that somebody else than the cluster's usual proxy is to translate (Kubernetes documentation,
/// "Well-Known Labels, Annotations and Taints").
pub const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";

/// What a headless Service has in the place of an address.
const HEADLESS: &str = "None";

/// Validates a Service and turns it into the model's.
///
/// # Errors
///
/// Everything that is wrong with it, by field.
pub fn service(object: &Service) -> Result<model::Service, Vec<Problem>> {
    let mut findings = Findings::default();
    let Service { metadata: meta, spec, status: _ } = object;
    let name = metadata::name(meta, syntax::dns_label, &mut findings);
    let namespace = metadata::namespace(meta, &mut findings);
    let labels = metadata::labels(meta, &mut findings);
    let default = ServiceSpec::default();
    let spec = spec.as_ref().unwrap_or(&default);
    let service_type = service_type(spec, &mut findings);
    let (cluster_ips, headless) = addresses(spec, &mut findings);
    let ports = ports(spec, &mut findings);
    let key = namespace.zip(name).map(|(namespace, name)| ServiceKey { namespace, name });
    findings.finish(key.zip(service_type).map(|(key, service_type)| model::Service {
        key,
        created: meta.creation_timestamp.as_ref().map(|time| time.0.as_second()),
        service_type,
        headless,
        cluster_ips: if service_type == ServiceType::ExternalName { Vec::new() } else { cluster_ips },
        ports,
        proxy: labels.get(PROXY_NAME_LABEL).map(str::to_owned),
    }))
}

fn service_type(spec: &ServiceSpec, findings: &mut Findings) -> Option<ServiceType> {
    let given = spec.type_.as_deref().unwrap_or_default();
    let known = ServiceType::ALL.into_iter().find(|known| known.as_str() == given);
    if given.is_empty() || known.is_some() {
        return Some(known.unwrap_or_default());
    }
    let names = ServiceType::ALL.map(ServiceType::as_str);
    let fix = match nearest(given, names) {
        Some(meant) => format!("did you mean {meant}?"),
        None => format!("use {}", names.join(", ")),
    };
    findings.add(&FieldPath::of(&["spec", "type"]), format!("there is no type {}", Quoted(given)), fix);
    None
}

/// Its addresses, and whether it is headless.
fn addresses(spec: &ServiceSpec, findings: &mut Findings) -> (Vec<IpAddr>, bool) {
    let path = FieldPath::of(&["spec"]);
    let several = spec.cluster_ips.as_deref().unwrap_or_default();
    let mut given: Vec<(FieldPath, &str)> = Vec::new();
    for (index, address) in several.iter().enumerate() {
        given.push((path.key("clusterIPs").index(index), address));
    }
    if let (true, Some(address)) = (several.is_empty(), spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty())) {
        given.push((path.key("clusterIP"), address));
    }
    if let [(_, HEADLESS)] = given[..] {
        return (Vec::new(), true);
    }
    let mut ips: Vec<IpAddr> = Vec::new();
    for (path, text) in given {
        let Some(ip) = findings.check(&path, text, syntax::ip(text)).map(model::canonical_ip) else { continue };
        if ips.iter().any(|other| other.is_ipv4() == ip.is_ipv4()) {
            findings.add(&path, format!("{ip} is the second address of its family"), "leave one of each family");
        } else {
            ips.push(ip);
        }
    }
    (ips, false)
}

fn ports(spec: &ServiceSpec, findings: &mut Findings) -> Vec<ServicePort> {
    let path = FieldPath::of(&["spec", "ports"]);
    let given = spec.ports.as_deref().unwrap_or_default();
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    let mut ports = Vec::new();
    for (index, port) in given.iter().enumerate() {
        let path = path.index(index);
        let number = findings.check_shown(&path.key("port"), port.port, syntax::port_number(port.port));
        let protocol = network_policy::protocol(&path.key("protocol"), port.protocol.as_deref(), findings);
        let name = port.name.as_deref().unwrap_or_default();
        if name.is_empty() {
            if given.len() > 1 {
                findings.add(&path.key("name"), "one of several ports has no name", "give each port its own name");
            }
        } else {
            findings.check(&path.key("name"), name, syntax::dns_label(name));
            if !names.insert(name) {
                let what = format!("the port name {} is given twice", Quoted(name));
                findings.add(&path.key("name"), what, "give each port its own name");
            }
        }
        let Some((port, protocol)) = number.zip(protocol) else { continue };
        if !numbers.insert((protocol, port)) {
            findings.add(&path, format!("port {port}/{protocol} is given twice"), "remove one of them");
        }
        ports.push(ServicePort { name: name.to_owned(), protocol, port });
    }
    ports
}
