//! The other nodes of the cluster: how their pods are reached, and what this node's pods send there with their
//! own address. Follows the Node objects; what the kernel has is compared and only the difference written.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    time::Duration,
};

use datapath_abi::overlay::Origin;
use ipnetwork::IpNetwork;
use policy::model;
use tokio::sync::watch;
use tracing::{error, info};

use super::{
    paths::{LEAST_V6, Paths},
    run::stopped,
};
use crate::{
    datapath::{attach, overlay as datapath},
    net::{
        NetError, Node, filter, masquerade,
        masquerade::Masquerade,
        node_route::{self, NodeRoute, Tunnel},
        overlay::{self, Family, Made, Protocol},
        route, uplink,
    },
};

/// Pause before what the kernel refused is tried again: the link to a node may come later.
const RETRY: Duration = Duration::from_secs(5);
/// Pause between two looks whether the overlay is as it should be.
const LOOK: Duration = Duration::from_secs(10);

/// The nodes of the cluster, by name.
pub(super) type Nodes = BTreeMap<String, model::Node>;

/// What there is to keep up to date.
pub(super) struct Neighbours {
    node: Node,
    /// This node's name.
    own: String,
    /// MTU of pods.
    mtu: u32,
    /// As it is without other nodes; `None`: no masquerade.
    masquerade: Option<Masquerade>,
    /// `None`: packets go as they are.
    overlay: Option<Overlay>,
    /// The programs at the overlay's device, and what they know.
    programs: datapath::Overlay,
    /// The device that this process has given its programs to.
    attached: Option<u32>,
    /// What the table keeps now.
    kept: Option<BTreeSet<IpNetwork>>,
    /// What the ways to other nodes carry.
    paths: Paths,
    /// What packets of pods are limited to, by the node's address, where the way carries less than they may have.
    limits: BTreeMap<IpAddr, u32>,
    /// Where what stands in the way is told, in words.
    obstacles: watch::Sender<Vec<String>>,
}

/// What this node brings to the overlay.
pub(super) struct Overlay {
    /// Its device.
    pub(super) device: overlay::Device,
    /// Sources of its own packets: addresses that lead back through the overlay, unlike those of its other links.
    pub(super) gateways: Vec<IpAddr>,
}

impl fmt::Debug for Overlay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Overlay").field("device", &self.device).finish_non_exhaustive()
    }
}

impl Overlay {
    fn source(&self, like: IpNetwork) -> Option<IpAddr> {
        self.gateways.iter().copied().find(|gateway| gateway.is_ipv4() == like.is_ipv4())
    }
}

/// What stands in the way of packets to pods of other nodes, as it is found.
#[derive(Default, Debug)]
struct Obstacles(Vec<String>);

impl Obstacles {
    fn add(&mut self, what: String) {
        self.0.push(what);
    }
}

impl Neighbours {
    pub(super) fn new(
        node: Node,
        own: String,
        mtu: u32,
        masquerade: Option<Masquerade>,
        overlay: Option<Overlay>,
        programs: datapath::Overlay,
        obstacles: watch::Sender<Vec<String>>,
    ) -> Self {
        let (paths, limits) = <(Paths, BTreeMap<_, _>)>::default();
        Self { node, own, mtu, masquerade, overlay, programs, attached: None, kept: None, paths, limits, obstacles }
    }

    /// Follows the nodes until told to stop. Routes stay when it ends: pods go on.
    pub(super) async fn follow(mut self, mut nodes: watch::Receiver<Option<Nodes>>, mut stop: watch::Receiver<bool>) {
        loop {
            let known = nodes.borrow_and_update().clone();
            let mut again = self.overlay.as_ref().map(|_| LOOK);
            if let Some(known) = known {
                let mut found = Obstacles::default();
                self.settle(&known, &mut found).await;
                if !found.0.is_empty() {
                    again = Some(RETRY);
                }
                self.tell(found);
            }
            tokio::select! {
                changed = nodes.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(again.unwrap_or_default()), if again.is_some() => {}
                () = stopped(&mut stop) => return,
            }
        }
    }

    /// Tells and logs what is new.
    fn tell(&self, Obstacles(found): Obstacles) {
        self.obstacles.send_if_modified(|told| {
            for obstacle in found.iter().filter(|obstacle| !told.contains(obstacle)) {
                error!(%obstacle, "Packets do not get to pods of other nodes as they should");
            }
            let news = *told != found;
            *told = found;
            news
        });
    }

