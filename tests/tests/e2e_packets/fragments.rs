//! Fragments, which the host's conntrack puts together and its stack takes apart again.

use std::net::{IpAddr, SocketAddr};

use anyhow::ensure;
use tests::{
    flood::Trap,
    frame,
    manifest::{namespace, policy},
    node::{Node, PATIENCE, Setup, eventually},
    packet::{Body, Packet},
    traffic::{Echo, OPEN, SILENT, connected_udp},
    trial::trial,
    world,
};

use crate::{at, db_and_web, echoed, mac, neighbour};

/// A db that admits web and the neighbouring host to UDP port 53, and nobody else.
fn shop() -> String {
    [
        namespace("shop", ""),
        db_and_web(),
        policy(
            "shop/db",
            "  podSelector: {matchLabels: {app: db}}\n  policyTypes: [Ingress, Egress]\n  ingress:\n\
             \x20 - from: [{podSelector: {matchLabels: {app: web}}}, {ipBlock: {cidr: 192.0.2.2/32}},\n\
             \x20          {ipBlock: {cidr: '2001:db8:2::2/128'}}]\n\
             \x20   ports: [{port: 53, protocol: UDP}]",
        ),
    ]
    .concat()
}

/// Conntrack of the host puts fragments together, for its masquerade, and takes them apart again: narrower
/// than they came, where the pod's link is narrower.
#[test]
fn fragments_follow_policy_between_pods_and_through_the_hosts_stack() {
    trial(|| {
        for mtu in [1500, 1400] {
            let setup = Setup { arguments: vec![format!("--mtu={mtu}")], ..Setup::default() };
            let node = Node::start_as(setup, &[("all.yaml", &shop())])?;
            let world = neighbour(&node)?;
            let [db, web, evil] = node.add_all(["shop/db", "shop/web", "evil/web"])?;
            let _echo = Echo::start(&db.sandbox, &[], &[53])?;
            let trap = Trap::set(&db.sandbox, 54)?;
            let whole = node.ask()?.drops()?;
            ensure!(whole.is_empty(), "{whole:?}");
            for to in db.addresses() {
                for from in [&web.sandbox, &world.sandbox] {
                    // The first one may be too big for the pod's link, and IPv6 then tells the sender.
                    let fits = || echoed(from, SocketAddr::new(to, 53), 4000, SILENT);
                    ensure!(eventually(PATIENCE, fits)?, "4000 bytes to {to}, MTU {mtu}");
                    ensure!(!echoed(from, SocketAddr::new(to, 54), 4000, SILENT)?);
                }
                ensure!(!echoed(&evil.sandbox, SocketAddr::new(to, 53), 4000, SILENT)?);
                ensure!(!echoed(&evil.sandbox, SocketAddr::new(to, 54), 4000, SILENT)?);
                // The node itself is let in, with fragments of its own.
                ensure!(echoed(&node.sandbox, SocketAddr::new(to, 53), 4000, OPEN)?, "the node to {to}");
            }
            trap.is_empty()?;
            let drops = node.ask()?.drops()?;
            // Three strangers for each family: a first fragment each, and those that follow it.
            ensure!(drops.get("default_deny") == Some(&8) && drops.get("fragment") >= Some(&8), "{drops:?}");
            ensure!(drops.len() == 2, "{drops:?}");
        }
        Ok(())
    });
}

/// As kube-proxy does for a Service: the host's stack gives the pod's fragments to another pod of this node, which
/// knows them for that pod's.
#[test]
fn fragments_by_an_address_of_a_service_are_the_pods_own() {
    const SERVICE: [&str; 2] = ["198.51.100.77", "2001:db8:77::1"];
    trial(|| {
        let node = Node::start(&[("all.yaml", &shop())])?;
        let _world = neighbour(&node)?;
        let [db, web, evil] = node.add_all(["shop/db", "shop/web", "evil/web"])?;
        let _echo = Echo::start(&db.sandbox, &[], &[53])?;
        let rules = format!(
            "add table inet service; add chain inet service pre {{ type nat hook prerouting priority dstnat; }}; \
             add rule inet service pre ip daddr {} dnat ip to {}; add rule inet service pre ip6 daddr {} dnat ip6 to {}",
            SERVICE[0], db.v4, SERVICE[1], db.v6
        );
        node.sandbox.said("nft", &[&rules])?;
        for address in SERVICE {
            for bytes in [100, 4000] {
                ensure!(echoed(&web.sandbox, at(address, 53), bytes, OPEN)?, "{bytes} bytes to {address}");
                ensure!(!echoed(&web.sandbox, at(address, 54), bytes, SILENT)?, "{bytes} bytes to {address}");
                ensure!(!echoed(&evil.sandbox, at(address, 53), bytes, SILENT)?, "{bytes} bytes to {address}");
            }
        }
        let drops = node.ask()?.drops()?;
        ensure!(drops.keys().all(|reason| reason == "default_deny" || reason == "fragment"), "{drops:?}");
        Ok(())
    });
}

