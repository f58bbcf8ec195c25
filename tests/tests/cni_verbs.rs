//! The CNI verbs by the real plugin and the real daemon: what each leaves in the kernel, on disk and
//! on standard output. Error texts of bad input are tested beside the plugin and in `e2e_hostile`.

use std::{collections::BTreeSet, fs, net::IpAddr, thread, time::Duration};

use anyhow::{Context as _, ensure};
use serde_json::json;
use tests::{
    node::{Node, PATIENCE, Setup, eventually, holds_anything},
    plugin::Call,
    pod::{Blank, Pod, addresses},
    traffic::{Echo, OPEN, Protocol, Reached, reach},
    trial::trial,
};

/// How many of the node's addresses are given out, by range.
fn used(node: &Node) -> anyhow::Result<Vec<u64>> {
    Ok(node.ask()?.status()?.pools.iter().map(|pool| pool.used).collect())
}

/// Fails unless nothing of any pod is left.
fn is_empty(node: &Node) -> anyhow::Result<()> {
    let links = node.pod_links()?;
    ensure!(links.is_empty(), "links are left: {links:?}");
    let endpoints = node.ask()?.endpoints()?;
    ensure!(endpoints.is_empty(), "endpoints are left: {endpoints:?}");
    ensure!(used(node)? == [0, 0], "addresses are left: {:?}", used(node)?);
    ensure!(!holds_anything(&node.state().join("endpoints")), "records are left");
    let pinned = pinned_links(node);
    ensure!(pinned == 0, "{pinned} pinned attachments are left");
    Ok(())
}

/// Files in the folder of pins that are named for an interface's attachment.
fn pinned_links(node: &Node) -> usize {
    let mut folders = vec![node.pins()];
    let mut found = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.parent().is_some_and(|parent| parent.ends_with("links")) {
                found += 1;
            }
        }
    }
    found
}

#[test]
fn add_wires_a_pod_and_del_leaves_nothing_of_it() {
    trial(|| {
        let node = Node::start(&[])?;
        let [web, db] = node.add_all(["shop/web", "shop/db"])?;
        let _echo = Echo::start(&db.sandbox, &[80], &[53])?;
        for (tcp, udp) in db.at(80).into_iter().zip(db.at(53)) {
            ensure!(reach(&web.sandbox, Protocol::Tcp, tcp, OPEN)? == Reached::Yes);
            ensure!(reach(&web.sandbox, Protocol::Udp, udp, OPEN)? == Reached::Yes);
        }
        let endpoints = node.bulkhead().json(&["endpoint", "list"])?;
        let endpoint = endpoints["endpoints"].as_array().into_iter().flatten().find(|endpoint| endpoint["pod"] == "db");
        let endpoint = endpoint.with_context(|| format!("shop/db is listed in {endpoints}"))?;
        ensure!(endpoint["ips"] == json!([db.v4.to_string(), db.v6.to_string()]), "{endpoint}");
        ensure!(endpoint["host_ifname"] == *db.host_ifname(), "{endpoint}");
        // With clsact there is nothing to pin: filters belong to the link.
        let programs = if node.ask()?.status()?.datapath.is_some_and(|it| it.attach_mode == "tcx") { 2 } else { 0 };
        ensure!(pinned_links(&node) == 2 * programs, "{} pins of two pods", pinned_links(&node));
        web.del()?;
        ensure!(node.pod_links()? == BTreeSet::from([db.host_ifname()]), "{:?}", node.pod_links()?);
        ensure!(pinned_links(&node) == programs, "{} pins of one pod", pinned_links(&node));
        db.call("CHECK")?.result()?;
        db.del()?;
        is_empty(&node)
    });
}

/// The address of a pod that is gone is not given to the next one at once: what still talks to the
/// old one must not reach the new one.
#[test]
fn addresses_are_unique_and_used_again_late() {
    trial(|| {
        let pools = vec!["10.77.0.0/28".to_owned(), "fd77::/124".to_owned()];
        let node = Node::start_as(Setup { pools, ..Setup::default() }, &[])?;
        let mut seen = BTreeSet::new();
        // 14 hosts in a /28, one of them the gateway.
        for number in 0..13 {
            let pod = node.add(&format!("shop/pod{number}"))?;
            ensure!(seen.insert(pod.v4), "{} was given out before it had to be, to pod {number}", pod.v4);
            pod.del()?;
        }
        let again = node.add("shop/again")?;
        ensure!(seen.contains(&again.v4), "{} is outside of what there is: {seen:?}", again.v4);
        Ok(())
    });
}