    /// Brings the kernel up to date.
    async fn settle(&mut self, nodes: &Nodes, obstacles: &mut Obstacles) {
        self.keep_addresses(nodes, obstacles).await;
        let link = match self.device().await {
            Ok(link) => link,
            Err(problem) => return obstacles.add(format!("the overlay's device: {problem}")),
        };
        let (ways, unreachable) = ways(nodes, &self.own, self.overlay.is_some());
        for (node, range) in unreachable {
            let wanted = if self.overlay.is_some() { "that this node could reach" } else { "of that family" };
            obstacles.add(format!("node {node} has {range} and no InternalIP {wanted}"));
        }
        self.limits = self.measure(&ways, obstacles).await;
        let origins = link.map_or_else(BTreeMap::new, |ifindex| origins(nodes, &ways, ifindex));
        if let Err(problem) = self.programs.tell(&origins) {
            obstacles.add(format!("where other nodes' pods are could not be told to the programs: {problem}"));
        }
        let wanted = match self.overlay.as_ref().zip(link) {
            Some((overlay, ifindex)) => self.tunnels(nodes, &ways, overlay, ifindex, obstacles).await,
            None => ways.iter().map(|(range, way)| NodeRoute::direct(*range, way.ip)).collect(),
        };
        let found: BTreeSet<NodeRoute> = match node_route::list(&self.node).await {
            Ok(found) => found.into_iter().collect(),
            Err(problem) => return obstacles.add(format!("routes cannot be read: {problem}")),
        };
        // New before old: `set` replaces the route of a range, and then there is nothing to remove.
        for route in wanted.difference(&found) {
            match node_route::set(&self.node, *route).await {
                Ok(()) => info!(range = %route.range, gateway = %route.gateway, "Route to pods set"),
                Err(problem) => obstacles.add(format!("{problem}: is the node on the same network?")),
            }
        }
        let ranges: BTreeSet<IpNetwork> = wanted.iter().map(|route| route.range).collect();
        for route in found.difference(&wanted).filter(|route| !ranges.contains(&route.range)) {
            match node_route::remove(&self.node, *route).await {
                Ok(()) => info!(range = %route.range, "Route to pods removed"),
                Err(problem) => obstacles.add(format!("{problem}")),
            }
        }
        if let Err(problem) = self.remove_former().await {
            obstacles.add(format!("a device of another overlay: {problem}"));
        }
    }

    /// Removes what a predecessor has left that had another protocol or an overlay at all. Not before packets have
    /// another way: its routes go with it.
    async fn remove_former(&self) -> Result<(), NetError> {
        let wanted = self.overlay.as_ref().map(|overlay| overlay.device.protocol);
        for former in Protocol::ALL.into_iter().filter(|protocol| Some(*protocol) != wanted) {
            if overlay::exists(&self.node, former).await? {
                overlay::remove(&self.node, former).await?;
                let routing = wanted.map_or("native", Protocol::title);
                info!(link = former.link(), routing, "The device of a former overlay removed");
            }
        }
        Ok(())
    }

    /// The routes through the overlay; what is behind their next hops is told to the kernel.
    async fn tunnels(
        &self,
        nodes: &Nodes,
        ways: &BTreeMap<IpNetwork, Way<'_>>,
        overlay: &Overlay,
        ifindex: u32,
        obstacles: &mut Obstacles,
    ) -> BTreeSet<NodeRoute> {
        let mut locals = Vec::new();
        for &ip in nodes.get(&self.own).into_iter().flat_map(|node| &node.internal_ips) {
            // What it has not got, as behind a translation of addresses, cannot be a source.
            if route::is_own(self.node.netlink(), ip).await.unwrap_or_default() {
                locals.push(ip);
            }
        }
        let mut wanted = BTreeSet::new();
        for (&range, &Way { node, ip }) in ways {
            let mac = overlay::mac_of(node);
            let local = locals.iter().copied().find(|local| local.is_ipv4() == ip.is_ipv4());
            let hop_limit = overlay.device.protocol.hop_limit();
            let (source, mtu) = (overlay.source(range), self.limits.get(&ip).copied());
            let tunnel = Tunnel { remote: ip, local, ifindex, source, hop_limit, mtu };
            let route = NodeRoute::through(range, mac, tunnel);
            if let Err(problem) = node_route::set_neighbour(&self.node, route, mac).await {
                obstacles.add(format!("the device of node {node}: {problem}"));
            }
            wanted.insert(route);
        }
        wanted
    }

