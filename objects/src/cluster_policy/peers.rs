//! Subject and peers of a ClusterNetworkPolicy.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use policy::model::{IpBlock, NamespaceScope, Peer, Subject, canonical_network};
use policy::selector::Selector;

use super::types::{
    ClusterNetworkPolicyEgressPeer, ClusterNetworkPolicyIngressPeer, ClusterNetworkPolicySubject, NamespacedPod,
};
use super::{bound, required};
use crate::findings::Findings;
use crate::path::{FieldPath, Quoted};
use crate::selector::selector;
use crate::syntax;

/// Characters that an address block may have.
const MAX_CIDR: usize = 43;

/// A peer of either direction.
pub(super) struct PeerParts<'a> {
    namespaces: Option<&'a LabelSelector>,
    pods: Option<&'a NamespacedPod>,
    nodes: Option<&'a LabelSelector>,
    networks: Option<&'a [String]>,
    domain_names: Option<&'a [String]>,
    /// What may be written, for messages.
    choice: &'static str,
}

impl<'a> From<&'a ClusterNetworkPolicyIngressPeer> for PeerParts<'a> {
    fn from(peer: &'a ClusterNetworkPolicyIngressPeer) -> Self {
        let ClusterNetworkPolicyIngressPeer { namespaces, pods } = peer;
        Self {
            namespaces: namespaces.as_ref(),
            pods: pods.as_ref(),
            nodes: None,
            networks: None,
            domain_names: None,
            choice: "namespaces or pods",
        }
    }
}

impl<'a> From<&'a ClusterNetworkPolicyEgressPeer> for PeerParts<'a> {
    fn from(peer: &'a ClusterNetworkPolicyEgressPeer) -> Self {
        let ClusterNetworkPolicyEgressPeer { namespaces, pods, nodes, networks, domain_names } = peer;
        Self {
            namespaces: namespaces.as_ref(),
            pods: pods.as_ref(),
            nodes: nodes.as_ref(),
            networks: networks.as_deref(),
            domain_names: domain_names.as_deref(),
            choice: "namespaces, pods, nodes, networks or domainNames",
        }
    }
}

impl PeerParts<'_> {
    /// Whether it can be somebody who gives ports no names.
    pub(super) fn has_no_port_names(&self) -> bool {
        self.nodes.is_some() || self.networks.is_some() || self.domain_names.is_some()
    }

    fn given(&self) -> usize {
        let Self { namespaces, pods, nodes, networks, domain_names, choice: _ } = self;
        let given = [namespaces.is_some(), pods.is_some(), nodes.is_some(), networks.is_some(), domain_names.is_some()];
        given.into_iter().filter(|given| *given).count()
    }
}

/// Who the policy applies to.
pub(super) fn subject(
    path: &FieldPath,
    given: Option<&ClusterNetworkPolicySubject>,
    findings: &mut Findings,
) -> Option<Subject> {
    let fix = "write namespaces or pods; namespaces: {} is every pod";
    let ClusterNetworkPolicySubject { namespaces, pods } = required(path, given, "subject", fix, findings)?;
    match (namespaces, pods) {
        (Some(given), None) => {
            let namespaces = selector(&path.key("namespaces"), given, findings);
            Some(Subject { namespaces, pods: Selector::everything() })
        }
        (None, Some(given)) => {
            let (namespaces, pods) = namespaced_pod(&path.key("pods"), given, findings)?;
            Some(Subject { namespaces, pods })
        }
        (None, None) => {
            findings.add(path, "this subject names nobody", fix);
            None
        }
        (Some(_), Some(_)) => {
            let fix = "keep one: pods has a namespaceSelector of its own";
            findings.add(path, "namespaces stands beside pods", fix);
            None
        }
    }
}

/// Adds what a peer means: several blocks if it lists several networks.
pub(super) fn peer(path: &FieldPath, parts: &PeerParts<'_>, peers: &mut Vec<Peer>, findings: &mut Findings) {
    let choice = parts.choice;
    match parts.given() {
        0 => {
            return findings.add(
                path,
                "this peer names nobody",
                format!("write {choice}; {{}} as a selector means all"),
            );
        }
        1 => {}
        _ => {
            let fix = "make each of them an element of the list, with its own dash";
            return findings.add(path, format!("this peer has more than one of {choice}"), fix);
        }
    }
    if let Some(given) = parts.namespaces {
        let namespaces = NamespaceScope::Matching(selector(&path.key("namespaces"), given, findings));
        peers.push(Peer::Pods { namespaces, pods: Selector::everything() });
    }
    if let Some(given) = parts.pods {
        let pods = namespaced_pod(&path.key("pods"), given, findings);
        peers.extend(pods.map(|(namespaces, pods)| {
            let namespaces = NamespaceScope::Matching(namespaces);
            Peer::Pods { namespaces, pods }
        }));
    }
    if let Some(given) = parts.nodes {
        peers.push(Peer::Nodes(selector(&path.key("nodes"), given, findings)));
    }
    if let Some(given) = parts.networks {
        networks(&path.key("networks"), given, peers, findings);
    }
    if let Some(given) = parts.domain_names {
        domain_names(&path.key("domainNames"), given, findings);
        peers.push(Peer::Domains(given.to_vec()));
    }
}

fn namespaced_pod(path: &FieldPath, given: &NamespacedPod, findings: &mut Findings) -> Option<(Selector, Selector)> {
    let NamespacedPod { namespace_selector, pod_selector } = given;
    let path_of_namespaces = path.key("namespaceSelector");
    let namespaces = namespace_selector
        .as_ref()
        .map_or(Selector::everything(), |given| selector(&path_of_namespaces, given, findings));
    let path = path.key("podSelector");
    let given = required(&path, pod_selector.as_ref(), "podSelector", "write {} for every pod", findings)?;
    Some((namespaces, selector(&path, given, findings)))
}

fn networks(path: &FieldPath, given: &[String], peers: &mut Vec<Peer>, findings: &mut Findings) {
    list(path, given, "networks", "write at least one block, such as 10.0.0.0/8", findings);
    for (index, text) in given.iter().enumerate() {
        let path = path.index(index);
        if text.len() > MAX_CIDR {
            findings.add(&path, format!("{} is longer than {MAX_CIDR} characters", Quoted(text)), "shorten it");
            continue;
        }
        let Some(network) = findings.check(&path, text, syntax::cidr(text)) else { continue };
        // Without exceptions there is nothing that could lie outside.
        peers.extend(IpBlock::new(canonical_network(network), []).map(Peer::Block));
    }
}

fn domain_names(path: &FieldPath, given: &[String], findings: &mut Findings) {
    list(path, given, "domain names", "write at least one name, such as example.com", findings);
    for (index, text) in given.iter().enumerate() {
        findings.check(&path.index(index), text, syntax::domain_name(text));
    }
}

/// What holds of both lists: not empty, not too long, nothing twice.
fn list(path: &FieldPath, given: &[String], what: &str, fix: &str, findings: &mut Findings) {
    if given.is_empty() {
        findings.add(path, "the list is empty", fix);
    }
    bound(path, given.len(), what, findings);
    let mut seen = BTreeSet::new();
    for (index, text) in given.iter().enumerate() {
        if !seen.insert(text) {
            findings.add(&path.index(index), format!("{} stands in the list twice", Quoted(text)), "remove one");
        }
    }
}
