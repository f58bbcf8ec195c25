//! What people apply, and what becomes of it.

use std::{collections::BTreeSet, fs, thread, time::Duration};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tests::cluster::{Routing, agent::MANIFEST, chart, layout, node::Node};

use crate::{
    flows,
    stage::{Ask, Stage, pod, soon},
};

/// Where the agent is.
pub(crate) const NAMESPACE: &str = "kube-system";

pub(crate) fn manifests_are_the_charts(stage: &mut Stage) -> anyhow::Result<()> {
    for (name, values) in chart::FILES {
        let there = fs::read_to_string(chart::folder().join(name))?;
        let made = chart::file(&stage.cluster.programs, values)?;
        ensure!(there == made, "manifests/{name} is not what the chart makes: run `cargo xtask cluster chart`");
    }
    Ok(())
}

pub(crate) fn wrong_values_are_refused(stage: &mut Stage) -> anyhow::Result<()> {
    for (value, named) in [
        ("masquerad.enabled=false", "masquerad"),
        ("attach=xdp", "attach"),
        ("pods.device=ipvlan", "device"),
        ("routing=vxlan", "routing"),
        ("overlay.port=65536", "port"),
        ("overlay.protocol=gre", "protocol"),
        ("metrics.port=0", "port"),
        ("masquerade.exclude={10.0.0.0}", "exclude"),
        ("node.stateDir=var/lib", "stateDir"),
        ("uplink.denyList={example.org}", "denyList"),
        ("uplink.interfaces={a/b}", "interfaces"),
        ("flows.redact.labels={app=web}", "labels"),
        ("flows.redact.names={example.com.}", "names"),
        ("flows.api.enabled=true", "flows.api.tlsSecret"),
    ] {
        let said = match chart::render(&stage.cluster.programs, &[value]) {
            Ok(_) => String::new(),
            Err(error) => format!("{error:#}"),
        };
        ensure!(said.contains(named), "--set {value}: {said:?}");
    }
    // What can be said gets where it is to be.
    let made = chart::render(
        &stage.cluster.programs,
        &[
            "image.repository=example/bulkhead",
            "image.tag=v2",
            "masquerade.exclude={10.0.0.0/8}",
            "mapCapacity.CT=1024",
            "routing=native",
            "overlay.protocol=geneve",
            "uplink.interfaces={eth0,eth1}",
            "uplink.denyList={192.0.2.7,2001:db8::/32}",
        ],
    )?;
    for part in [
        "image: example/bulkhead:v2\n",
        "value: \"10.0.0.0/8\"",
        "value: \"CT=1024\"",
        "BULKHEAD_ROUTING\n              value: \"native\"",
        "BULKHEAD_OVERLAY_PROTOCOL\n              value: \"geneve\"",
        "BULKHEAD_UPLINK\n              value: \"eth0,eth1\"",
        "deny-list: |\n    192.0.2.7\n    2001:db8::/32\n",
    ] {
        ensure!(made.contains(part), "{part:?} is not in\n{made}");
    }
    Ok(())
}

pub(crate) fn agents_are_ready(stage: &mut Stage) -> anyhow::Result<()> {
    ensure!(!MANIFEST.contains("privileged: true"), "the manifest asks for everything");
    let rollout = ["rollout", "status", "-n", NAMESPACE, "daemonset/bulkhead", "--timeout=120s"];
    stage.kubectl(&rollout)?;
    // Taken off by a controller, a moment after the nodes are Ready.
    soon("nodes take pods", || {
        let taints = stage.kubectl(&["get", "nodes", "-o", "jsonpath={.items[*].spec.taints}"])?;
        ensure!(!taints.contains("not-ready"), "{taints}");
        Ok(())
    })?;
    for agent in agents(stage)? {
        let said = stage.kubectl(&["exec", "-n", NAMESPACE, &agent, "--", "bulkhead", "status"])?;
        ensure!(said.contains("All is well."), "{said}");
        let (routing, mtu) = match stage.cluster.plan.routing {
            Routing::Native => ("native", layout::MTU),
            Routing::Overlay => ("overlay, VXLAN", layout::MTU - 50),
        };
        ensure!(said.contains(routing) && said.contains(&format!("MTU {mtu}")), "{routing}, {mtu}: {said}");
    }
    Ok(())
}

