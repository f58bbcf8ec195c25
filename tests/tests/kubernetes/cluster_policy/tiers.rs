//! Every combination of the three tiers: a pod for each, which a pod that no policy selects asks, and which asks that pod.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tests::cluster::layout::POD_RANGES;

use super::write::{from, policy, to};
use crate::{
    life::{SILENCE, YES},
    stage::{Ask, Pod, Stage, pod},
};

/// What comes out of each of them, by way and direction.
const TABLE: &str = include_str!("../../../../policy/testdata/tiers.txt");
const NAMESPACE: &str = "tiers";
/// Pods that ask at the same time: more would wait for a processor rather than for an answer.
const AT_ONCE: usize = 12;
/// Combinations of nothing, Accept, Deny and Pass of the Admin tier, three states of NetworkPolicy, and the four again.
const CELLS: usize = 4 * 3 * 4;

/// What a table says of one combination.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Cell {
    admin: String,
    network_policy: String,
    baseline: String,
    passes: bool,
}

impl Cell {
    fn name(&self) -> String {
        format!("{}-{}-{}", self.admin, self.network_policy, self.baseline)
    }
}

/// The table of a title, for example `tiers ingress by label`.
fn table(title: &str) -> anyhow::Result<Vec<Cell>> {
    let mut lines = TABLE.lines().skip_while(|line| *line != title).skip(2);
    let mut cells = Vec::new();
    for line in lines.by_ref().take_while(|line| !line.is_empty()) {
        let (combination, said) = line.split_once("->").with_context(|| format!("{title}: {line}"))?;
        let words: Vec<&str> = combination.split('|').map(str::trim).collect();
        let [admin, network_policy, baseline] = words[..] else { anyhow::bail!("{title}: {line}") };
        let [admin, network_policy, baseline] = [admin, network_policy, baseline].map(str::to_owned);
        cells.push(Cell { admin, network_policy, baseline, passes: said.trim().starts_with("passes") });
    }
    ensure!(cells.len() == CELLS, "{} lines of {title:?}", cells.len());
    Ok(cells)
}

/// The policies; `peer` is whom their rules name, as one of ClusterNetworkPolicy and as one of NetworkPolicy.
fn policies(ingress: &[Value; 2], egress: &[Value; 2]) -> Vec<Value> {
    let mut all = Vec::new();
    for (tier, label) in [("Admin", "admin"), ("Baseline", "baseline")] {
        for (priority, action) in (1..).zip(["Accept", "Deny", "Pass"]) {
            let word = action.to_lowercase();
            let rules = [from(action, &ingress[..1]), to(action, &egress[..1])];
            all.push(policy(&format!("{label}-{word}"), tier, priority, &pods(label, &word), &rules));
        }
    }
    for (name, rules) in [
        ("allows", json!({"ingress": [{"from": [ingress[1]]}], "egress": [{"to": [egress[1]]}]})),
        ("isolates", json!({})),
    ] {
        let mut spec = rules;
        spec["podSelector"] = json!({"matchLabels": {"np": name}});
        spec["policyTypes"] = json!(["Ingress", "Egress"]);
        all.push(json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec,
        }));
    }
    all
}

fn about(from: &str, to: &Pod, cell: &Cell) -> Vec<Ask> {
    let answer = if cell.passes { YES } else { SILENCE };
    ["tcp", "udp"].into_iter().flat_map(|protocol| Ask::both(from, to, protocol, 80, answer)).collect()
}

/// Pods with a label.
fn pods(key: &str, value: &str) -> Value {
    json!({"pods": {"podSelector": {"matchLabels": {key: value}}}})
}

pub(crate) fn every_combination_holds(stage: &mut Stage) -> anyhow::Result<()> {
    stage.namespaces(&[NAMESPACE])?;
    let (received, sent, sent_by_network) =
        (table("tiers ingress by label")?, table("tiers egress by label")?, table("tiers egress by network")?);
    let label = [pods("app", "peer"), json!({"podSelector": {"matchLabels": {"app": "peer"}}})];
    stage.apply(&policies(&label, &label))?;
    let peer = format!("{NAMESPACE}/peer");
    let mut objects = vec![pod(&peer, &json!({"app": "peer"}), "n1", json!({}))?];
    for (index, cell) in received.iter().enumerate() {
        let labels = json!({"admin": cell.admin, "np": cell.network_policy, "baseline": cell.baseline});
        let node = if index % 2 == 0 { "n1" } else { "n2" };
        objects.push(pod(&format!("{NAMESPACE}/{}", cell.name()), &labels, node, json!({}))?);
    }
    stage.apply(&objects)?;
    stage.kubectl(&["wait", "-n", NAMESPACE, "--for=condition=Ready", "pod", "--all", "--timeout=180s"])?;
    let there = stage.found(NAMESPACE)?;
    let there = |name: &str| there.get(&format!("{NAMESPACE}/{name}")).with_context(|| format!("no pod {name}"));

    for half in received.chunks(CELLS / 2) {
        let mut asks = Vec::new();
        for cell in half {
            asks.extend(about(&peer, there(&cell.name())?, cell));
        }
        stage.expect(&asks).context("what pods receive from a pod by label")?;
    }
    let sends = |stage: &Stage, table: &[Cell], what: &'static str| -> anyhow::Result<()> {
        for some in table.chunks(AT_ONCE) {
            let mut asks = Vec::new();
            for cell in some {
                asks.extend(about(&format!("{NAMESPACE}/{}", cell.name()), there("peer")?, cell));
            }
            stage.expect(&asks).context(what)?;
        }
        Ok(())
    };
    sends(stage, &sent, "what pods send to a pod by label")?;
    // Nobody is whom rules by label name from now on.
    stage.kubectl(&["label", "pod", "-n", NAMESPACE, "peer", "app=other", "--overwrite"])?;
    let nobody: Vec<Cell> =
        sent.iter().cloned().map(|cell| Cell { passes: cell.network_policy == "none", ..cell }).collect();
    sends(stage, &nobody, "what pods send to a pod that no rule names")?;
    let blocks = [POD_RANGES.0, POD_RANGES.1].map(|range| json!({"ipBlock": {"cidr": range}}));
    let mut by_network = policies(&label, &[json!({"networks": [POD_RANGES.0, POD_RANGES.1]}), blocks[0].clone()]);
    for object in by_network.iter_mut().filter(|object| object["metadata"]["name"] == "allows") {
        object["spec"]["egress"] = json!([{"to": blocks}]);
    }
    stage.apply(&by_network)?;
    sends(stage, &sent_by_network, "what pods send to a network")?;
    stage.kubectl(&["delete", "clusternetworkpolicies", "--all", "--timeout=60s"])?;
    stage.forget(&[NAMESPACE])
}
