//! Ordinary sockets that meet hard packets without knowing: closed ports, large writes, a pod's first words,
//! probes of the node.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr, UdpSocket},
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use datapath_abi::endpoint::HOST_MAC;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, sockopt::Timeout};
use serde_json::Value;
use tests::{
    frame,
    manifest::{namespace, policy},
    node::{Node, PATIENCE, Setup, eventually},
    packet::{Body, Packet},
    pod::IFNAME,
    sandbox::Sandbox,
    traffic::{
        Echo, OPEN,
        Protocol::{Ping, Tcp, Udp},
        Reached, SILENT, reach,
    },
    trial::trial,
    world::{self, World},
};

use crate::{at, db_and_web, neighbour, stream};

/// Nobody of the namespace `shop` says or hears anything.
fn default_deny() -> String {
    let deny = policy("shop/default-deny", "  podSelector: {}\n  policyTypes: [Ingress, Egress]");
    [namespace("shop", ""), deny].concat()
}

#[test]
fn a_closed_port_says_so_through_policy() {
    trial(|| {
        let objects = [
            db_and_web(),
            policy(
                "shop/db",
                "  podSelector: {matchLabels: {app: db}}\n  policyTypes: [Ingress, Egress]\n\
                 \x20 ingress: [{from: [{podSelector: {}}, {ipBlock: {cidr: 192.0.2.2/32}}, {ipBlock: {cidr: '2001:db8:2::2/128'}}]}]",
            ),
            policy(
                "shop/web",
                "  podSelector: {matchLabels: {app: web}}\n  policyTypes: [Ingress, Egress]\n  egress: [{}]",
            ),
        ];
        let node = Node::start(&[("all.yaml", &objects.concat())])?;
        let world = neighbour(&node)?;
        let [db, web] = node.add_all(["shop/db", "shop/web"])?;
        // Nothing listens: the answer is an ICMP error, about a connection of who is isolated.
        for to in db.at(53) {
            for from in [&web.sandbox, &world.sandbox, &node.sandbox] {
                ensure!(reach(from, Udp, to, OPEN)? == Reached::Refused, "{to}");
            }
        }
        for to in world.at(53).into_iter().chain([world::NODE[0], world::NODE[1]].map(|node| at(node, 53))) {
            ensure!(reach(&web.sandbox, Udp, to, OPEN)? == Reached::Refused, "{to}");
        }
        let drops = node.ask()?.drops()?;
        ensure!(drops.is_empty(), "{drops:?}");
        Ok(())
    });
}

#[test]
fn large_writes_pass_and_are_counted_whole() {
    const BYTES: usize = 8 << 20;
    trial(|| {
        let db = policy(
            "shop/db",
            "  podSelector: {matchLabels: {app: db}}\n  policyTypes: [Ingress, Egress]\n\
             \x20 ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 80}]}]",
        );
        let node = Node::start(&[("all.yaml", &[db_and_web(), db].concat())])?;
        let [db, web] = node.add_all(["shop/db", "shop/web"])?;
        for to in db.at(80) {
            stream(&web.sandbox, &db.sandbox, to, BYTES)?;
        }
        let closed = || -> anyhow::Result<Vec<Value>> {
            let mut flows = node.bulkhead().flows(&["--to-pod", "shop/db"])?;
            flows.retain(|flow| flow["extensions"]["value"]["kind"] == "CLOSED");
            Ok(flows)
        };
        ensure!(eventually(PATIENCE, || Ok(closed()?.len() == 2))?, "{:?}", closed()?);
        for flow in closed()? {
            let there = &flow["extensions"]["value"]["forward"];
            let (packets, bytes) = (there["packets"].as_u64(), there["bytes"].as_u64());
            let (packets, bytes) = packets.zip(bytes).context("packets and bytes")?;
            // Each packet has headers; those that the kernel has not cut yet are fewer and larger than a link takes.
            ensure!(bytes > BYTES as u64 && bytes < BYTES as u64 * 11 / 10, "{bytes} bytes: {flow}");
            ensure!(packets < BYTES as u64 / 3000, "{packets} packets: {flow}");
        }
        let drops = node.ask()?.drops()?;
        ensure!(drops.is_empty(), "{drops:?}");
        Ok(())
    });
}

/// Drivers may leave all behind the Ethernet header in pages of its own.
#[test]
fn headers_are_read_wherever_the_driver_has_put_them() {
    const PORTS: [u16; 2] = [99, 98];
    const LINEAR: [u16; 4] = [14, 30, 40, 60];
    trial(|| {
        let db = policy(
            "shop/db",
            "  podSelector: {matchLabels: {app: db}}\n  policyTypes: [Ingress]\n\
             \x20 ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 99, protocol: UDP}]}]",
        );
        let arguments = vec!["--mtu=9000".to_owned()];
        let node =
            Node::start_as(Setup { arguments, ..Setup::default() }, &[("all.yaml", &[db_and_web(), db].concat())])?;
        let [db, web] = node.add_all(["shop/db", "shop/web"])?;
        let sockets = {
            let _inside = db.sandbox.enter()?;
            [UdpSocket::bind(("::", PORTS[0]))?, UdpSocket::bind(("::", PORTS[1]))?]
        };
        for (number, linear) in LINEAR.into_iter().enumerate() {
            let said: Vec<u8> = (0..5000_u32).map(|at| (at + u32::from(linear)) as u8).collect();
            for (from, to) in web.addresses().into_iter().zip(db.addresses()) {
                let frame = |port| {
                    let body = Body::Udp { port: [5000 + linear, port] };
                    Packet::new([web.mac(), HOST_MAC], [from, to], body).payload(&said).bytes()
                };
                frame::send_apart(&web.sandbox, IFNAME, &PORTS.map(frame), linear)?;
                sockets[0].set_read_timeout(Some(OPEN))?;
                let mut heard = vec![0; 9000];
                let length = sockets[0].recv(&mut heard).with_context(|| format!("{to}, {linear} bytes linear"))?;
                ensure!(heard[..length] == said, "{to}, {linear} bytes linear: other bytes");
            }
            let (drops, denied) = (node.ask()?.drops()?, 2 * (number as u64 + 1));
            ensure!(drops == BTreeMap::from([("default_deny".to_owned(), denied)]), "{linear} bytes linear: {drops:?}");
        }
        sockets[1].set_nonblocking(true)?;
        ensure!(sockets[1].recv(&mut [0; 16]).is_err(), "what no rule allows has arrived");
        Ok(())
    });
}

