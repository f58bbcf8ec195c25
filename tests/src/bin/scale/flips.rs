//! How soon a change of a policy is in force: between two pods on two nodes, a policy of the second turns over, and a
//! packet every millisecond shows when that is seen.
//!
//! Packets are sent and received by threads of this program in the pods' networks, so that both have one clock. Each is
//! a connection of its own.

use std::{
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use ::tests::{
    cluster::{Cluster, node::Node},
    effort::Measured,
    netns::Netns,
};
use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::{
    api::{Api, Call},
    interrupt, load, pods, say, world,
};

/// Where the two pods are.
pub(crate) const NAMESPACE: &str = "flips";
/// The policy that turns over.
const POLICIES: &str = "/apis/networking.k8s.io/v1/namespaces/flips/networkpolicies";
/// Port of the second pod.
const PORT: u16 = 9000;
/// Time between two packets.
const PACE: Duration = Duration::from_millis(1);
/// So long must nothing arrive for what was sent to count as denied, and not as late.
const SILENCE: Duration = Duration::from_millis(200);
/// How long a change may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// From the moment of a request until the first packet was sent that met the change.
#[derive(Debug, Default)]
pub(crate) struct Change {
    /// From the API server's answer; zero if the change was there before.
    pub(crate) since_answer: Measured,
    /// From the request.
    pub(crate) since_request: Measured,
}

/// Changes of the two kinds.
#[derive(Debug, Default)]
pub(crate) struct Flips {
    /// What was denied is allowed.
    pub(crate) allow: Change,
    /// What was allowed is denied.
    pub(crate) deny: Change,
}

/// Makes the two pods, turns the policy over so often in each direction, and removes the pods.
pub(crate) fn measure(api: &Api, cluster: &Cluster, rounds: usize) -> anyhow::Result<Flips> {
    let (first, last) = (cluster.nodes.first(), cluster.nodes.last());
    let nodes = [first.context("a node")?, last.context("a node")?];
    let pods = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    for (name, node) in ["asks", "hears"].into_iter().zip(nodes) {
        api.ask(Call::create(&*pods, world::sleeper(name, NAMESPACE, &json!({"app": name}), &node.name)))?;
    }
    api.ask(Call::create(POLICIES, policy(false)))?;
    let asks = address(api, "asks")?;
    let hears = address(api, "hears")?;
    let probe = Probe::start(&inside(nodes[0], asks)?, &inside(nodes[1], hears)?, hears)?;
    let mut flips = Flips::default();
    // The first of each warms up: it is not counted.
    for round in 0..=rounds {
        for allowed in [true, false] {
            let (since_answer, since_request) = flip(api, &probe, allowed).with_context(|| format!("round {round}"))?;
            if round > 0 {
                let change = if allowed { &mut flips.allow } else { &mut flips.deny };
                change.since_answer.add(since_answer);
                change.since_request.add(since_request);
            }
            // Not in step with anything that happens every so often.
            interrupt::sleep(Duration::from_millis(u64::try_from(150 + round * 37 % 200)?))?;
        }
        if round > 0 && round.is_multiple_of(10) {
            say(&format!("{round} of {rounds} turns each way"));
        }
    }
    drop(probe);
    for name in ["asks", "hears"] {
        api.ask(Call::delete(format!("{pods}/{name}")))?;
    }
    api.ask(Call::delete(format!("{POLICIES}/flip")))?;
    Ok(flips)
}

/// Turns it over and waits until that is seen. Returns the time since the answer, and since the request.
fn flip(api: &Api, probe: &Probe, allowed: bool) -> anyhow::Result<(Duration, Duration)> {
    let before = probe.sent();
    let requested = Instant::now();
    let spec = json!({"spec": {"ingress": policy(allowed)["spec"]["ingress"]}});
    api.ask(Call::merge(format!("{POLICIES}/flip"), spec))?;
    let answered = Instant::now();
    let seen = loop {
        interrupt::check()?;
        let met = if allowed { probe.first_heard(before) } else { probe.silent_since(before) };
        if let Some(at) = met {
            break at;
        }
        ensure!(answered.elapsed() < PATIENCE, "a change is not seen after {PATIENCE:?}: to be allowed is {allowed}");
        thread::sleep(Duration::from_millis(5));
    };
    Ok((seen.saturating_duration_since(answered), seen.saturating_duration_since(requested)))
}

fn policy(allows: bool) -> Value {
    let from = if allows { "asks" } else { "nobody" };
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "flip", "namespace": NAMESPACE},
        "spec": {
            "podSelector": {"matchLabels": {"app": "hears"}},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": from}}}]}],
        },
    })
}

/// Waits until a pod is Ready; returns its first address.
fn address(api: &Api, name: &str) -> anyhow::Result<IpAddr> {
    let mut found = None;
    load::until(&format!("pod {name}"), || {
        let pod = api.ask(Call::get(format!("/api/v1/namespaces/{NAMESPACE}/pods/{name}")))?;
        ensure!(pods::is_ready(&pod), "it is not Ready: {}", pod["status"]);
        found = Some(pod["status"]["podIP"].as_str().context("a pod has an address")?.parse()?);
        Ok(())
    })?;
    found.context("a pod has an address")
}

