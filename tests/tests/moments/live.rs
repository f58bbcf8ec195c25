//! Policies, labels and namespaces' labels are edited while connections live: what is forbidden is cut in both
//! directions, what is allowed again goes on, what stays allowed notices nothing.
//!
//! How long a cut takes is told, not judged: design.md's 100 ms are measured where nothing else runs.

use std::{
    net::{Ipv6Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, sockopt},
};
use tests::{
    effort::{Measured, times},
    live::{Live, counter_of, retransmissions},
    manifest::{namespace, pod, policy},
    node::{Node, PATIENCE},
    pod::Pod,
    sandbox::Sandbox,
    traffic::{
        Echo,
        Protocol::{Tcp, Udp},
        SILENT,
    },
    trial::trial,
};

/// Silence that shows that nothing passes any more.
const QUIET: Duration = Duration::from_millis(60);

/// A datagram there and back every millisecond, each end on its own, and when the last arrived. It says
/// whether it was sent while nothing may pass.
struct Pulse {
    stop: Arc<AtomicBool>,
    began: Instant,
    /// Nothing that is sent now may arrive, at any time.
    forbidden: Arc<AtomicBool>,
    /// How many did.
    escaped: Arc<AtomicU64>,
    /// Microseconds since it began, by end.
    last: [Arc<AtomicU64>; 2],
    threads: Vec<JoinHandle<()>>,
}

impl Pulse {
    /// Between a client and a server that have these addresses.
    fn start(client: &Pod, server: &Pod, family: usize, port: u16) -> anyhow::Result<Self> {
        let bind = |sandbox: &Sandbox, at: u16| -> anyhow::Result<UdpSocket> {
            let _inside = sandbox.enter()?;
            let any =
                if family == 0 { SocketAddr::from(([0, 0, 0, 0], at)) } else { (Ipv6Addr::UNSPECIFIED, at).into() };
            Ok(UdpSocket::bind(any)?)
        };
        let there = bind(&server.sandbox, port)?;
        let here = bind(&client.sandbox, port)?;
        here.connect((server.addresses()[family], port))?;
        here.set_read_timeout(Some(PATIENCE))?;
        there.set_read_timeout(Some(PATIENCE))?;
        // The client opens.
        here.send(&[0])?;
        let (_, from) = there.recv_from(&mut [0; 8]).context("the first pulse")?;
        there.connect(from)?;
        let (stop, began) = (Arc::new(AtomicBool::new(false)), Instant::now());
        let (forbidden, escaped) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let last = [Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0))];
        let mut threads = Vec::new();
        for (socket, last) in [here, there].into_iter().zip(&last) {
            socket.set_nonblocking(true)?;
            let (stop, last) = (stop.clone(), last.clone());
            let (forbidden, escaped) = (forbidden.clone(), escaped.clone());
            threads.push(thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let _ = socket.send(&[u8::from(forbidden.load(Ordering::SeqCst))]);
                    thread::sleep(Duration::from_millis(1));
                    let mut sent_forbidden = [0];
                    while socket.recv(&mut sent_forbidden).is_ok() {
                        last.store(began.elapsed().as_micros() as u64, Ordering::Relaxed);
                        escaped.fetch_add(u64::from(sent_forbidden[0]), Ordering::Relaxed);
                    }
                }
            }));
        }
        Ok(Self { stop, began, forbidden, escaped, last, threads })
    }

    /// When something arrived last: at the one end that was later, and at the one that was earlier.
    fn last(&self) -> [Instant; 2] {
        let mut ends = [0, 1].map(|end| self.began + Duration::from_micros(self.last[end].load(Ordering::Relaxed)));
        ends.sort_unstable();
        [ends[1], ends[0]]
    }

    /// Waits until nothing has arrived for a while. When the last arrived, after `change`.
    fn cut(&self, change: Instant) -> anyhow::Result<Duration> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let [last, _] = self.last();
            if last.elapsed() > QUIET {
                return Ok(last.saturating_duration_since(change));
            }
            thread::sleep(Duration::from_millis(2));
        }
        bail!("it still passes {PATIENCE:?} after the change");
    }

    /// Waits until it arrives again at both ends.
    fn resumed(&self, change: Instant) -> anyhow::Result<Duration> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let [later, earlier] = self.last();
            if earlier > change + Duration::from_millis(1) && earlier.elapsed() < QUIET {
                return Ok(later.saturating_duration_since(change));
            }
            thread::sleep(Duration::from_millis(1));
        }
        bail!("it does not pass {PATIENCE:?} after the change");
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// db lets in who has `app: web` in a namespace with `trust: 'yes'`.
fn db_policy(ports: &str) -> String {
    policy(
        "shop/db",
        &format!(
            "  podSelector: {{matchLabels: {{app: db}}}}\n  ingress:\n  - from:\n\
             \x20   - namespaceSelector: {{matchLabels: {{trust: 'yes'}}}}\n\
             \x20     podSelector: {{matchLabels: {{app: web}}}}\n{ports}"
        ),
    )
}