/// Longer than duplicate address detection and the first listener reports and router solicitations take
/// (RFC 4861, section 10: a second, up to four between solicitations).
const STARTED: Duration = Duration::from_secs(6);

#[test]
fn a_pod_that_starts_under_default_deny_is_not_told_of() {
    trial(|| {
        let node = Node::start(&[("all.yaml", &default_deny())])?;
        let _world = World::beside(&node)?;
        let pods = node.add_all(["shop/a", "shop/b", "shop/c"])?;
        thread::sleep(STARTED);
        let (drops, flows) = (node.ask()?.drops()?, node.bulkhead().flows(&["--verdict", "denied"])?);
        ensure!(drops.is_empty() && flows.is_empty(), "what a pod's kernel says by itself: {drops:?} {flows:?}");
        // What it says on purpose is told.
        ensure!(reach(&pods[0].sandbox, Udp, pods[1].at(53)[0], SILENT)? == Reached::No);
        ensure!(node.ask()?.drops()?.get("default_deny") == Some(&1));
        Ok(())
    });
}

/// All addresses of a namespace that other machines may be asked from.
fn addresses(sandbox: &Sandbox) -> anyhow::Result<Vec<IpAddr>> {
    let links: Value = serde_json::from_str(&sandbox.said("ip", &["-json", "address", "show"])?)?;
    let all = links.as_array().context("links")?.iter().filter_map(|link| link["addr_info"].as_array()).flatten();
    let mut found: Vec<IpAddr> = all
        .filter(|address| address["scope"] == "global" || address["scope"] == "link" && address["family"] == "inet")
        .filter_map(|address| address["local"].as_str()?.parse().ok())
        .filter(|address: &IpAddr| !address.is_loopback())
        .collect();
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Connects from this address, and asks an echo server.
fn probed(sandbox: &Sandbox, from: IpAddr, to: SocketAddr, kind: SocketType) -> anyhow::Result<bool> {
    let family = if from.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = {
        let _inside = sandbox.enter()?;
        rustix::net::socket(family, kind, None)?
    };
    for which in [Timeout::Recv, Timeout::Send] {
        rustix::net::sockopt::set_socket_timeout(&socket, which, Some(OPEN))?;
    }
    rustix::net::bind(&socket, &SocketAddr::new(from, 0)).with_context(|| format!("binding to {from}"))?;
    let mut answer = [0; 4];
    Ok(rustix::net::connect(&socket, &to).is_ok()
        && rustix::net::send(&socket, b"ping", SendFlags::NOSIGNAL).is_ok()
        && rustix::net::recv(&socket, &mut answer, RecvFlags::empty())
            .is_ok_and(|(length, _)| &answer[..length] == b"ping"))
}

#[test]
fn probes_from_every_address_of_the_node_reach_an_isolated_pod() {
    trial(|| {
        let node = Node::start(&[("all.yaml", &default_deny())])?;
        let world = neighbour(&node)?;
        // As load balancers and node-local caches have them.
        node.sandbox.ip("addr add 203.0.113.9/32 dev lo\naddr add 2001:db8:9::9/128 dev lo nodad\n\
             addr add 203.0.113.10/32 dev spare0\naddr add 2001:db8:9::a/128 dev spare0 nodad\nlink set spare0 up\n")?;
        let db = node.add("shop/db")?;
        let _echo = Echo::start(&db.sandbox, &[80], &[53])?;
        let from = addresses(&node.sandbox)?;
        for must in [world::NODE[0], world::NODE[1], "10.77.0.1", "fd77::1", "203.0.113.9", "2001:db8:9::a"] {
            ensure!(from.contains(&must.parse()?), "{must} is not among {from:?}");
        }
        for from in from {
            let to = if from.is_ipv4() { db.v4 } else { db.v6 };
            ensure!(probed(&node.sandbox, from, SocketAddr::new(to, 80), SocketType::STREAM)?, "TCP from {from}");
            ensure!(probed(&node.sandbox, from, SocketAddr::new(to, 53), SocketType::DGRAM)?, "UDP from {from}");
        }
        for to in db.addresses() {
            ensure!(reach(&node.sandbox, Ping, SocketAddr::new(to, 0), OPEN)? == Reached::Yes, "ping {to}");
            // Others are not the node.
            ensure!(reach(&world.sandbox, Ping, SocketAddr::new(to, 0), SILENT)? == Reached::No, "ping {to}");
            ensure!(reach(&world.sandbox, Tcp, SocketAddr::new(to, 80), SILENT)? == Reached::No, "{to}");
        }
        Ok(())
    });
}
