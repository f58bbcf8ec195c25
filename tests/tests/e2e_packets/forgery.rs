//! What a pod sends past its own stack, in the name of others.

use std::net::IpAddr;

use anyhow::ensure;
use datapath_abi::endpoint::HOST_MAC;
use serde_json::Value;
use tests::{
    flood::Trap,
    frame,
    manifest::pod,
    node::{Node, PATIENCE, eventually},
    packet::{Arp, Body, Packet},
    pod::{IFNAME, Pod},
    trial::trial,
    world::{self, World},
};

use crate::link;

/// Frames that a pod sends past its own stack, the reason for which they are dropped, and whether a record
/// tells of them.
fn forgeries(pod: &Pod, other: &Pod) -> Vec<(&'static str, Vec<Vec<u8>>, &'static str, bool)> {
    let own = pod.mac();
    let link = [own, HOST_MAC];
    let mut sources = Vec::new();
    let mut node = Vec::new();
    let mut macs = Vec::new();
    let mut tagged = Vec::new();
    for (mine, theirs) in pod.addresses().into_iter().zip(other.addresses()) {
        let packet = |from| Packet::new(link, [from, theirs], Body::Udp { port: [4000, 54] });
        let v4 = mine.is_ipv4();
        let outside = world::HOST[usize::from(!v4)].parse().expect("an address");
        sources.push(packet(outside).bytes());
        for address in [world::NODE[usize::from(!v4)], if v4 { "10.77.0.1" } else { "fd77::1" }] {
            node.push(packet(address.parse().expect("an address")).bytes());
        }
        macs.push(packet(mine).from_mac([2, 0, 0, 0, 0, 9]).bytes());
        let frame = packet(mine).bytes();
        tagged.push([&frame[..12], &[0x81, 0, 0, 7], &frame[12..]].concat());
    }
    let all: IpAddr = "ff02::1".parse().expect("an address");
    let message = |kind| {
        let body = Body::Icmp { kind, code: 0, rest: [64, 0, 7, 8] };
        Packet::new([own, [0x33, 0x33, 0, 0, 0, 1]], [pod.v6, all], body).payload(&[0; 32]).ttl(255).bytes()
    };
    let IpAddr::V4(sender) = other.v4 else { panic!("{} is no IPv4 address", other.v4) };
    let arp = |operation| Arp { operation, mac: own, sender, target: [10, 77, 0, 1].into() }.bytes();
    vec![
        ("another's source address", sources, "invalid_source_ip", true),
        ("the node's source address", node, "invalid_source_ip", true),
        ("another MAC address", macs, "invalid_source_mac", true),
        ("a VLAN", tagged, "unsupported_l3_protocol", true),
        ("router advertisement, redirect", vec![message(134), message(137)], "forged_neighbour_discovery", true),
        ("ARP for another's address", vec![arp(1), arp(2)], "invalid_source_ip", false),
    ]
}

/// What comes in by the link as a tag in the frame is beside the packet when the programs see it.
#[test]
fn what_a_pod_forges_is_dropped_counted_and_told() {
    trial(|| {
        let node = Node::start(&[("pods.yaml", &[pod("shop/web", ""), pod("shop/db", "")].concat())])?;
        let _world = World::beside(&node)?;
        let [web, db] = node.add_all(["shop/web", "shop/db"])?;
        let trap = Trap::set(&db.sandbox, 54)?;
        let link = link(&node.sandbox, &web.host_ifname())?;
        let ask = node.ask()?;
        for (what, frames, reason, told) in forgeries(&web, &db) {
            let (before, flows) = (ask.drops()?, node.bulkhead().flows(&["--verdict", "denied"])?.len());
            frame::send(&web.sandbox, IFNAME, &frames)?;
            let mut wanted = before.clone();
            *wanted.entry(reason.to_owned()).or_default() += frames.len() as u64;
            let counted = eventually(PATIENCE, || Ok(ask.drops()? == wanted))?;
            ensure!(counted, "{what}: wanted {wanted:?}, found {:?}", ask.drops()?);
            let records = if told { frames.len() } else { 0 };
            let new = || -> anyhow::Result<Vec<Value>> {
                Ok(node.bulkhead().flows(&["--verdict", "denied"])?.split_off(flows))
            };
            ensure!(eventually(PATIENCE, || Ok(new()?.len() == records))?, "{what}: {:?}", new()?);
            for flow in new()? {
                ensure!(flow["extensions"]["value"]["drop_reason"] == reason, "{what}: {flow}");
                // Whoever it says it is: by the interface.
                ensure!(flow["interface"]["index"] == link["ifindex"], "{what}, by whom: {flow}");
                ensure!(flow["source"]["namespace"] == "shop", "{what}, by whom: {flow}");
                ensure!(flow["source"]["pod_name"] == "web", "{what}, by whom: {flow}");
            }
        }
        // The same packet, honestly: the trap works.
        trap.is_empty()?;
        let link = [web.mac(), HOST_MAC];
        for (mine, theirs) in web.addresses().into_iter().zip(db.addresses()) {
            let honest = Packet::new(link, [mine, theirs], Body::Udp { port: [4000, 54] });
            frame::send(&web.sandbox, IFNAME, &[honest.bytes()])?;
            trap.catches()?;
        }
        Ok(())
    });
}
