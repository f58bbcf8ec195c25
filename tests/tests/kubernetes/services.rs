//! Services: from pods by Bulkhead, so that policy is about the pods behind them; everything else by kube-proxy, which
//! runs beside it.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tests::cluster::Proxy;

use crate::{
    install::{NAMESPACE, agent_of},
    life::{SILENCE, YES, labels},
    stage::{Ask, Pod, Stage, soon},
};

/// Port of every Service here; its pods serve another one.
const PORT: u16 = 8080;

/// A Service of both families and protocols, in front of the pods `app`; `more` is merged into its spec.
pub(crate) fn service(namespace: &str, app: &str, more: Value) -> Value {
    let port =
        |protocol: &str| json!({"name": protocol.to_lowercase(), "protocol": protocol, "port": PORT, "targetPort": 80});
    let mut object = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": app, "namespace": namespace},
        "spec": {
            "ipFamilyPolicy": "RequireDualStack",
            "selector": labels(app),
            "ports": [port("TCP"), port("UDP")],
        },
    });
    for (field, value) in more.as_object().into_iter().flatten() {
        object["spec"][field] = value.clone();
    }
    object
}

/// What the API server has made of it.
fn found(stage: &Stage, namespace: &str, name: &str) -> anyhow::Result<Value> {
    Ok(serde_json::from_str(&stage.kubectl(&["get", "service", "-n", namespace, name, "-o", "json"])?)?)
}

fn addresses(service: &Value) -> anyhow::Result<Vec<IpAddr>> {
    let ips = service["spec"]["clusterIPs"].as_array().map(Vec::as_slice).unwrap_or_default();
    let families = if service["spec"]["ipFamilyPolicy"] == "RequireDualStack" { 2 } else { 1 };
    ensure!(ips.len() == families, "not of all families: {service:#}");
    ips.iter().map(|ip| Ok(ip.as_str().context("an address")?.parse()?)).collect()
}

/// About a Service, from a pod, by each of its addresses and both protocols.
pub(crate) fn about(stage: &Stage, from: &str, to: &str, answer: &'static str) -> anyhow::Result<Vec<Ask>> {
    let (namespace, name) = to.split_once('/').context("a Service is namespace/name")?;
    let ends = addresses(&found(stage, namespace, name)?)?.into_iter().map(|ip| SocketAddr::new(ip, PORT));
    Ok(to_ends(from, &format!("Service {to}"), &ends.collect::<Vec<_>>(), answer))
}

fn to_ends(from: &str, to: &str, ends: &[SocketAddr], answer: &'static str) -> Vec<Ask> {
    let ask = |protocol: &str, end| Ask {
        from: from.to_owned(),
        to: to.to_owned(),
        target: format!("{protocol}:{end}"),
        answer,
    };
    ends.iter().flat_map(|end| ["tcp", "udp"].map(|protocol| ask(protocol, end))).collect()
}

pub(crate) fn they_lead_to_pods_on_all_nodes(stage: &mut Stage) -> anyhow::Result<()> {
    stage.namespaces(&["services"])?;
    stage.pods(&[
        ("services/near", labels("web"), "n1"),
        ("services/far", labels("web"), "n2"),
        ("services/client", labels("client"), "n1"),
        ("services/other", labels("client"), "n2"),
    ])?;
    stage.apply(&[service("services", "web", json!({}))])?;
    let mut asks = about(stage, "services/client", "services/web", YES)?;
    asks.extend(about(stage, "services/other", "services/web", YES)?);
    ensure!(asks.len() == 8, "{asks:?}");
    stage.expect(&asks)?;
    found_by_name(stage, "services/client", "services/web")?;
    stage.forget(&["services"])
}

/// Waits until a pod finds a Service by its name.
pub(crate) fn found_by_name(stage: &Stage, from: &str, to: &str) -> anyhow::Result<()> {
    let (namespace, name) = to.split_once('/').context("a Service is namespace/name")?;
    let ip = addresses(&found(stage, namespace, name)?)?[0].to_string();
    soon(&format!("{to} has a name"), || {
        let said = stage.exec(from, &["nslookup", &format!("{name}.{namespace}.svc.cluster.local")])?;
        ensure!(said.contains(&ip), "{said}");
        Ok(())
    })
}