#[test]
fn a_full_range_is_an_error_and_undone() {
    trial(|| {
        let pools = vec!["10.77.0.0/30".to_owned(), "fd77::/64".to_owned()];
        let node = Node::start_as(Setup { pools, ..Setup::default() }, &[])?;
        let first = node.add("shop/first")?;
        let blank = node.blank("shop/second")?;
        let (code, message) = blank.call("ADD")?.error()?;
        ensure!(code == 110 && message.contains("10.77.0.0/30"), "{code}: {message}");
        ensure!(used(&node)? == [1, 1], "{:?}", used(&node)?);
        let (code, message) = node.plugin().call(Call::bare("STATUS"))?.error()?;
        ensure!(code == 50 && message.contains("no IPv4 address is free"), "{code}: {message}");
        first.del()?;
        node.plugin().call(Call::bare("STATUS"))?.result()?;
        let second = blank.add()?;
        second.del()?;
        is_empty(&node)
    });
}

#[test]
fn twenty_adds_at_once_get_twenty_pods_and_twenty_dels_nothing() {
    trial(|| {
        let node = Node::start(&[])?;
        let blanks: Vec<Blank> =
            (0..20).map(|number| node.blank(&format!("shop/pod{number}"))).collect::<anyhow::Result<_>>()?;
        let all = |results: Vec<anyhow::Result<Pod>>| results.into_iter().collect::<anyhow::Result<Vec<Pod>>>();
        let pods: Vec<Pod> = all(thread::scope(|scope| {
            let adds: Vec<_> = blanks.into_iter().map(|blank| scope.spawn(move || blank.add())).collect();
            adds.into_iter().map(|add| add.join().expect("an ADD does not panic")).collect()
        }))?;
        let given: BTreeSet<IpAddr> = pods.iter().flat_map(Pod::addresses).collect();
        ensure!(given.len() == 40, "an address was given out twice: {given:?}");
        let _echo = Echo::start(&pods[0].sandbox, &[80], &[])?;
        for pod in &pods[1..] {
            pod.call("CHECK")?.result()?;
            ensure!(reach(&pod.sandbox, Protocol::Tcp, pods[0].at(80)[1], OPEN)? == Reached::Yes, "{}", pod.key);
        }
        let dels: Vec<anyhow::Result<()>> = thread::scope(|scope| {
            let dels: Vec<_> = pods.into_iter().map(|pod| scope.spawn(move || pod.del())).collect();
            dels.into_iter().map(|del| del.join().expect("a DEL does not panic")).collect()
        });
        dels.into_iter().collect::<anyhow::Result<()>>()?;
        is_empty(&node)
    });
}

#[test]
fn add_twice_is_an_error_and_harms_nobody() {
    trial(|| {
        let node = Node::start(&[])?;
        let [web, db] = node.add_all(["shop/web", "shop/db"])?;
        let _echo = Echo::start(&db.sandbox, &[80], &[])?;
        let (code, message) = web.call("ADD")?.error()?;
        ensure!(code == 111 && message.contains(&web.container_id) && message.contains("DEL"), "{code}: {message}");
        web.call("CHECK")?.result()?;
        ensure!(reach(&web.sandbox, Protocol::Tcp, db.at(80)[0], OPEN)? == Reached::Yes);
        ensure!(used(&node)? == [2, 2]);
        web.del()?;
        db.del()?;
        is_empty(&node)
    });
}

