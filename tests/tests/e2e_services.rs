//! Services as pods use them: by real sockets through the daemon's own maps.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tests::{
    feature::Feature,
    live::Live,
    manifest::{endpoint_slice, namespace, pod, policy, service},
    node::{Node, PATIENCE, eventually},
    pod::Pod,
    traffic::{
        Case, Echo, OPEN,
        Protocol::{self, Sctp, Tcp, Udp},
        Reached, expect, reach,
    },
    trial::trial,
};

/// The Service's addresses, of both families.
fn addresses(last: u8) -> [IpAddr; 2] {
    [IpAddr::from([10, 96, 0, last]), format!("fd00:96::{last}").parse().expect("an address")]
}

fn at(last: u8, port: u16) -> [SocketAddr; 2] {
    addresses(last).map(|address| (address, port).into())
}

/// EndpointSlices of both families.
fn slices(key: &str, pods: &[(&Pod, bool)], ports: &str) -> String {
    let of = |family: usize| pods.iter().map(|(pod, ready)| (pod.addresses()[family], *ready)).collect::<Vec<_>>();
    [0, 1].map(|family| endpoint_slice(key, &of(family), ports)).concat()
}

const PORTS: &str =
    "{name: http, port: 80}, {name: dns, port: 53, protocol: UDP}, {name: assoc, port: 90, protocol: SCTP}";
/// Where the pods listen.
const TARGETS: &str =
    "{name: http, port: 8080}, {name: dns, port: 5353, protocol: UDP}, {name: assoc, port: 9090, protocol: SCTP}";

fn objects() -> String {
    [
        namespace("shop", ""),
        pod("shop/web", "app: web"),
        pod("shop/db", "app: db"),
        pod("shop/other", "app: other"),
        service("shop/db", &addresses(10), PORTS),
        service("shop/other", &addresses(11), PORTS),
        policy(
            "shop/web",
            "  podSelector: {matchLabels: {app: web}}\n  policyTypes: [Egress]\n\
             \x20 egress: [{to: [{podSelector: {matchLabels: {app: db}}}]}]",
        ),
    ]
    .concat()
}

fn echo(pod: &Pod) -> anyhow::Result<Echo> {
    let echo = Echo::start(&pod.sandbox, &[8080], &[5353])?;
    if Feature::Sctp.is_there() { echo.with_sctp(&pod.sandbox, &[9090]) } else { Ok(echo) }
}

/// Who answers at an address within a while.
fn wait_for(node: &Node, from: &Pod, protocol: Protocol, to: SocketAddr) -> anyhow::Result<()> {
    let answers = || Ok(reach(&from.sandbox, protocol, to, OPEN)? == Reached::Yes);
    ensure!(eventually(PATIENCE, answers)?, "nobody answers at {to}\n{}", node.bulkhead().succeed(&["status"])?);
    Ok(())
}

#[test]
fn pods_reach_services_and_rules_are_about_who_serves() {
    trial(|| {
        let node = Node::start(&[("all.yaml", &objects())])?;
        let [web, db, other] = node.add_all(["shop/web", "shop/db", "shop/other"])?;
        let _db = echo(&db)?;
        let _other = echo(&other)?;
        let served = [slices("shop/db", &[(&db, true)], TARGETS), slices("shop/other", &[(&other, true)], TARGETS)];
        node.apply("slices.yaml", &served.concat())?;
        wait_for(&node, &web, Tcp, at(10, 80)[0])?;
        let mut cases = Vec::new();
        let mut line = |from: &'static str, pod: &'_ Pod, last: u8, allowed: bool| {
            let mut lines = vec![(Tcp, 80), (Udp, 53)];
            if Feature::Sctp.is_there() {
                lines.push((Sctp, 90));
            }
            for (protocol, port) in lines {
                for to in at(last, port) {
                    cases.push((format!("{from} to {to}"), pod.key.clone(), protocol, to, allowed));
                }
            }
        };
        line("web", &web, 10, true);
        line("web", &web, 11, false);
        // Whoever is not limited, and a pod that serves itself.
        line("other", &other, 10, true);
        line("other", &other, 11, true);
        line("db", &db, 10, true);
        let pods = [&web, &db, &other];
        let cases: Vec<Case<'_>> = cases
            .into_iter()
            .map(|(what, key, protocol, to, allowed)| {
                let from = &pods.iter().find(|pod| pod.key == key).expect("one of them").sandbox;
                Case { what, from, protocol, to, allowed }
            })
            .collect();
        expect(&cases)?;
        // Who looks after it is told where it stands and who serves.
        let said = node.bulkhead().succeed(&["service", "get", "shop/other"])?;
        ensure!(said.contains("in-force") && said.contains("shop/other") && said.contains("ready"), "{said}");
        // The record names the pod, the Service and what was addressed.
        let found = node.bulkhead().flows_when(&["--pod", "shop/web", "--protocol", "tcp"], |found| {
            found.iter().any(|flow| flow["destination_service"]["name"] == "other")
        })?;
        let denied = found
            .iter()
            .find(|flow| flow["verdict"] == "DROPPED")
            .with_context(|| format!("nothing was denied: {found:#?}"))?;
        ensure!(denied["destination"]["pod_name"] == "other", "{denied:#}");
        ensure!(denied["destination_service"]["namespace"] == "shop", "{denied:#}");
        let allowed = found.iter().find(|flow| flow["verdict"] == "FORWARDED").context("nothing was allowed")?;
        let addressed = allowed["extensions"]["value"]["addressed"].as_str().unwrap_or_default().to_owned();
        ensure!(at(10, 80).iter().any(|at| at.to_string() == addressed), "{allowed:#}");
        Ok(())
    });
}

