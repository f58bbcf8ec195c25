//! Makes a scenario small: drops steps, objects, rules, peers, ports and labels for as long as the same side
//! still stands alone.

use std::time::{Duration, Instant};

use policy::{
    model::{
        ClusterNetworkPolicy, ClusterRule, IpBlock, Labels, Namespace, NamespaceScope, NetworkPolicy, Node, Object,
        Peer, Peers, Pod, Ports, Rule, Subject,
    },
    selector::Selector,
};

use crate::scenario::{Packet, Part, Scenario, Step};

/// The smallest scenario for which `fails` still holds, as far as it is found within `patience`.
pub fn shrink(mut scenario: Scenario, patience: Duration, mut fails: impl FnMut(&Scenario) -> bool) -> Scenario {
    let began = Instant::now();
    let mut fails = |candidate: &Scenario| began.elapsed() < patience && fails(candidate);
    loop {
        let before = scenario.clone();
        drop_steps(&mut scenario, &mut fails);
        for at in (0..scenario.locals.len()).rev() {
            // The rest keep their places: a pod without addresses takes no part.
            let mut candidate = scenario.clone();
            candidate.locals[at].ips.clear();
            if candidate != scenario && fails(&candidate) {
                scenario = candidate;
            }
        }
        while let Some(last) = scenario.locals.last() {
            let mut candidate = scenario.clone();
            if !last.ips.is_empty() || candidate.locals.pop().is_none() || !fails(&candidate) {
                break;
            }
            scenario = candidate;
        }
        for at in 0..scenario.steps.len() {
            lessen(&mut scenario, at, &mut fails);
        }
        if scenario == before || began.elapsed() >= patience {
            return scenario;
        }
    }
}

/// Drops steps: half of them, then quarters, down to single ones.
fn drop_steps(scenario: &mut Scenario, fails: &mut impl FnMut(&Scenario) -> bool) {
    let mut size = scenario.steps.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        while at < scenario.steps.len() {
            let end = (at + size).min(scenario.steps.len());
            let mut candidate = scenario.clone();
            candidate.steps.drain(at..end);
            if fails(&candidate) {
                *scenario = candidate;
            } else {
                at = end;
            }
        }
        size /= 2;
    }
}

/// Takes things out of one step, one after the other.
fn lessen(scenario: &mut Scenario, at: usize, fails: &mut impl FnMut(&Scenario) -> bool) {
    'again: loop {
        let lesser = match &scenario.steps[at] {
            Step::Apply(object) => lesser_objects(object).into_iter().map(Step::Apply).collect(),
            Step::Send(packet) => lesser_packets(packet).into_iter().map(Step::Send).collect(),
            _ => Vec::new(),
        };
        for step in lesser {
            let mut candidate = scenario.clone();
            candidate.steps[at] = step;
            if fails(&candidate) {
                *scenario = candidate;
                continue 'again;
            }
        }
        return;
    }
}

/// The packet by the usual way, and in one.
fn lesser_packets(packet: &Packet) -> Vec<Packet> {
    let direct = packet.round.then(|| Packet { round: false, ..packet.clone() });
    let whole = matches!(packet.part, Part::First(_)).then(|| Packet { part: Part::Whole, ..packet.clone() });
    direct.into_iter().chain(whole).collect()
}

/// The object with one thing less.
fn lesser_objects(object: &Object) -> Vec<Object> {
    match object {
        Object::Namespace(namespace) => lesser_labels(namespace.labels())
            .into_iter()
            .map(|labels| Namespace::new(namespace.name(), labels).into())
            .collect(),
        Object::Pod(pod) => lesser_pods(pod).into_iter().map(Object::from).collect(),
        Object::Node(node) => {
            let labels = lesser_labels(&node.labels).into_iter().map(|labels| Node { labels, ..node.clone() });
            let ips = node.ips.iter().map(|gone| {
                let ips = node.ips.iter().copied().filter(|ip| ip != gone).collect();
                Node { ips, ..node.clone() }
            });
            labels.chain(ips).map(Object::from).collect()
        }
        Object::Service(_) | Object::EndpointSlice(_) => Vec::new(),
        Object::NetworkPolicy(policy) => lesser_policies(policy).into_iter().map(Object::from).collect(),
        Object::ClusterNetworkPolicy(policy) => lesser_cluster_policies(policy).into_iter().map(Object::from).collect(),
    }
}