#[test]
fn an_add_that_fails_leaves_nothing() {
    trial(|| {
        let node = Node::start(&[])?;
        let taken = node.blank("shop/taken")?;
        taken.sandbox.ip("link add eth0 type veth peer name other\n")?;
        let (code, message) = taken.call("ADD")?.error()?;
        ensure!(code == 111 && message.contains("eth0"), "{code}: {message}");
        is_empty(&node)?;
        taken.sandbox.ip("link show dev eth0\n").context("what was there before must stay")?;

        let gone = node.blank("shop/gone")?;
        let path = gone.sandbox.path();
        let Blank { sandbox, container_id, .. } = gone;
        sandbox.vanish();
        let call = Call {
            command: "ADD",
            container_id: &container_id,
            netns: path.to_str().context("text")?,
            ifname: "eth0",
            args: "",
        };
        let (code, message) = node.plugin().call(call)?.error()?;
        ensure!(matches!(code, 4 | 8) && message.contains(&container_id), "{code}: {message}");
        is_empty(&node)?;

        let own = node.sandbox.path();
        let call = Call { netns: own.to_str().context("text")?, ..call };
        let (code, message) = node.plugin().call(call)?.error()?;
        ensure!(code == 4 && message.contains("the node's own network namespace"), "{code}: {message}");
        is_empty(&node)
    });
}

#[test]
fn del_may_be_repeated_and_needs_no_namespace() {
    trial(|| {
        let node = Node::start(&[])?;
        let pod = node.add("shop/web")?;
        pod.call("DEL")?.result()?;
        pod.call("DEL")?.result()?;
        let (code, message) = pod.call("CHECK")?.error()?;
        ensure!(code == 3 && message.contains("never added, or has been removed"), "{code}: {message}");
        let pod = node.add("shop/web")?;
        let Pod { sandbox, container_id, .. } = pod;
        sandbox.vanish();
        let call = Call { command: "DEL", container_id: &container_id, netns: "", ifname: "eth0", args: "" };
        node.plugin().call(call)?.result()?;
        is_empty(&node)
    });
}

#[test]
fn check_finds_what_somebody_has_changed() {
    trial(|| {
        let node = Node::start(&[])?;
        let change = |batch: &str, node_batch: &str, says: &str| -> anyhow::Result<()> {
            let pod = node.add("shop/web")?;
            pod.call("CHECK")?.result().context("nothing is wrong yet")?;
            pod.sandbox.ip(&batch.replace("V6", &pod.v6.to_string()))?;
            node.sandbox.ip(&node_batch.replace("HOST", &pod.host_ifname()))?;
            let (code, message) = pod.call("CHECK")?.error().with_context(|| format!("after {batch}{node_batch}"))?;
            ensure!(code == 112 && message.contains(says), "{code}: {message}, wanted {says}");
            pod.del()
        };
        change("addr del V6/128 dev eth0\n", "", "address fd77::")?;
        change("route del default\n", "", "default route")?;
        change("link set eth0 down\n", "", "interface eth0 is down")?;
        change("link del eth0\n", "", "interface eth0 is gone")?;
        change("", "link set HOST down\n", "is down")?;
        is_empty(&node)
    });
}

#[test]
fn the_result_has_the_shape_of_its_version() {
    trial(|| {
        let node = Node::start(&[])?;
        for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
            let blank = node.blank("shop/web")?;
            let netns = blank.sandbox.path();
            let call = Call {
                command: "ADD",
                container_id: &blank.container_id,
                netns: netns.to_str().context("text")?,
                ifname: "eth0",
                args: "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;IgnoreUnknown=1",
            };
            let plugin = node.plugin().in_version(version);
            let result = plugin.call(call)?.result().context(version)?;
            ensure!(result["cniVersion"] == version, "{result}");
            if version < "0.3.0" {
                // CNI 0.2.0, "Result": one address per family, interfaces unknown.
                ensure!(result["ip4"]["ip"].is_string() && result["ip6"]["gateway"].is_string(), "{version}: {result}");
                ensure!(result.get("interfaces").is_none() && result.get("ips").is_none(), "{version}: {result}");
            } else {
                ensure!(addresses(&result).len() == 2, "{version}: {result}");
                ensure!(result["interfaces"][1]["sandbox"] == json!(netns), "{version}: {result}");
                // CNI 1.0.0 took "version" away, 1.1.0 added "mtu".
                ensure!(result["ips"][0].get("version").is_some() == (version < "1.0.0"), "{version}: {result}");
                ensure!(result["interfaces"][1].get("mtu").is_some() == (version >= "1.1.0"), "{version}: {result}");
            }
            plugin.call(Call { command: "DEL", ..call })?.result().context(version)?;
        }
        let versions = node.plugin().call(Call::bare("VERSION"))?.result()?;
        ensure!(versions["supportedVersions"].as_array().is_some_and(|all| all.len() == 7), "{versions}");
        let (code, message) = node.plugin().in_version("9.9.9").call(Call::bare("STATUS"))?.error()?;
        ensure!(code == 1 && message.contains("9.9.9"), "{code}: {message}");
        is_empty(&node)
    });
}

