//! `kill -9` of the daemon at any time, over and over, while pods come and go, policies and labels
//! are edited and connections live.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    net::IpAddr,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use tests::{
    effort::{Chance, times},
    flood::{Flood, Trap},
    footprint::Footprint,
    live::{Live, retransmissions},
    manifest::{namespace, pod, policy},
    node::Node,
    plugin::Plugin,
    pod::{Blank, Pod, addresses},
    traffic::{
        OPEN,
        Protocol::{Tcp, Udp},
        Reached, SILENT, connected_udp, reach,
    },
    trial::trial,
};

/// Where forbidden packets are sent.
const TRAP: u16 = 3000;
/// Pods that one thread keeps while it adds others.
const KEPT: usize = 3;
/// What may drop packets here: policy, and connections that it cuts.
const POLICY: [&str; 3] = ["default_deny", "policy_change", "midstream"];

/// Web may talk to db and nobody else may; whoever comes and goes is isolated. The variants are other rule
/// sets, other identities.
fn objects(variant: u64) -> String {
    let more = [
        "",
        "{ports: [{port: 1}]}, ",
        "{ports: [{port: 5, endPort: 90}]}, ",
        "{from: [{podSelector: {}}], ports: [{port: 7}]}, ",
    ];
    [
        namespace("shop", &format!("round: 'r{}'", variant % 3)),
        pod("shop/web", "app: web"),
        pod("shop/db", "app: db"),
        pod("shop/churn0", &format!("app: churn{}", variant % 2)),
        pod("shop/churn1", "app: churn"),
        policy(
            "shop/db",
            &format!(
                "  podSelector: {{matchLabels: {{app: db}}}}\n\
                 \x20 ingress: [{}{{from: [{{podSelector: {{matchLabels: {{app: web}}}}}}]}}]",
                more[variant as usize % more.len()]
            ),
        ),
        policy("shop/churn", "  podSelector: {matchLabels: {app: churn}}\n  policyTypes: [Ingress, Egress]"),
    ]
    .concat()
}

/// Adds and removes pods as a runtime does: after an ADD that failed comes a DEL, and a DEL must succeed.
struct Churn<'a> {
    plugin: Plugin,
    /// Addresses of pods that are there now.
    given: &'a Mutex<HashSet<IpAddr>>,
    targets: Vec<std::net::SocketAddr>,
    added: &'a AtomicU32,
    failed: &'a AtomicU32,
}

impl Churn<'_> {
    fn run(&self, key: &str, stop: &AtomicBool) -> anyhow::Result<VecDeque<Pod>> {
        let mut kept = VecDeque::new();
        while !stop.load(Ordering::Relaxed) {
            if let Some(pod) = self.add(key)? {
                kept.push_back(pod);
            }
            if kept.len() > KEPT {
                self.del(kept.pop_front().context("some are kept")?)?;
            }
        }
        Ok(kept)
    }

    fn add(&self, key: &str) -> anyhow::Result<Option<Pod>> {
        let blank = Blank::new(key, &self.plugin)?;
        // It tries from the first moment on.
        let flood = Flood::start(&blank.sandbox, self.targets.clone(), Duration::from_millis(1))?;
        let answer = blank.call("ADD")?;
        let added = match answer.result() {
            Ok(result) => {
                let mut given = self.given.lock().expect("nobody panics with it");
                for address in addresses(&result) {
                    ensure!(given.insert(address), "{address} was given to {key} and is another's");
                }
                self.added.fetch_add(1, Ordering::Relaxed);
                let [v4, v6] = addresses(&result)[..] else { bail!("{key} has got other addresses: {result}") };
                Some(Pod::of(blank, result, v4, v6))
            }
            Err(_) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                blank.call("DEL")?.result().with_context(|| format!("DEL of {key} after an ADD that failed"))?;
                // A runtime does not try again at once either.
                thread::sleep(Duration::from_millis(20));
                None
            }
        };
        flood.finish()?;
        Ok(added)
    }

    fn del(&self, pod: Pod) -> anyhow::Result<()> {
        let mut given = self.given.lock().expect("nobody panics with it");
        for address in pod.addresses() {
            given.remove(&address);
        }
        drop(given);
        pod.del()
    }
}

