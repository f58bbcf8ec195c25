//! Two nodes that know each other's address only: what is carried through the overlay arrives, whatever carries it.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr},
    thread,
};

use daemon::net::{
    Node,
    node_route::{self, NodeRoute, Tunnel},
    overlay::{self, Device, Protocol},
};

use crate::namespace::{Namespace, has, ip, needs_root};

const UNDER: [[&str; 2]; 2] = [["192.0.2.1", "2001:db8::1"], ["192.0.2.2", "2001:db8::2"]];
const OWN: [[&str; 2]; 2] = [["10.8.0.1", "fd00:8::1"], ["10.8.1.1", "fd00:8:1::1"]];
const RANGES: [[&str; 2]; 2] = [["10.8.0.0/24", "fd00:8::/64"], ["10.8.1.0/24", "fd00:8:1::/64"]];
const NAMES: [&str; 2] = ["n1", "n2"];

fn device(protocol: Protocol, at: usize) -> Device {
    Device { protocol, port: protocol.port(), mtu: 1430, mac: overlay::mac_of(NAMES[at]) }
}

/// Those that this kernel has devices of.
async fn protocols(node: &Node) -> Vec<Protocol> {
    assert!(overlay::is_known(node, Protocol::Vxlan).await.unwrap());
    let geneve = overlay::is_known(node, Protocol::Geneve).await.unwrap();
    if has("geneve", geneve) { Protocol::ALL.to_vec() } else { vec![Protocol::Vxlan] }
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
async fn lead(node: &Node, protocol: Protocol, at: usize, local: Option<&str>, remote: &str) -> Vec<NodeRoute> {
    let ifindex = overlay::ensure(node, device(protocol, at)).await.unwrap().ifindex;
    overlay::bring_up(node, ifindex).await.unwrap();
    let other = 1 - at;
    let mac = overlay::mac_of(NAMES[other]);
    let mut set = Vec::new();
    for (range, source) in RANGES[other].into_iter().zip(OWN[at]) {
        let hop_limit = protocol.hop_limit();
        let (remote, local, source) = (ip(remote), local.map(ip), Some(ip(source)));
        let tunnel = Tunnel { remote, local, ifindex, source, hop_limit, mtu: None };
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
    for protocol in protocols(&a).await {
        for outer in [0, 1] {
            for (node, at) in [(&a, 0), (&b, 1)] {
                let set = lead(node, protocol, at, Some(UNDER[at][outer]), UNDER[1 - at][outer]).await;
                assert_eq!(node_route::list(node).await.unwrap(), set, "what was set is found again");
            }
            for inner in [0, 1] {
                let seen: IpAddr = here.seen_as(&there, ip(OWN[1][inner]));
                assert_eq!(seen, ip(OWN[0][inner]), "{protocol:?} carried by {outer}");
            }
        }
        // The one before is still there: the routes have been led away from it, and it goes without a trace.
        for former in Protocol::ALL.into_iter().filter(|former| *former != protocol) {
            for (node, space) in [(&a, &here), (&b, &there)] {
                let before = node_route::list(node).await.unwrap();
                overlay::remove(node, former).await.unwrap();
                assert_eq!(node_route::list(node).await.unwrap(), before);
                assert!(!space.run("ip -o link").contains(former.link()));
            }
        }
    }
}

#[tokio::test]
async fn a_device_that_is_gone_or_changed_is_put_back() {
    needs_root!();
    let [(here, a), _other] = nodes().await;
    for protocol in protocols(&a).await {
        let (wanted, link) = (device(protocol, 0), protocol.link());
        let made = overlay::ensure(&a, wanted).await.unwrap();
        assert!(made.changed && !made.is_up, "{made:?}");
        overlay::bring_up(&a, made.ifindex).await.unwrap();
        let again = overlay::ensure(&a, wanted).await.unwrap();
        assert_eq!(again, overlay::Made { is_up: true, changed: false, ..made }, "nothing to do");
        for change in ["set LINK mtu 1300", "set LINK address 02:00:00:00:00:01", "del LINK"] {
            let change = format!("ip link {}", change.replace("LINK", link));
            here.run(&change);
            assert!(overlay::ensure(&a, wanted).await.unwrap().changed, "{change}");
            assert!(!overlay::ensure(&a, wanted).await.unwrap().changed, "{change}");
        }
        let other_port = Device { port: 4789, ..wanted };
        assert!(overlay::ensure(&a, other_port).await.unwrap().changed);
        assert!(here.run(&format!("ip -d link show {link}")).contains("dstport 4789"));
        // One that another has made, with a peer of its own.
        overlay::remove(&a, protocol).await.unwrap();
        here.run(&format!("ip link add {link} type {} id 7 remote 192.0.2.2 dstport {}", protocol.name(), wanted.port));
        assert!(overlay::ensure(&a, wanted).await.unwrap().changed);
        assert!(here.run(&format!("ip -d link show {link}")).contains(" external "));
        overlay::remove(&a, protocol).await.unwrap();
        overlay::remove(&a, protocol).await.unwrap();
        assert!(!overlay::exists(&a, protocol).await.unwrap());
    }
}

/// Where there are no such devices the kernel says so, and nothing is left of the question.
#[tokio::test]
async fn a_kernel_is_asked_for_devices_without_making_one() {
    needs_root!();
    let [(here, a), _other] = nodes().await;
    // Not what they say of their carrier, which may come a moment later.
    let links =
        || -> Vec<String> { here.run("ip -br link").lines().map(|it| it.split(' ').next().unwrap().into()).collect() };
    let before = links();
    for protocol in Protocol::ALL {
        let known = overlay::is_known(&a, protocol).await.unwrap();
        assert_eq!(links(), before);
        assert_eq!(overlay::ensure(&a, device(protocol, 0)).await.is_ok(), known, "{protocol:?}");
        overlay::remove(&a, protocol).await.unwrap();
    }
}

/// The packets that carry others are cut to pieces on the way: neither end has to find out what the way carries.
#[tokio::test]
async fn a_large_transfer_gets_through_a_small_link() {
    needs_root!();
    const LENGTH: usize = 4 << 20;
    for mtu in [1500, 1280] {
        let ([(here, a), (there, b)], _router) = nodes_far_apart(mtu).await;
        for (protocol, inner) in protocols(&a).await.into_iter().flat_map(|it| [(it, 0), (it, 1)]) {
            lead(&a, protocol, 0, None, "192.0.1.2").await;
            lead(&b, protocol, 1, None, "192.0.0.2").await;
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
            assert_eq!(received.len(), LENGTH, "{protocol:?}, mtu {mtu}, inner {inner}");
        }
    }
}
