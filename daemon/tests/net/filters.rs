//! Filters of the qdisc clsact, by classic BPF that lets everything pass.

use std::{collections::BTreeSet, process::Command, time::Duration};

use daemon::net::{filter, link};
use futures::StreamExt as _;

use crate::namespace::{Namespace, needs_root, node};

fn add(host: &Namespace, direction: &'static str, priority: &'static str) {
    let place = ["filter", "add", "dev", "v0", direction, "protocol", "all", "prio", priority, "handle", "1"];
    let added = host
        .netns
        .run_blocking(move || Command::new("tc").args(place).args(["bpf", "bytecode", "1,6 0 0 0,"]).output());
    let added = added.unwrap().unwrap();
    assert!(added.status.success(), "{added:?}");
}

#[tokio::test]
async fn filters_are_found_by_place_priority_and_handle() {
    needs_root!();
    let host = Namespace::new();
    let node = node(&host).await;
    host.run("ip link add v0 type veth peer name v1");
    let ifindex = link::find_link(node.netlink(), "v0").await.unwrap().ifindex;
    let present = async || filter::present(&node, ifindex, 1, 1).await.unwrap();
    assert_eq!(present().await, [false, false]);
    host.run("tc qdisc add dev v0 clsact");
    assert_eq!(present().await, [false, false]);
    add(&host, "ingress", "2");
    assert_eq!(present().await, [false, false]);
    add(&host, "ingress", "1");
    assert_eq!(present().await, [true, false]);
    add(&host, "egress", "1");
    assert_eq!(present().await, [true, true]);
    assert_eq!(filter::present(&node, ifindex, 1, 2).await.unwrap(), [false, false]);
    host.run("tc filter del dev v0 ingress prio 1");
    assert_eq!(present().await, [false, true]);
    host.run("ip link del v0");
    assert_eq!(present().await, [false, false]);
}

#[tokio::test]
async fn who_removes_filters_or_their_qdisc_is_noticed() {
    needs_root!();
    let host = Namespace::new();
    let node = node(&host).await;
    host.run("ip link add v0 type veth peer name v1");
    host.run("tc qdisc add dev v0 clsact");
    let ifindex = link::find_link(node.netlink(), "v0").await.unwrap().ifindex;
    let mut removals = filter::removals(&node).await.unwrap();
    add(&host, "ingress", "1");
    for command in ["tc filter del dev v0 ingress prio 1", "tc qdisc del dev v0 clsact"] {
        host.run(command);
        let next = tokio::time::timeout(Duration::from_secs(10), removals.next()).await;
        assert_eq!(next.expect(command), Some(BTreeSet::from([ifindex])), "{command}");
    }
}
