//! The other nodes of the cluster: how their pods are reached, and what this node's pods send there with their
//! own address. Follows the Node objects; what the kernel has is compared and only the difference written.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use ipnetwork::IpNetwork;
use policy::model;
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::run::stopped;
use crate::net::{
    Node, masquerade,
    masquerade::Masquerade,
    node_route::{self, NodeRoute},
};

/// Pause before what the kernel refused is tried again: the link to a node may come later.
const RETRY: Duration = Duration::from_secs(5);

/// The nodes of the cluster, by name.
pub(super) type Nodes = BTreeMap<String, model::Node>;

/// What there is to keep up to date.
#[derive(Debug)]
pub(super) struct Neighbours {
    node: Node,
    /// This node's name.
    own: String,
    /// As it is without other nodes; `None`: no masquerade.
    masquerade: Option<Masquerade>,
    /// What the table keeps now.
    kept: Option<BTreeSet<IpNetwork>>,
}

impl Neighbours {
    pub(super) fn new(node: Node, own: String, masquerade: Option<Masquerade>) -> Self {
        Self { node, own, masquerade, kept: None }
    }

    /// Follows the nodes until told to stop. Routes stay when it ends: pods go on.
    pub(super) async fn follow(mut self, mut nodes: watch::Receiver<Option<Nodes>>, mut stop: watch::Receiver<bool>) {
        loop {
            let known = nodes.borrow_and_update().clone();
            let mut again = None;
            if let Some(known) = known
                && !self.settle(&known).await
            {
                again = Some(RETRY);
            }
            tokio::select! {
                changed = nodes.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(again.unwrap_or_default()), if again.is_some() => {}
                () = stopped(&mut stop) => return,
            }
        }
    }

    /// Brings the kernel up to date. False if something is to be tried again.
    async fn settle(&mut self, nodes: &Nodes) -> bool {
        let mut good = true;
        let ranges: BTreeSet<IpNetwork> = nodes.values().flat_map(|node| &node.pod_ranges).copied().collect();
        if let Some(masquerade) = &self.masquerade
            && self.kept.as_ref() != Some(&ranges)
        {
            let wanted =
                Masquerade { keep: masquerade.keep.iter().chain(&ranges).copied().collect(), ..masquerade.clone() };
            match masquerade::install(&self.node, &wanted).await {
                Ok(()) => self.kept = Some(ranges),
                Err(problem) => {
                    error!(error = %problem, "Masquerade could not be brought up to date");
                    good = false;
                }
            }
        }
        let (wanted, unreachable) = routes(nodes, &self.own);
        for (node, range) in unreachable {
            warn!(%node, %range, "No route to the pods of a node: it has no InternalIP of that family");
        }
        let found: BTreeSet<NodeRoute> = match node_route::list(&self.node).await {
            Ok(found) => found.into_iter().collect(),
            Err(problem) => {
                error!(error = %problem, "Routes could not be read");
                return false;
            }
        };
        // New before old: `set` replaces the route of a range, and then there is nothing to remove.
        for route in wanted.difference(&found) {
            match node_route::set(&self.node, *route).await {
                Ok(()) => info!(range = %route.range, gateway = %route.gateway, "Route to pods set"),
                Err(problem) => {
                    error!(error = %problem, "Pods of a node cannot be reached: is it on the same network?");
                    good = false;
                }
            }
        }
        let ranges: BTreeSet<IpNetwork> = wanted.iter().map(|route| route.range).collect();
        for route in found.difference(&wanted).filter(|route| !ranges.contains(&route.range)) {
            match node_route::remove(&self.node, *route).await {
                Ok(()) => info!(range = %route.range, "Route to pods removed"),
                Err(problem) => {
                    error!(error = %problem, "A route to pods could not be removed");
                    good = false;
                }
            }
        }
        good
    }
}

/// The routes there should be, and ranges to which there can be none, with their node.
fn routes<'a>(nodes: &'a Nodes, own: &str) -> (BTreeSet<NodeRoute>, Vec<(&'a str, IpNetwork)>) {
    let (mut routes, mut unreachable) = (BTreeMap::new(), Vec::new());
    for node in nodes.values().filter(|node| node.name != own) {
        for &range in &node.pod_ranges {
            let gateway = node.internal_ips.iter().copied().find(|ip: &IpAddr| ip.is_ipv4() == range.is_ipv4());
            match gateway {
                // A node object that was left behind may name a range that another has now: the later name wins,
                // on every node alike.
                Some(gateway) => drop(routes.insert(range, gateway)),
                None => unreachable.push((node.name.as_str(), range)),
            }
        }
    }
    // Our own pods are here, whatever another object says.
    for range in nodes.get(own).into_iter().flat_map(|node| &node.pod_ranges) {
        routes.remove(range);
    }
    (routes.into_iter().map(|(range, gateway)| NodeRoute { range, gateway }).collect(), unreachable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, ips: &[&str], ranges: &[&str]) -> (String, model::Node) {
        let internal_ips = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        let pod_ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
        (name.to_owned(), model::Node { name: name.to_owned(), internal_ips, pod_ranges, ..model::Node::default() })
    }

    #[test]
    fn each_range_of_another_node_has_a_route_by_way_of_its_address_of_that_family() {
        let nodes = Nodes::from([
            node("n1", &["172.31.0.11", "fd31::11"], &["10.244.0.0/24", "fd00:1::/64"]),
            node("n2", &["172.31.0.12", "fd31::12"], &["10.244.1.0/24", "fd00:2::/64", "10.250.0.0/24"]),
            node("n3", &["172.31.0.13"], &["10.244.2.0/24", "fd00:3::/64"]),
            node("new", &[], &[]),
        ]);
        let (found, unreachable) = routes(&nodes, "n1");
        let text: Vec<String> = found.iter().map(|route| format!("{} {}", route.range, route.gateway)).collect();
        assert_eq!(
            text,
            [
                "10.244.1.0/24 172.31.0.12",
                "10.244.2.0/24 172.31.0.13",
                "10.250.0.0/24 172.31.0.12",
                "fd00:2::/64 fd31::12"
            ]
        );
        assert_eq!(unreachable, [("n3", "fd00:3::/64".parse().unwrap())]);
    }

    #[test]
    fn nobody_takes_this_nodes_range() {
        let nodes = Nodes::from([
            node("n1", &["172.31.0.11"], &["10.244.0.0/24"]),
            node("left-behind", &["172.31.0.99"], &["10.244.0.0/24"]),
        ]);
        assert!(routes(&nodes, "n1").0.is_empty());
    }
}