/// A policy for what `client` sends.
fn egress(namespace: &str, peers: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "client-sends", "namespace": namespace},
        "spec": {
            "podSelector": {"matchLabels": labels("client")},
            "policyTypes": ["Egress"],
            "egress": [{"to": peers, "ports": [{"protocol": "TCP", "port": 80}, {"protocol": "UDP", "port": 80}]}],
        },
    })
}

/// What is sent to a Service's address is judged as what it becomes: the pod, and the pod's port.
pub(crate) fn policy_sees_the_pods_behind(stage: &mut Stage) -> anyhow::Result<()> {
    stage.namespaces(&["behind"])?;
    stage.pods(&[
        ("behind/db-near", labels("db"), "n1"),
        ("behind/db-far", labels("db"), "n2"),
        ("behind/cache", labels("cache"), "n2"),
        ("behind/client", labels("client"), "n1"),
    ])?;
    stage.apply(&[service("behind", "db", json!({})), service("behind", "cache", json!({}))])?;
    let both = |stage: &Stage, db, cache| -> anyhow::Result<Vec<Ask>> {
        let mut asks = about(stage, "behind/client", "behind/db", db)?;
        asks.extend(about(stage, "behind/client", "behind/cache", cache)?);
        Ok(asks)
    };
    stage.expect(&both(stage, YES, YES)?)?;
    stage.apply(&[egress("behind", &json!([{"podSelector": {"matchLabels": labels("db")}}]))])?;
    stage.expect(&both(stage, YES, SILENCE)?)?;
    // The record names the Service, what was addressed, and the pod that it became.
    let db = addresses(&found(stage, "behind", "db")?)?;
    soon("a record of a connection by the Service", || {
        let agent = agent_of(stage, "n1")?;
        // What the kubelet's probes leave is not asked for.
        let words = ["bulkhead", "flows", "--from-pod", "behind/client", "--last", "1000", "-o", "json"];
        let said = stage.kubectl(&[&["exec", "-n", NAMESPACE, &agent, "--"], &words[..]].concat())?;
        let flows = said.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
        let addressed = |flow: &Value| flow["extensions"]["value"]["addressed"].as_str().map(str::to_owned);
        let ours = flows.iter().map(|answer| &answer["flow"]).find(|flow| {
            flow["destination_service"]["name"] == "db"
                && addressed(flow).is_some_and(|at| at == SocketAddr::new(db[0], PORT).to_string())
        });
        let flow = ours.with_context(|| format!("none by {} among {}", db[0], flows.len()))?;
        let pod = flow["destination"]["pod_name"].as_str().unwrap_or_default();
        ensure!(pod.starts_with("db-"), "{flow:#}");
        Ok(())
    })?;
    // An address of a Service is no peer: there is nobody there.
    let blocks: Vec<Value> = db
        .iter()
        .map(|ip| json!({"ipBlock": {"cidr": format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 })}}))
        .collect();
    stage.apply(&[egress("behind", &json!(blocks))])?;
    stage.expect(&both(stage, SILENCE, SILENCE)?)?;
    stage.forget(&["behind"])
}

/// The pods behind a Service change; one of them asks the Service itself.
pub(crate) fn pods_behind_come_and_go(stage: &mut Stage) -> anyhow::Result<()> {
    stage.namespaces(&["turns"])?;
    stage.pods(&[
        ("turns/one", labels("web"), "n1"),
        ("turns/two", labels("spare"), "n2"),
        ("turns/client", labels("client"), "n1"),
    ])?;
    stage.apply(&[service("turns", "web", json!({}))])?;
    let all = |stage: &Stage, answer| -> anyhow::Result<Vec<Ask>> {
        let mut asks = Vec::new();
        for from in ["turns/one", "turns/two", "turns/client"] {
            asks.extend(about(stage, from, "turns/web", answer)?);
        }
        Ok(asks)
    };
    let label = |stage: &Stage, name, app: &str| {
        stage.kubectl(&["label", "pod", "-n", "turns", "--overwrite", name, &format!("app={app}")]).map(drop)
    };
    stage.expect(&all(stage, YES)?)?;
    // Nobody is behind it, then another one.
    label(stage, "one", "spare")?;
    stage.expect(&all(stage, SILENCE)?)?;
    label(stage, "two", "web")?;
    stage.expect(&all(stage, YES)?)?;
    // That it is the other one: the first is gone.
    stage.kubectl(&["delete", "pod", "-n", "turns", "one", "--timeout=60s"])?;
    stage.expect(&about(stage, "turns/client", "turns/web", YES)?)?;
    stage.forget(&["turns"])
}