/// The network namespace on a node that has this address.
fn inside(node: &Node, address: IpAddr) -> anyhow::Result<Netns> {
    for entry in fs::read_dir(node.room.outside("/run/netns")).context("network namespaces of a node")?.flatten() {
        let netns = Netns::open(&entry.path())?;
        let is_there = {
            let _inside = netns.enter()?;
            UdpSocket::bind((address, 0)).is_ok()
        };
        if is_there {
            return Ok(netns);
        }
    }
    anyhow::bail!("no pod on {} has {address}", node.name)
}

/// Packets on their way, until this is dropped.
struct Probe {
    log: Arc<Mutex<Log>>,
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<anyhow::Result<()>>>,
}

/// When each packet was sent, and whether it has arrived, by its number.
#[derive(Default)]
struct Log(Vec<(Instant, bool)>);

impl Log {
    /// When the first from `before` on was sent that has arrived.
    fn first_heard(&self, before: usize) -> Option<Instant> {
        self.0.get(before..)?.iter().find(|(_, heard)| *heard).map(|(sent, _)| *sent)
    }

    /// When the first from `before` on was sent after which nothing has arrived, if that is long enough ago.
    fn silent_since(&self, before: usize, now: Instant) -> Option<Instant> {
        let heard = self.0.iter().rposition(|(_, heard)| *heard).map_or(0, |last| last + 1);
        let (sent, _) = self.0.get(heard.max(before))?;
        (now.saturating_duration_since(*sent) > SILENCE).then_some(*sent)
    }
}

impl Probe {
    fn start(from: &Netns, to: &Netns, address: IpAddr) -> anyhow::Result<Self> {
        let receiver = {
            let _inside = to.enter()?;
            UdpSocket::bind((address, PORT)).context("a socket of the pod that hears")?
        };
        receiver.set_read_timeout(Some(Duration::from_millis(100)))?;
        let (log, ended) = (Arc::new(Mutex::new(Log::default())), Arc::new(AtomicBool::new(false)));
        let mut probe = Self { log, ended, threads: Vec::new() };
        let (log, ended) = (Arc::clone(&probe.log), Arc::clone(&probe.ended));
        probe.threads.push(thread::spawn(move || {
            let mut packet = [0; 8];
            while !ended.load(Ordering::Relaxed) {
                // Nothing for a while, which is no error.
                let Ok(8) = receiver.recv(&mut packet) else { continue };
                let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
                let number = usize::from_be_bytes(packet);
                if let Some((_, heard)) = log.0.get_mut(number) {
                    *heard = true;
                }
            }
            Ok(())
        }));
        let (log, ended) = (Arc::clone(&probe.log), Arc::clone(&probe.ended));
        let (inside, been) = std::sync::mpsc::channel();
        let from = from.try_clone()?;
        probe.threads.push(thread::spawn(move || {
            let _inside = from.enter()?;
            let _ = inside.send(());
            while !ended.load(Ordering::Relaxed) {
                let socket = UdpSocket::bind((IpAddr::from([0, 0, 0, 0]), 0))?;
                let number = {
                    let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
                    log.0.push((Instant::now(), false));
                    log.0.len() - 1
                };
                let _ = socket.send_to(&number.to_be_bytes(), SocketAddr::new(address, PORT));
                thread::sleep(PACE);
            }
            Ok(())
        }));
        been.recv().context("the thread that sends has ended")?;
        Ok(probe)
    }

    fn locked<T>(&self, look: impl FnOnce(&Log) -> T) -> T {
        look(&self.log.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many have been sent.
    fn sent(&self) -> usize {
        self.locked(|log| log.0.len())
    }

    fn first_heard(&self, before: usize) -> Option<Instant> {
        self.locked(|log| log.first_heard(before))
    }

    fn silent_since(&self, before: usize) -> Option<Instant> {
        self.locked(|log| log.silent_since(before, Instant::now()))
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if let Ok(Err(error)) = thread.join() {
                eprintln!("a thread of the probe has failed: {error:#}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_seen_by_the_first_packet_that_meets_it() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let log = |heard: [bool; 6]| Log(heard.iter().zip(0..).map(|(heard, ms)| (at(ms), *heard)).collect());
        let allowed = log([false, false, false, true, false, true]);
        assert_eq!(allowed.first_heard(0), Some(at(3)));
        assert_eq!(allowed.first_heard(4), Some(at(5)));
        assert_eq!(allowed.first_heard(6), None);
        // One that is lost is no change.
        let denied = log([true, false, true, true, false, false]);
        assert_eq!(denied.silent_since(0, at(4) + SILENCE), None);
        assert_eq!(denied.silent_since(0, at(5) + SILENCE), Some(at(4)));
        assert_eq!(log([true; 6]).silent_since(0, at(1000)), None);
    }
}
