//! Pods appear in the world as the node, and as themselves everywhere else.

use std::{net::IpAddr, process::Command};

use daemon::net::{
    Node,
    masquerade::{self, Masquerade, MasqueradeError, TABLE},
};

use crate::namespace::{GATEWAYS, Namespace, ip, needs_root, node, pod, told};

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

fn wanted(table: &str) -> Masquerade {
    Masquerade {
        table: table.into(),
        pools: vec!["10.7.0.0/24".parse().unwrap(), "fd00:7::/64".parse().unwrap()],
        keep: vec![],
    }
}

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
    if !has_nft() {
        return;
    }
    let host = Namespace::new();
    let node = node(&host).await;
    let world = world(&host);
    let (a, b) = (pod(&node, 2, 2).await, pod(&node, 3, 2).await);
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
    assert_eq!(host.run("nft list tables"), "");
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
async fn what_nft_refuses_is_told_in_its_words() {
    needs_root!();
    if !has_nft() {
        return;
    }
    let host = Namespace::new();
    let node = Node::at(host.netns.clone()).await.unwrap();
    let long = "t".repeat(300);
    let error = told(masquerade::install(&node, &wanted(&long)).await);
    assert!(error.starts_with("nft: ") && error.contains("rror"), "{error}");
    assert!(matches!(masquerade::remove(&node, "a;b").await, Err(MasqueradeError::Table(_))));
}
