//! A pod under default deny sends from the first moment it has a link, and is sent to from before that
//! on: nothing passes.

use std::{
    net::{IpAddr, SocketAddr},
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use tests::{
    effort::{Measured, times},
    flood::{Flood, Trap},
    footprint::Footprint,
    manifest::policy,
    node::Node,
    pod::Blank,
    trial::trial,
    world::World,
};

/// Where everybody sends to.
const PORT: u16 = 7000;
/// The addresses of every pod that starts.
const ADDRESSES: [&str; 2] = ["10.77.0.200", "fd77::c8"];
/// Pause of the senders.
const PAUSE: Duration = Duration::from_micros(300);

#[test]
fn nothing_passes_before_the_rules() {
    trial(|| {
        let starts = times("BULKHEAD_STARTS", 100);
        let deny = policy("shop/deny", "  podSelector: {}\n  policyTypes: [Ingress, Egress]");
        let node = Node::start(&[])?;
        node.apply("policy.yaml", &deny)?;
        let world = World::beside(&node)?;
        let [node_v4, node_v6] = tests::world::NODE;
        world.sandbox.ip(&format!("route add 10.77.0.0/24 via {node_v4}\nroute add fd77::/64 via {node_v6}\n"))?;
        let [inside, other] = node.add_all(["open/inside", "open/other"])?;
        let before = Footprint::of(&node)?;

        // To the pod: from another pod, and from outside through the node's stack.
        let target = ADDRESSES.map(|address| address.parse::<IpAddr>().expect("an address"));
        let towards: Vec<SocketAddr> = target.iter().map(|address| (*address, PORT).into()).collect();
        let senders =
            [Flood::start(&other.sandbox, towards.clone(), PAUSE)?, Flood::start(&world.sandbox, towards, PAUSE)?];
        // From the pod: to another pod, to its node, to the outside.
        let traps =
            [Trap::set(&inside.sandbox, PORT)?, Trap::set(&node.sandbox, PORT)?, Trap::set(&world.sandbox, PORT)?];
        let gateways = ["10.77.0.1", "fd77::1"].map(|text| text.parse::<IpAddr>().expect("an address"));
        let mut outwards = inside.at(PORT).to_vec();
        outwards.extend(gateways.map(|gateway| SocketAddr::new(gateway, PORT)));
        outwards.extend(world.at(PORT));

        let mut plugin = node.plugin();
        plugin.conf["capabilities"] = serde_json::json!({"ips": true});
        plugin.conf["runtimeConfig"] = serde_json::json!({"ips": ADDRESSES});
        let (mut sent, mut took) = (0, Measured::default());
        let start = |sent: &mut u64, took: &mut Measured| -> anyhow::Result<_> {
            let blank = Blank::new("shop/new", &plugin)?;
            let trap = Trap::set(&blank.sandbox, PORT)?;
            let flood = Flood::start(&blank.sandbox, outwards.clone(), PAUSE)?;
            let began = std::time::Instant::now();
            let pod = blank.add()?;
            took.add(began.elapsed());
            ensure!(pod.addresses() == target, "{:?}", pod.addresses());
            thread::sleep(Duration::from_millis(5));
            *sent += flood.finish()?;
            Ok((pod, trap))
        };
        for number in 0..starts {
            let (pod, trap) = start(&mut sent, &mut took)?;
            let arrived = || format!("start {number}");
            trap.is_empty().with_context(arrived).context("to the pod")?;
            for (trap, place) in traps.iter().zip(["another pod", "its node", "the outside"]) {
                trap.is_empty().with_context(arrived).with_context(|| format!("from the pod to {place}"))?;
            }
            pod.del()?;
        }
        println!("{starts} pod starts; ADD took {}; the pods have sent {sent} datagrams", took.told());
        ensure!(sent > u64::from(starts) * 6, "the pods have sent {sent} datagrams only");

        // The control: without the policy all of it arrives.
        node.remove("policy.yaml")?;
        let (pod, trap) = start(&mut sent, &mut took)?;
        let flood = Flood::start(&pod.sandbox, outwards.clone(), PAUSE)?;
        trap.catches().context("to the pod")?;
        for (trap, place) in traps.iter().zip(["another pod", "its node", "the outside"]) {
            trap.catches().with_context(|| format!("from the pod to {place}"))?;
        }
        flood.finish()?;
        for sender in senders {
            ensure!(sender.finish()? > u64::from(starts) * 10, "hardly anything was sent to the pods");
        }
        pod.del()?;
        before.comes_back(&node)
    });
}
