//! ClusterNetworkPolicies as objects of the real API server, between pods on both nodes: a table of policies and of who
//! then answers whom, one case after the other.
//!
//! ```text
//! tiers    every combination of the three tiers, as policy/testdata/tiers.txt has them
//! write    policies, as JSON
//! table    the cases
//! refused  what the API server does not take, and what we do not
//! ```

pub(crate) mod refused;
mod table;
mod tiers;
mod write;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    time::Instant,
};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

pub(crate) use self::tiers::every_combination_holds;
use crate::{
    life::{SILENCE, YES, labels},
    stage::{Ask, PORTS, Pod, SOON, Stage, pod},
};

/// Namespaces, each with the label `team`, which is its name. Every subject is within them.
const NAMESPACES: [&str; 2] = ["red", "blue"];
/// Who asks, and is asked: pods, the label `app`, the node.
const PODS: [(&str, &str, &str); 4] =
    [("red/web", "web", "n1"), ("red/api", "api", "n2"), ("blue/web", "web", "n1"), ("blue/db", "db", "n2")];
/// Who is asked only: pods that have their node's network, so that something answers at the node's addresses. Policies
/// must not take them for the pods that their labels say.
const NODES: [(&str, &str, &str); 2] = [("red/n1", "web", "n1"), ("red/n2", "web", "n2")];
/// Everyone whom [`Denied`] means by `*`.
const ALL: &str = "*";

/// Policies, and what becomes of the traffic.
struct Case {
    name: &'static str,
    policies: Vec<Value>,
    /// All else is answered.
    denied: Vec<Denied>,
}

/// Who is not answered: from, to, and what is asked, such as `tcp/80`. Each of them some words, or [`ALL`].
type Denied = (&'static str, &'static str, &'static str);

impl Case {
    fn denies(&self, from: &str, to: &str, what: &str) -> bool {
        let names = |words: &str, word: &str| words == ALL || words.split(' ').any(|name| name == word);
        self.denied.iter().any(|(senders, receivers, asked)| {
            names(senders, from) && names(receivers, to) && (names(asked, what) || names(asked, &what[..3]))
        })
    }

    /// What every pod asks everybody else, in both families.
    fn asks(&self, pods: &BTreeMap<String, Pod>) -> Vec<Ask> {
        let mut asks = Vec::new();
        for (from, _, home) in PODS {
            for (to, _, node) in PODS.iter().chain(&NODES).filter(|(to, ..)| *to != from) {
                // A server of UDP that serves every address answers a pod of its own node from another one than it was
                // asked at.
                let own_node = *node == home && NODES.iter().any(|(key, ..)| key == to);
                let protocols = if own_node { &["tcp"][..] } else { &["tcp", "udp"] };
                for (protocol, port) in protocols.iter().flat_map(|name| PORTS.map(|port| (name, port))) {
                    let denied = self.denies(from, to, &format!("{protocol}/{port}"));
                    asks.extend(Ask::both(from, &pods[*to], protocol, port, if denied { SILENCE } else { YES }));
                }
            }
        }
        asks
    }

    /// Asks until all is as it should be.
    fn holds(&self, stage: &Stage, pods: &BTreeMap<String, Pod>) -> anyhow::Result<()> {
        let asks = self.asks(pods);
        let began = Instant::now();
        loop {
            let found = stage.answers(&asks)?;
            if asks.iter().zip(&found).all(|(ask, answer)| ask.answer == answer) {
                return Ok(());
            }
            if began.elapsed() > SOON {
                let wanted = shown(&asks, asks.iter().map(|ask| ask.answer));
                let found = shown(&asks, found.iter().map(String::as_str));
                bail!("{}, after {SOON:?}\nwanted\n{wanted}found\n{found}", self.name);
            }
        }
    }
}

/// A row for each who asks, a column for each who is asked; in it an answer for each of tcp/80, tcp/81, udp/80 and
/// udp/81, in IPv4 and in IPv6: `.` is yes.
fn shown<'a>(asks: &[Ask], answers: impl Iterator<Item = &'a str>) -> String {
    let mut rows: BTreeMap<&str, BTreeMap<&str, [String; 2]>> = BTreeMap::new();
    let mut columns = BTreeSet::new();
    for (ask, answer) in asks.iter().zip(answers) {
        columns.insert(ask.to.as_str());
        let cell = rows.entry(&ask.from).or_default().entry(&ask.to).or_default();
        cell[usize::from(ask.target.contains('['))].push(match answer {
            YES => '.',
            SILENCE => 'X',
            _ => 'R',
        });
    }
    let mut text = format!("{:10}", "");
    for to in &columns {
        let _ = write!(text, "{to:10}");
    }
    text.push('\n');
    for (from, row) in rows {
        let _ = write!(text, "{from:10}");
        for to in &columns {
            let cell = row.get(to).map_or_else(String::new, |[v4, v6]| format!("{v4} {v6}"));
            let _ = write!(text, "{cell:10}");
        }
        text.push('\n');
    }
    text
}

