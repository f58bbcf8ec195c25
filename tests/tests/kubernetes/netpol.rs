//! Every truth table of the Kubernetes end-to-end suite for NetworkPolicy (policy/testdata/README.md) between real
//! pods, four on each node: policies and labels as each step has them, connections from every pod to every other, by its
//! address and by the Service in front of it.
//!
//! Not for SCTP, whose sockets few kernels have; `e2e_netpol.rs` has those.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    path::Path,
};

use anyhow::{Context as _, ensure};
use flate2::read::GzDecoder;
use serde_json::{Value, json};

use crate::{
    services,
    stage::{Ask, Pod, Stage},
};

/// Cells of all truth tables but for what a pod says to itself, and those about SCTP, in one family.
const CELLS: usize = 476;
/// The /4 that a pod's addresses of each family are in.
const LARGE: [&str; 2] = ["0.0.0.0/4", "f000::/4"];

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

pub(crate) fn every_truth_table_holds(stage: &mut Stage) -> anyhow::Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policy/testdata/e2e/netpol.json.gz");
    let corpus: Value = serde_json::from_reader(GzDecoder::new(File::open(path)?)).context("the corpus is JSON")?;
    let cases = list(&corpus["cases"]);
    let keys: BTreeSet<&str> = cases.iter().flat_map(|case| list(&case["pods"])).filter_map(Value::as_str).collect();
    let namespaces: BTreeSet<&str> = keys.iter().filter_map(|key| key.split('/').next()).collect();
    let namespaces: Vec<&str> = namespaces.into_iter().collect();
    stage.namespaces(&namespaces)?;
    // Neighbours in a truth table are on different nodes.
    let wanted: Vec<(&str, Value, &str)> =
        keys.iter().enumerate().map(|(at, key)| (*key, own_label(key), ["n1", "n2"][at % 2])).collect();
    let pods = stage.pods(&wanted)?;
    let services = services::for_each(stage, pods.values().cloned())?;
    let services: BTreeMap<&str, &Pod> = services.iter().map(|service| (service.key.as_str(), service)).collect();
    let (mut cells, mut wrong) = (0, Vec::new());
    for case in cases {
        reset(stage)?;
        for (number, step) in list(&case["steps"]).iter().enumerate() {
            let place = format!("{} step {number}", case["name"]);
            act(stage, step, &pods).with_context(|| place.clone())?;
            let protocol = match step["protocol"].as_str() {
                Some("TCP") => "tcp",
                Some("UDP") => "udp",
                _ => continue,
            };
            let port = u16::try_from(step["port"].as_u64().context("a port")?)?;
            let mut asks = Vec::new();
            for (from, row) in entries(&step["expected"]) {
                // The suite ignores what a pod says to itself.
                for (to, allowed) in entries(row).filter(|(to, _)| *to != from) {
                    cells += 1;
                    let answer = if *allowed == true { "yes" } else { "silence" };
                    asks.extend(Ask::both(from, &pods[to], protocol, port, answer));
                    asks.extend(Ask::both(from, services[to.as_str()], protocol, port, answer));
                }
            }
            if let Err(error) = stage.expect(&asks) {
                wrong.push(format!("{place}: {error}"));
            }
        }
    }
    ensure!(wrong.is_empty(), "{} steps\n{}", wrong.len(), wrong.join("\n"));
    ensure!(cells == CELLS, "{cells} cells, not {CELLS}: the corpus is another one");
    stage.forget(&namespaces)
}

fn own_label(key: &str) -> Value {
    json!({"pod": key.split('/').nth(1)})
}

/// As every case of the suite begins: no policies, and no labels but those that a case begins with.
fn reset(stage: &Stage) -> anyhow::Result<()> {
    delete_policies(stage)?;
    let found: Value = serde_json::from_str(&stage.kubectl(&["get", "namespaces,pods", "-A", "-o", "json"])?)?;
    for object in list(&found["items"]) {
        let meta = &object["metadata"];
        let (Some(name), namespace) = (meta["name"].as_str(), meta["namespace"].as_str()) else { continue };
        if !["x", "y", "z"].contains(&namespace.unwrap_or(name)) {
            continue;
        }
        let keep = ["kubernetes.io/metadata.name", "pod"];
        let extra: Vec<String> = entries(&meta["labels"])
            .filter(|(key, _)| !keep.contains(&key.as_str()))
            .map(|(key, _)| format!("{key}-"))
            .collect();
        match namespace {
            Some(namespace) => label(stage, &["pod", name, "-n", namespace], &extra)?,
            None => label(stage, &["namespace", name], &extra)?,
        }
    }
    Ok(())
}

fn delete_policies(stage: &Stage) -> anyhow::Result<()> {
    stage.kubectl(&["delete", "networkpolicy", "--all", "--all-namespaces"]).map(drop)
}

fn act(stage: &Stage, step: &Value, pods: &BTreeMap<String, Pod>) -> anyhow::Result<()> {
    if step["delete_all"] == true {
        delete_policies(stage)?;
    }
    for (namespace, labels) in entries(&step["set_ns_labels"]) {
        let words: Vec<String> =
            entries(labels).map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
        label(stage, &["namespace", namespace], &words)?;
    }
    for (key, labels) in entries(&step["add_pod_labels"]) {
        let (namespace, name) = key.split_once('/').context("a pod is namespace/name")?;
        let words: Vec<String> =
            entries(labels).map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
        label(stage, &["pod", name, "-n", namespace], &words)?;
    }
    let policies: Vec<Value> = list(&step["create"])
        .iter()
        .chain(list(&step["update"]))
        .map(|policy| filled_in(policy, pods))
        .collect::<anyhow::Result<_>>()?;
    if policies.is_empty() { Ok(()) } else { stage.apply(&policies) }
}

fn label(stage: &Stage, what: &[&str], words: &[String]) -> anyhow::Result<()> {
    if words.is_empty() {
        return Ok(());
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    stage.kubectl(&[&["label", "--overwrite"], what, &words].concat()).map(drop)
}

/// With addresses in the place of `$IP(ns/pod)/32` and `$LARGE(ns/pod)`. A block is of one family, the pods have both:
/// each peer with such a block becomes two.
fn filled_in(policy: &Value, pods: &BTreeMap<String, Pod>) -> anyhow::Result<Value> {
    let mut policy = policy.clone();
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        let Some(rules) = policy["spec"].get_mut(direction).and_then(Value::as_array_mut) else { continue };
        for rule in rules {
            let Some(found) = rule.get_mut(peers).and_then(Value::as_array_mut) else { continue };
            let mut filled = Vec::new();
            for peer in found.drain(..) {
                let text = peer.to_string();
                if !text.contains('$') {
                    filled.push(peer);
                    continue;
                }
                for family in [0, 1] {
                    let mut text = text.clone();
                    for (key, pod) in pods {
                        let single = format!("{}/{}", pod.ips[family], [32, 128][family]);
                        text = text.replace(&format!("$IP({key})/32"), &single);
                        text = text.replace(&format!("$LARGE({key})"), LARGE[family]);
                    }
                    ensure!(!text.contains('$'), "{text}");
                    filled.push(serde_json::from_str(&text)?);
                }
            }
            *found = filled;
        }
    }
    Ok(policy)
}