    /// Has what goes to other nodes' pods keep its source.
    async fn keep_addresses(&mut self, nodes: &Nodes, obstacles: &mut Obstacles) {
        let ranges: BTreeSet<IpNetwork> = nodes.values().flat_map(|node| &node.pod_ranges).copied().collect();
        let Some(masquerade) = &self.masquerade else { return };
        if self.kept.as_ref() == Some(&ranges) {
            return;
        }
        let wanted =
            Masquerade { keep: masquerade.keep.iter().chain(&ranges).copied().collect(), ..masquerade.clone() };
        match masquerade::install(&self.node, &wanted).await {
            Ok(()) => self.kept = Some(ranges),
            Err(problem) => obstacles.add(format!("masquerade could not be brought up to date: {problem}")),
        }
    }

    /// Looks whether the ways to other nodes carry what pods may send. Of those through the overlay which do not: how many
    /// bytes a packet of a pod may have, by the node's address. Those without are forwarded as they are, and routers tell
    /// the pods themselves.
    async fn measure(
        &mut self,
        ways: &BTreeMap<IpNetwork, Way<'_>>,
        obstacles: &mut Obstacles,
    ) -> BTreeMap<IpAddr, u32> {
        let ends: BTreeMap<IpAddr, &str> = ways.values().map(|way| (way.ip, way.node)).collect();
        self.paths.keep(|ip| ends.contains_key(ip));
        let mut limits = BTreeMap::new();
        for (ip, node) in ends {
            // Without a route there is nothing to measure; that there is none is said elsewhere, or packets say it.
            let Ok(Some(way)) = uplink::towards(&self.node, ip).await else { continue };
            let more = self.overlay.as_ref().map_or(0, |overlay| overlay.device.protocol.overhead(Family::of(ip)));
            let needed = self.mtu + more;
            if way.link_mtu < needed {
                obstacles.add(format!(
                    "{} towards node {node} carries {} bytes, and packets of pods have up to {needed}: set --mtu {}",
                    way.link,
                    way.link_mtu,
                    way.link_mtu.saturating_sub(more),
                ));
            }
            if self.overlay.is_none() {
                continue;
            }
            let limit = self.paths.note(ip, &way).saturating_sub(more);
            if limit >= self.mtu {
                continue;
            }
            limits.insert(ip, limit);
            if limit < LEAST_V6 && ways.iter().any(|(range, way)| way.ip == ip && range.is_ipv6()) {
                obstacles.add(format!(
                    "the way to node {node} carries {} bytes, {limit} in the overlay, and IPv6 wants {LEAST_V6}: \
                     only smaller packets of IPv6 get to its pods",
                    limit + more,
                ));
            }
        }
        for (node, limit) in limits.iter().filter(|(node, limit)| self.limits.get(node) != Some(limit)) {
            info!(%node, limit, "The way to a node carries less than pods may send: their packets to it are limited");
        }
        limits
    }

    /// Sees to the overlay's device: its index, or that there is none.
    async fn device(&mut self) -> Result<Option<u32>, DeviceError> {
        let Some(overlay) = &self.overlay else { return Ok(None) };
        let link = overlay.device.protocol.link();
        let Made { ifindex, is_up, changed } = overlay::ensure(&self.node, overlay.device).await?;
        let there = filter::present(&self.node, ifindex, attach::PRIORITY, attach::HANDLE).await?;
        if self.attached != Some(ifindex) || there != [true; 2] {
            self.programs.attach(link, ifindex)?;
            self.attached = Some(ifindex);
        }
        if !is_up {
            overlay::bring_up(&self.node, ifindex).await?;
        }
        if changed || !is_up {
            let overlay::Device { port, mtu, .. } = overlay.device;
            info!(link, port, mtu, "The overlay's device set");
        }
        Ok(Some(ifindex))
    }
}

