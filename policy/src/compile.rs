//! One pod and one direction -> the rules that hold for it, in the API's terms.
//!
//! A [`RuleTable`] names selectors, not the pods they select today, so it changes only when
//! policies or the pod itself do, and pods under the same policies have equal tables. Knows
//! nothing of maps.

mod digest;
mod table;

use datapath_abi::policy::Direction;

use crate::index::{Index, View};
use crate::model::{
    Action, ClusterNetworkPolicy, ClusterRule, NamespaceScope, NetworkPolicy, Peer, Peers, Pod, PodKey, Port,
    PortRange, PortSpec, Ports, Precedence, Rule, Tier,
};

pub use table::{PodMatch, RuleRef, RuleTable, TableNamespaces, TablePeers, TablePorts, TableRule};

/// The rules of a pod for one direction, as they are enforced.
///
/// A pod that the index does not know counts as one without labels, addresses and ports: the
/// empty podSelector of its namespace still selects it. A hostNetwork pod is never isolated.
pub fn compile(index: &Index, pod: &PodKey, direction: Direction) -> RuleTable {
    match index.pod(pod) {
        Some(pod) => compile_pod(index, pod, direction, View::Enforced),
        None => compile_pod(index, &Pod::new(pod.clone()), direction, View::Enforced),
    }
}

/// What the rules would be if the staged policies were enforced. `None` if none of those has a say in
/// this direction of the pod.
pub fn compile_staged(index: &Index, pod: &PodKey, direction: Direction) -> Option<RuleTable> {
    let unknown = Pod::new(pod.clone());
    let pod = index.pod(pod).unwrap_or(&unknown);
    let touched = index.is_touched_by_staged(pod, direction);
    touched.then(|| compile_pod(index, pod, direction, View::WithStaged))
}

/// The rules of a pod that need not be in the index.
///
/// Rules stand in the order in which they are asked: those of the Admin tier by priority; then those of
/// NetworkPolicy, or, if none isolates the pod, those of the Baseline tier. What NetworkPolicy isolates
/// never gets as far as Baseline, so those rules are not in its table.
pub fn compile_pod(index: &Index, pod: &Pod, direction: Direction, view: View) -> RuleTable {
    let mut table = RuleTable::open(direction);
    let admin = cluster_rules(&index.ruling(pod, Tier::Admin, direction, view), direction);
    let above = usize::from(Precedence::NETWORK_POLICY.0) + admin.len();
    for (place, (rule_ref, rule)) in admin.into_iter().enumerate() {
        table.rules.push(table_rule(rule_ref, rule, direction, pod, Precedence::clamped(above - place)));
    }
    for policy in index.isolating(pod, direction, view) {
        table.isolated_by.push(policy.policy_ref());
        add_rules(&mut table, policy, pod);
    }
    table.isolated_by.sort_unstable();
    if table.isolated_by.is_empty() {
        let below = usize::from(Precedence::NETWORK_POLICY.0) - 1;
        let baseline = cluster_rules(&index.ruling(pod, Tier::Baseline, direction, view), direction);
        for (place, (rule_ref, rule)) in baseline.into_iter().enumerate() {
            let precedence = Precedence::clamped(below.saturating_sub(place));
            table.rules.push(table_rule(rule_ref, rule, direction, pod, precedence));
        }
    }
    table.rules.sort_by(TableRule::rank);
    table
}

/// The rules of these policies, one after the other.
fn cluster_rules<'a>(policies: &[&'a ClusterNetworkPolicy], direction: Direction) -> Vec<(RuleRef, &'a ClusterRule)> {
    let rules = policies.iter().flat_map(|policy| {
        let numbered = (0u32..).zip(policy.rules(direction));
        numbered.map(|(index, rule)| (RuleRef { policy: policy.policy_ref(), direction, index }, rule))
    });
    rules.collect()
}

fn table_rule(
    rule_ref: RuleRef,
    rule: &ClusterRule,
    direction: Direction,
    subject: &Pod,
    precedence: Precedence,
) -> TableRule {
    if rule.fails_closed() {
        let (peers, ports) = (TablePeers::Anyone, TablePorts::All);
        return TableRule { rule: rule_ref, precedence, action: Action::Deny, peers, ports };
    }
    let ClusterRule { name: _, action, rule: Rule { peers, ports } } = rule;
    TableRule {
        rule: rule_ref,
        precedence,
        action: *action,
        peers: table_peers("", peers),
        ports: table_ports(ports, direction, subject),
    }
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
    let (mut pods, mut blocks, mut nodes) = (Vec::new(), Vec::new(), Vec::new());
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
            Peer::Nodes(selector) => nodes.push(selector.clone()),
            // Nothing yet: see ClusterRule::fails_closed.
            Peer::Domains(_) => {}
        }
    }
    pods.sort_unstable();
    pods.dedup();
    blocks.sort_unstable();
    blocks.dedup();
    nodes.sort_unstable();
    nodes.dedup();
    TablePeers::These { pods, blocks, nodes }
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