pub(crate) fn kube_proxy_does_the_rest(stage: &mut Stage) -> anyhow::Result<()> {
    beside(stage, "nftables")
}

/// The others find it in place.
pub(crate) fn so_does_one_of_iptables(stage: &mut Stage) -> anyhow::Result<()> {
    stage.cluster.change_proxy(Proxy::Iptables)?;
    beside(stage, "iptables")?;
    for node in &stage.cluster.nodes {
        let said = node.room.run("iptables-save", &["-t", "nat"])?;
        ensure!(said.contains("KUBE-SERVICES"), "kube-proxy has done nothing: {said}");
        let tables = node.room.run("nft", &["list", "tables"])?;
        ensure!(!tables.contains("kube-proxy"), "the one of nftables has left {tables}");
    }
    Ok(())
}

/// What Bulkhead leaves alone goes on to work: Services from nodes, and ports of nodes from pods.
fn beside(stage: &mut Stage, namespace: &str) -> anyhow::Result<()> {
    let [near, far, client, host, service_key] =
        ["near", "far", "client", "host", "web"].map(|name| format!("{namespace}/{name}"));
    stage.namespaces(&[namespace])?;
    stage.pods(&[(&near, labels("web"), "n1"), (&far, labels("web"), "n2"), (&client, labels("client"), "n1")])?;
    stage.host_pod(&host, &labels("host"), "n1")?;
    stage.apply(&[service(namespace, "web", json!({"type": "NodePort"}))])?;
    let web = found(stage, namespace, "web")?;
    let mut asks = about(stage, &host, &service_key, YES)?;
    asks.extend(about(stage, &client, &service_key, YES)?);
    let ports = web["spec"]["ports"].as_array().context("ports of a Service")?;
    for node in ["n1", "n2"] {
        let node: Value = serde_json::from_str(&stage.kubectl(&["get", "node", node, "-o", "json"])?)?;
        let found = node["status"]["addresses"].as_array().map(Vec::as_slice).unwrap_or_default();
        let internal = found.iter().filter(|address| address["type"] == "InternalIP");
        for ip in internal.filter_map(|address| address["address"].as_str()?.parse::<IpAddr>().ok()) {
            for port in ports {
                let number = u16::try_from(port["nodePort"].as_u64().context("a port of the nodes")?)?;
                let protocol = port["protocol"].as_str().unwrap_or_default().to_lowercase();
                let target = format!("{protocol}:{}", SocketAddr::new(ip, number));
                for from in [&host, &client] {
                    asks.push(Ask {
                        from: from.clone(),
                        to: "port of a node".to_owned(),
                        target: target.clone(),
                        answer: YES,
                    });
                }
            }
        }
    }
    ensure!(asks.len() == 8 + 16, "{asks:?}");
    stage.expect(&asks)?;
    stage.forget(&[namespace])
}

/// A Service for each pod, which has the pod's name and ports, as Kubernetes' own suite makes them: its addresses, by the pod's key.
pub(crate) fn for_each(stage: &Stage, pods: impl Iterator<Item = Pod>) -> anyhow::Result<Vec<Pod>> {
    let pods: Vec<Pod> = pods.collect();
    let mut objects = Vec::new();
    for pod in &pods {
        let (namespace, name) = pod.key.split_once('/').context("a pod is namespace/name")?;
        let ports: Vec<Value> = crate::stage::PORTS
            .iter()
            .flat_map(|port| ["TCP", "UDP"].map(|protocol| (port, protocol)))
            .map(|(port, protocol)| {
                let name = format!("{}-{port}", protocol.to_lowercase());
                json!({"name": name, "protocol": protocol, "port": port})
            })
            .collect();
        let mut object = service(namespace, name, json!({"ports": ports, "selector": {"pod": name}}));
        object["metadata"]["name"] = json!(format!("s-{name}"));
        objects.push(object);
    }
    stage.apply(&objects)?;
    pods.iter()
        .map(|pod| {
            let (namespace, name) = pod.key.split_once('/').context("a pod is namespace/name")?;
            let mut ips = addresses(&found(stage, namespace, &format!("s-{name}"))?)?;
            ips.sort_by_key(IpAddr::is_ipv6);
            Ok(Pod { key: pod.key.clone(), ips })
        })
        .collect()
}
