//! Pure: where a relay finds the flows of each node.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use flows::observer::PeerNode;
use policy::model::Node;

/// What stands behind node and cluster in the names that the Hubble API's clients expect in certificates: the relay
/// verifies each node's by `NODE.CLUSTER.hubble-grpc.cilium.io`.
const SERVER_DOMAIN: &str = "hubble-grpc.cilium.io";

/// The name in a node's certificate. Dots in names would be levels of their own, which a certificate for
/// `*.CLUSTER.hubble-grpc.cilium.io` does not cover.
pub fn server_name(node: &str, cluster: &str) -> String {
    let label = |name: &str| name.to_lowercase().replace('.', "-");
    format!("{}.{}.{SERVER_DOMAIN}", label(node), label(cluster))
}

/// How this node is told of.
#[derive(Clone, Copy, Debug)]
pub struct Manner<'a> {
    /// The cluster's name.
    pub cluster: &'a str,
    /// Every node listens at the same port.
    pub port: u16,
    /// Whether they do it with TLS.
    pub tls: bool,
}

impl Manner<'_> {
    fn peer(&self, node: &str, ip: IpAddr) -> PeerNode {
        let server_name = self.tls.then(|| server_name(node, self.cluster));
        PeerNode { address: SocketAddr::new(ip, self.port).to_string(), server_name }
    }
}

/// This node alone, for who has no cluster around.
pub fn myself(node: &str, ip: IpAddr, manner: Manner<'_>) -> BTreeMap<String, PeerNode> {
    BTreeMap::from([(node.to_owned(), manner.peer(node, ip))])
}

/// All nodes that have an address.
pub fn of_nodes<'a>(nodes: impl IntoIterator<Item = &'a Node>, manner: Manner<'_>) -> BTreeMap<String, PeerNode> {
    let reached = nodes.into_iter().filter_map(|node| {
        let ip = node.internal_ips.first().or_else(|| node.ips.first())?;
        Some((node.name.clone(), manner.peer(&node.name, *ip)))
    });
    reached.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_for_all_nodes_of_a_cluster_covers_each() {
        assert_eq!(server_name("Node-1.example", "prod.eu"), "node-1-example.prod-eu.hubble-grpc.cilium.io");
    }

    #[test]
    fn nodes_are_reached_at_what_they_call_their_internal_address() {
        let node = |name: &str, ips: &[&str], internal: &[&str]| {
            let parsed = |all: &[&str]| all.iter().map(|ip| ip.parse().unwrap()).collect();
            Node { name: name.to_owned(), ips: parsed(ips), internal_ips: parsed(internal), ..Node::default() }
        };
        let nodes =
            [node("a", &["192.0.2.1", "10.0.0.1"], &["10.0.0.1"]), node("b", &["fd00::2"], &[]), node("c", &[], &[])];
        let found = of_nodes(&nodes, Manner { cluster: "default", port: 4244, tls: true });
        let told: Vec<_> = found.iter().map(|(name, peer)| (name.as_str(), peer.address.as_str())).collect();
        assert_eq!(told, [("a", "10.0.0.1:4244"), ("b", "[fd00::2]:4244")]);
        assert_eq!(found["a"].server_name.as_deref(), Some("a.default.hubble-grpc.cilium.io"));
        assert!(of_nodes(&nodes, Manner { cluster: "default", port: 4244, tls: false })["a"].server_name.is_none());
    }
}
