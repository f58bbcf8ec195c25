//! Pods on netkit through the real plugin and daemon: the same programs at the node's end of the pair, policy from the first
//! packet on, delivery from pod to pod past the host's stack, and pods of both kinds on one node.

use std::{collections::BTreeSet, fs, net::SocketAddr, time::Duration};

use anyhow::{Context as _, ensure};
use tests::{
    feature::Feature,
    flood::{Flood, Trap},
    manifest::{namespace, pod, policy},
    node::{Node, PATIENCE, Setup, eventually, holds_anything},
    pod::{IFNAME, Pod},
    traffic::{
        Case, Echo, OPEN,
        Protocol::{Tcp, Udp},
        Reached, connected_udp, expect, reach,
    },
    trial::trial,
};

/// Datagrams of a conversation, each of them answered.
const TALK: u32 = 200;

fn objects() -> String {
    let db = "  podSelector: {matchLabels: {app: db}}\n  ingress:\n\
              \x20 - from: [{podSelector: {matchLabels: {app: web}}}]\n\
              \x20   ports: [{port: 80}, {port: 53, protocol: UDP}]";
    [
        namespace("shop", ""),
        pod("shop/web", "app: web"),
        pod("shop/other", ""),
        pod("shop/late", "app: web"),
        pod("shop/db", "app: db"),
        policy("shop/db", db),
    ]
    .concat()
}

fn start(arguments: &[&str]) -> anyhow::Result<Node> {
    let arguments = arguments.iter().map(|&it| it.to_owned()).collect();
    Node::start_as(Setup { arguments, ..Setup::default() }, &[("all.yaml", &objects())])
}

/// Fails unless both ends of a pod's link are of this kind.
fn is_on(node: &Node, pod: &Pod, kind: &str) -> anyhow::Result<()> {
    for (space, link) in [(&node.sandbox, pod.host_ifname()), (&pod.sandbox, IFNAME.to_owned())] {
        let said: serde_json::Value =
            serde_json::from_str(&space.said("ip", &["-json", "-details", "link", "show", &link])?)?;
        ensure!(said[0]["linkinfo"]["info_kind"] == kind, "{link} of {} is no {kind}: {said}", pod.key);
    }
    Ok(())
}

/// Packets that the host side of a pod's link has sent towards the pod.
fn sent_by_host(node: &Node, pod: &Pod) -> anyhow::Result<u64> {
    let said = node.sandbox.said("ip", &["-json", "-statistics", "link", "show", &pod.host_ifname()])?;
    let said: serde_json::Value = serde_json::from_str(&said)?;
    said[0]["stats64"]["tx"]["packets"].as_u64().context("a count")
}

fn passed(node: &Node, hook: &str) -> anyhow::Result<f64> {
    node.metric(&format!("bulkhead_passed_packets_total{{hook=\"{hook}\"}}"))
}

/// Packets between two pods go through the sender's program alone and are put down in the receiver's namespace:
/// neither the receiver's program nor its link on the node sees them.
fn is_redirected(node: &Node, from: &Pod, to: &Pod) -> anyhow::Result<()> {
    for at in to.at(53) {
        let before =
            (passed(node, "from_pod")?, passed(node, "to_pod")?, sent_by_host(node, to)?, sent_by_host(node, from)?);
        let socket = connected_udp(&from.sandbox, at)?;
        socket.set_read_timeout(Some(OPEN))?;
        for _ in 0..TALK {
            socket.send(b"talk")?;
            socket.recv(&mut [0; 16]).with_context(|| format!("the answer of {at}"))?;
        }
        let after =
            (passed(node, "from_pod")?, passed(node, "to_pod")?, sent_by_host(node, to)?, sent_by_host(node, from)?);
        let both_ways = f64::from(2 * TALK);
        // The kernel itself sends a few multicast packets to new links.
        let few = TALK / 10;
        ensure!(after.0 - before.0 >= both_ways, "{at}: {before:?} {after:?}");
        ensure!(after.1 - before.1 < f64::from(few), "{at}: not redirected: {before:?} {after:?}");
        for (after, before) in [(after.2, before.2), (after.3, before.3)] {
            ensure!(after - before < u64::from(few), "{at}: {} packets went by the node's end", after - before);
        }
    }
    Ok(())
}

/// What the policy says, both ways, and that the node gets through in any case.
fn is_enforced(node: &Node, allowed: &[&Pod], denied: &Pod, db: &Pod) -> anyhow::Result<()> {
    let mut cases = Vec::new();
    for (protocol, port) in [(Tcp, 80), (Udp, 53)] {
        for to in db.at(port) {
            for pod in allowed {
                cases.push(Case { what: pod.key.clone(), from: &pod.sandbox, protocol, to, allowed: true });
            }
            cases.push(Case { what: denied.key.clone(), from: &denied.sandbox, protocol, to, allowed: false });
            cases.push(Case { what: "the node".to_owned(), from: &node.sandbox, protocol, to, allowed: true });
        }
    }
    expect(&cases)
}

/// Packets that rules have refused, at either place: what began before the pod was there goes by the host's stack.
fn denied(node: &Node) -> anyhow::Result<f64> {
    let at = |hook| node.metric(&format!("bulkhead_dropped_packets_total{{hook=\"{hook}\",reason=\"default_deny\"}}"));
    Ok(at("from_pod")? + at("to_pod")?)
}