#[test]
fn gc_removes_what_the_runtime_no_longer_knows() {
    trial(|| {
        let node = Node::start(&[])?;
        let [web, db] = node.add_all(["shop/web", "shop/db"])?;
        let mut plugin = node.plugin();
        plugin.conf["cni.dev/valid-attachments"] = json!([{"containerID": db.container_id, "ifname": "eth0"}]);
        plugin.call(Call::bare("GC"))?.result()?;
        ensure!(node.pod_links()? == BTreeSet::from([db.host_ifname()]), "{:?}", node.pod_links()?);
        ensure!(used(&node)? == [1, 1]);
        let (code, _) = web.call("CHECK")?.error()?;
        ensure!(code == 3, "{code}");
        db.call("CHECK")?.result()?;

        // Another network's GC is none of ours.
        let mut other = node.plugin();
        other.conf["name"] = "other".into();
        other.conf["cni.dev/valid-attachments"] = json!([]);
        other.call(Call::bare("GC"))?.result()?;
        db.call("CHECK")?.result()?;

        // Without a list only what is dead goes.
        node.plugin().call(Call::bare("GC"))?.result()?;
        db.call("CHECK")?.result()?;
        let Pod { sandbox, .. } = db;
        sandbox.vanish();
        node.plugin().call(Call::bare("GC"))?.result()?;
        is_empty(&node)
    });
}

/// containerd calls no GC, so the daemon looks for itself: at least every half minute, and when it
/// starts.
#[test]
fn the_attachment_of_a_dead_sandbox_goes_without_anybody_asking() {
    trial(|| {
        let mut node = Node::start(&[])?;
        let pod = node.add("shop/web")?;
        node.take_agent()?.kill()?;
        let Pod { sandbox, .. } = pod;
        sandbox.vanish();
        node.start_daemon()?;
        ensure!(eventually(PATIENCE, || Ok(used(&node)? == [0, 0]))?, "{:?}", used(&node)?);
        is_empty(&node)
    });
}

#[test]
fn a_del_that_finds_no_daemon_is_made_up_for() {
    trial(|| {
        let mut node = Node::start(&[])?;
        let [web, db] = node.add_all(["shop/web", "shop/db"])?;
        node.take_agent()?.kill()?;
        let (code, message) = node.plugin().call(Call::bare("STATUS"))?.error()?;
        ensure!(code == 50, "{code}: {message}");
        let (code, message) = node.blank("shop/late")?.call("ADD")?.error()?;
        ensure!(code == 11, "{code}: {message}");
        web.call("DEL")?.result().context("DEL must work without a daemon")?;
        let tombstones = node.state().join("tombstones");
        ensure!(holds_anything(&tombstones));
        node.start_daemon()?;
        let done = || Ok(used(&node)? == [1, 1] && !holds_anything(&tombstones));
        ensure!(eventually(PATIENCE, done)?, "{:?}", used(&node)?);
        ensure!(node.pod_links()? == BTreeSet::from([db.host_ifname()]), "{:?}", node.pod_links()?);
        db.call("CHECK")?.result()?;

        // The same container may come back; the old tombstone must not take it away again.
        let (key, container_id) = (web.key.clone(), web.container_id.clone());
        let again = Blank { container_id, ..Blank::of(&key, web.sandbox, &node.plugin()) }.add()?;
        thread::sleep(Duration::from_millis(2500));
        again.call("CHECK")?.result()?;
        Ok(())
    });
}

#[test]
fn status_says_that_adds_can_be_served() {
    trial(|| {
        let mut node = Node::start(&[])?;
        node.plugin().call(Call::bare("STATUS"))?.result()?;
        node.take_agent()?.stop()?;
        let (code, message) = node.plugin().call(Call::bare("STATUS"))?.error()?;
        ensure!(code == 50 && message.contains("cni.sock"), "{code}: {message}");
        Ok(())
    });
}
