//! Numbers that all nodes share, on a real API server.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tests::cluster::Routing;

use crate::{
    install::{NAMESPACE, agents},
    life::{admits, labels},
    stage::{Ask, Stage, pod, soon},
};

/// The first number that nodes share (datapath-abi, `FIRST_SHARED`).
const FIRST_SHARED: u64 = 65_536;

/// What an identity is, as text.
type Key = String;

/// Identities of a namespace as the API server has them: what each number stands for.
fn known(stage: &Stage, namespace: &str) -> anyhow::Result<BTreeMap<u64, (Key, Value)>> {
    let list: Value = serde_json::from_str(&stage.kubectl(&["get", "identities", "-o", "json"])?)?;
    let mut known = BTreeMap::new();
    for item in list["items"].as_array().context("identities")? {
        if item["spec"]["namespace"] == namespace {
            let name = item["metadata"]["name"].as_str().context("a name")?;
            known.insert(name.parse()?, (key(&item["spec"]), item.clone()));
        }
    }
    Ok(known)
}

fn key(spec: &Value) -> Key {
    format!("{} {} {}", spec["namespace"], spec["serviceAccount"], spec["labels"])
}

/// Numbers that an agent says pods of a namespace have.
fn used(stage: &Stage, agent: &str, namespace: &str) -> anyhow::Result<BTreeMap<u64, Key>> {
    let said = stage.kubectl(&["exec", "-n", NAMESPACE, agent, "--", "bulkhead", "identity", "list", "-o", "json"])?;
    let list: Value = serde_json::from_str(&said)?;
    let mut used = BTreeMap::new();
    for identity in list["identities"].as_array().context("identities")? {
        if identity["namespace"] == namespace && identity["pods"].as_u64().unwrap_or_default() > 0 {
            let labels = &identity["labels"];
            let key = format!("{} {} {}", identity["namespace"], identity["service_account"], labels);
            used.insert(identity["number"].as_u64().context("a number")?, key);
        }
    }
    Ok(used)
}

/// Waits until all agents use the numbers that the API server has for `count` identities of a namespace; returns them.
fn agree(stage: &Stage, namespace: &str, count: usize) -> anyhow::Result<BTreeSet<u64>> {
    let agents = agents(stage)?;
    let mut numbers = BTreeSet::new();
    soon(&format!("agents agree on {namespace}"), || {
        let there = known(stage, namespace)?;
        for agent in &agents {
            let used = used(stage, agent, namespace)?;
            numbers = used.keys().copied().collect();
            ensure!(numbers.len() == count, "{agent} has {} identities of {count}", numbers.len());
            ensure!(numbers.iter().all(|number| there.contains_key(number)), "{agent}: {used:?}, not {there:?}");
        }
        let keys: BTreeSet<&Key> = numbers.iter().filter_map(|number| Some(&there.get(number)?.0)).collect();
        ensure!(keys.len() == count && numbers.iter().all(|it| *it >= FIRST_SHARED), "{there:?}");
        Ok(())
    })?;
    Ok(numbers)
}

