//! What is probably not meant in a policy that is valid: it says something about nobody, at least
//! now. Cannot happen and is not looked for: an exception outside its block, which is refused when
//! the object is read.

use policy::{
    Direction, Index,
    model::{Action, Peer, Pod, Port, PortSpec, Rule},
};
use proto::bulkhead::admin::v1::PolicyWarning;

use crate::app::admin::{
    convert::{DIRECTIONS, direction_word},
    found::{Found, FoundRule},
    words::{self, Cluster},
};

/// All of them, in the order of the fields: selector, egress, ingress.
pub(super) fn of(index: &Index, cluster: &Cluster<'_>, policy: Found<'_>) -> Vec<PolicyWarning> {
    let selected = cluster.selected(policy);
    let mut warnings = Vec::new();
    if selected.is_empty() {
        let message = format!("it selects no pod: there are none like {}", words::selects(policy));
        warnings.push(warning("selects-nothing", policy.subject_field().to_owned(), message));
    }
    for direction in DIRECTIONS {
        for (place, found) in policy.rules(direction).unwrap_or_default().iter().enumerate() {
            let FoundRule { rule, .. } = found;
            let path = format!("spec.{}[{place}]", direction_word(direction));
            peers(index, cluster, policy, direction, &path, found, &mut warnings);
            let (subjects, whose) = match direction {
                Direction::Ingress => (selected.clone(), "pod that it selects"),
                Direction::Egress => (cluster.matched(policy.own(), &rule.peers), "pod that the rule matches"),
            };
            match policy {
                Found::Network(_) => ports(&subjects, whose, &path, rule, &mut warnings),
                Found::Cluster(_) => named_ports(&subjects, whose, &path, rule, &mut warnings),
            }
        }
    }
    warnings
}

fn warning(code: &str, field: String, message: String) -> PolicyWarning {
    PolicyWarning { code: code.to_owned(), field, message }
}

/// Peers that select pods or nodes of which there are none, and domain names. Blocks are not expected
/// to hold pods.
fn peers(
    index: &Index,
    cluster: &Cluster<'_>,
    policy: Found<'_>,
    direction: Direction,
    path: &str,
    found: &FoundRule<'_>,
    warnings: &mut Vec<PolicyWarning>,
) {
    let list = match direction {
        Direction::Egress => "to",
        Direction::Ingress => "from",
    };
    for (place, peer) in words::peers(&found.rule.peers).iter().enumerate() {
        let field = format!("{path}.{list}[{place}]");
        match peer {
            Peer::Pods { .. } if !cluster.matches_any(policy.own(), peer) => {
                let message = format!("no pod matches: there are no {}", words::peer(peer));
                warnings.push(warning("peer-matches-nothing", field, message));
            }
            Peer::Nodes(nodes) if !index.nodes().any(|node| nodes.matches(&node.labels) && !node.ips.is_empty()) => {
                let message = format!("no node with an address matches {}", words::peer(peer));
                warnings.push(warning("peer-matches-nothing", field, message));
            }
            Peer::Domains(_) => {
                let effect = match found.action {
                    Action::Allow => "not yet: domain names match nothing until DNS policy exists, so less is accepted",
                    Action::Deny | Action::Pass => {
                        "domain names are for Accept rules only: this rule denies everything instead, as the API asks \
                         for what is not understood"
                    }
                };
                warnings.push(warning("domain-names-not-yet", field, effect.to_owned()));
            }
            Peer::Pods { .. } | Peer::Block(_) | Peer::Nodes(_) => {}
        }
    }
}

/// The same as [`ports`] for ClusterNetworkPolicy, whose port names mean any protocol.
fn named_ports(subjects: &[&Pod], whose: &str, path: &str, rule: &Rule, warnings: &mut Vec<PolicyWarning>) {
    let mut named: Vec<&str> = Vec::new();
    for Port { protocol: _, port } in words::ports(&rule.ports) {
        if let PortSpec::Named(name) = port
            && !named.contains(&name.as_str())
        {
            named.push(name);
        }
    }
    for name in named {
        let known = subjects.iter().any(|pod| pod.ports.iter().any(|port| port.name == *name));
        if !known && !subjects.is_empty() {
            let message = format!("no {whose} has a port named {name}, so it stands for nothing");
            warnings.push(warning("named-port-unknown", format!("{path}.protocols"), message));
        }
    }
}

/// Port names that nobody has whom they are asked of. If selectors find nobody at all, other
/// warnings say so.
fn ports(subjects: &[&Pod], whose: &str, path: &str, rule: &Rule, warnings: &mut Vec<PolicyWarning>) {
    for (index, Port { protocol, port }) in words::ports(&rule.ports).iter().enumerate() {
        let PortSpec::Named(name) = port else { continue };
        let known = subjects.iter().any(|pod| pod.named_port(*protocol, name).next().is_some());
        if !known && (!subjects.is_empty() || addresses_only(rule)) {
            let message = format!("no {whose} has a {protocol} port named {name}, so the port stands for nothing");
            warnings.push(warning("named-port-unknown", format!("{path}.ports[{index}].port"), message));
        }
    }
}

fn addresses_only(rule: &Rule) -> bool {
    let peers = words::peers(&rule.peers);
    !peers.is_empty() && peers.iter().all(|peer| matches!(peer, Peer::Block(_)))
}
