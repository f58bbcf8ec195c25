//! Pod: what policy and flow records need of it. Everything else a Pod says is passed over.

use std::collections::HashSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, ContainerPort, Pod, PodSpec, PodStatus};
use policy::model::{self, Few, PodKey};

use crate::error::Problem;
use crate::findings::Findings;
use crate::nearest::nearest;
use crate::path::{FieldPath, Quoted};
use crate::workload::workload;
use crate::{metadata, network_policy, syntax};

/// The service account of a pod that names none.
const DEFAULT_SERVICE_ACCOUNT: &str = "default";

const PHASES: [&str; 5] = ["Pending", "Running", "Succeeded", "Failed", "Unknown"];

/// Validates a Pod and turns it into the policy model's.
///
/// A Pod that stands for a workload started by a runtime need not have containers: the API
/// server would insist on them, policy has no use for them.
///
/// # Errors
///
/// Everything that is wrong with it, by field.
pub fn pod(object: &Pod) -> Result<model::Pod, Vec<Problem>> {
    let mut findings = Findings::default();
    let Pod { metadata: meta, spec, status } = object;
    let name = metadata::name(meta, syntax::dns_subdomain, &mut findings);
    let namespace = metadata::namespace(meta, &mut findings);
    let labels = metadata::labels(meta, &mut findings);
    let ports = spec.as_ref().map(|spec| named_ports(spec, &mut findings)).unwrap_or_default();
    let service_account = spec.as_ref().and_then(|spec| service_account(spec, &mut findings));
    let ips = status.as_ref().map(|status| addresses(status, &mut findings)).unwrap_or_default();
    let finished = status.as_ref().is_some_and(|status| is_finished(status, &mut findings));
    let pod = name.zip(namespace).map(|(name, namespace)| model::Pod {
        uid: meta.uid.clone().unwrap_or_default(),
        labels,
        service_account: service_account.unwrap_or_else(|| DEFAULT_SERVICE_ACCOUNT.to_owned()),
        ips,
        ports,
        host_network: spec.as_ref().is_some_and(|spec| spec.host_network == Some(true)),
        finished,
        workload: workload(object),
        key: PodKey::new(namespace, name),
    });
    findings.finish(pod)
}

fn service_account(spec: &PodSpec, findings: &mut Findings) -> Option<String> {
    // `serviceAccount` is the old name of the field, which the API server still fills in.
    let given = [("serviceAccountName", &spec.service_account_name), ("serviceAccount", &spec.service_account)];
    let (field, name) =
        given.into_iter().find_map(|(field, name)| Some((field, name.as_deref().filter(|name| !name.is_empty())?)))?;
    let path = FieldPath::of(&["spec", field]);
    findings.check(&path, name, syntax::dns_subdomain(name)).map(|()| name.to_owned())
}

fn named_ports(spec: &PodSpec, findings: &mut Findings) -> Few<model::ContainerPort> {
    let path = FieldPath::of(&["spec"]);
    let mut ports = Vec::new();
    for (index, container) in spec.containers.iter().enumerate() {
        ports.extend(container_ports(&path.key("containers").index(index), container, findings));
    }
    for (index, container) in spec.init_containers.iter().flatten().enumerate() {
        let found = container_ports(&path.key("initContainers").index(index), container, findings);
        // An init container that is not a sidecar has ended before anything could reach its ports.
        if container.restart_policy.as_deref() == Some("Always") {
            ports.extend(found);
        }
    }
    ports.into_iter().collect()
}

fn container_ports(path: &FieldPath, container: &Container, findings: &mut Findings) -> Vec<model::ContainerPort> {
    let path = path.key("ports");
    let mut names = HashSet::new();
    let mut ports = Vec::new();
    for (index, given) in container.ports.iter().flatten().enumerate() {
        let ContainerPort { container_port, name, protocol, host_ip: _, host_port: _ } = given;
        let path = path.index(index);
        let number = match container_port {
            0 => {
                findings.add(&path.key("containerPort"), "there is no port number", "write one from 1 to 65535");
                None
            }
            number => findings.check_shown(&path.key("containerPort"), number, syntax::port_number(*number)),
        };
        let protocol = network_policy::protocol(&path.key("protocol"), protocol.as_deref(), findings);
        let Some(name) = name.as_deref().filter(|name| !name.is_empty()) else { continue };
        let path = path.key("name");
        if findings.check(&path, name, syntax::port_name(name)).is_none() {
            continue;
        }
        if !names.insert(name) {
            findings.add(
                &path,
                format!("the port name {} is given twice", Quoted(name)),
                "give each port its own name",
            );
        }
        if let Some((port, protocol)) = number.zip(protocol) {
            ports.push(model::ContainerPort { name: name.to_owned(), protocol, port });
        }
    }
    ports
}

fn addresses(status: &PodStatus, findings: &mut Findings) -> Few<IpAddr> {
    let path = FieldPath::of(&["status"]);
    let several = status.pod_ips.as_deref().unwrap_or_default();
    let mut ips = Vec::new();
    let mut add = |path: &FieldPath, text: &str| {
        ips.extend(findings.check(path, text, syntax::ip(text)).map(model::canonical_ip));
    };
    for (index, ip) in several.iter().enumerate() {
        add(&path.key("podIPs").index(index).key("ip"), &ip.ip);
    }
    if let (true, Some(ip)) = (several.is_empty(), status.pod_ip.as_deref().filter(|ip| !ip.is_empty())) {
        add(&path.key("podIP"), ip);
    }
    ips.into_iter().collect()
}

fn is_finished(status: &PodStatus, findings: &mut Findings) -> bool {
    match status.phase.as_deref().unwrap_or_default() {
        "Succeeded" | "Failed" => true,
        "" | "Pending" | "Running" | "Unknown" => false,
        other => {
            let fix = match nearest(other, PHASES) {
                Some(meant) => format!("did you mean {meant}?"),
                None => format!("use {}", PHASES.join(", ")),
            };
            let path = FieldPath::of(&["status", "phase"]);
            findings.add(&path, format!("there is no phase {}", Quoted(other)), fix);
            false
        }
    }
}
