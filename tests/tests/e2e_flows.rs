//! What real traffic leaves in the flow log: names, labels, verdicts, deciding rules, ends of
//! connections, counts; read as people and programs read it.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
    sync::mpsc::channel,
    thread,
};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tests::{
    manifest::{namespace, pod, policy},
    node::{Node, PATIENCE, eventually},
    traffic::{
        Echo, OPEN,
        Protocol::{self, Tcp, Udp},
        Reached, SILENT, reach,
    },
    trial::trial,
};

/// A shop whose db is isolated by two policies.
fn shop() -> String {
    [
        namespace("shop", "team: shop"),
        pod("shop/web", "app: web, tier: front"),
        pod("shop/db", "app: db"),
        policy(
            "shop/db",
            "  podSelector: {matchLabels: {app: db}}\n  ingress:\n\
             \x20 - from: [{podSelector: {matchLabels: {app: api}}}]\n\
             \x20 - from: [{podSelector: {matchLabels: {app: web}}}]\n    ports: [{port: 80}]",
        ),
        policy("shop/default-deny", "  podSelector: {}"),
        policy(
            "shop/web-out",
            "  podSelector: {matchLabels: {app: web}}\n  policyTypes: [Egress]\n\
             \x20 egress: [{to: [{podSelector: {matchLabels: {app: db}}}]}]",
        ),
    ]
    .concat()
}

/// Flows that match the options, when there are some.
fn flows(node: &Node, options: &[&str]) -> anyhow::Result<Vec<Value>> {
    node.bulkhead().flows_when(options, |found| !found.is_empty())
}

fn detail<'a>(flow: &'a Value, name: &str) -> &'a Value {
    &flow["extensions"]["value"][name]
}

#[test]
fn an_allowed_connection_names_both_ends_and_the_rules() {
    trial(|| {
        let own = "apiVersion: v1\nkind: Node\nmetadata: {name: n1, labels: {topology.kubernetes.io/zone: b}}\n";
        let node = Node::start(&[("all.yaml", &shop()), ("node.yaml", own)])?;
        let [web, db] = node.add_all(["shop/web", "shop/db"])?;
        let echo = Echo::start(&db.sandbox, &[80], &[])?;
        for to in db.at(80) {
            ensure!(reach(&web.sandbox, Tcp, to, OPEN)? == Reached::Yes);
            let found = flows(&node, &["--to-ip", &to.ip().to_string(), "--verdict", "allowed"])?;
            let flow = found.iter().find(|flow| detail(flow, "kind") == "OPENED").context("it is opened")?;
            ensure!(flow["verdict"] == "FORWARDED" && flow["node_name"] == "n1", "{flow}");
            ensure!(flow["node_labels"] == json!(["topology.kubernetes.io/zone=b"]), "{flow}");
            ensure!(flow["source"]["namespace"] == "shop" && flow["source"]["pod_name"] == "web", "{flow}");
            ensure!(flow["destination"]["pod_name"] == "db", "{flow}");
            let labels = json!(["k8s:app=web", "k8s:io.kubernetes.pod.namespace=shop", "k8s:tier=front"]);
            ensure!(flow["source"]["labels"] == labels, "{flow}");
            ensure!(flow["l4"]["TCP"]["destination_port"] == 80, "{flow}");
            ensure!(flow["ingress_allowed_by"][0]["name"] == "db", "{flow}");
            ensure!(flow["egress_allowed_by"][0]["name"] == "web-out", "{flow}");
            let ingress = detail(flow, "ingress");
            ensure!(ingress["outcome"] == "RULE_ALLOWS" && ingress["rule"]["index"] == 1, "{flow}");
            ensure!(detail(flow, "egress")["rule"]["policy"]["name"] == "web-out", "{flow}");
        }
        let numbers: Vec<u64> =
            node.bulkhead().flows(&[])?.iter().filter_map(|flow| detail(flow, "sequence").as_u64()).collect();
        ensure!(numbers.iter().copied().eq(1..=numbers.len() as u64), "numbers without gaps: {numbers:?}");
        drop(echo);
        // The client has closed before: both ends have said goodbye.
        let closed = || {
            let all = node.bulkhead().flows(&["--to-pod", "shop/db"])?;
            Ok(all.iter().filter(|flow| detail(flow, "kind") == "CLOSED").count() == 2)
        };
        ensure!(eventually(PATIENCE, closed)?, "{:?}", node.bulkhead().flows(&[])?);
        let all = node.bulkhead().flows(&["--to-pod", "shop/db"])?;
        let flow = all.iter().find(|flow| detail(flow, "kind") == "CLOSED").context("one")?;
        let (there, back) = (detail(flow, "forward"), detail(flow, "reverse"));
        ensure!(detail(flow, "end_reason") == "FIN", "{flow}");
        // Handshake, "ping" and goodbye; four bytes and headers of at least 40.
        ensure!(there["packets"].as_u64() >= Some(4) && there["bytes"].as_u64() >= Some(164), "{flow}");
        ensure!(back["packets"].as_u64() >= Some(3) && back["bytes"].as_u64() >= Some(124), "{flow}");
        Ok(())
    });
}

