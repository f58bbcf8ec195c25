//! Pods appear in the world as the node, and as themselves everywhere else.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    process::Command,
};

use daemon::net::{
    Node,
    masquerade::{self, Masquerade, MasqueradeError, TABLE},
    pair::PodDevice,
};
use ipnetwork::IpNetwork;

use crate::namespace::{GATEWAYS, Namespace, Pod, ip, needs_root, node, pod, told};

const NODE: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const WORLD: [&str; 2] = ["192.0.2.2", "2001:db8::2"];

/// A namespace beyond the node's uplink, which knows no way to pods but through the node.
fn world(host: &Namespace) -> Namespace {
    let world = Namespace::new();
    host.run(&format!("ip link add uplink type veth peer name eth0 netns {}", world.name));
    for (namespace, device, addresses) in [(host, "uplink", NODE), (&world, "eth0", WORLD)] {
        // Detection of duplicates would keep the link-local addresses from being used for a second.
        let accept_dad = format!("ipv6/conf/{device}/accept_dad");
        let set = move || daemon::net::sysctl::set(&accept_dad, "0");
        namespace.netns.run_blocking(set).unwrap().unwrap();
        namespace.run(&format!("ip addr add {}/24 dev {device}", addresses[0]));
        namespace.run(&format!("ip addr add {}/64 dev {device} nodad", addresses[1]));
        namespace.run(&format!("ip link set {device} up"));
    }
    world.run(&format!("ip route add default via {}", NODE[0]));
    world.run(&format!("ip route add default via {}", NODE[1]));
    world
}

/// A node with a pod on it, and the world beyond.
async fn place() -> (Namespace, Node, Namespace, Pod) {
    let host = Namespace::new();
    let node = node(&host).await;
    let world = world(&host);
    let pod = pod(PodDevice::Veth, &node, 2, 2).await;
    (host, node, world, pod)
}

fn wanted(table: &str) -> Masquerade {
    Masquerade {
        table: table.into(),
        pools: vec!["10.7.0.0/24".parse().unwrap(), "fd00:7::/64".parse().unwrap()],
        keep: vec![],
    }
}

/// Whether another view of the tables is to be had.
fn has_nft() -> bool {
    let found = Command::new("nft").arg("--version").output().is_ok();
    if !found {
        println!("skipped: needs nft");
    }
    found
}

#[tokio::test]
async fn only_what_leaves_for_the_world_is_masqueraded() {
    needs_root!();
    let (host, node, world, a) = place().await;
    let b = pod(PodDevice::Veth, &node, 3, 2).await;
    let own: [IpAddr; 2] = [a.v4(), a.v6()];
    let as_seen = || [0, 1].map(|family| a.namespace.seen_as(&world, ip(WORLD[family])));
    assert_eq!(as_seen(), own);
    for _ in 0..2 {
        masquerade::install(&node, &wanted(TABLE)).await.unwrap();
    }
    assert_eq!(as_seen(), NODE.map(ip));
    for (family, (to, from)) in [(b.v4(), a.v4()), (b.v6(), a.v6())].into_iter().enumerate() {
        assert_eq!(a.namespace.seen_as(&b.namespace, to), from);
        assert_eq!(a.namespace.seen_as(&host, ip(GATEWAYS[family])), from);
        assert_eq!(a.namespace.seen_as(&host, ip(NODE[family])), from);
        assert_eq!(host.seen_as(&a.namespace, from), ip(GATEWAYS[family]));
    }
    // Blocks that are kept, as the pods of other nodes.
    let keep = ["192.0.2.0/24", "2001:db8::/64"].map(|net| net.parse().unwrap()).into();
    masquerade::install(&node, &Masquerade { keep, ..wanted(TABLE) }).await.unwrap();
    assert_eq!(as_seen(), own);
    masquerade::install(&node, &wanted(TABLE)).await.unwrap();
    assert_eq!(as_seen(), NODE.map(ip));
    for _ in 0..2 {
        masquerade::remove(&node, TABLE).await.unwrap();
    }
    assert_eq!(as_seen(), own);
    if has_nft() {
        assert_eq!(host.run("nft list tables"), "");
    }
}

