//! An address goes from one pod to the next at once, and late events of the first arrive: the second is
//! who it is, and the connections of the first are dead.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use proto::bulkhead::cni::v1 as wire;
use tests::{
    ask::Ask,
    effort::{Measured, times},
    live::counter_of,
    manifest::{pod, policy},
    node::{NETWORK, Node, PATIENCE, eventually},
    pod::{Blank, IFNAME},
    sandbox::Sandbox,
    traffic::{Echo, OPEN, Protocol::Tcp, Reached, reach},
    trial::trial,
};

/// Goes from hand to hand.
const ADDRESSES: [&str; 2] = ["10.77.0.200", "fd77::c8"];
/// The first pod's port, which the second takes over as well.
const OWN: u16 = 4000;
/// The server's.
const SERVER: u16 = 5000;

/// Only web may talk to db, and nobody to the one who comes after web.
fn objects(web: &str, more: &str) -> String {
    [
        pod("shop/db", "app: db"),
        web.to_owned(),
        pod("shop/next", "app: next"),
        policy(
            "shop/db",
            "  podSelector: {matchLabels: {app: db}}\n  ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]",
        ),
        policy("shop/next", "  podSelector: {matchLabels: {app: next}}\n  policyTypes: [Ingress]"),
        more.to_owned(),
    ]
    .concat()
}

/// Sends a word to some addresses over and over, from one port; keeps the words that arrive there.
struct Mouth {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<String>>,
}

impl Mouth {
    fn open(sandbox: &Sandbox, port: u16, to: Vec<SocketAddr>, word: &'static str) -> anyhow::Result<Self> {
        let socket = {
            let _inside = sandbox.enter()?;
            UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))?
        };
        socket.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = thread::spawn(move || {
            let mut heard = Vec::new();
            let mut buffer = [0; 16];
            while !told.load(Ordering::Relaxed) {
                for address in &to {
                    // A socket of both families wants addresses of one.
                    let mapped = match address.ip() {
                        IpAddr::V4(v4) => SocketAddr::new(v4.to_ipv6_mapped().into(), address.port()),
                        IpAddr::V6(_) => *address,
                    };
                    let _ = socket.send_to(word.as_bytes(), mapped);
                }
                while let Ok((length, _)) = socket.recv_from(&mut buffer) {
                    heard.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
                }
                thread::sleep(Duration::from_micros(200));
            }
            heard
        });
        Ok(Self { stop, thread })
    }

    fn close(self) -> anyhow::Result<Vec<String>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().ok().context("a thread panicked")
    }
}

fn id(container_id: &str) -> Option<wire::AttachmentId> {
    Some(wire::AttachmentId { container_id: container_id.to_owned(), ifname: IFNAME.to_owned() })
}

fn network() -> Option<wire::Network> {
    Some(wire::Network { name: NETWORK.to_owned(), cni_version: "1.1.0".to_owned(), mtu: 0 })
}

/// ADD without a plugin, which would take longer to start than the whole thing may last.
fn add(ask: &Ask, blank: &Blank) -> anyhow::Result<()> {
    let (namespace, name) = blank.key.split_once('/').context("namespace/name")?;
    let request = wire::AddRequest {
        id: id(&blank.container_id),
        netns: Some(wire::Netns { path: blank.sandbox.path().display().to_string(), inode: 0 }),
        network: network(),
        pod: Some(wire::Pod { namespace: namespace.to_owned(), name: name.to_owned(), ..wire::Pod::default() }),
        ips: ADDRESSES.map(str::to_owned).to_vec(),
        ..wire::AddRequest::default()
    };
    let mut client = ask.cni();
    let reply = ask.wait(async move { client.add(request).await })?.into_inner();
    match reply.outcome {
        Some(wire::add_reply::Outcome::Result(_)) => Ok(()),
        other => anyhow::bail!("ADD of {}: {other:?}", blank.key),
    }
}

fn del(ask: &Ask, container_id: &str) -> anyhow::Result<()> {
    let request = wire::DelRequest { id: id(container_id), network: network(), ..wire::DelRequest::default() };
    let mut client = ask.cni();
    let reply = ask.wait(async move { client.del(request).await })?.into_inner();
    ensure!(reply.error.is_none(), "DEL of {container_id}: {:?}", reply.error);
    Ok(())
}