/// The agents' pods.
pub(crate) fn agents(stage: &Stage) -> anyhow::Result<Vec<String>> {
    let names = agents_where(stage, &[])?;
    ensure!(names.len() == stage.cluster.nodes.len(), "the agents are {names:?}");
    Ok(names)
}

/// The agent's pod on a node.
pub(crate) fn agent_of(stage: &Stage, node: &str) -> anyhow::Result<String> {
    let mut names = agents_where(stage, &["--field-selector", &format!("spec.nodeName={node}")])?;
    ensure!(names.len() == 1, "the agents of {node} are {names:?}");
    Ok(names.remove(0))
}

fn agents_where(stage: &Stage, more: &[&str]) -> anyhow::Result<Vec<String>> {
    let which = "app.kubernetes.io/name=bulkhead,app.kubernetes.io/component=agent";
    let output = "jsonpath={.items[*].metadata.name}";
    let names = stage.kubectl(&[&["get", "pods", "-n", NAMESPACE, "-l", which, "-o", output], more].concat())?;
    Ok(names.split_whitespace().map(str::to_owned).collect())
}

/// How often an agent looks at its deny list.
const GATE_LOOKS: Duration = Duration::from_secs(2);
/// A deny list on which all nodes and the API server are.
const UNDERLAY: &str = "uplink.denyList={172.31.0.0/16,fd31::/64}";

/// Every agent is replaced, node after node, while a connection lives and pods start. The new ones keep everybody in the network of
/// the nodes out, but not nodes and API server.
pub(crate) fn an_update_costs_nothing(stage: &mut Stage) -> anyhow::Result<()> {
    stage.namespaces(&["update"])?;
    let app = |app: &str| json!({"app": app});
    let pods = stage.pods(&[("update/server", app("server"), "n1"), ("update/client", app("client"), "n2")])?;
    let server = &pods["update/server"];
    let before = agents(stage)?;
    let session = stage.session("update/client", server)?;
    let routing = format!("routing={}", stage.cluster.plan.routing.name());
    // For what comes next: numbers that nobody uses go soon.
    flows::make_certificates(stage)?;
    let secret = format!("flows.api.tlsSecret={}", flows::SECRET);
    let values = ["identity.sharedGraceSeconds=4", UNDERLAY, "flows.api.enabled=true", &secret, &routing];
    let manifest = chart::render(&stage.cluster.programs, &values)?;
    stage.cluster.control.kubectl_with(&["apply", "-f", "-"], &manifest)?;
    for round in 0..4 {
        let key = format!("update/late-{round}");
        let node = if round % 2 == 0 { "n1" } else { "n2" };
        stage.apply(&[pod(&key, &app("late"), node, json!({}))?])?;
    }
    stage.kubectl(&["rollout", "status", "-n", NAMESPACE, "daemonset/bulkhead", "--timeout=180s"])?;
    for round in 0..4 {
        stage.ready(&format!("update/late-{round}"))?;
    }
    session.unharmed()?;
    let after = agents(stage)?;
    ensure!(before.iter().all(|name| !after.contains(name)), "{before:?} became {after:?}");
    stage.expect(&Ask::both("update/late-3", server, "tcp", 80, "yes"))?;
    let keep_out = |stage: &Stage| {
        soon("agents keep others out", || {
            for agent in agents(stage)? {
                let said = stage.kubectl(&["exec", "-n", NAMESPACE, &agent, "--", "bulkhead", "status"])?;
                ensure!(said.contains("All is well.") && said.contains("2 denied ranges"), "{said}");
            }
            Ok(())
        })
    };
    keep_out(stage)?;
    // Nor do agents that start while the API server is away, and have looked at their list, lock it out: it is no Node.
    stage.cluster.control.stop_api_server()?;
    let result = stage.cluster.nodes.iter().try_for_each(Node::crash_daemon).and_then(|()| stage.agents_answer());
    thread::sleep(2 * GATE_LOOKS);
    stage.cluster.control.start_api_server()?;
    result?;
    keep_out(stage)?;
    stage.forget(&["update"])
}