#[test]
fn a_denial_names_everybody_who_isolates_and_counts_once() {
    trial(|| {
        let node = Node::start(&[("all.yaml", &shop())])?;
        let [web, db, evil] = node.add_all(["shop/web", "shop/db", "evil/web"])?;
        let ask = node.ask()?;
        let before = ask.dropped("default_deny")?;
        for to in db.at(80) {
            // One datagram is one packet; TCP might send its first one again.
            ensure!(reach(&evil.sandbox, Udp, to, SILENT)? == Reached::No);
        }
        ensure!(ask.dropped("default_deny")? - before == 2);
        let found = flows(&node, &["--verdict", "denied", "--from-pod", "evil/web"])?;
        ensure!(found.len() == 2, "{found:?}");
        for flow in &found {
            ensure!(flow["verdict"] == "DROPPED" && flow["drop_reason_desc"] == "POLICY_DENIED", "{flow}");
            ensure!(flow["source"]["namespace"] == "evil" && flow["destination"]["pod_name"] == "db", "{flow}");
            ensure!(detail(flow, "drop_reason") == "default_deny", "{flow}");
            let isolated = detail(flow, "ingress")["isolated_by"].as_array().context("a list")?.clone();
            let names: Vec<&str> = isolated.iter().filter_map(|policy| policy["name"].as_str()).collect();
            ensure!(names == ["db", "default-deny"], "{flow}");
        }
        // Denied where it leaves: the destination's policies were never asked.
        let before = ask.dropped("default_deny")?;
        for to in evil.at(80) {
            ensure!(reach(&web.sandbox, Udp, to, SILENT)? == Reached::No);
        }
        ensure!(ask.dropped("default_deny")? - before == 2);
        let found = flows(&node, &["--verdict", "denied", "--to-pod", "evil/web"])?;
        ensure!(detail(&found[0], "egress")["isolated_by"][0]["name"] == "web-out", "{}", found[0]);
        ensure!(found[0]["egress_denied_by"][0]["name"] == "web-out", "{}", found[0]);
        let table = node.bulkhead().run(&["flows", "--verdict", "denied"])?.out;
        ensure!(table.contains("ingress isolated by shop/db and shop/default-deny; nothing allowed it"), "{table}");
        ensure!(table.contains("egress isolated by shop/web-out; nothing allowed it"), "{table}");
        let counted = "bulkhead_dropped_packets_total{hook=\"from_pod\",reason=\"default_deny\"}";
        ensure!(eventually(PATIENCE, || Ok(node.metric(counted)? == 4.0))?, "{counted}: {}", node.metric(counted)?);
        Ok(())
    });
}

#[test]
fn filters_choose_what_they_say() {
    trial(|| {
        let node = Node::start(&[("all.yaml", &shop())])?;
        let [web, db, evil] = node.add_all(["shop/web", "shop/db", "evil/web"])?;
        let _echo = Echo::start(&db.sandbox, &[80], &[80])?;
        let [v4, v6] = db.at(80);
        reach(&web.sandbox, Tcp, v4, OPEN)?;
        // The rule is about TCP.
        reach(&web.sandbox, Udp, v6, SILENT)?;
        reach(&evil.sandbox, Udp, v4, SILENT)?;
        let _ = flows(&node, &["--from-pod", "evil/web"])?;
        let count = |options: &[&str]| -> anyhow::Result<usize> {
            let all = node.bulkhead().flows(options)?;
            Ok(all.iter().filter(|flow| matches!(detail(flow, "kind").as_str(), Some("OPENED" | "DROPPED"))).count())
        };
        let v6_text = v6.ip().to_string();
        for (options, wanted) in [
            (&[][..], 3),
            (&["--namespace", "evil"], 1),
            (&["--not", "--namespace", "evil"], 2),
            (&["--from-pod", "shop/web"], 2),
            (&["--to-pod", "shop/web"], 0),
            (&["--from-label", "tier=front"], 2),
            (&["--label", "app in (db,x)"], 3),
            (&["--verdict", "denied"], 2),
            (&["--verdict", "allowed"], 1),
            (&["--verdict", "denied", "--from-namespace", "shop"], 1),
            (&["--verdict", "denied", "--protocol", "tcp"], 0),
            (&["--protocol", "udp"], 2),
            (&["--to-port", "80"], 3),
            (&["--from-port", "80"], 0),
            (&["--to-ip", &v6_text], 1),
            (&["--ip", "10.77.0.0/24"], 2),
            (&["--since", "1h"], 3),
            (&["--until", "1h"], 0),
        ] {
            let found = count(options)?;
            ensure!(found == wanted, "{options:?}: {found}, wanted {wanted}: {:#?}", node.bulkhead().flows(options)?);
        }
        ensure!(node.bulkhead().run(&["flows", "--last", "1", "-o", "json"])?.out.lines().count() == 1);
        Ok(())
    });
}

