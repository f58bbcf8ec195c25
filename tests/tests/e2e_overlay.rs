//! The overlay's device as the daemon makes it, and what becomes of it when the daemon is started with another protocol, or
//! without an overlay. What goes through it: daemon/tests/net/overlay.rs, `datapath_overlay.rs` and the tests in a cluster.

use std::fs;

use anyhow::{Context as _, ensure};
use tests::{
    agent,
    feature::Feature,
    node::{NODES, Node, PATIENCE, Setup, eventually},
    trial::trial,
};

const RANGES: [&str; 2] = ["10.78.0.0/24", "fd78::/64"];

fn node(arguments: &[&str]) -> anyhow::Result<Node> {
    let setup = Setup { arguments: arguments.iter().map(|&it| it.to_owned()).collect(), ..Setup::default() };
    let node = Node::without_daemon(setup, &[("nodes.yaml", NODES)])?;
    node.sandbox.ip("addr add 192.0.2.1/24 dev spare0\nlink set spare1 up\nlink set spare0 up\n")?;
    Ok(node)
}

fn uninstall(node: &Node, more: &[&str]) -> anyhow::Result<String> {
    let places = node.places();
    let arguments: Vec<&str> =
        ["uninstall"].iter().chain(more).copied().chain(places.iter().map(String::as_str)).collect();
    node.sandbox.said(agent::binary("bulkhead-daemon")?, &arguments)
}

/// Names of the overlays' devices that are there.
fn devices(node: &Node) -> anyhow::Result<Vec<String>> {
    let links = node.sandbox.said("ip", &["-o", "link"])?;
    let names = links.lines().filter_map(|line| line.split(": ").nth(1));
    Ok(names.filter(|name| name.starts_with("bulkhead_")).map(str::to_owned).collect())
}

/// Waits until this device alone is there and leads to the other node's pods; or until there is none.
fn settled(node: &Node, device: Option<&str>) -> anyhow::Result<()> {
    let mut last = String::new();
    let well = eventually(PATIENCE, || {
        let mut routes = String::new();
        for (family, range) in ["-4", "-6"].into_iter().zip(RANGES) {
            routes += &node.sandbox.said("ip", &[family, "route", "show", range])?;
        }
        let found = devices(node)?;
        last = format!("{found:?}, routes {routes}");
        let Some(device) = device else { return Ok(found.is_empty()) };
        let leads = routes.matches(&format!(" dev {device} ")).count() == 2;
        Ok(found == [device] && leads)
    })?;
    ensure!(well, "{device:?} is not alone and in use: {last}");
    Ok(())
}

#[test]
fn a_kernel_without_the_device_is_told_with_option_and_way_out() {
    trial(|| {
        if Feature::Geneve.is_there() {
            return Ok(());
        }
        let mut node = node(&["--routing=overlay", "--overlay-protocol=geneve"])?;
        node.spawn_daemon()?;
        let ended = node.take_agent()?.ended()?;
        ensure!(ended == Some(1), "{ended:?}");
        let log = fs::read_to_string(node.log())?;
        for part in [
            "--overlay-protocol geneve: this kernel has no Geneve devices",
            "CONFIG_GENEVE",
            "--overlay-protocol vxlan",
        ] {
            ensure!(log.contains(part), "no {part:?} in {log}");
        }
        ensure!(devices(&node)?.is_empty(), "something was begun");
        Ok(())
    });
}

#[test]
fn a_node_changes_from_one_protocol_to_the_other_and_back_to_none() {
    trial(|| {
        let mut node = node(&["--routing=overlay"])?;
        node.start_daemon()?;
        settled(&node, Some("bulkhead_vxlan"))?;
        let mut former = "bulkhead_vxlan";
        if Feature::Geneve.is_there_or_told() {
            node.take_agent()?.kill()?;
            node.set_arguments(&["--routing=overlay", "--overlay-protocol=geneve"]);
            node.start_daemon()?;
            settled(&node, Some("bulkhead_geneve"))?;
            let status = node.ask()?.status()?;
            let routing = status.datapath.context("a datapath")?.routing;
            ensure!(routing == "overlay, Geneve at UDP port 6081", "{routing}");
            let device = node.sandbox.said("ip", &["-d", "link", "show", "bulkhead_geneve"])?;
            ensure!(device.contains("geneve external") && device.contains("dstport 6081"), "{device}");
            ensure!(device.contains("mtu 1450"), "{device}");
            for (family, range) in ["-4", "-6"].into_iter().zip(RANGES) {
                let route = node.sandbox.said("ip", &[family, "route", "show", range])?;
                ensure!(route.contains("encap ip ") && route.contains("ttl 64"), "{route}");
            }
            former = "bulkhead_geneve";
        }
        let log = fs::read_to_string(node.log())?;
        ensure!(!log.contains("Packets do not get to pods"), "{log}");
        // A device that somebody removes is put back: within ten seconds.
        node.sandbox.said("ip", &["link", "del", former])?;
        settled(&node, Some(former))?;
        // Not by a daemon: what `uninstall` finds.
        node.take_agent()?.kill()?;
        let shown = uninstall(&node, &[])?;
        ensure!(shown.contains(&format!("would remove link {former}")), "{shown}");
        ensure!(devices(&node)? == [former], "it has removed something");
        let shown = uninstall(&node, &["--yes"])?;
        ensure!(shown.contains(&format!("removing link {former}")), "{shown}");
        settled(&node, None)
    });
}