/// Each kind of edit: the file, and what it says while the connection is allowed and while it is not.
fn edits() -> [(&'static str, &'static str, String, String); 3] {
    let label = |value: &str| pod("mon/web", &format!("app: {value}"));
    let trust = |value: &str| namespace("mon", &format!("trust: '{value}'"));
    let elsewhere = db_policy("    ports: [{port: 1, protocol: UDP}]\n");
    [
        ("policy", "policy.yaml", db_policy(""), elsewhere),
        ("label", "web.yaml", label("web"), label("old")),
        ("namespace label", "mon.yaml", trust("yes"), trust("no")),
    ]
}

#[test]
fn what_an_edit_forbids_is_cut_both_ways_and_goes_on_when_it_is_allowed_again() {
    trial(|| {
        let times = times("BULKHEAD_CUTS", 10);
        let node = Node::start(&[])?;
        node.apply("db.yaml", &[pod("shop/db", "app: db"), namespace("shop", "")].concat())?;
        for (_, file, allowed, _) in edits() {
            node.apply(file, &allowed)?;
        }
        let [web, db] = node.add_all(["mon/web", "shop/db"])?;
        let pulses = [Pulse::start(&web, &db, 0, 4000)?, Pulse::start(&web, &db, 1, 4001)?];
        for (what, file, allowed, forbidden) in edits() {
            let (mut cuts, mut resumptions) = (Measured::default(), Measured::default());
            for _ in 0..times {
                let at = node.apply(file, &forbidden)?;
                // The daemon has said that it is in force.
                pulses.iter().for_each(|pulse| pulse.forbidden.store(true, Ordering::SeqCst));
                for pulse in &pulses {
                    cuts.add(pulse.cut(at)?);
                }
                thread::sleep(QUIET);
                pulses.iter().for_each(|pulse| pulse.forbidden.store(false, Ordering::SeqCst));
                // What is sent from here on may arrive once the next edit is in force.
                thread::sleep(QUIET);
                for pulse in &pulses {
                    let escaped = pulse.escaped.load(Ordering::Relaxed);
                    ensure!(escaped == 0, "{what}: {escaped} packets passed after the daemon said they may not");
                }
                let at = node.apply(file, &allowed)?;
                for pulse in &pulses {
                    resumptions.add(pulse.resumed(at)?);
                }
            }
            println!("{what}: cut {}", cuts.told());
            println!("{what}: again {}", resumptions.told());
        }
        Ok(())
    });
}