/// Why the overlay's device is not as it should be.
#[derive(Debug, thiserror::Error)]
enum DeviceError {
    /// The kernel refused.
    #[error(transparent)]
    Net(#[from] NetError),
    /// Its programs could not be attached.
    #[error(transparent)]
    Programs(#[from] datapath::OverlayError),
}

/// From which node packets come that have an address for their source: a pod's from the node that has its range, and only
/// through the overlay; a node's own from itself.
fn origins(nodes: &Nodes, ways: &BTreeMap<IpNetwork, Way<'_>>, ifindex: u32) -> BTreeMap<IpNetwork, Origin> {
    let mut origins = BTreeMap::new();
    for Way { node, ip } in ways.values() {
        let own = nodes.get(*node).into_iter().flat_map(|node| &node.internal_ips);
        origins.extend(own.map(|&own| (own.into(), Origin { node: (*ip).into(), ifindex, flags: 0 })));
    }
    // Should a range be a single address, it is a pod's.
    let pods = |(&range, way): (&IpNetwork, &Way<'_>)| {
        (range, Origin { node: way.ip.into(), ifindex, flags: Origin::ONLY_THERE })
    };
    origins.extend(ways.iter().map(pods));
    origins
}

/// How a range is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Way<'a> {
    /// The node that has it.
    node: &'a str,
    /// That node's address.
    ip: IpAddr,
}

/// The ranges of other nodes, and those that cannot be reached, with their node. A tunnel carries either family by way
/// of either: of a node's addresses IPv4 if this node has one as well, unless it knows none of its own.
fn ways<'a>(nodes: &'a Nodes, own: &str, tunnel: bool) -> (BTreeMap<IpNetwork, Way<'a>>, Vec<(&'a str, IpNetwork)>) {
    let (mut ways, mut unreachable) = (BTreeMap::new(), Vec::new());
    let here = nodes.get(own).map(|node| &node.internal_ips).filter(|ips| !ips.is_empty());
    let reaches = |ip: &IpAddr| here.is_none_or(|here| here.iter().any(|own| own.is_ipv4() == ip.is_ipv4()));
    for node in nodes.values().filter(|node| node.name != own) {
        for &range in &node.pod_ranges {
            let mut ips = node.internal_ips.iter().copied();
            // They are in order, IPv4 first.
            let ip = if tunnel { ips.find(reaches) } else { ips.find(|ip| ip.is_ipv4() == range.is_ipv4()) };
            match ip {
                // A node object that was left behind may name a range that another has now: the later name wins,
                // on every node alike.
                Some(ip) => drop(ways.insert(range, Way { node: &node.name, ip })),
                None => unreachable.push((node.name.as_str(), range)),
            }
        }
    }
    // Our own pods are here, whatever another object says.
    for range in nodes.get(own).into_iter().flat_map(|node| &node.pod_ranges) {
        ways.remove(range);
    }
    (ways, unreachable)
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
        let (found, unreachable) = ways(&nodes, "n1", false);
        let text: Vec<String> = found.iter().map(|(range, way)| format!("{range} {}", way.ip)).collect();
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
        assert!(ways(&nodes, "n1", false).0.is_empty());
    }

    #[test]
    fn packets_come_from_the_node_that_has_their_source() {
        let nodes = Nodes::from([
            node("n1", &["172.31.0.11"], &["10.244.0.0/24"]),
            node("n2", &["172.31.0.12", "fd31::12"], &["10.244.1.0/24", "fd00:2::/64"]),
            node("n3", &["fd31::13"], &["10.244.3.0/24"]),
        ]);
        let (ways, _) = ways(&nodes, "n1", true);
        let found: Vec<String> = origins(&nodes, &ways, 7)
            .iter()
            .map(|(range, origin)| {
                assert_eq!(origin.ifindex, 7);
                format!("{range} {} {}", IpAddr::from(origin.node), origin.only_there())
            })
            .collect();
        assert_eq!(
            found,
            [
                "10.244.1.0/24 172.31.0.12 true",
                "172.31.0.12/32 172.31.0.12 false",
                "fd00:2::/64 172.31.0.12 true",
                "fd31::12/128 172.31.0.12 false"
            ]
        );
    }

    #[test]
    fn a_tunnel_carries_both_families_by_way_of_one_that_both_nodes_have() {
        let nodes = Nodes::from([
            node("n1", &["172.31.0.11", "fd31::11"], &["10.244.0.0/24"]),
            node("n2", &["172.31.0.12", "fd31::12"], &["10.244.1.0/24", "fd00:2::/64"]),
            node("n3", &["fd31::13"], &["10.244.2.0/24", "fd00:3::/64"]),
        ]);
        let text = |own: &str| -> Vec<String> {
            ways(&nodes, own, true).0.iter().map(|(range, way)| format!("{range} {} {}", way.node, way.ip)).collect()
        };
        assert_eq!(
            text("n1"),
            [
                "10.244.1.0/24 n2 172.31.0.12",
                "10.244.2.0/24 n3 fd31::13",
                "fd00:2::/64 n2 172.31.0.12",
                "fd00:3::/64 n3 fd31::13"
            ]
        );
        assert_eq!(text("n3"), ["10.244.0.0/24 n1 fd31::11", "10.244.1.0/24 n2 fd31::12", "fd00:2::/64 n2 fd31::12"]);
    }
}