#[test]
fn who_gets_an_address_gets_nothing_else_of_its_last_owner() {
    trial(|| {
        let rounds = times("BULKHEAD_REUSES", 10);
        let web = pod("shop/web", "app: web");
        let node = Node::start(&[])?;
        node.apply("all.yaml", &objects(&web, ""))?;
        let db = node.add("shop/db")?;
        let at = ADDRESSES.map(|text| text.parse::<IpAddr>().expect("an address"));
        let (ask, admin) = (Ask::at(&node.cni_socket())?, node.ask()?);
        let _echo = Echo::start(&db.sandbox, &[80], &[])?;
        let mut gaps = Measured::default();
        for round in 0..rounds {
            node.apply("all.yaml", &objects(&web, ""))?;
            // Both talk over UDP, each on its own; web opens, and a TCP connection as well.
            let first = node.blank("shop/web")?;
            add(&ask, &first)?;
            let server = Mouth::open(&db.sandbox, SERVER, at.map(|ip| SocketAddr::new(ip, OWN)).to_vec(), "server")?;
            let speaks = Mouth::open(&first.sandbox, OWN, db.at(SERVER).to_vec(), "first")?;
            for to in db.at(80) {
                ensure!(reach(&first.sandbox, Tcp, to, OPEN)? == Reached::Yes, "web is let in");
            }
            let listener = {
                let _inside = db.sandbox.enter()?;
                std::net::TcpListener::bind((Ipv6Addr::UNSPECIFIED, 81))?
            };
            let kept = {
                let _inside = first.sandbox.enter()?;
                std::net::TcpStream::connect_timeout(&db.at(81)[0], OPEN)?
            };
            let (mut from_db, _) = listener.accept()?;
            thread::sleep(Duration::from_millis(20));

            // The next one waits with everything it has, at the same port.
            let next = node.blank("shop/next")?;
            let intruder = Mouth::open(&next.sandbox, OWN, db.at(SERVER).to_vec(), "next")?;
            del(&ask, &first.container_id)?;
            let freed = Instant::now();
            add(&ask, &next)?;
            gaps.add(freed.elapsed());

            // What comes late: DEL once more, also by tombstone; the object, first with the address that
            // was its pod's, then without it; at last it goes. Data of the old connection, too.
            std::io::Write::write_all(&mut from_db, b"late")?;
            del(&ask, &first.container_id)?;
            let mut nowhere = node.plugin();
            nowhere.conf["socket"] = "/nonexistent/cni.sock".into();
            Blank {
                key: first.key.clone(),
                container_id: first.container_id.clone(),
                sandbox: first.sandbox,
                plugin: nowhere,
            }
            .call("DEL")?
            .result()?;
            let stale = format!(
                "{}status: {{phase: Running, podIP: {}, podIPs: [{{ip: {}}}, {{ip: '{}'}}]}}\n",
                web, ADDRESSES[0], ADDRESSES[0], ADDRESSES[1]
            );
            node.apply("all.yaml", &objects(&stale, ""))?;
            node.apply("all.yaml", &objects("", ""))?;
            let served = || Ok(std::fs::read_dir(node.state().join("tombstones"))?.next().is_none());
            ensure!(eventually(PATIENCE, served)?, "the tombstone is not served");
            thread::sleep(Duration::from_millis(50));

            let spoken = speaks.close()?;
            ensure!(spoken.iter().any(|word| word == "server"), "round {round}: web was not answered");
            drop(kept);
            let heard = intruder.close()?;
            ensure!(heard.is_empty(), "round {round}: the next pod was told {heard:?}");
            let heard = server.close()?;
            ensure!(heard.iter().any(|word| word == "first"), "round {round}: db has not heard web");
            let strange = heard.iter().filter(|word| *word != "first").count();
            ensure!(strange == 0, "round {round}: the next pod has reached db {strange} times");
            let answered = counter_of(&next.sandbox, "snmp", "Tcp: ", "OutRsts")?;
            ensure!(answered == 0, "round {round}: segments of the old connection have reached the next pod");

            // It is who it is.
            let endpoints = admin.endpoints()?;
            let owner: Vec<&str> = endpoints
                .iter()
                .filter(|endpoint| endpoint.ips.iter().any(|ip| *ip == ADDRESSES[0] || *ip == ADDRESSES[1]))
                .map(|endpoint| endpoint.pod.as_str())
                .collect();
            ensure!(owner == ["next"], "round {round}: {owner:?}");
            for to in db.at(80) {
                let reached = reach(&next.sandbox, Tcp, to, Duration::from_millis(100))?;
                ensure!(reached == Reached::No, "round {round}: {reached:?}");
            }
            let denied = ["--from-pod", "shop/next", "--verdict", "denied", "--to-port", "80"];
            let told = || Ok(node.bulkhead().flows(&denied)?.len() >= 2);
            ensure!(eventually(PATIENCE, told)?, "round {round}: no flow names the next pod");
            let allowed = node.bulkhead().flows(&["--from-pod", "shop/next", "--verdict", "allowed"])?;
            let strange = allowed.iter().find(|flow| flow["l4"]["TCP"]["destination_port"] != 81);
            ensure!(strange.is_none(), "round {round}: {strange:?}");

            // The control: with rules that let it, it does get through, and is answered.
            let open = policy(
                "shop/open",
                "  podSelector: {matchLabels: {app: db}}\n\
                 \x20 ingress: [{from: [{podSelector: {matchLabels: {app: next}}}], ports: [{port: 81}]}]",
            );
            node.apply("all.yaml", &objects("", &open))?;
            let _inside = next.sandbox.enter()?;
            let second = std::net::TcpStream::connect_timeout(&db.at(81)[1], OPEN);
            drop(_inside);
            ensure!(second.is_ok(), "round {round}: what is allowed does not pass: {second:?}");
            del(&ask, &next.container_id)?;
        }
        println!("{rounds} rounds; from DEL's answer to ADD's: {}", gaps.told());
        Ok(())
    });
}