#[test]
fn what_stays_allowed_loses_nothing_through_edits() {
    trial(|| {
        let times = times("BULKHEAD_EDITS", 150);
        // Whatever is edited, web in mon may talk to db.
        let objects = |edit: u32| {
            let ports = match edit % 3 {
                0 => String::new(),
                1 => "    ports: [{port: 1, endPort: 65535}, {port: 1, endPort: 65535, protocol: UDP}]\n".to_owned(),
                _ => format!(
                    "    ports: [{{port: 2000, endPort: {0}}}, {{port: 2000, endPort: {0}, protocol: UDP}}]\n",
                    3000 + edit
                ),
            };
            let egress = match edit % 4 {
                0 => String::new(),
                _ => policy(
                    "mon/web",
                    "  podSelector: {matchLabels: {app: web}}\n  policyTypes: [Egress]\n\
                     \x20 egress: [{to: [{namespaceSelector: {}}]}]",
                ),
            };
            [
                namespace("shop", &format!("edit: 'e{}'", edit / 2 % 5)),
                namespace("mon", &format!("trust: 'yes', edit: 'e{}'", edit / 3 % 7)),
                pod("shop/db", &format!("app: db, edit: 'e{}'", edit % 11)),
                pod("mon/web", &format!("app: web, edit: 'e{}'", edit / 5 % 3)),
                policy("shop/noise", &format!("  podSelector: {{matchLabels: {{edit: 'e{}'}}}}", edit % 13)),
                db_policy(&ports),
                egress,
            ]
            .concat()
        };
        let node = Node::start(&[])?;
        node.apply("all.yaml", &objects(0))?;
        let [web, db] = node.add_all(["mon/web", "shop/db"])?;
        let mut living = Vec::new();
        for (number, to) in db.addresses().into_iter().enumerate() {
            let port = 2000 + 2 * number as u16;
            living.push(Live::open(&web.sandbox, Tcp, &db.sandbox, (to, port).into())?);
            living.push(Live::open(&web.sandbox, Udp, &db.sandbox, (to, port + 1).into())?);
        }
        let again = retransmissions(&web.sandbox)? + retransmissions(&db.sandbox)?;
        let drops = node.ask()?.drops()?;
        let generations = |node: &Node| -> anyhow::Result<u32> {
            let endpoints = node.ask()?.endpoints()?;
            let all = endpoints.iter().flat_map(|endpoint| &endpoint.directions);
            Ok(all.map(|direction| direction.generation).max().unwrap_or_default())
        };
        let generation = generations(&node)?;
        let began = Instant::now();
        for edit in 1..=times {
            node.apply("all.yaml", &objects(edit))?;
        }
        let took = began.elapsed();
        let swung = generations(&node)? - generation;
        let mut messages = 0;
        for live in living {
            let report = live.finish()?;
            report.lossless()?;
            messages += report.there.received + report.back.received;
        }
        let again = retransmissions(&web.sandbox)? + retransmissions(&db.sandbox)? - again;
        println!("{times} edits in {took:?}: {messages} messages, none lost, {again} segments sent again");
        ensure!(swung >= times / 2, "rules were swung {swung} times only");
        let now = node.ask()?.drops()?;
        ensure!(now == drops, "dropped before {drops:?}, after {now:?}");
        Ok(())
    });
}

/// Connects from a fixed port, so that it is the connection that was tried before. True: established.
fn connect(from: &Pod, port: u16, to: SocketAddr, patience: Duration) -> anyhow::Result<bool> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = {
        let _inside = from.sandbox.enter()?;
        // Not for the children that other tests start meanwhile: they would keep the port.
        rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?
    };
    sockopt::set_socket_reuseaddr(&socket, true)?;
    // Ends with a reset, which leaves the port at once.
    sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(patience))?;
    let own = if to.is_ipv4() { from.v4 } else { from.v6 };
    rustix::net::bind(&socket, &SocketAddr::new(own, port))?;
    // Whom a signal interrupts waits on: the kernel goes on with it meanwhile, and says so to one who asks in vain again.
    match rustix::io::retry_on_intr(|| rustix::net::connect(&socket, &to)) {
        Ok(()) | Err(Errno::ISCONN) => Ok(true),
        Err(Errno::INPROGRESS | Errno::AGAIN | Errno::TIMEDOUT | Errno::ALREADY) => Ok(false),
        Err(error) => Err(error).with_context(|| format!("connecting to {to}")),
    }
}

#[test]
fn what_was_forbidden_and_is_allowed_opens_at_its_first_syn() {
    trial(|| {
        let times = times("BULKHEAD_OPENS", 5);
        let node = Node::start(&[])?;
        node.apply("db.yaml", &[pod("shop/db", "app: db"), namespace("shop", "")].concat())?;
        for (_, file, allowed, _) in edits() {
            node.apply(file, &allowed)?;
        }
        let [web, db] = node.add_all(["mon/web", "shop/db"])?;
        let _echo = Echo::start(&db.sandbox, &[80], &[])?;
        let mut port = 30_000;
        for (what, file, allowed, forbidden) in edits() {
            let mut took = Measured::default();
            for _ in 0..times {
                for to in db.at(80) {
                    port += 1;
                    // Also one that was established before.
                    ensure!(connect(&web, port, to, PATIENCE)?, "{what}: {to} cannot be reached");
                    node.apply(file, &forbidden)?;
                    ensure!(!connect(&web, port, to, SILENT)?, "{what}: {to} is reached");
                    node.apply(file, &allowed)?;
                    let again = counter_of(&web.sandbox, "netstat", "TcpExt: ", "TCPSynRetrans")?;
                    let began = Instant::now();
                    ensure!(connect(&web, port, to, PATIENCE)?, "{what}: {to} is not reached again");
                    took.add(began.elapsed());
                    let again = counter_of(&web.sandbox, "netstat", "TcpExt: ", "TCPSynRetrans")? - again;
                    ensure!(again == 0, "{what}: the SYN to {to} was sent {again} times more");
                }
            }
            println!("{what}: allowed again, connected after {}", took.told());
        }
        Ok(())
    });
}
