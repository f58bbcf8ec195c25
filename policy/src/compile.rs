//! One pod and one direction -> the rules that hold for it, in the API's terms.
//!
//! A [`RuleTable`] names selectors, not the pods they select today, so it changes only when
//! policies or the pod itself do, and pods under the same policies have equal tables. Knows
//! nothing of maps.

mod digest;
mod table;

use std::collections::HashMap;
use std::sync::Arc;

use datapath_abi::policy::Direction;

use crate::index::{Index, View};
use crate::model::{
    Action, ClusterNetworkPolicy, ClusterRule, ContainerPort, Few, NamespaceScope, NetworkPolicy, Peer, Peers, Pod,
    PodKey, Port, PortRange, PortSpec, Ports, Precedence, Rule, Tier,
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
    Ruling::of(index, pod, direction, view).table(pod, direction)
}

/// The policies that have a say in one direction of a pod.
#[derive(Debug)]
struct Ruling<'a> {
    /// In the order in which they are asked.
    admin: Vec<&'a ClusterNetworkPolicy>,
    network: Vec<&'a NetworkPolicy>,
    /// The same; nobody if `network` is somebody.
    baseline: Vec<&'a ClusterNetworkPolicy>,
}

impl<'a> Ruling<'a> {
    fn of(index: &'a Index, pod: &'a Pod, direction: Direction, view: View) -> Self {
        let admin = index.ruling(pod, Tier::Admin, direction, view);
        let network: Vec<_> = index.isolating(pod, direction, view).collect();
        let isolated = !network.is_empty();
        let baseline = if isolated { Vec::new() } else { index.ruling(pod, Tier::Baseline, direction, view) };
        Self { admin, network, baseline }
    }

    fn table(&self, pod: &Pod, direction: Direction) -> RuleTable {
        let mut table = RuleTable::open(direction);
        let admin = cluster_rules(&self.admin, direction);
        let above = usize::from(Precedence::NETWORK_POLICY.0) + admin.len();
        for (place, (rule_ref, rule)) in admin.into_iter().enumerate() {
            table.rules.push(table_rule(rule_ref, rule, direction, pod, Precedence::clamped(above - place)));
        }
        for policy in &self.network {
            table.isolated_by.push(policy.policy_ref());
            add_rules(&mut table, policy, pod);
        }
        table.isolated_by.sort_unstable();
        let below = usize::from(Precedence::NETWORK_POLICY.0) - 1;
        for (place, (rule_ref, rule)) in cluster_rules(&self.baseline, direction).into_iter().enumerate() {
            let precedence = Precedence::clamped(below.saturating_sub(place));
            table.rules.push(table_rule(rule_ref, rule, direction, pod, precedence));
        }
        table.rules.sort_by(TableRule::rank);
        table
    }

    /// Where the policies lie in memory, which names them as long as the index is borrowed.
    fn places(&self) -> Vec<usize> {
        let cluster = |policies: &[&ClusterNetworkPolicy]| -> Vec<usize> {
            policies.iter().map(|policy| std::ptr::from_ref(*policy).addr()).collect()
        };
        let network = self.network.iter().map(|policy| std::ptr::from_ref(*policy).addr());
        [cluster(&self.admin), network.collect(), cluster(&self.baseline)].concat()
    }
}

/// A table with its digest, shared by all who have the same.
pub type Shared = ([u8; 16], Arc<RuleTable>);

/// Compiles many pods: those under the same policies, which is most of them, get the table that the first of
/// them got.
#[derive(Debug)]
pub struct Compiler<'a> {
    index: &'a Index,
    known: HashMap<Question<'a>, Shared>,
}

/// All that a table depends on.
#[derive(PartialEq, Eq, Hash, Debug)]
struct Question<'a> {
    direction: Direction,
    /// See [`Ruling::places`].
    policies: Vec<usize>,
    /// For ingress: the subject's ports, for which the policies may have names.
    ports: Option<&'a Few<ContainerPort>>,
}

impl<'a> Compiler<'a> {
    /// For the objects as they are now.
    pub fn new(index: &'a Index) -> Self {
        Self { index, known: HashMap::new() }
    }

    /// What [`compile`] says.
    pub fn compile(&mut self, pod: &PodKey, direction: Direction) -> Shared {
        self.share(pod, direction, View::Enforced)
    }

    /// What [`compile_staged`] says.
    pub fn compile_staged(&mut self, pod: &PodKey, direction: Direction) -> Option<Shared> {
        let unknown = Pod::new(pod.clone());
        let touched = self.index.is_touched_by_staged(self.index.pod(pod).unwrap_or(&unknown), direction);
        touched.then(|| self.share(pod, direction, View::WithStaged))
    }

    fn share(&mut self, pod: &PodKey, direction: Direction, view: View) -> Shared {
        let Some(pod) = self.index.pod(pod) else {
            let table = compile_pod(self.index, &Pod::new(pod.clone()), direction, view);
            return (table.digest(), Arc::new(table));
        };
        let ruling = Ruling::of(self.index, pod, direction, view);
        let ports = (direction == Direction::Ingress).then_some(&pod.ports);
        let question = Question { direction, policies: ruling.places(), ports };
        let table = || {
            let table = ruling.table(pod, direction);
            (table.digest(), Arc::new(table))
        };
        self.known.entry(question).or_insert_with(table).clone()
    }
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