/// What the chart grants is what the agent has asked for. An API server that has just started, or been told of the role,
/// refuses what is granted for a moment.
pub(crate) fn rights_are_what_is_used(stage: &mut Stage) -> anyhow::Result<()> {
    let role = |words: &[&str]| -> anyhow::Result<Value> { Ok(serde_json::from_str(&stage.kubectl(words)?)?) };
    let roles = [
        role(&["get", "clusterrole", "bulkhead", "-o", "json"])?,
        role(&["get", "role", "bulkhead", "-n", NAMESPACE, "-o", "json"])?,
    ];
    let words = |rule: &Value, field: &str| -> Vec<String> {
        let list = rule[field].as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let mut granted = BTreeSet::new();
    for rule in roles.iter().flat_map(|role| role["rules"].as_array()).flatten() {
        for group in words(rule, "apiGroups") {
            for resource in words(rule, "resources") {
                granted.extend(words(rule, "verbs").into_iter().map(|verb| (group.clone(), resource.clone(), verb)));
            }
        }
    }
    let mut used = BTreeSet::new();
    for line in stage.cluster.control.audit_log()?.lines() {
        let event: Value = serde_json::from_str(line).context("an event of the audit log")?;
        let object = &event["objectRef"];
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        used.insert((word(&object["apiGroup"]), word(&object["resource"]), word(&event["verb"])));
    }
    let too_many: Vec<_> = granted.difference(&used).collect();
    ensure!(too_many.is_empty(), "granted and never used: {too_many:?}");
    let elsewhere: Vec<_> = used.difference(&granted).collect();
    ensure!(elsewhere.is_empty(), "asked for and not granted: {elsewhere:?}");
    Ok(())
}

/// As the README says it. Afterwards the cluster has no network: nothing else can be tested on it.
pub(crate) fn uninstall_leaves_nothing(stage: &mut Stage) -> anyhow::Result<()> {
    stage.namespaces(&["gone"])?;
    stage.pods(&[("gone/a", json!({"app": "a"}), "n1"), ("gone/b", json!({"app": "b"}), "n2")])?;
    let file = |name: &str| fs::read_to_string(chart::folder().join(name));
    stage.kubectl(&["delete", "-n", NAMESPACE, "daemonset", "bulkhead", "--timeout=120s"])?;
    stage.cluster.control.kubectl_with(&["apply", "-f", "-"], &file("bulkhead-uninstall.yaml")?)?;
    stage.kubectl(&["rollout", "status", "-n", NAMESPACE, "daemonset/bulkhead-uninstall", "--timeout=120s"])?;
    for node in &stage.cluster.nodes {
        soon(&format!("{} is clean", node.name), || {
            let links = node.room.run("ip", &["-o", "link", "show"])?;
            ensure!(!links.contains(": bh"), "links are left: {links}");
            let routes = node.room.run("ip", &["route", "show", "proto", "98"])?;
            ensure!(routes.is_empty(), "routes are left: {routes}");
            let tables = node.room.run("nft", &["list", "tables"])?;
            ensure!(!tables.contains("bulkhead"), "a table is left: {tables}");
            for place in ["/etc/cni/net.d", "/run/bulkhead", "/var/lib/bulkhead"] {
                let left = fs::read_dir(node.room.outside(place))?.count();
                ensure!(left == 0, "{left} files are left in {place}");
            }
            for place in ["/opt/cni/bin/bulkhead-cni", "/sys/fs/bpf/bulkhead"] {
                ensure!(!node.room.outside(place).exists(), "{place} is left");
            }
            Ok(())
        })?;
    }
    for manifest in [&*file("bulkhead-uninstall.yaml")?, MANIFEST] {
        let delete = ["delete", "--ignore-not-found", "--timeout=120s", "-f", "-"];
        stage.cluster.control.kubectl_with(&delete, manifest)?;
    }
    Ok(())
}