pub(crate) fn all_nodes_use_one_number(stage: &mut Stage) -> anyhow::Result<()> {
    stage.namespaces(&["numbers"])?;
    stage.apply(&[admits("numbers", "server", Some("friend"))])?;
    let pods = stage.pods(&[
        ("numbers/server", labels("server"), "n1"),
        ("numbers/near", labels("friend"), "n1"),
        ("numbers/far", labels("friend"), "n2"),
        ("numbers/stranger", labels("stranger"), "n2"),
    ])?;
    let server = &pods["numbers/server"];
    let about = |from: &str, answer| Ask::both(from, server, "tcp", 80, answer);
    agree(stage, "numbers", 3)?;
    let wanted =
        [about("numbers/near", "yes"), about("numbers/far", "yes"), about("numbers/stranger", "silence")].concat();
    stage.expect(&wanted)?;
    // A connection lives on while the pod's identity, and with it its number, becomes another that is allowed as well.
    let session = stage.session("numbers/far", server)?;
    stage.kubectl(&["label", "pod", "-n", "numbers", "far", "more=labels"])?;
    agree(stage, "numbers", 4)?;
    stage.expect(&about("numbers/far", "yes"))?;
    stage.kubectl(&["label", "namespace", "numbers", "more=labels"])?;
    agree(stage, "numbers", 4)?;
    session.unharmed()?;
    // One whose number is taken away gets it back.
    stage.kubectl(&["delete", "identities", "--all", "--timeout=60s"])?;
    agree(stage, "numbers", 4)?;
    stage.expect(&wanted)?;
    // What cannot be is refused by the API server.
    let object = |name: &str| {
        json!({
            "apiVersion": "bulkhead.io/v1",
            "kind": "Identity",
            "metadata": {"name": name},
            "spec": {"namespace": "numbers", "serviceAccount": "made-by-hand"},
        })
    };
    for name in ["12", "65535", "16777216", "web", "070000"] {
        ensure!(stage.apply(&[object(name)]).is_err(), "an Identity {name} was taken");
    }
    stage.apply(&[object("70007")])?;
    let patch = ["patch", "identity", "70007", "--type=merge", "-p", r#"{"spec": {"namespace": "other"}}"#];
    ensure!(stage.kubectl(&patch).is_err(), "what a number stands for was changed");
    let line = stage.kubectl(&["get", "identity", "70007", "--no-headers"])?;
    ensure!(line.contains("made-by-hand"), "{line}");
    stage.kubectl(&["delete", "identity", "70007"])?;
    stage.forget(&["numbers"])
}

/// A pod that starts while the watch of another node tells nothing is nobody there: it is refused, and then let in. But
/// for one of a known identity, if packets say so.
pub(crate) fn a_watch_that_is_late_lets_nobody_in(stage: &mut Stage) -> anyhow::Result<()> {
    stage.namespaces(&["late"])?;
    stage.apply(&[admits("late", "server", Some("friend"))])?;
    let server = stage.pods(&[("late/server", labels("server"), "n1")])?.remove("late/server").context("it")?;
    stage.cluster.nodes[0].stop_daemon()?;
    let result = stage.pods(&[("late/friend", labels("friend"), "n2")]).and_then(|_| {
        // Its own node has numbered it before it has started.
        ensure!(known(stage, "late")?.len() == 2, "{:?}", known(stage, "late")?);
        stage.expect(&Ask::both("late/friend", &server, "tcp", 80, "silence"))
    });
    stage.cluster.nodes[0].continue_daemon()?;
    result?;
    stage.expect(&Ask::both("late/friend", &server, "tcp", 80, "yes"))?;
    // Another one, whose address nobody tells of either. The number is known now: with an overlay its packets bear it.
    let answer = if stage.cluster.plan.routing == Routing::Overlay { "yes" } else { "silence" };
    stage.cluster.nodes[0].stop_daemon()?;
    let result = stage
        .pods(&[("late/second", labels("friend"), "n2"), ("late/stranger", labels("stranger"), "n2")])
        .and_then(|_| {
            let asks = [("late/second", answer), ("late/stranger", "silence")];
            stage.expect(&asks.map(|(from, answer)| Ask::both(from, &server, "tcp", 80, answer)).concat())
        });
    stage.cluster.nodes[0].continue_daemon()?;
    result?;
    stage.forget(&["late"])
}

/// Pods of a node that has no agent: the others find their numbers, all at the same time.
pub(crate) fn many_at_once_get_one_number_each(stage: &mut Stage) -> anyhow::Result<()> {
    const COUNT: usize = 200;
    stage.namespaces(&["many"])?;
    let objects = (0..COUNT)
        .map(|at| pod(&format!("many/pod-{at}"), &json!({"app": format!("app-{at}")}), "nowhere", json!({})))
        .collect::<anyhow::Result<Vec<Value>>>()?;
    let began = Instant::now();
    stage.apply(&objects)?;
    let made = began.elapsed();
    let numbers = agree(stage, "many", COUNT)?;
    println!("{COUNT} pods made in {made:?}, numbers agreed after {:?}", began.elapsed());
    let mut there = known(stage, "many")?;
    there.retain(|number, _| !numbers.contains(number));
    ensure!(there.is_empty(), "numbers beside those of {COUNT} identities: {there:#?}");
    stage.kubectl(&["delete", "pods", "-n", "many", "--all", "--force", "--grace-period=0", "--wait=false"])?;
    stage.forget(&["many"])
}

/// After an update that has made the grace short.
pub(crate) fn what_nobody_uses_is_removed(stage: &mut Stage) -> anyhow::Result<()> {
    stage.namespaces(&["unused"])?;
    stage.pods(&[("unused/a", labels("a"), "n1"), ("unused/b", labels("b"), "n2")])?;
    let numbers = agree(stage, "unused", 2)?;
    stage.kubectl(&["delete", "pod", "-n", "unused", "a", "--timeout=60s"])?;
    let marked = |stage: &Stage| -> anyhow::Result<Vec<u64>> {
        let mark = |item: &Value| !item["metadata"]["annotations"]["bulkhead.io/unused-since"].is_null();
        Ok(known(stage, "unused")?.into_iter().filter(|(_, (_, item))| mark(item)).map(|(number, _)| number).collect())
    };
    let mut number = 0;
    soon("it is marked", || {
        let marked = marked(stage)?;
        ensure!(marked.len() == 1, "{marked:?}");
        number = marked[0];
        Ok(())
    })?;
    // Somebody uses it again: the mark goes.
    stage.pods(&[("unused/again", labels("a"), "n2")])?;
    ensure!(agree(stage, "unused", 2)? == numbers, "it has another number");
    soon("the mark is gone", || {
        let marked = marked(stage)?;
        ensure!(marked.is_empty(), "{marked:?}");
        Ok(())
    })?;
    stage.kubectl(&["delete", "pod", "-n", "unused", "again", "--timeout=60s"])?;
    soon("it is removed", || {
        let left = known(stage, "unused")?;
        ensure!(left.len() == 1 && !left.contains_key(&number), "{left:?}");
        Ok(())
    })?;
    agree(stage, "unused", 1)?;
    stage.forget(&["unused"])
}
