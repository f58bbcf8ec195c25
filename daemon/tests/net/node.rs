//! The node's own settings and addresses.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use daemon::net::{Node, changes, host, link, node_route, pair::PodDevice, presence::Presence, uplink};

use crate::namespace::{GATEWAYS, Namespace, ip, needs_root, node};

fn ips(texts: &[&str]) -> BTreeSet<IpAddr> {
    texts.iter().map(|text| ip(text)).collect()
}

#[tokio::test]
async fn lists_that_are_asked_for_at_the_same_time_are_all_answered() {
    needs_root!();
    let here = Namespace::new();
    let node = node(&here).await;
    let lists = (0..20).map(|_| async {
        let routes = node_route::list(&node).await;
        (routes, link::host_links(&node).await)
    });
    for (routes, links) in futures::future::join_all(lists).await {
        assert_eq!((routes.unwrap(), links.unwrap()), (vec![], vec![]));
    }
}

#[tokio::test]
async fn gateways_are_addresses_of_the_node_and_can_be_removed() {
    needs_root!();
    let here = Namespace::new();
    let node = node(&here).await;
    assert_eq!(host::own_addresses(&node).await.unwrap(), ips(&GATEWAYS));
    assert!(here.run("ip -o addr show dev lo").contains("10.7.0.1/32"));
    for _ in 0..2 {
        host::remove_gateways(&node, &[ip(GATEWAYS[0])]).await.unwrap();
        assert_eq!(host::own_addresses(&node).await.unwrap(), ips(&[GATEWAYS[1]]));
    }
}

#[tokio::test]
async fn a_node_with_ipv6_switched_off_can_have_ipv6_pods() {
    needs_root!();
    let here = Namespace::new();
    let set =
        |name: &'static str| here.netns.run_blocking(move || daemon::net::sysctl::set(name, "1")).unwrap().unwrap();
    set("ipv6/conf/all/disable_ipv6");
    set("ipv6/conf/default/disable_ipv6");
    let node = node(&here).await;
    let pod = crate::namespace::pod(PodDevice::Veth, &node, 2, 2).await;
    assert_eq!(pod.namespace.seen_as(&here, ip(GATEWAYS[1])), pod.v6());
}

#[tokio::test]
async fn forwarding_is_on_for_the_families_of_the_pools_only() {
    needs_root!();
    let (four, six) = (Namespace::new(), Namespace::new());
    let read =
        |namespace: &Namespace| (namespace.sysctl("ipv4/ip_forward"), namespace.sysctl("ipv6/conf/all/forwarding"));
    let before = read(&four);
    host::prepare(&Node::at(four.netns.clone()).await.unwrap(), &[ip(GATEWAYS[0])]).await.unwrap();
    assert_eq!(read(&four), ("1".into(), before.1));
    host::prepare(&Node::at(six.netns.clone()).await.unwrap(), &[ip(GATEWAYS[1])]).await.unwrap();
    assert_eq!(read(&six), (before.0, "1".into()));
}

#[tokio::test]
async fn a_node_that_listens_to_router_advertisements_goes_on_doing_so() {
    needs_root!();
    let here = Namespace::new();
    here.run("ip link add uplink type veth peer name far");
    here.run("ip link add deaf type veth peer name far2");
    let set =
        |name: &'static str, value| here.netns.run_blocking(move || daemon::net::sysctl::set(name, value)).unwrap();
    set("ipv6/conf/all/forwarding", "0").unwrap();
    set("ipv6/conf/uplink/accept_ra", "1").unwrap();
    set("ipv6/conf/deaf/accept_ra", "0").unwrap();
    node(&here).await;
    assert_eq!(here.sysctl("ipv6/conf/all/forwarding"), "1");
    assert_eq!(here.sysctl("ipv6/conf/uplink/accept_ra"), "2");
    assert_eq!(here.sysctl("ipv6/conf/deaf/accept_ra"), "0");
}