fn lesser_labels(labels: &Labels) -> Vec<Labels> {
    labels.iter().map(|(gone, _)| labels.filtered(|key| key != gone)).collect()
}

fn lesser_pods(pod: &Pod) -> Vec<Pod> {
    let mut lesser: Vec<Pod> =
        lesser_labels(&pod.labels).into_iter().map(|labels| Pod { labels, ..pod.clone() }).collect();
    for ip in &pod.ips {
        let ips = pod.ips.iter().copied().filter(|other| other != ip).collect();
        lesser.push(Pod { ips, ..pod.clone() });
    }
    for port in &pod.ports {
        let ports = pod.ports.iter().filter(|other| *other != port).cloned().collect();
        lesser.push(Pod { ports, ..pod.clone() });
    }
    if pod.service_account != "default" {
        lesser.push(Pod { service_account: "default".to_owned(), ..pod.clone() });
    }
    lesser
}

fn lesser_policies(policy: &NetworkPolicy) -> Vec<NetworkPolicy> {
    let enforced = policy.staged.then(|| NetworkPolicy { staged: false, ..policy.clone() });
    let mut lesser: Vec<NetworkPolicy> = lesser_selectors(&policy.pod_selector)
        .into_iter()
        .map(|pod_selector| NetworkPolicy { pod_selector, ..policy.clone() })
        .chain(enforced)
        .collect();
    if let Some(rules) = &policy.ingress {
        let lists = std::iter::once(None).chain(lesser_rule_lists(rules).into_iter().map(Some));
        lesser.extend(lists.map(|ingress| NetworkPolicy { ingress, ..policy.clone() }));
    }
    if let Some(rules) = &policy.egress {
        let lists = std::iter::once(None).chain(lesser_rule_lists(rules).into_iter().map(Some));
        lesser.extend(lists.map(|egress| NetworkPolicy { egress, ..policy.clone() }));
    }
    lesser
}

fn lesser_cluster_policies(policy: &ClusterNetworkPolicy) -> Vec<ClusterNetworkPolicy> {
    let lesser_rule = |rule: &ClusterRule| {
        let lesser = lesser_rules(&rule.rule).into_iter();
        // A ClusterNetworkPolicy cannot say "anyone".
        let lesser = lesser.filter(|rule| !matches!(rule.peers, Peers::Anyone));
        lesser.map(|less| ClusterRule { rule: less, ..rule.clone() }).collect()
    };
    let mut lesser = Vec::new();
    lesser.extend(policy.staged.then(|| ClusterNetworkPolicy { staged: false, ..policy.clone() }));
    for ingress in lesser_lists(&policy.ingress, lesser_rule) {
        lesser.push(ClusterNetworkPolicy { ingress, ..policy.clone() });
    }
    for egress in lesser_lists(&policy.egress, lesser_rule) {
        lesser.push(ClusterNetworkPolicy { egress, ..policy.clone() });
    }
    for pods in lesser_selectors(&policy.subject.pods) {
        let subject = Subject { pods, ..policy.subject.clone() };
        lesser.push(ClusterNetworkPolicy { subject, ..policy.clone() });
    }
    for namespaces in lesser_selectors(&policy.subject.namespaces) {
        let subject = Subject { namespaces, ..policy.subject.clone() };
        lesser.push(ClusterNetworkPolicy { subject, ..policy.clone() });
    }
    lesser
}

