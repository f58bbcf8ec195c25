//! Two nodes that know each other's address only: what is carried through the overlay arrives, whatever carries it.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr},
    thread,
};

use daemon::net::{
    Node,
    node_route::{self, NodeRoute, Tunnel},
    overlay::{self, Device},
};

use crate::namespace::{Namespace, ip, needs_root};

const UNDER: [[&str; 2]; 2] = [["192.0.2.1", "2001:db8::1"], ["192.0.2.2", "2001:db8::2"]];
const OWN: [[&str; 2]; 2] = [["10.8.0.1", "fd00:8::1"], ["10.8.1.1", "fd00:8:1::1"]];
const RANGES: [[&str; 2]; 2] = [["10.8.0.0/24", "fd00:8::/64"], ["10.8.1.0/24", "fd00:8:1::/64"]];
const NAMES: [&str; 2] = ["n1", "n2"];

fn device(at: usize) -> Device {
    Device { port: 8472, mtu: 1430, mac: overlay::mac_of(NAMES[at]) }
}

async fn nodes() -> [(Namespace, Node); 2] {
    let spaces = [Namespace::new(), Namespace::new()];
    spaces[0].run(&format!("ip link add uplink type veth peer name uplink netns {}", spaces[1].name));
    let mut nodes = Vec::new();
    for (at, space) in spaces.into_iter().enumerate() {
        space.run(&format!("ip addr add {}/24 dev uplink", UNDER[at][0]));
        space.run(&format!("ip addr add {}/64 dev uplink nodad", UNDER[at][1]));
        space.run("ip link set uplink up");
        let node = Node::at(space.netns.clone()).await.unwrap();
        daemon::net::host::prepare(&node, &OWN[at].map(ip)).await.unwrap();
        nodes.push((space, node));
    }
    nodes.try_into().unwrap_or_else(|_| panic!("two"))
}

/// Two nodes on different networks, and a router between them whose links carry little.
async fn nodes_far_apart(mtu: u32) -> ([(Namespace, Node); 2], Namespace) {
    let router = Namespace::new();
    let mut nodes = Vec::new();
    for (at, space) in [Namespace::new(), Namespace::new()].into_iter().enumerate() {
        space.run(&format!("ip link add uplink type veth peer name to{at} netns {}", router.name));
        space.run(&format!("ip addr add 192.0.{at}.2/24 dev uplink"));
        space.run("ip link set uplink up");
        space.run(&format!("ip route add default via 192.0.{at}.1"));
        router.run(&format!("ip addr add 192.0.{at}.1/24 dev to{at}"));
        // Towards the second only: a veth refuses to receive what is larger than its MTU.
        router.run(&format!("ip link set to{at} up mtu {}", if at == 1 { mtu } else { 1500 }));
        let node = Node::at(space.netns.clone()).await.unwrap();
        daemon::net::host::prepare(&node, &OWN[at].map(ip)).await.unwrap();
        nodes.push((space, node));
    }
    router.run("sysctl -qw net.ipv4.ip_forward=1");
    (nodes.try_into().unwrap_or_else(|_| panic!("two")), router)
}

/// Leads to the other's ranges through a tunnel over this family.
async fn lead(node: &Node, at: usize, local: Option<&str>, remote: &str) -> Vec<NodeRoute> {
    let ifindex = overlay::ensure(node, device(at)).await.unwrap().ifindex;
    overlay::bring_up(node, ifindex).await.unwrap();
    let other = 1 - at;
    let mac = overlay::mac_of(NAMES[other]);
    let mut set = Vec::new();
    for (range, source) in RANGES[other].into_iter().zip(OWN[at]) {
        let tunnel = Tunnel { remote: ip(remote), local: local.map(ip), ifindex, source: Some(ip(source)) };
        let route = NodeRoute::through(range.parse().unwrap(), mac, tunnel);
        node_route::set_neighbour(node, route, mac).await.unwrap();
        node_route::set(node, route).await.unwrap();
        set.push(route);
    }
    set.sort_unstable();
    set
}

#[tokio::test]
async fn both_families_are_carried_over_either() {
    needs_root!();
    let [(here, a), (there, b)] = nodes().await;
    for outer in [0, 1] {
        for (node, at) in [(&a, 0), (&b, 1)] {
            let set = lead(node, at, Some(UNDER[at][outer]), UNDER[1 - at][outer]).await;
            assert_eq!(node_route::list(node).await.unwrap(), set, "what was set is found again");
        }
        for inner in [0, 1] {
            let seen: IpAddr = here.seen_as(&there, ip(OWN[1][inner]));
            assert_eq!(seen, ip(OWN[0][inner]), "carried by {outer}");
        }
    }
}

#[tokio::test]
async fn a_device_that_is_gone_or_changed_is_put_back() {
    needs_root!();
    let [(here, a), _other] = nodes().await;
    let made = overlay::ensure(&a, device(0)).await.unwrap();
    assert!(made.changed && !made.is_up, "{made:?}");
    overlay::bring_up(&a, made.ifindex).await.unwrap();
    let again = overlay::ensure(&a, device(0)).await.unwrap();
    assert_eq!(again, overlay::Made { is_up: true, changed: false, ..made }, "nothing to do");
    for change in [
        "ip link set bulkhead_vxlan mtu 1300",
        "ip link set bulkhead_vxlan address 02:00:00:00:00:01",
        "ip link del bulkhead_vxlan",
    ] {
        here.run(change);
        assert!(overlay::ensure(&a, device(0)).await.unwrap().changed, "{change}");
        assert!(!overlay::ensure(&a, device(0)).await.unwrap().changed, "{change}");
    }
    let other_port = Device { port: 4789, ..device(0) };
    assert!(overlay::ensure(&a, other_port).await.unwrap().changed);
    assert!(here.run("ip -d link show bulkhead_vxlan").contains("dstport 4789"));
    overlay::remove(&a).await.unwrap();
    overlay::remove(&a).await.unwrap();
    assert!(!overlay::exists(&a).await.unwrap());
}

/// The packets that carry others are cut to pieces on the way: neither end has to find out what the way carries.
#[tokio::test]
async fn a_large_transfer_gets_through_a_small_link() {
    needs_root!();
    const LENGTH: usize = 4 << 20;
    for mtu in [1500, 1280] {
        let ([(here, a), (there, b)], _router) = nodes_far_apart(mtu).await;
        lead(&a, 0, None, "192.0.1.2").await;
        lead(&b, 1, None, "192.0.0.2").await;
        for inner in [0, 1] {
            let listener = there.listen(if inner == 0 { "0.0.0.0:0" } else { "[::]:0" });
            let target = SocketAddr::new(ip(OWN[1][inner]), listener.local_addr().unwrap().port());
            let mut stream = here.connect(target).unwrap();
            let (mut accepted, _) = listener.accept().unwrap();
            let limit = Some(std::time::Duration::from_secs(20));
            stream.set_write_timeout(limit).unwrap();
            accepted.set_read_timeout(limit).unwrap();
            let sender = thread::spawn(move || stream.write_all(&vec![7; LENGTH]));
            let mut received = Vec::new();
            accepted.read_to_end(&mut received).unwrap();
            sender.join().unwrap().unwrap();
            assert_eq!(received.len(), LENGTH, "mtu {mtu}, inner {inner}");
        }
    }
}