#[test]
fn crashes_under_load_lose_nothing_and_leave_nothing() {
    trial(|| {
        let crashes = times("BULKHEAD_CRASHES", 30);
        let mut chance = Chance::new();
        let mut node = Node::start(&[("all.yaml", &objects(0))])?;
        let [web, db, other] = node.add_all(["shop/web", "shop/db", "shop/other"])?;
        // Their identities stay known for a while after they have gone.
        for key in ["shop/churn0", "shop/churn1"] {
            node.add(key)?.del()?;
        }
        thread::sleep(Duration::from_millis(200));
        let before = Footprint::of(&node)?;
        let drops = node.ask()?.drops()?;

        let mut living = Vec::new();
        for (number, address) in db.addresses().into_iter().enumerate() {
            let port = 2000 + 2 * number as u16;
            living.push(Live::open(&web.sandbox, Tcp, &db.sandbox, (address, port).into())?);
            living.push(Live::open(&web.sandbox, Udp, &db.sandbox, (address, port + 1).into())?);
        }
        let again = retransmissions(&web.sandbox)? + retransmissions(&db.sandbox)?;
        let (trap, open_trap) = (Trap::set(&db.sandbox, TRAP)?, Trap::set(&other.sandbox, TRAP)?);
        let forbidden = Flood::start(&other.sandbox, db.at(TRAP).to_vec(), Duration::from_millis(2))?;

        let stop = AtomicBool::new(false);
        let given = Mutex::new([&web, &db, &other].iter().flat_map(|pod| pod.addresses()).collect());
        let (added, failed, edits) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
        let (plugin, objects_folder) = (node.plugin(), node.objects());
        let began = Instant::now();
        let kept = thread::scope(|scope| {
            let churns = [0, 1].map(|number| {
                let churn = Churn {
                    plugin: plugin.clone(),
                    given: &given,
                    // One may only not enter db; the other may not send anything.
                    targets: if number == 0 { db.at(TRAP).to_vec() } else { other.at(TRAP).to_vec() },
                    added: &added,
                    failed: &failed,
                };
                let stop = &stop;
                scope.spawn(move || churn.run(&format!("shop/churn{number}"), stop))
            });
            let editor = scope.spawn(|| -> anyhow::Result<()> {
                let mut variant = 0;
                while !stop.load(Ordering::Relaxed) {
                    variant += 1;
                    let unfinished = objects_folder.join(".all.yaml");
                    std::fs::write(&unfinished, objects(variant))?;
                    std::fs::rename(&unfinished, objects_folder.join("all.yaml"))?;
                    edits.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(40));
                }
                Ok(())
            });
            let killed = (|| {
                for crash in 0..crashes {
                    // Two of three are killed at work, the third wherever its start has got to.
                    if crash % 3 != 2 {
                        node.wait_until_ready()?;
                    }
                    thread::sleep(chance.up_to_ms(if crash % 3 == 2 { 500 } else { 1000 }));
                    node.take_agent()?.kill()?;
                    thread::sleep(chance.up_to_ms(50));
                    node.spawn_daemon()?;
                }
                node.wait_until_ready()
            })();
            stop.store(true, Ordering::Relaxed);
            let kept = churns.map(|churn| churn.join().expect("churn does not panic"));
            editor.join().expect("an editor does not panic")?;
            killed?;
            kept.into_iter().collect::<anyhow::Result<Vec<_>>>()
        })?;
        let took = began.elapsed();

        ensure!(forbidden.finish()? > 100, "hardly anything forbidden was sent");
        trap.is_empty().context("to db")?;
        open_trap.is_empty().context("from pods that may not send anything")?;
        let mut lost = 0;
        for live in living {
            let report = live.finish()?;
            report.lossless()?;
            lost += report.lost();
        }
        let again = retransmissions(&web.sandbox)? + retransmissions(&db.sandbox)? - again;
        let moved: BTreeMap<String, u64> = node
            .ask()?
            .drops()?
            .into_iter()
            .map(|(reason, packets)| (reason.clone(), packets - drops.get(&reason).copied().unwrap_or(0)))
            .filter(|(reason, packets)| *packets > 0 && !POLICY.contains(&reason.as_str()))
            .collect();
        println!(
            "{crashes} crashes in {took:?}: {} ADDs answered, {} not, {} edits, {lost} messages lost, {again} segments \
             sent again, other drops {moved:?}",
            added.load(Ordering::Relaxed),
            failed.load(Ordering::Relaxed),
            edits.load(Ordering::Relaxed)
        );
        ensure!(added.load(Ordering::Relaxed) > crashes / 10, "hardly any pod was added");

        // Who is there is as it was made; who is gone has left nothing.
        node.apply("all.yaml", &objects(0))?;
        for pod in kept.iter().flatten().chain([&web, &db, &other]) {
            pod.call("CHECK")?.result().with_context(|| format!("CHECK of {}", pod.key))?;
        }
        for pod in kept.into_iter().flatten() {
            pod.del()?;
        }
        before.comes_back(&node)?;
        connected_udp(&web.sandbox, db.at(TRAP)[0])?.send(b"allowed")?;
        trap.catches()?;
        let _echo = tests::traffic::Echo::start(&db.sandbox, &[80], &[])?;
        for to in db.at(80) {
            ensure!(reach(&web.sandbox, Tcp, to, OPEN)? == Reached::Yes);
            ensure!(reach(&other.sandbox, Tcp, to, SILENT)? == Reached::No);
        }
        Ok(())
    });
}