#[tokio::test]
async fn changes_of_the_nodes_addresses_are_told() {
    needs_root!();
    let here = Namespace::new();
    let node = node(&here).await;
    here.run("ip link add uplink type veth peer name far");
    here.run("ip link set uplink up");
    let mut watched = changes::watch_own_addresses(&node).await.unwrap();
    assert_eq!(*watched.borrow_and_update(), ips(&GATEWAYS));
    let mut next = async || {
        tokio::time::timeout(Duration::from_secs(5), watched.changed()).await.expect("told in time").unwrap();
        watched.borrow_and_update().clone()
    };
    here.run("ip addr add 192.0.2.7/24 dev uplink");
    assert_eq!(next().await, ips(&[GATEWAYS[0], GATEWAYS[1], "192.0.2.7"]));
    // Not the node's as seen from a pod: link-local and loopback.
    here.run("ip addr add 127.0.0.2/8 dev lo");
    here.run("ip addr add 169.254.7.7/16 dev uplink");
    here.run("ip addr add fe80::7/64 dev uplink nodad");
    here.run("ip addr add 2001:db8::7/64 dev uplink nodad");
    assert_eq!(next().await, ips(&[GATEWAYS[0], GATEWAYS[1], "192.0.2.7", "2001:db8::7"]));
    here.run("ip link del uplink");
    let left = next().await;
    let all = if left.len() > 2 { next().await } else { left };
    assert_eq!(all, ips(&GATEWAYS));
}

#[tokio::test]
async fn our_own_address_of_point_to_point_links_counts_not_the_other_ends() {
    needs_root!();
    let here = Namespace::new();
    let node = Node::at(here.netns.clone()).await.unwrap();
    here.run("ip link add uplink type veth peer name far");
    here.run("ip addr add 192.0.2.1 peer 192.0.2.2 dev uplink");
    here.run("ip addr add 2001:db8::1 peer 2001:db8::2 dev uplink nodad");
    assert_eq!(host::own_addresses(&node).await.unwrap(), ips(&["192.0.2.1", "2001:db8::1"]));
}

#[tokio::test]
async fn the_uplink_is_where_the_kernel_sends_the_rest() {
    needs_root!();
    let here = Namespace::new();
    let node = Node::at(here.netns.clone()).await.unwrap();
    assert_eq!(uplink::find(&node).await.unwrap(), None);
    for (link, v4, v6, mtu) in
        [("near", "192.0.2.1/24", "fd01::1/64", 1400), ("far", "198.51.100.1/24", "fd02::1/64", 9000)]
    {
        here.run(&format!("ip link add {link} mtu {mtu} type veth peer name {link}-peer"));
        here.run(&format!("ip link set {link}-peer up"));
        here.run(&format!("ip link set {link} up"));
        here.run(&format!("ip addr add {v4} dev {link}"));
        here.run(&format!("ip addr add {v6} dev {link} nodad"));
    }
    let name = async || uplink::find(&node).await.unwrap().map(|found| (found.name, found.mtu));
    here.run("ip route add default via fd02::2 dev far");
    assert_eq!(name().await, Some(("far".to_owned(), 9000)));
    // IPv4 before IPv6, and the least metric.
    here.run("ip route add default via 192.0.2.2 dev near metric 200");
    assert_eq!(name().await, Some(("near".to_owned(), 1400)));
    here.run("ip route add default via 198.51.100.2 dev far metric 100");
    assert_eq!(name().await, Some(("far".to_owned(), 9000)));
    here.run("ip route del default via 198.51.100.2 dev far");
    here.run("ip route replace default metric 200 nexthop via 192.0.2.3 dev near nexthop via 198.51.100.3 dev far");
    assert_eq!(name().await, Some(("near".to_owned(), 1400)));
}

#[tokio::test]
async fn links_are_there_until_they_are_not() {
    needs_root!();
    let here = Namespace::new();
    let node = Node::at(here.netns.clone()).await.unwrap();
    let presence = Presence::of(&node).await.unwrap();
    here.run("ip link add index 77 name one type veth peer name other");
    assert!(presence.has(77) && !presence.has(78));
    here.run("ip link set one name two");
    assert!(presence.has(77), "its name does not matter");
    here.run("ip link del two");
    assert!(!presence.has(77));
}

#[tokio::test]
async fn addresses_of_the_node_are_told_from_our_gateways() {
    needs_root!();
    let here = Namespace::new();
    let node = node(&here).await;
    let others = async |ours: &[&str]| -> Vec<String> {
        let found = host::addresses_of_others(&node, &ips(ours)).await.unwrap();
        let words = found.into_iter().map(|it| format!("{}/{} {}", it.address, it.prefix_len, it.interface));
        words.filter(|words| !words.contains("127.0.0.1") && !words.contains("::1/128 lo")).collect()
    };
    assert_eq!(others(&GATEWAYS).await, [""; 0]);
    assert_eq!(others(&GATEWAYS[1..]).await, [format!("{}/32 lo", GATEWAYS[0])]);
    here.run("ip link add one type veth peer name other");
    here.run(&format!("ip addr add {}/24 dev one", GATEWAYS[0]));
    assert_eq!(others(&GATEWAYS).await, [format!("{}/24 one", GATEWAYS[0])]);
}
