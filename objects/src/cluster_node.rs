//! Node: its labels, and the addresses that rules mean when they name it.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Node, NodeStatus};
use policy::model;

use crate::error::Problem;
use crate::findings::Findings;
use crate::path::FieldPath;
use crate::{metadata, syntax};

/// Validates a Node and turns it into the policy model's. Its addresses are the IP addresses among
/// `status.addresses`: those of type InternalIP and ExternalIP.
///
/// # Errors
///
/// Everything that is wrong with it, by field.
pub fn node(object: &Node) -> Result<model::Node, Vec<Problem>> {
    let mut findings = Findings::default();
    let Node { metadata: meta, spec: _, status } = object;
    metadata::no_namespace("Node", meta, &mut findings);
    let name = metadata::name(meta, syntax::dns_subdomain, &mut findings);
    let labels = metadata::labels(meta, &mut findings);
    let path = FieldPath::of(&["status", "addresses"]);
    let mut ips = BTreeSet::new();
    let addresses = status.iter().filter_map(|status: &NodeStatus| status.addresses.as_ref()).flatten();
    for (index, address) in addresses.enumerate() {
        if matches!(address.type_.as_str(), "InternalIP" | "ExternalIP") {
            let path = path.index(index).key("address");
            let ip = findings.check(&path, &address.address, syntax::ip(&address.address));
            ips.extend(ip.map(model::canonical_ip));
        }
    }
    findings.finish(name.map(|name| model::Node { name, labels, ips }))
}