#[tokio::test]
async fn nft_shows_the_table_as_people_write_it() {
    needs_root!();
    if !has_nft() {
        return;
    }
    let host = Namespace::new();
    let node = Node::at(host.netns.clone()).await.unwrap();
    let keep = vec!["10.0.0.0/8".parse().unwrap()];
    masquerade::install(&node, &Masquerade { keep, ..wanted("shown") }).await.unwrap();
    let shown = host.run("nft -s list table inet shown");
    for line in [
        "type nat hook postrouting priority srcnat; policy accept;",
        "elements = { 10.7.0.0/24 }",
        "elements = { 10.0.0.0/8, 224.0.0.0/4 }",
        "elements = { fd00:7::/64, ff00::/8 }",
        "ip saddr @pods_ip ip daddr != @keep_ip masquerade fully-random",
        "ip6 saddr @pods_ip6 ip6 daddr != @keep_ip6 masquerade fully-random",
    ] {
        let flat: String = shown.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flat.contains(line), "{line} is not in\n{shown}");
    }
}

#[tokio::test]
async fn tables_of_others_stay() {
    needs_root!();
    if !has_nft() {
        return;
    }
    let host = Namespace::new();
    let node = Node::at(host.netns.clone()).await.unwrap();
    host.run("nft add table inet other");
    masquerade::install(&node, &wanted("one")).await.unwrap();
    masquerade::install(&node, &wanted("two")).await.unwrap();
    masquerade::remove(&node, "one").await.unwrap();
    assert_eq!(host.run("nft list tables"), "table inet other\ntable inet two\n");
}

#[tokio::test]
async fn what_the_kernel_refuses_is_told_and_changes_nothing() {
    needs_root!();
    let (_host, node, world, pod) = place().await;
    masquerade::install(&node, &wanted(TABLE)).await.unwrap();
    // Every other address of a /13: no two become one, and they do not fit into one transaction.
    let keep = (0..1 << 18).map(|n: u32| IpNetwork::from(IpAddr::from(Ipv4Addr::from_bits(0x0b00_0000 + 2 * n))));
    let error = told(masquerade::install(&node, &Masquerade { keep: keep.collect(), ..wanted(TABLE) }).await);
    assert!(error.starts_with("nftables table bulkhead: ") && error.contains("too many ranges"), "{error}");
    assert_eq!(pod.namespace.seen_as(&world, ip(WORLD[0])), ip(NODE[0]));
    assert!(matches!(masquerade::remove(&node, "a;b").await, Err(MasqueradeError::Table(_))));
}

#[tokio::test]
async fn many_ranges_fit() {
    needs_root!();
    let (_host, node, world, pod) = place().await;
    // Ranges of 5,000 nodes that are not side by side, in both families, the world among them.
    let far = (0..5_000_u32).flat_map(|n| {
        let v4 = Ipv4Addr::from_bits(0x6440_0000 + 512 * n);
        let v6 = Ipv6Addr::from_bits(0xfd64_u128 << 112 | u128::from(2 * n) << 64);
        [IpNetwork::new(v4.into(), 24).unwrap(), IpNetwork::new(v6.into(), 64).unwrap()]
    });
    let mut keep: Vec<IpNetwork> = far.collect();
    masquerade::install(&node, &Masquerade { keep: keep.clone(), ..wanted(TABLE) }).await.unwrap();
    let as_seen = || [0, 1].map(|family| pod.namespace.seen_as(&world, ip(WORLD[family])));
    assert_eq!(as_seen(), NODE.map(ip));
    keep.extend(["192.0.2.2/32", "2001:db8::2/128"].map(|net| net.parse::<IpNetwork>().unwrap()));
    masquerade::install(&node, &Masquerade { keep, ..wanted(TABLE) }).await.unwrap();
    assert_eq!(as_seen(), [pod.v4(), pod.v6()]);
}