/// An IP packet in parts of so many bytes.
fn parts(whole: &Packet, id: u32, size: usize) -> Vec<Vec<u8>> {
    let frame = whole.bytes();
    let headers: usize = whole.extensions.iter().map(|(_, rest)| 1 + rest.len()).sum();
    let transport = &frame[if whole.addr[0].is_ipv4() { 34 } else { 54 + headers }..];
    let count = transport.len().div_ceil(size);
    let part = |(number, bytes): (usize, &[u8])| {
        let offset = (number * size / 8) as u16;
        let body = Body::Raw { proto: whole.proto() };
        let mut part = Packet::new(whole.mac, whole.addr, body).payload(bytes).part(id, offset, number + 1 < count);
        if number == 0 {
            part.extensions = whole.extensions.clone();
        }
        part.bytes()
    };
    transport.chunks(size).enumerate().map(part).collect()
}

/// The kernel forgets by which interface it got what it forwards in fragments (`ip6_fragment`), and the node's
/// own packets are known by having come in by none.
#[test]
fn fragments_from_outside_are_neither_the_nodes_nor_another_pods() {
    trial(|| {
        let objects = [
            db_and_web(),
            policy(
                "shop/db",
                "  podSelector: {matchLabels: {app: db}}\n  ingress:\n\
                 \x20 - from: [{podSelector: {matchLabels: {app: web}}}]\n    ports: [{port: 54, protocol: UDP}]\n\
                 \x20 - from: [{ipBlock: {cidr: 192.0.2.2/32}}, {ipBlock: {cidr: '2001:db8:2::2/128'}}]\n\
                 \x20   ports: [{port: 55, protocol: UDP}]",
            ),
        ];
        let node = Node::start(&[("all.yaml", &objects.concat())])?;
        let world = neighbour(&node)?;
        let [db, web] = node.add_all(["shop/db", "shop/web"])?;
        let [forbidden, allowed] = [Trap::set(&db.sandbox, 54)?, Trap::set(&db.sandbox, 55)?];
        let between = [mac(&world.sandbox, "eth0")?, mac(&node.sandbox, "uplink0")?];
        let mut id = 0;
        let mut shapes = |from: IpAddr, port: u16| {
            let to = if from.is_ipv4() { db.v4 } else { db.v6 };
            let whole = Packet::new(between, [from, to], Body::Udp { port: [4000, port] }).payload(&[7; 3000]);
            // With headers for which later fragments have no room: the kernel has to build new ones. One option
            // that nobody knows and everybody passes over (RFC 8200, section 4.2).
            let option = [&[31, 0x1e, 252][..], &[0; 252]].concat();
            let long = whole.clone().extension(60, &option);
            let mut frames = Vec::new();
            for size in [16, 800, 1440] {
                for packet in [Some(&whole), (from.is_ipv6() && size < 1000).then_some(&long)].into_iter().flatten() {
                    id += 1;
                    frames.push(parts(packet, id, size));
                }
            }
            frames
        };
        // Honest ones arrive, each of them.
        for from in world::HOST {
            for frames in shapes(from.parse()?, 55) {
                frame::send(&world.sandbox, "eth0", &frames)?;
                allowed.catches()?;
            }
        }
        // In the name of the node, and of a pod that is admitted.
        let names = [world::NODE, ["10.77.0.1", "fd77::1"]].concat();
        for from in names.iter().map(|text| text.parse().expect("an address")).chain(web.addresses()) {
            for frames in shapes(from, 54) {
                frame::send(&world.sandbox, "eth0", &frames)?;
            }
        }
        for from in world::HOST {
            for frames in shapes(from.parse()?, 55) {
                frame::send(&world.sandbox, "eth0", &frames)?;
                allowed.catches()?;
            }
        }
        forbidden.is_empty()?;
        // The node's own, in fragments, are let in, and the pod's.
        for (from, to) in [&node.sandbox, &web.sandbox].into_iter().flat_map(|from| db.at(54).map(|to| (from, to))) {
            ensure!(connected_udp(from, to)?.send(&[7; 3000])? == 3000);
            forbidden.catches()?;
        }
        Ok(())
    });
}
