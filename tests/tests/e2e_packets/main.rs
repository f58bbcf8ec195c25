//! Hard packets where the kernel's own stack has a part in them: real sockets in namespaces, with the real
//! daemon and plugin. What the programs alone do with a packet is in `docs/packets.md` and its tests.

mod forgery;
mod fragments;
mod mtu;
mod sockets;
mod tunnel;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tests::{
    manifest::pod,
    node::{Node, PATIENCE},
    sandbox::Sandbox,
    traffic::{OPEN, connected_udp},
    world::{self, World},
};

/// Sets kernel settings of a namespace, by name below /proc/sys/net.
fn set(sandbox: &Sandbox, settings: &[(&str, &str)]) -> anyhow::Result<()> {
    let _inside = sandbox.enter()?;
    for (name, value) in settings {
        fs::write(format!("/proc/sys/net/{name}"), value).with_context(|| (*name).to_owned())?;
    }
    Ok(())
}

const FORWARDING: [(&str, &str); 2] = [("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")];

/// Sends so many bytes over TCP, 64 KiB at a time, and waits until the other end has read them all.
fn stream(from: &Sandbox, server: &Sandbox, to: SocketAddr, bytes: usize) -> anyhow::Result<()> {
    let listener = {
        let _inside = server.enter()?;
        TcpListener::bind((Ipv6Addr::UNSPECIFIED, to.port())).with_context(|| format!("port {}", to.port()))?
    };
    let mut client = {
        let _inside = from.enter()?;
        TcpStream::connect_timeout(&to, OPEN).with_context(|| format!("connecting to {to}"))?
    };
    let (mut peer, _) = listener.accept()?;
    peer.set_read_timeout(Some(PATIENCE))?;
    client.set_write_timeout(Some(PATIENCE))?;
    let reader = thread::spawn(move || {
        let (mut count, mut buffer) = (0, vec![0; 1 << 16]);
        while let Ok(more) = peer.read(&mut buffer) {
            if more == 0 {
                break;
            }
            count += more;
        }
        count
    });
    let chunk = vec![7; 1 << 16];
    for _ in 0..bytes.div_ceil(chunk.len()) {
        client.write_all(&chunk).with_context(|| format!("writing to {to}"))?;
    }
    client.shutdown(Shutdown::Write)?;
    let read = reader.join().ok().context("the reader panicked")?;
    ensure!(read == bytes.next_multiple_of(chunk.len()), "{to} has read {read} of {bytes} bytes");
    Ok(())
}

/// Sends one datagram of so many bytes to an echo server. Whether it has come back whole.
fn echoed(from: &Sandbox, to: SocketAddr, bytes: usize, patience: Duration) -> anyhow::Result<bool> {
    let socket = connected_udp(from, to)?;
    socket.set_read_timeout(Some(patience))?;
    let sent: Vec<u8> = (0..bytes).map(|number| number as u8).collect();
    let mut back = vec![0; bytes + 1];
    Ok(socket.send(&sent).is_ok() && socket.recv(&mut back).is_ok_and(|length| back[..length] == sent))
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().expect("an address"), port)
}

/// Pods of the namespace `shop`, told apart by the label `app`.
fn db_and_web() -> String {
    [pod("shop/db", "app: db"), pod("shop/web", "app: web")].concat()
}

/// The host beside the node knows the way to the pods.
fn neighbour(node: &Node) -> anyhow::Result<World> {
    let world = World::beside(node)?;
    let [v4, v6] = world::NODE;
    world.sandbox.ip(&format!("route add 10.77.0.0/24 via {v4}\nroute add fd77::/64 via {v6}\n"))?;
    Ok(world)
}

/// What `ip` says about an interface.
fn link(sandbox: &Sandbox, ifname: &str) -> anyhow::Result<Value> {
    let mut links: Value = serde_json::from_str(&sandbox.said("ip", &["-json", "link", "show", ifname])?)?;
    Ok(links[0].take())
}

/// MAC address of an interface.
fn mac(sandbox: &Sandbox, ifname: &str) -> anyhow::Result<[u8; 6]> {
    let link = link(sandbox, ifname)?;
    let address = link["address"].as_str().context("a MAC address")?;
    let octets: Result<Vec<u8>, _> = address.split(':').map(|octet| u8::from_str_radix(octet, 16)).collect();
    octets?.try_into().ok().context("six octets")
}
