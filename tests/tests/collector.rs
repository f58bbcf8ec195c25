//! A stock OpenTelemetry Collector, built from its modules as it is, takes our records over TLS on both sides. Whoever is
//! killed meanwhile, every denial is there, under one name.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tests::{
    authority::Authority,
    cluster::parts,
    manifest::{namespace, pod, policy},
    node::{Node, PATIENCE, Setup, eventually},
    owner,
    pod::Pod,
    server::Server,
    traffic::{Protocol::Tcp, Reached, SILENT, reach},
    trial::trial,
};

/// Where the collector listens, in the network of the node.
const COLLECTOR: &str = "127.0.0.1:4317";

fn shop() -> String {
    [
        namespace("shop", ""),
        pod("shop/web", "app: web"),
        pod("shop/db", "app: db"),
        policy("shop/db", "  podSelector: {matchLabels: {app: db}}"),
    ]
    .concat()
}

/// A node, and a collector in its network that writes what it gets to a file.
struct Scene {
    node: Node,
    program: PathBuf,
}

impl Scene {
    fn start() -> anyhow::Result<Self> {
        let (receivers, senders) = (Authority::new("receivers")?, Authority::new("senders")?);
        let name = owner::fresh_name();
        let home = owner::folder(&name);
        let own = receivers.folder(&home.join("collector"), "collector", &senders)?.display().to_string();
        let ours = senders.folder(&home.join("sender"), "n1", &receivers)?.display().to_string();
        let out = home.join("out.json").display().to_string();
        fs::write(
            home.join("collector.yaml"),
            format!(
                "receivers:\n  otlp:\n    protocols:\n      grpc:\n        endpoint: {COLLECTOR}\n        tls: {{cert_file: {own}/tls.crt, \
                 key_file: {own}/tls.key, client_ca_file: {own}/ca.crt}}\nexporters:\n  file: {{path: {out}, append: true}}\n\
                 service:\n  telemetry: {{metrics: {{level: none}}}}\n  pipelines:\n    logs: {{receivers: [otlp], exporters: [file]}}\n"
            ),
        )?;
        fs::write(
            home.join("exporters.yaml"),
            format!(
                "exporters:\n- name: collector\n  includeFilters: [{{verdict: [DROPPED]}}]\n  otlp:\n    endpoint: https://{COLLECTOR}\n    \
                 tls: {{caFile: {ours}/ca.crt, certFile: {ours}/tls.crt, keyFile: {ours}/tls.key, serverName: collector}}\n"
            ),
        )?;
        let arguments = vec!["--exporters".to_owned(), home.join("exporters.yaml").display().to_string()];
        let node = Node::start_as(Setup { name, arguments, ..Setup::default() }, &[("all.yaml", &shop())])?;
        Ok(Self { node, program: parts::folder()?.join(parts::COLLECTOR) })
    }

    fn collector(&self) -> anyhow::Result<Server> {
        let home = self.node.folder();
        let config = format!("--config=file:{}", home.join("collector.yaml").display());
        Server::start(&self.node, &self.program, [config], &home.join("collector.log"))
    }

    /// What the collector has written: names of records by port of the destination.
    fn received(&self) -> anyhow::Result<BTreeMap<String, BTreeSet<String>>> {
        let text = fs::read_to_string(self.node.folder().join("out.json")).unwrap_or_default();
        let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        // What is being written has no end yet.
        for line in text.lines().filter(|line| line.ends_with('}')) {
            let request: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
            for record in records(&request) {
                ensure!(record["severityText"] == "WARN", "a denial is a warning: {record}");
                let name = attribute(record, "log.record.uid").context("a name")?;
                let port = attribute(record, "destination.port").context("a port")?;
                ensure!(attribute(record, "source.k8s.pod.name").as_deref() == Some("web"), "{record}");
                ensure!(attribute(record, "bulkhead.verdict").as_deref() == Some("denied"), "{record}");
                found.entry(port).or_default().insert(name);
            }
        }
        Ok(found)
    }