/// Namespaces and pods, once for every case.
fn people(stage: &Stage) -> anyhow::Result<BTreeMap<String, Pod>> {
    stage.namespaces(&NAMESPACES)?;
    for name in NAMESPACES {
        stage.kubectl(&["label", "namespace", name, &format!("team={name}")])?;
    }
    for (key, app, node) in NODES {
        let mut object = pod(key, &labels(app), node, json!({}))?;
        object["spec"]["hostNetwork"] = json!(true);
        stage.apply(&[object])?;
    }
    let wanted: Vec<_> = PODS.iter().map(|(key, app, node)| (*key, labels(app), *node)).collect();
    let mut pods = stage.pods(&wanted)?;
    for (key, ..) in NODES {
        pods.insert(key.to_owned(), stage.ready(key)?);
    }
    Ok(pods)
}

/// What tells a policy from others here.
fn name(policy: &Value) -> [&Value; 2] {
    [&policy["kind"], &policy["metadata"]["name"]]
}

/// Removes what does not belong to the next case, and has that in force: what both have is edited.
fn turn(stage: &Stage, before: &[Value], policies: &[Value]) -> anyhow::Result<()> {
    let stays = |policy: &Value| policies.iter().any(|next| name(next) == name(policy));
    let gone: Vec<&Value> = before.iter().filter(|policy| !stays(policy)).collect();
    if !gone.is_empty() {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": gone});
        stage.cluster.control.kubectl_with(&["delete", "-f", "-"], &list.to_string())?;
    }
    if policies.is_empty() { Ok(()) } else { stage.apply(policies) }
}

/// Nothing of a test that failed half-way is left to the next one, which has namespaces of the same names.
fn cleared(stage: &Stage, result: anyhow::Result<()>) -> anyhow::Result<()> {
    let policies = stage.kubectl(&["delete", "clusternetworkpolicies", "--all"]);
    let [red, blue] = NAMESPACES;
    let namespaces = stage.kubectl(&["delete", "namespace", "--timeout=120s", red, blue]);
    result.and(policies.map(drop)).and(namespaces.map(drop))
}

pub(crate) fn every_case_holds(stage: &mut Stage) -> anyhow::Result<()> {
    let result = people(stage).and_then(|pods| {
        let mut before: Vec<Value> = Vec::new();
        let mut answers: Option<Vec<&str>> = None;
        let mut wrong = Vec::new();
        for case in table::cases(&pods)? {
            // One that changes nothing would pass before its policies are in force.
            let asks: Vec<&str> = case.asks(&pods).into_iter().map(|ask| ask.answer).collect();
            ensure!(answers.as_ref() != Some(&asks), "{}: nothing differs from the case before", case.name);
            answers = Some(asks);
            turn(stage, &before, &case.policies).with_context(|| case.name)?;
            if let Err(error) = case.holds(stage, &pods) {
                wrong.push(format!("{error:#}"));
            }
            before = case.policies;
        }
        ensure!(wrong.is_empty(), "{} cases\n{}", wrong.len(), wrong.join("\n"));
        Ok(())
    });
    cleared(stage, result)
}