#[test]
fn whoever_follows_sees_flows_as_they_happen() {
    trial(|| {
        let node = Node::start(&[("all.yaml", &shop())])?;
        let [web, db] = node.add_all(["shop/web", "shop/db"])?;
        let _echo = Echo::start(&db.sandbox, &[80], &[])?;
        let mut reader =
            node.bulkhead().command(&["flows", "--follow", "--to-port", "80"])?.stdout(Stdio::piped()).spawn()?;
        let output = BufReader::new(reader.stdout.take().context("piped")?);
        let (told, lines) = channel();
        let printer = thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = told.send(line);
            }
        });
        // It is not known when the reader has connected; until then flows are before its time.
        let line = loop {
            ensure!(reach(&web.sandbox, Tcp, db.at(80)[0], OPEN)? == Reached::Yes);
            match lines.recv_timeout(SILENT) {
                Ok(line) if line.contains("shop/web") => break line,
                Ok(_) => {}
                Err(error) => ensure!(reader.try_wait()?.is_none(), "the reader has ended: {error}"),
            }
        };
        ensure!(line.contains("ALLOWED") && line.contains("shop/web -> shop/db:80"), "{line}");
        ensure!(line.contains("shop/db ingress[1]") && line.contains("shop/web-out egress[0]"), "{line}");
        kill_process(Pid::from_raw(reader.id() as i32).context("a process")?, Signal::TERM)?;
        reader.wait()?;
        let _ = printer.join();
        Ok(())
    });
}

/// `explain` is worked out from the objects, the traffic from the maps: they must agree.
#[test]
fn explain_says_what_traffic_does() {
    trial(|| {
        let node = Node::start(&[("all.yaml", &shop())])?;
        let pods = node.add_all(["shop/web", "shop/db", "evil/web"])?;
        let echoes: Vec<Echo> =
            pods.iter().map(|pod| Echo::start(&pod.sandbox, &[80, 81], &[80])).collect::<anyhow::Result<_>>()?;
        let mut verdicts = [0, 0];
        for from in &pods {
            for to in pods.iter().filter(|to| to.key != from.key) {
                for (protocol, name, port) in [(Tcp, "tcp", 80), (Tcp, "tcp", 81), (Udp, "udp", 80)] {
                    let target = format!("{}:{port}", to.key);
                    let said = node.bulkhead().run(&["explain", &from.key, &target, "--protocol", name])?;
                    let allowed = match said.code {
                        0 => true,
                        3 => false,
                        code => anyhow::bail!("explain ended with {code}: {}", said.err),
                    };
                    verdicts[usize::from(allowed)] += 1;
                    does(from, protocol, to, port, allowed).with_context(|| said.out)?;
                }
            }
        }
        ensure!(verdicts[0] > 3 && verdicts[1] > 3, "both verdicts are tried: {verdicts:?}");
        drop(echoes);
        Ok(())
    });
}

fn does(
    from: &tests::pod::Pod,
    protocol: Protocol,
    to: &tests::pod::Pod,
    port: u16,
    allowed: bool,
) -> anyhow::Result<()> {
    let patience = if allowed { OPEN } else { SILENT };
    for to in to.at(port) {
        let reached = reach(&from.sandbox, protocol, to, patience)?;
        let wanted = if allowed { Reached::Yes } else { Reached::No };
        ensure!(reached == wanted, "{} by {protocol:?} to {to}: {reached:?}, explained as {wanted:?}", from.key);
    }
    Ok(())
}