#[test]
fn backends_come_and_go() {
    trial(|| {
        let node = Node::start(&[("all.yaml", &objects())])?;
        let [web, db, other] = node.add_all(["shop/web", "shop/db", "shop/other"])?;
        let to = at(11, 80)[0];
        // `other` asks: it is not limited.
        let _db = echo(&db)?;
        node.apply("slices.yaml", &slices("shop/other", &[(&db, true)], TARGETS))?;
        wait_for(&node, &other, Tcp, to)?;
        let live = Live::open(&other.sandbox, Tcp, &db.sandbox, (db.addresses()[0], 8081).into())?;
        let dns = reach(&other.sandbox, Udp, at(11, 53)[0], OPEN)?;
        ensure!(dns == Reached::Yes, "{dns:?}");
        // Nobody is ready.
        node.apply("slices.yaml", &slices("shop/other", &[(&db, false)], TARGETS))?;
        let silent = || Ok(reach(&other.sandbox, Tcp, to, Duration::from_millis(300))? != Reached::Yes);
        ensure!(eventually(PATIENCE, silent)?, "{to} still answers");
        let denied: Vec<Value> = node.bulkhead().flows_when(&["--verdict", "DROPPED"], |found| !found.is_empty())?;
        let reason = &denied[0]["extensions"]["value"]["drop_reason"];
        ensure!(reason == "no_backend", "{reason}: {:#}", denied[0]);
        // Another one.
        let _web = echo(&web)?;
        node.apply("slices.yaml", &slices("shop/other", &[(&db, false), (&web, true)], TARGETS))?;
        wait_for(&node, &other, Tcp, to)?;
        // The Service goes.
        node.remove("slices.yaml")?;
        node.apply("all.yaml", &objects().replace("\"10.96.0.11\"", "\"10.96.0.12\""))?;
        let gone = || Ok(!node.bulkhead().succeed(&["dump", "FRONTENDS"])?.contains("10.96.0.11"));
        ensure!(eventually(PATIENCE, gone)?, "10.96.0.11 is still a Service's");
        live.finish()?.lossless()
    });
}

#[test]
fn connections_to_a_service_outlive_the_daemon() {
    trial(|| {
        let mut node = Node::start(&[("all.yaml", &objects())])?;
        let [web, db] = node.add_all(["shop/web", "shop/db"])?;
        let targets = TARGETS.replace("8080", "8085");
        node.apply("slices.yaml", &slices("shop/db", &[(&db, true)], &targets))?;
        let told = || Ok(node.bulkhead().succeed(&["dump", "BACKENDS"])?.contains(":8085"));
        ensure!(eventually(PATIENCE, told)?, "the backend is not in the map");
        let lives = at(10, 80)
            .map(|to| Live::open_at(&web.sandbox, Tcp, &db.sandbox, 8085, to))
            .into_iter()
            .collect::<anyhow::Result<Vec<_>>>()?;
        let before = node.bulkhead().succeed(&["dump", "FRONTENDS", "BACKENDS"])?;
        node.take_agent()?.kill()?;
        std::thread::sleep(Duration::from_millis(500));
        node.start_daemon()?;
        let after = node.bulkhead().succeed(&["dump", "FRONTENDS", "BACKENDS"])?;
        ensure!(before == after, "before:\n{before}\nafter:\n{after}");
        for live in lives {
            live.finish()?.lossless()?;
        }
        Ok(())
    });
}
