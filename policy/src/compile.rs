//! One pod and one direction -> the rules that hold for it, in the API's terms.
//!
//! A [`RuleTable`] names selectors, not the pods they select today, so it changes only when
//! policies or the pod itself do, and pods under the same policies have equal tables. Knows
//! nothing of maps.

mod digest;
mod table;

use datapath_abi::policy::Direction;

use crate::index::Index;
use crate::model::{
    Action, NamespaceScope, NetworkPolicy, Peer, Peers, Pod, PodKey, Port, PortRange, PortSpec, Ports, Precedence,
};

pub use table::{PodMatch, RuleRef, RuleTable, TableNamespaces, TablePeers, TablePorts, TableRule};

/// The rules of a pod for one direction.
///
/// A pod that the index does not know counts as one without labels, addresses and ports: the
/// empty podSelector of its namespace still selects it. A hostNetwork pod is never isolated.
pub fn compile(index: &Index, pod: &PodKey, direction: Direction) -> RuleTable {
    match index.pod(pod) {
        Some(pod) => compile_pod(index, pod, direction),
        None => compile_pod(index, &Pod::new(pod.clone()), direction),
    }
}

/// The same for a pod that need not be in the index.
pub fn compile_pod(index: &Index, pod: &Pod, direction: Direction) -> RuleTable {
    let mut table = RuleTable { direction, isolated_by: Vec::new(), rules: Vec::new() };
    for policy in index.isolating(pod, direction) {
        table.isolated_by.push(policy.policy_ref());
        add_rules(&mut table, policy, pod);
    }
    table.isolated_by.sort_unstable();
    table.rules.sort_by(TableRule::rank);
    table
}

fn add_rules(table: &mut RuleTable, policy: &NetworkPolicy, pod: &Pod) {
    let direction = table.direction;
    let rules = policy.rules(direction).into_iter().flatten();
    for (index, rule) in (0u32..).zip(rules) {
        table.rules.push(TableRule {
            rule: RuleRef { policy: policy.policy_ref(), direction, index },
            precedence: Precedence::NETWORK_POLICY,
            action: Action::Allow,
            peers: table_peers(&policy.namespace, &rule.peers),
            ports: table_ports(&rule.ports, direction, pod),
        });
    }
}

fn table_peers(own: &str, peers: &Peers) -> TablePeers {
    let Peers::These(peers) = peers else { return TablePeers::Anyone };
    let (mut pods, mut blocks) = (Vec::new(), Vec::new());
    for peer in peers {
        match peer {
            Peer::Pods { namespaces, pods: selector } => pods.push(PodMatch {
                namespaces: match namespaces {
                    NamespaceScope::Own => TableNamespaces::Named(own.to_owned()),
                    NamespaceScope::Matching(namespaces) => TableNamespaces::Matching(namespaces.clone()),
                },
                pods: selector.clone(),
            }),
            Peer::Block(block) => blocks.push(block.clone()),
        }
    }
    pods.sort_unstable();
    pods.dedup();
    blocks.sort_unstable();
    blocks.dedup();
    TablePeers::These { pods, blocks }
}

/// Names of ingress ports are the subject's own and resolved here; names of egress ports are the
/// peers' and stay names.
fn table_ports(ports: &Ports, direction: Direction, subject: &Pod) -> TablePorts {
    let Ports::These(ports) = ports else { return TablePorts::All };
    let (mut ranges, mut named) = (Vec::new(), Vec::new());
    for Port { protocol, port } in ports {
        match (port, direction) {
            (PortSpec::Numbers(range), _) => ranges.push((*protocol, *range)),
            (PortSpec::Named(name), Direction::Ingress) => {
                let numbers = subject.named_port(*protocol, name);
                ranges.extend(numbers.map(|number| (*protocol, PortRange::single(number))));
            }
            (PortSpec::Named(name), Direction::Egress) => named.push((*protocol, name.clone())),
        }
    }
    ranges.sort_unstable();
    ranges.dedup();
    named.sort_unstable();
    named.dedup();
    TablePorts::These { ranges, named }
}
