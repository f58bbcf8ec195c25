//! Nodes that come, go, and come back elsewhere.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tests::cluster::layout::{self, Seat};

use crate::{
    install::{NAMESPACE, agent_of},
    life::{SILENCE, YES, admits, labels},
    stage::{Ask, Pod, Stage, pod, soon},
};

fn about(from: &str, to: &Pod, answer: &'static str) -> Vec<Ask> {
    ["tcp", "udp"].into_iter().flat_map(|protocol| Ask::both(from, to, protocol, 80, answer)).collect()
}

/// Ranges of a node's pods, of both families.
fn ranges(stage: &Stage, node: &str) -> anyhow::Result<Vec<String>> {
    let node: Value = serde_json::from_str(&stage.kubectl(&["get", "node", node, "-o", "json"])?)?;
    let found = node["spec"]["podCIDRs"].as_array().map(Vec::as_slice).unwrap_or_default();
    ensure!(found.len() == 2, "{found:?}");
    Ok(found.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

/// Routes to pods of other nodes that a node has, of both families, as text.
fn routes(stage: &Stage, index: usize) -> anyhow::Result<String> {
    let room = &stage.cluster.nodes[index].room;
    Ok(room.run("ip", &["route", "show"])? + &room.run("ip", &["-6", "route", "show"])?)
}

/// Waits until the agent of a node says that all is well.
fn well(stage: &Stage, node: &str) -> anyhow::Result<()> {
    soon(&format!("all is well on {node}"), || {
        let said = stage.kubectl(&["exec", "-n", NAMESPACE, &agent_of(stage, node)?, "--", "bulkhead", "status"])?;
        ensure!(said.contains("All is well."), "{said}");
        Ok(())
    })
}

pub(crate) fn a_node_joins_and_leaves(stage: &mut Stage) -> anyhow::Result<()> {
    stage.namespaces(&["joins"])?;
    stage.apply(&[admits("joins", "server", Some("friend"))])?;
    let near = [
        ("joins/friend", labels("friend"), "n1"),
        ("joins/stranger", labels("stranger"), "n2"),
        ("joins/server", labels("server"), "n2"),
    ];
    let pods = stage.pods(&near)?;
    stage.cluster.add_node(Seat::of(2))?;
    // A friend and a server there, from the moment at which the node takes pods.
    let far =
        stage.pods(&[("joins/far-friend", labels("friend"), "n3"), ("joins/far-server", labels("server"), "n3")])?;
    let (server, far_server) = (&pods["joins/server"], &far["joins/far-server"]);
    let mut asks = about("joins/far-friend", server, YES);
    asks.extend(about("joins/friend", far_server, YES));
    asks.extend(about("joins/stranger", far_server, SILENCE));
    stage.expect(&asks)?;
    let gone = ranges(stage, "n3")?;
    for range in &gone {
        ensure!(routes(stage, 0)?.contains(range.as_str()), "no way to {range}:\n{}", routes(stage, 0)?);
    }

    stage.cluster.remove_node("n3")?;
    stage.kubectl(&["delete", "node", "n3"])?;
    for name in ["far-friend", "far-server"] {
        stage.kubectl(&["delete", "pod", "-n", "joins", name, "--force", "--grace-period=0", "--ignore-not-found"])?;
    }
    soon("nobody leads to it any more", || {
        for index in 0..stage.cluster.nodes.len() {
            let routes = routes(stage, index)?;
            ensure!(!gone.iter().any(|range| routes.contains(range.as_str())), "{gone:?} are in\n{routes}");
        }
        Ok(())
    })?;
    for node in ["n1", "n2"] {
        well(stage, node)?;
    }
    stage.expect(&about("joins/friend", server, YES))?;
    stage.forget(&["joins"])
}

/// Nothing of it is left but what the API server knows: another kernel's state, an empty disk, another address.
pub(crate) fn a_node_comes_back_elsewhere(stage: &mut Stage) -> anyhow::Result<()> {
    const ELSEWHERE: u8 = 42;
    stage.namespaces(&["back"])?;
    stage.apply(&[admits("back", "server", Some("friend"))])?;
    stage.pods(&[
        ("back/friend", labels("friend"), "n1"),
        ("back/stranger", labels("stranger"), "n1"),
        ("back/server", labels("server"), "n2"),
    ])?;
    let before = ranges(stage, "n2")?;
    stage.cluster.remove_node("n2")?;
    stage.cluster.add_node(Seat { name: layout::node_name(1), host: ELSEWHERE })?;
    let (v4, v6) = layout::underlay(ELSEWHERE);
    soon("the node's new addresses", || {
        let said = stage.kubectl(&["get", "node", "n2", "-o", "jsonpath={.status.addresses[*].address}"])?;
        ensure!(said.contains(&v4.to_string()) && said.contains(&v6.to_string()), "{said}");
        Ok(())
    })?;
    ensure!(ranges(stage, "n2")? == before, "the node has other ranges");
    // The same pod, in a new sandbox, as its first address may be.
    soon("the pod has been started anew", || {
        let said = stage.kubectl(&["get", "pod", "-n", "back", "server", "-o", "json"])?;
        let pod: Value = serde_json::from_str(&said)?;
        let restarts = pod["status"]["containerStatuses"][0]["restartCount"].as_u64().context("a count")?;
        ensure!(restarts > 0 && pod["status"]["containerStatuses"][0]["ready"] == true, "{}", pod["status"]);
        Ok(())
    })?;
    let server = stage.ready("back/server")?;
    let mut asks = about("back/friend", &server, YES);
    asks.extend(about("back/stranger", &server, SILENCE));
    stage.expect(&asks)?;
    for node in ["n1", "n2"] {
        well(stage, node)?;
    }
    stage.forget(&["back"])
}

/// They run one after the other before the pod itself does, in its sandbox, and are who the pod is.
pub(crate) fn init_containers_are_their_pod(stage: &mut Stage) -> anyhow::Result<()> {
    stage.namespaces(&["init"])?;
    stage.apply(&[admits("init", "server", Some("friend"))])?;
    let server = stage.pods(&[("init/server", labels("server"), "n2")])?.remove("init/server").context("the server")?;
    for (app, answer) in [("friend", YES), ("stranger", SILENCE)] {
        let mut object = pod(&format!("init/{app}"), &labels(app), "n1", json!({}))?;
        let asks = about("", &server, answer);
        let first = ["first", "second", "third"].map(|name| {
            let mut container = object["spec"]["containers"][0].clone();
            let targets = asks.iter().map(|ask| ask.target.as_str());
            let command: Vec<&str> = ["/own/talk", "ask", "2000"].into_iter().chain(targets).collect();
            container["name"] = json!(name);
            container["command"] = json!(command);
            for field in ["ports", "readinessProbe"] {
                container[field] = Value::Null;
            }
            container
        });
        object["spec"]["initContainers"] = json!(first);
        stage.apply(&[object])?;
        stage.ready(&format!("init/{app}"))?;
        for name in ["first", "second", "third"] {
            let said = stage.kubectl(&["logs", "-n", "init", app, "-c", name])?;
            let answers: Vec<&str> = said.lines().filter_map(|line| line.split(' ').next()).collect();
            ensure!(answers == [answer; 4], "{name} of {app}: {said}");
        }
    }
    stage.forget(&["init"])
}
