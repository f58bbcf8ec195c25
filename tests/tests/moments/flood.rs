//! Floods at rate, with real frames: from one pod, of SYNs that nobody answers and of datagrams, while CONNTRACK is full.
//! Connections that are established lose nothing; new ones are made (docs/limits.md). BULKHEAD_FLOODS says how often.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use datapath_abi::endpoint::HOST_MAC;
use tests::{
    effort::times,
    frame,
    live::Live,
    manifest::{namespace, pod, policy},
    node::{Node, PATIENCE, Setup, eventually},
    packet::{Body, Packet, SYN},
    pod::{IFNAME, Pod},
    traffic::{
        Echo, OPEN,
        Protocol::{Tcp, Udp},
        Reached, connected_udp, reach,
    },
    trial::trial,
};

/// Entries of CONNTRACK and of PENDING.
const TABLE: usize = 64;
/// SYNs in a burst: many times what PENDING holds.
const BURST: u16 = 2000;
/// New connections while it goes on.
const NEW: u32 = 20;

/// SYNs to ports that nobody listens at, from ports of their own.
fn syns(from: &Pod, to: [IpAddr; 2], round: u16) -> Vec<Vec<u8>> {
    let frame = |number: u16| {
        let family = usize::from(number % 2);
        let port = [1024 + number, 10_000 + round];
        let body = Body::Tcp { port, flags: SYN };
        Packet::new([from.mac(), HOST_MAC], [from.addresses()[family], to[family]], body).bytes()
    };
    (0..BURST).map(frame).collect()
}

/// Connections that stay, until CONNTRACK is full.
fn fill(node: &Node, from: &Pod, to: &Pod) -> anyhow::Result<Vec<std::net::TcpStream>> {
    let mut held = Vec::new();
    for number in 0..TABLE {
        let to = to.at(80)[number % 2];
        let _inside = from.sandbox.enter()?;
        let stream = std::net::TcpStream::connect_timeout(&to, OPEN).with_context(|| format!("connection {number}"))?;
        held.push(stream);
    }
    let full = || Ok(node.ask()?.status()?.conditions.iter().any(|it| it.code == "conntrack-full"));
    ensure!(eventually(PATIENCE, full)?, "CONNTRACK is not full with {} connections", held.len());
    Ok(held)
}

