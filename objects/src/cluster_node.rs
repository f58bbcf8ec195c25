//! Node: its labels, and the addresses that rules mean when they name it.

use std::collections::BTreeSet;

use ipnetwork::IpNetwork;
use k8s_openapi::api::core::v1::{Node, NodeSpec, NodeStatus};
use policy::model;

use crate::error::Problem;
use crate::findings::Findings;
use crate::path::FieldPath;
use crate::{metadata, syntax};

/// Validates a Node and turns it into the policy model's. Its addresses are the IP addresses among
/// `status.addresses`: those of type InternalIP and ExternalIP. Its pods' ranges are `spec.podCIDRs`.
///
/// # Errors
///
/// Everything that is wrong with it, by field.
pub fn node(object: &Node) -> Result<model::Node, Vec<Problem>> {
    let mut findings = Findings::default();
    let Node { metadata: meta, spec, status } = object;
    metadata::no_namespace("Node", meta, &mut findings);
    let name = metadata::name(meta, syntax::dns_subdomain, &mut findings);
    let labels = metadata::labels(meta, &mut findings);
    let path = FieldPath::of(&["status", "addresses"]);
    let (mut ips, mut internal_ips) = (BTreeSet::new(), BTreeSet::new());
    let addresses = status.iter().filter_map(|status: &NodeStatus| status.addresses.as_ref()).flatten();
    for (index, address) in addresses.enumerate() {
        if matches!(address.type_.as_str(), "InternalIP" | "ExternalIP") {
            let path = path.index(index).key("address");
            let ip = findings.check(&path, &address.address, syntax::ip(&address.address));
            let ip = ip.map(model::canonical_ip);
            ips.extend(ip);
            if address.type_ == "InternalIP" {
                internal_ips.extend(ip);
            }
        }
    }
    let pod_ranges = spec.as_ref().map(|spec| pod_ranges(spec, &mut findings)).unwrap_or_default();
    findings.finish(name.map(|name| model::Node { name, labels, ips, internal_ips, pod_ranges }))
}

fn pod_ranges(spec: &NodeSpec, findings: &mut Findings) -> BTreeSet<IpNetwork> {
    let path = FieldPath::of(&["spec"]);
    let several = spec.pod_cidrs.as_deref().unwrap_or_default();
    let mut ranges = BTreeSet::new();
    let mut add = |path: &FieldPath, text: &str| {
        ranges.extend(findings.check(path, text, syntax::cidr(text)));
    };
    for (index, range) in several.iter().enumerate() {
        add(&path.key("podCIDRs").index(index), range);
    }
    if let (true, Some(range)) = (several.is_empty(), spec.pod_cidr.as_deref().filter(|range| !range.is_empty())) {
        add(&path.key("podCIDR"), range);
    }
    ranges
}
