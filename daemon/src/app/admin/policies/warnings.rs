//! What is probably not meant in a policy that is valid: it says something about nobody, at least
//! now. Cannot happen and is not looked for: an exception outside its block, which is refused when
//! the object is read.

use policy::{
    Direction,
    model::{NetworkPolicy, Peer, Pod, Port, PortSpec, Rule},
};
use proto::bulkhead::admin::v1::PolicyWarning;

use crate::app::admin::{
    convert::{DIRECTIONS, direction_word},
    words::{self, Cluster},
};

/// All of them, in the order of the fields: selector, egress, ingress.
pub(super) fn of(cluster: &Cluster<'_>, policy: &NetworkPolicy) -> Vec<PolicyWarning> {
    let selected = cluster.selected(policy);
    let mut warnings = Vec::new();
    if selected.is_empty() {
        let message = format!("it selects no pod: there are none like {}", words::selects(policy));
        warnings.push(warning("selects-nothing", "spec.podSelector".to_owned(), message));
    }
    for direction in DIRECTIONS {
        for (index, rule) in policy.rules(direction).unwrap_or_default().iter().enumerate() {
            let path = format!("spec.{}[{index}]", direction_word(direction));
            peers(cluster, policy, direction, &path, rule, &mut warnings);
            let (subjects, whose) = match direction {
                Direction::Ingress => (selected.clone(), "pod that it selects"),
                Direction::Egress => (cluster.matched(policy, &rule.peers), "pod that the rule matches"),
            };
            ports(&subjects, whose, &path, rule, &mut warnings);
        }
    }
    warnings
}

fn warning(code: &str, field: String, message: String) -> PolicyWarning {
    PolicyWarning { code: code.to_owned(), field, message }
}

/// Peers that select pods of which there are none. Blocks are not expected to hold pods.
fn peers(
    cluster: &Cluster<'_>,
    policy: &NetworkPolicy,
    direction: Direction,
    path: &str,
    rule: &Rule,
    warnings: &mut Vec<PolicyWarning>,
) {
    let list = match direction {
        Direction::Egress => "to",
        Direction::Ingress => "from",
    };
    for (index, peer) in words::peers(&rule.peers).iter().enumerate() {
        if matches!(peer, Peer::Pods { .. }) && !cluster.matches_any(policy, peer) {
            let message = format!("no pod matches: there are no {}", words::peer(peer));
            warnings.push(warning("peer-matches-nothing", format!("{path}.{list}[{index}]"), message));
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