/// A list with one item less, or one item less of it.
fn lesser_lists<T: Clone>(list: &[T], lesser: impl Fn(&T) -> Vec<T>) -> Vec<Vec<T>> {
    let without = (0..list.len()).map(|at| [&list[..at], &list[at + 1..]].concat());
    let with_less = (0..list.len()).flat_map(|at| {
        let replaced = |item| {
            let mut list = list.to_vec();
            list[at] = item;
            list
        };
        lesser(&list[at]).into_iter().map(replaced).collect::<Vec<_>>()
    });
    without.chain(with_less).collect()
}

fn lesser_rule_lists(rules: &[Rule]) -> Vec<Vec<Rule>> {
    lesser_lists(rules, lesser_rules)
}

fn lesser_rules(rule: &Rule) -> Vec<Rule> {
    let mut lesser = Vec::new();
    if let Peers::These(peers) = &rule.peers {
        let lists = lesser_lists(peers, lesser_peers);
        lesser.extend(lists.into_iter().map(|peers| Rule { peers: peers.into(), ports: rule.ports.clone() }));
    }
    if let Ports::These(ports) = &rule.ports {
        let lists = lesser_lists(ports, |_| Vec::new());
        lesser.extend(lists.into_iter().map(|ports| Rule { peers: rule.peers.clone(), ports: ports.into() }));
    }
    lesser
}

fn lesser_peers(peer: &Peer) -> Vec<Peer> {
    match peer {
        Peer::Pods { namespaces, pods } => {
            let mut lesser: Vec<Peer> = lesser_selectors(pods)
                .into_iter()
                .map(|pods| Peer::Pods { namespaces: namespaces.clone(), pods })
                .collect();
            if let NamespaceScope::Matching(selector) = namespaces {
                lesser.extend(
                    lesser_selectors(selector).into_iter().map(|selector| Peer::Pods {
                        namespaces: NamespaceScope::Matching(selector),
                        pods: pods.clone(),
                    }),
                );
            }
            lesser
        }
        Peer::Block(block) => {
            let lists = lesser_lists(block.except(), |_| Vec::new());
            lists.into_iter().filter_map(|holes| IpBlock::new(block.cidr(), holes).ok().map(Peer::Block)).collect()
        }
        Peer::Nodes(nodes) => lesser_selectors(nodes).into_iter().map(Peer::Nodes).collect(),
        Peer::Domains(_) => Vec::new(),
    }
}

fn lesser_selectors(selector: &Selector) -> Vec<Selector> {
    lesser_lists(selector.requirements(), |_| Vec::new()).into_iter().map(Selector::new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text;

    #[test]
    fn what_does_not_matter_goes() {
        let scenario = text::parse(
            "local a/x 10.0.0.1
             local a/y 10.0.0.2 fd00::2
             local a/z 10.0.0.3
             namespace b team=x
             pod a/y app=web tier=x ip=10.0.0.2 ip=fd00::2 port=web:TCP:80
             policy a/p {app=web, tier=x}
               ingress from {app=x, tier} in {team=a} or 10.0.0.0/8 except 10.0.0.1/32 ports TCP/80, UDP/53
               ingress from anyone
               egress none
             restart
             send TCP 10.0.0.1:1 10.0.0.2:80 flags=2
             send TCP 10.0.0.1:1 10.0.0.2:80 flags=16 round
             collect",
        )
        .unwrap();
        // A bug that needs a policy with a block, and a second packet.
        let fails = |scenario: &Scenario| {
            let text = scenario.to_string();
            text.contains("10.0.0.0/8") && text.contains("flags=16")
        };
        let small = shrink(scenario, Duration::from_secs(60), fails);
        let wanted = "policy a/p {}\n  ingress from 10.0.0.0/8\nsend TCP 10.0.0.1:1 10.0.0.2:80 flags=16\n";
        assert_eq!(small.to_string(), wanted);
    }
}
