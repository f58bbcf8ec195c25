//! Every truth table of the Kubernetes end-to-end suite for NetworkPolicy (policy/testdata/README.md) through
//! the kernel: pods that are made once, policies and labels as each step has them, and real connections
//! from every pod to every other, over both families.
//!
//! SCTP only where the kernel has its sockets, as those of `cargo xtask vm`. Elsewhere these steps are carried out,
//! and their cells counted as skipped; `policy/tests/e2e.rs` compares them with the maps, `datapath_policy.rs` the
//! maps with packets.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    path::Path,
};

use anyhow::{Context as _, bail, ensure};
use flate2::read::GzDecoder;
use serde_json::{Value, json};
use tests::{
    feature::Feature,
    node::Node,
    pod::Pod,
    traffic::{Case, Echo, Protocol, expect},
    trial::trial,
};

/// Ports that every pod serves, under the name `serve-80-tcp`.
const PORTS: [u16; 2] = [80, 81];
/// The /4 that a pod's addresses of each family are in: see POOLS.
const LARGE: [&str; 2] = ["0.0.0.0/4", "f000::/4"];
/// Cells of all truth tables but for what a pod says to itself, in one family.
const CELLS: usize = 506;
/// Those of them that are about SCTP.
const SCTP_CELLS: usize = 30;

fn corpus() -> anyhow::Result<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policy/testdata/e2e/netpol.json.gz");
    let file = File::open(&path).with_context(|| format!("{}", path.display()))?;
    serde_json::from_reader(GzDecoder::new(file)).context("the corpus is JSON")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn split(path: &str) -> anyhow::Result<(&str, &str)> {
    path.split_once('/').with_context(|| format!("{path:?} is no namespace/name"))
}

/// Objects as the steps of a case leave them, by kind, namespace and name.
struct Objects<'a> {
    pods: &'a BTreeMap<String, Pod>,
    found: BTreeMap<[String; 3], Value>,
}

impl<'a> Objects<'a> {
    fn of(case: &Value, pods: &'a BTreeMap<String, Pod>) -> anyhow::Result<Self> {
        let mut objects = Self { pods, found: BTreeMap::new() };
        for path in list(&case["pods"]).iter().filter_map(Value::as_str) {
            let (namespace, name) = split(path)?;
            objects.set_namespace(namespace, &json!({}));
            objects.set_pod(path, json!({"pod": name}))?;
        }
        Ok(objects)
    }

    fn set_namespace(&mut self, name: &str, labels: &Value) {
        let metadata = json!({"name": name, "labels": labels});
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata});
        self.found.insert(["Namespace".into(), String::new(), name.into()], object);
    }

    fn set_pod(&mut self, path: &str, labels: Value) -> anyhow::Result<()> {
        let (namespace, name) = split(path)?;
        let protocols = ["TCP", "UDP", "SCTP"];
        let ports: Vec<Value> = PORTS
            .iter()
            .flat_map(|port| protocols.map(|protocol| (port, protocol)))
            .map(|(port, protocol)| {
                let name = format!("serve-{port}-{}", protocol.to_lowercase());
                json!({"name": name, "containerPort": port, "protocol": protocol})
            })
            .collect();
        let object = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "spec": {"containers": [{"name": "main", "image": "none", "ports": ports}]},
        });
        self.found.insert(["Pod".into(), namespace.into(), name.into()], object);
        Ok(())
    }

    fn act(&mut self, step: &Value) -> anyhow::Result<()> {
        if step["delete_all"] == true {
            self.found.retain(|[kind, ..], _| kind != "NetworkPolicy");
        }
        for (namespace, labels) in entries(&step["set_ns_labels"]) {
            self.set_namespace(namespace, labels);
        }
        for (path, more) in entries(&step["add_pod_labels"]) {
            let (namespace, name) = split(path)?;
            let pod = self.found.get(&["Pod".into(), namespace.into(), name.into()]);
            let mut labels = pod.with_context(|| format!("no pod {path}"))?["metadata"]["labels"].clone();
            for (key, value) in entries(more) {
                labels[key] = value.clone();
            }
            self.set_pod(path, labels)?;
        }
        for policy in list(&step["create"]).iter().chain(list(&step["update"])) {
            let mut policy = policy.clone();
            self.fill_in(&mut policy)?;
            let text = |field: &str| policy["metadata"][field].as_str().unwrap_or_default().to_owned();
            self.found.insert(["NetworkPolicy".into(), text("namespace"), text("name")], policy);
        }
        Ok(())
    }

    /// Puts addresses in the place of `$IP(ns/pod)/32` and `$LARGE(ns/pod)`. A block is of one family, the
    /// pods have both: each peer with such a block becomes two.
    fn fill_in(&self, policy: &mut Value) -> anyhow::Result<()> {
        for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
            let Some(rules) = policy["spec"].get_mut(direction).and_then(Value::as_array_mut) else { continue };
            for rule in rules {
                let Some(found) = rule.get_mut(peers).and_then(Value::as_array_mut) else { continue };
                let mut filled = Vec::new();
                for peer in found.drain(..) {
                    if peer.to_string().contains('$') {
                        for family in [0, 1] {
                            filled.push(self.in_family(&peer, family)?);
                        }
                    } else {
                        filled.push(peer);
                    }
                }
                *found = filled;
            }
        }
        Ok(())
    }

    fn in_family(&self, peer: &Value, family: usize) -> anyhow::Result<Value> {
        let mut text = peer.to_string();
        for (path, pod) in self.pods {
            let single = format!("{}/{}", pod.addresses()[family], [32, 128][family]);
            text = text.replace(&format!("$IP({path})/32"), &single).replace(&format!("$LARGE({path})"), LARGE[family]);
        }
        ensure!(!text.contains('$'), "{text}");
        Ok(serde_json::from_str(&text)?)
    }

    /// As a manifest: JSON is YAML.
    fn manifest(&self) -> String {
        self.found.values().map(|object| format!("---\n{object}\n")).collect()
    }
}