/// A pod that is isolated from its first moment: somebody sends to the address it will have before it is there.
fn add_under_fire(node: &Node, sender: &Pod, key: &str) -> anyhow::Result<Pod> {
    let blank = node.blank(key)?;
    let trap = Trap::set(&blank.sandbox, 53)?;
    let likely = (1..16_u8).flat_map(|last| [format!("10.77.0.{last}:53"), format!("[fd77::{last:x}]:53")]);
    let likely: Vec<SocketAddr> = likely.map(|at| at.parse().expect("an address")).collect();
    let flood = Flood::start(&sender.sandbox, likely.clone(), Duration::from_millis(1))?;
    let pod = blank.add()?;
    ensure!(pod.at(53).iter().all(|at| likely.contains(at)), "{:?} was not under fire", pod.addresses());
    let before = denied(node)?;
    ensure!(eventually(PATIENCE, || Ok(denied(node)? > before + 20.0))?, "nobody is refused");
    trap.is_empty()?;
    flood.finish()?;
    trap.is_empty()?;
    drop(trap);
    Ok(pod)
}

/// `asked`: what the daemon is asked for; `kind`: what the pods get.
fn pods_are_enforced(asked: &str, kind: &str, attach: &str) -> anyhow::Result<()> {
    let mut node = start(&[&format!("--pod-device={asked}"), &format!("--attach={attach}")])?;
    let device = node.ask()?.status()?.datapath.context("a datapath")?.device;
    ensure!(device == kind, "{asked} is {device}");
    let [web, other] = node.add_all(["shop/web", "shop/other"])?;
    let db = add_under_fire(&node, &other, "shop/db")?;
    let _echo = Echo::start(&db.sandbox, &[80], &[53])?;
    for pod in [&web, &other, &db] {
        is_on(&node, pod, kind)?;
        pod.call("CHECK")?.result()?;
    }
    is_enforced(&node, &[&web], &other, &db)?;
    is_redirected(&node, &web, &db)?;

    // Another daemon that wants veth, without the records of this one: pods stay what they are, and are understood by their links.
    node.take_agent()?.kill()?;
    fs::remove_dir_all(node.state().join("endpoints"))?;
    node.set_arguments(&["--pod-device=veth", "--gc-interval=1"]);
    node.start_daemon()?;
    let log = fs::read_to_string(node.log())?;
    ensure!(log.matches("Endpoint taken over from its link").count() == 3, "{log}");
    let late = node.add("shop/late")?;
    is_on(&node, &late, "veth")?;
    is_on(&node, &db, kind)?;
    for pod in [&web, &other, &db, &late] {
        pod.call("CHECK")?.result()?;
    }
    is_enforced(&node, &[&web, &late], &other, &db)?;
    for pod in [&web, &late] {
        is_redirected(&node, pod, &db)?;
    }

    // A link that is down is found, and a DEL takes both ends of either kind away.
    node.sandbox.said("ip", &["link", "set", &web.host_ifname(), "down"])?;
    let (_, said) = web.call("CHECK")?.error()?;
    ensure!(said.contains(&format!("interface {} is down", web.host_ifname())), "{said}");
    for pod in [&web, &late] {
        pod.call("DEL")?.result()?;
        ensure!(!pod.sandbox.said("ip", &["-o", "link"])?.contains(IFNAME), "the pod's end of {} is left", pod.key);
    }
    ensure!(node.pod_links()? == BTreeSet::from([other.host_ifname(), db.host_ifname()]), "{:?}", node.pod_links()?);
    // A sandbox that goes takes its pair along.
    let name = other.host_ifname();
    drop(other);
    ensure!(eventually(PATIENCE, || Ok(!node.pod_links()?.contains(&name)))?, "{name} is left");
    ensure!(reach(&node.sandbox, Tcp, db.at(80)[0], OPEN)? == Reached::Yes);
    db.del()?;
    ensure!(node.pod_links()?.is_empty(), "{:?}", node.pod_links()?);
    // What is left of the pod without a DEL is collected.
    ensure!(eventually(PATIENCE, || Ok(!holds_anything(&node.state().join("endpoints"))))?, "a record is left");
    Ok(())
}

#[test]
fn pods_on_netkit_with_tcx() {
    trial(|| if Feature::Netkit.is_there_or_told() { pods_are_enforced("auto", "netkit", "tcx") } else { Ok(()) });
}

#[test]
fn pods_on_netkit_with_clsact() {
    trial(|| if Feature::Netkit.is_there_or_told() { pods_are_enforced("netkit", "netkit", "clsact") } else { Ok(()) });
}

/// The control: all that is said of netkit above is true of veth.
#[test]
fn pods_on_veth() {
    trial(|| pods_are_enforced("veth", "veth", "clsact"));
}

#[test]
fn a_kernel_without_netkit_says_so_and_auto_takes_veth() {
    trial(|| {
        if Feature::Netkit.is_there() {
            return Ok(());
        }
        let mut node = Node::without_daemon(Setup::default(), &[("all.yaml", &objects())])?;
        node.set_arguments(&["--pod-device=netkit"]);
        node.spawn_daemon()?;
        let ended = node.take_agent()?.ended()?;
        ensure!(ended == Some(1), "{ended:?}");
        let log = fs::read_to_string(node.log())?;
        let wanted = "--pod-device netkit: this kernel has no netkit devices (6.7 has them, with CONFIG_NETKIT): use veth, or auto";
        ensure!(log.contains(wanted), "{log}");
        node.set_arguments(&["--pod-device=auto"]);
        node.start_daemon()?;
        let device = node.ask()?.status()?.datapath.context("a datapath")?.device;
        ensure!(device == "veth", "auto is {device}");
        let web = node.add("shop/web")?;
        is_on(&node, &web, "veth")?;
        web.del()
    });
}