#[test]
fn a_flood_from_one_pod_takes_nothing_from_connections_that_are_established() {
    trial(|| {
        let arguments = ["CONNTRACK", "PENDING"].map(|map| format!("--map-capacity={map}={TABLE}")).to_vec();
        let peers = "{podSelector: {matchLabels: {app: web}}}, {podSelector: {matchLabels: {app: bad}}}";
        let objects = [
            namespace("shop", ""),
            pod("shop/db", "app: db"),
            pod("shop/web", "app: web"),
            pod("shop/bad", "app: bad"),
            policy(
                "shop/db",
                &format!("  podSelector: {{matchLabels: {{app: db}}}}\n  ingress: [{{from: [{peers}]}}]"),
            ),
        ];
        let node = Node::start_as(Setup { arguments, ..Setup::default() }, &[("all.yaml", &*objects.concat())])?;
        let [web, db, bad] = node.add_all(["shop/web", "shop/db", "shop/bad"])?;
        let _echo = Echo::start(&db.sandbox, &[80], &[53])?;
        // Before the table is full, so that they are in it.
        let live = [
            Live::open(&web.sandbox, Tcp, &db.sandbox, SocketAddr::new(db.v4, 2000))?,
            Live::open(&web.sandbox, Udp, &db.sandbox, SocketAddr::new(db.v6, 2001))?,
        ];
        let held = fill(&node, &web, &db)?;

        let stop = AtomicBool::new(false);
        let bursts = AtomicU64::new(0);
        let made = thread::scope(|scope| {
            let flood = scope.spawn(|| -> anyhow::Result<()> {
                let mut round = 0;
                while !stop.load(Ordering::Relaxed) {
                    frame::send(&bad.sandbox, IFNAME, &syns(&bad, db.addresses(), round))?;
                    round = (round + 1) % 1000;
                    bursts.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            });
            let made = new_connections(&web, &db, &bursts);
            stop.store(true, Ordering::Relaxed);
            flood.join().expect("the flood does not panic").and(made)
        })?;
        let sent = bursts.load(Ordering::Relaxed) * u64::from(BURST);
        println!("{made} new connections through {sent} SYNs into tables of {TABLE}");
        for live in live {
            live.finish()?.lossless()?;
        }
        drop(held);
        // It is over by itself.
        for to in db.at(80) {
            ensure!(reach(&web.sandbox, Tcp, to, OPEN)? == Reached::Yes, "not after the flood: {to}");
        }
        Ok(())
    });
}

/// PENDING of the second test, and how long the flood lasts: many times what it takes to turn that table over.
const SMALL: usize = 1024;
const LASTS: Duration = Duration::from_secs(2);

#[test]
fn a_flood_from_one_pod_takes_nothing_from_what_others_wait_for() {
    trial(|| {
        let arguments = vec![format!("--map-capacity=PENDING={SMALL}")];
        let objects = [
            namespace("shop", ""),
            pod("shop/db", "app: db"),
            pod("shop/web", "app: web"),
            pod("shop/bad", "app: bad"),
            // An answer needs its request in the table.
            policy("shop/web", "  podSelector: {matchLabels: {app: web}}\n  policyTypes: [Ingress]"),
        ];
        let node = Node::start_as(Setup { arguments, ..Setup::default() }, &[("all.yaml", &*objects.concat())])?;
        let [web, db, bad] = node.add_all(["shop/web", "shop/db", "shop/bad"])?;
        let slow = {
            let _inside = db.sandbox.enter()?;
            UdpSocket::bind("[::]:99")?
        };
        slow.set_read_timeout(Some(OPEN))?;
        let mut asking = Vec::new();
        for to in db.at(99) {
            let socket = connected_udp(&web.sandbox, to)?;
            socket.send(b"how long?")?;
            let mut question = [0; 16];
            let (_, from) = slow.recv_from(&mut question).context("the question")?;
            asking.push((socket, from));
        }
        // A sweep has seen them, and shares are given out.
        let swept = || Ok(node.ask()?.status()?.conntrack.is_some_and(|tables| tables.pending >= 2));
        ensure!(eventually(PATIENCE, swept)?, "{:?}", node.ask()?.status()?.conntrack);

        let (began, mut round) = (Instant::now(), 0);
        while began.elapsed() < LASTS {
            frame::send(&bad.sandbox, IFNAME, &syns(&bad, db.addresses(), round))?;
            round += 1;
        }
        ensure!(usize::from(round) * usize::from(BURST) > 4 * SMALL, "{round} bursts are no flood");
        let told = || Ok(node.ask()?.status()?.conditions.iter().any(|it| it.code == "pending-share"));
        ensure!(eventually(PATIENCE, told)?, "{:?}", node.ask()?.status()?.conditions);
        for (socket, from) in asking {
            slow.send_to(b"so long", from)?;
            socket.set_read_timeout(Some(OPEN))?;
            let mut answer = [0; 16];
            let length = socket.recv(&mut answer).with_context(|| format!("the answer to {from}"))?;
            ensure!(&answer[..length] == b"so long");
        }
        Ok(())
    });
}

/// New connections, while bursts go on. What is evicted before its answer comes is sent again by TCP after a second.
fn new_connections(web: &Pod, db: &Pod, bursts: &AtomicU64) -> anyhow::Result<u32> {
    let mut made = 0;
    let wanted = times("BULKHEAD_FLOODS", NEW);
    for number in 0..wanted {
        let to = db.at(80)[number as usize % 2];
        let before = bursts.load(Ordering::Relaxed);
        let reached = reach(&web.sandbox, Tcp, to, 4 * OPEN)?;
        ensure!(reached == Reached::Yes, "new connection {number} to {to}: {reached:?}");
        made += 1;
        // Not all of them within one burst.
        eventually(Duration::from_millis(200), || Ok(bursts.load(Ordering::Relaxed) > before))?;
    }
    ensure!(bursts.load(Ordering::Relaxed) > 0, "there was no flood");
    Ok(made)
}