/// What was tried.
#[derive(Default, Debug)]
struct Tried {
    /// In one family.
    cells: usize,
    connections: usize,
    /// Cells.
    skipped: usize,
    wrong: Vec<String>,
}

/// Carries the cases out, one after the other, with the same pods.
fn carry_out(cases: &[&Value]) -> anyhow::Result<Tried> {
    let sctp = Feature::Sctp.is_there();
    let node = Node::start(&[])?;
    let paths: BTreeSet<&str> = cases.iter().flat_map(|case| list(&case["pods"])).filter_map(Value::as_str).collect();
    let mut pods = BTreeMap::new();
    let mut echoes = Vec::new();
    for path in paths {
        let pod = node.add(path)?;
        let echo = Echo::start(&pod.sandbox, &PORTS, &PORTS)?;
        echoes.push(if sctp { echo.with_sctp(&pod.sandbox, &PORTS)? } else { echo });
        pods.insert(path.to_owned(), pod);
    }
    let mut tried = Tried::default();
    for case in cases {
        let mut objects = Objects::of(case, &pods)?;
        for (number, step) in list(&case["steps"]).iter().enumerate() {
            let place = format!("{} step {number}", case["name"]);
            objects.act(step)?;
            node.apply("all.yaml", &objects.manifest()).with_context(|| place.clone())?;
            let table: Vec<(&String, &String, bool)> = entries(&step["expected"])
                .flat_map(|(from, row)| entries(row).map(move |(to, cell)| (from, to, cell == true)))
                // The suite ignores what a pod says to itself.
                .filter(|(from, to, _)| from != to)
                .collect();
            tried.cells += table.len();
            let protocol = match step["protocol"].as_str() {
                Some("TCP") => Protocol::Tcp,
                Some("UDP") => Protocol::Udp,
                Some("SCTP") if sctp => Protocol::Sctp,
                Some("SCTP") => {
                    tried.skipped += table.len();
                    continue;
                }
                other => bail!("{place}: protocol {other:?}"),
            };
            let port = u16::try_from(step["port"].as_u64().context("a port")?)?;
            let mut attempts = Vec::new();
            for (from, to, allowed) in table {
                let what = format!("{from} to {to}");
                let attempt = |to| Case { what: what.clone(), from: &pods[from].sandbox, protocol, to, allowed };
                attempts.extend(pods[to].at(port).map(attempt));
            }
            tried.connections += attempts.len();
            if let Err(error) = expect(&attempts) {
                tried.wrong.push(format!("{place}: {error}"));
            }
        }
    }
    let Tried { cells, connections, skipped, wrong } = &tried;
    println!(
        "{} cases, {cells} cells in each family: {connections} connections tried, {skipped} cells skipped for want \
         of SCTP sockets",
        cases.len()
    );
    ensure!(wrong.is_empty(), "{} steps\n{}", wrong.len(), wrong.join("\n"));
    Ok(tried)
}

#[test]
fn every_truth_table_of_the_upstream_suite_holds() {
    trial(|| {
        let corpus = corpus()?;
        let tried = carry_out(&list(&corpus["cases"]).iter().collect::<Vec<_>>())?;
        let skipped = if Feature::Sctp.is_there() { 0 } else { SCTP_CELLS };
        ensure!(tried.cells == CELLS, "{} cells, not {CELLS}: the corpus is another one", tried.cells);
        ensure!(tried.skipped == skipped && tried.connections == 2 * (CELLS - skipped), "{tried:?}");
        Ok(())
    });
}

/// What kernels that are emulated do in the time there is: `cargo xtask test`.
#[test]
fn every_truth_table_about_sctp_holds() {
    trial(|| {
        if !Feature::Sctp.is_there_or_told() {
            return Ok(());
        }
        let corpus = corpus()?;
        let about = |case: &&Value| list(&case["steps"]).iter().any(|step| step["protocol"] == "SCTP");
        let tried = carry_out(&list(&corpus["cases"]).iter().filter(about).collect::<Vec<_>>())?;
        ensure!(tried.cells == SCTP_CELLS && tried.connections == 2 * tried.cells, "{tried:?}");
        Ok(())
    });
}