    /// Waits until denials at these ports have come, each of them `at_least` times, by different names.
    fn until(&self, ports: &[u16], at_least: usize) -> anyhow::Result<()> {
        let there = || {
            let found = self.received()?;
            Ok(ports.iter().all(|port| found.get(&port.to_string()).is_some_and(|names| names.len() >= at_least)))
        };
        let log = || fs::read_to_string(self.node.folder().join("collector.log")).unwrap_or_default();
        let stats = self.node.bulkhead().json(&["flows", "stats"]);
        ensure!(eventually(PATIENCE, there)?, "{ports:?}: {:?}, {stats:?}; {}", self.received(), log());
        Ok(())
    }

    /// Names of the denials in the node's history.
    fn remembered(&self) -> anyhow::Result<BTreeSet<String>> {
        let denials = self.node.bulkhead().flows(&["--verdict", "denied"])?;
        denials
            .iter()
            .map(|flow| Ok(flow["uuid"].as_str().with_context(|| format!("a name in {flow}"))?.to_owned()))
            .collect()
    }

    /// Waits until so many records wait for the collector.
    fn spooled(&self, wanted: u64) -> anyhow::Result<()> {
        let waiting = || {
            let stats = self.node.bulkhead().json(&["flows", "stats"])?;
            let all = stats["exporters"].as_array().into_iter().flatten();
            Ok(all.filter(|it| it["name"] == "collector").any(|it| it["spooled"].as_u64() >= Some(wanted)))
        };
        ensure!(eventually(PATIENCE, waiting)?, "{:?}", self.node.bulkhead().json(&["flows", "stats"]));
        Ok(())
    }
}

fn records(request: &Value) -> impl Iterator<Item = &Value> {
    let resources = request["resourceLogs"].as_array().into_iter().flatten();
    let scopes = resources.flat_map(|it| it["scopeLogs"].as_array().into_iter().flatten());
    scopes.flat_map(|it| it["logRecords"].as_array().into_iter().flatten())
}

/// An attribute of a record, numbers as text.
fn attribute(record: &Value, key: &str) -> Option<String> {
    let found = record["attributes"].as_array()?.iter().find(|it| it["key"] == key)?;
    let value = found["value"].as_object()?.values().next()?;
    Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

/// One denied connection at a port, of each family: at least two records.
fn denied(web: &Pod, db: &Pod, port: u16) -> anyhow::Result<()> {
    for to in db.at(port) {
        ensure!(reach(&web.sandbox, Tcp, to, SILENT)? == Reached::No);
    }
    Ok(())
}

#[test]
fn every_denial_reaches_a_collector_that_comes_and_goes() {
    trial(|| {
        let mut scene = Scene::start()?;
        let [web, db] = scene.node.add_all(["shop/web", "shop/db"])?;
        // Nobody listens yet.
        denied(&web, &db, 81)?;
        scene.spooled(2)?;
        let collector = scene.collector()?;
        scene.until(&[81], 2)?;
        denied(&web, &db, 82)?;
        scene.until(&[81, 82], 2)?;
        // What it has taken it has written down: now it may die. So may the daemon, once its spool has the records.
        collector.kill();
        denied(&web, &db, 83)?;
        scene.spooled(2)?;
        scene.node.take_agent()?.kill()?;
        let _collector = scene.collector()?;
        scene.node.start_daemon()?;
        denied(&web, &db, 84)?;
        scene.until(&[81, 82, 83, 84], 2)?;
        // What it has is what the node remembers, name by name.
        let same = || Ok(scene.received()?.into_values().flatten().collect::<BTreeSet<_>>() == scene.remembered()?);
        ensure!(eventually(PATIENCE, same)?, "{:?} {:?}", scene.received(), scene.remembered());
        let line = scene.node.bulkhead().exporter("collector")?;
        let lost = line["dropped"].as_array().into_iter().flatten().filter_map(|it| it["count"].as_u64()).sum::<u64>();
        ensure!(lost == 0 && line["spooled"] == 0, "{line}");
        Ok(())
    });
}
