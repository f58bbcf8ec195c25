//! What pods ask DNS servers, and what they are answered: records of their own, and names of addresses in others.
//! Forged, broken and too many messages change nothing but counters.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tests::{
    dns::{A, AAAA, ADDRESS, ADDRESS_V6, FORGED, MANY, Server, ask, meant, pour, question},
    manifest::{endpoint_slice, pod, policy, service},
    node::{Node, PATIENCE, Setup, eventually},
    traffic::{
        Protocol::{self, Tcp, Udp},
        Reached, SILENT, reach,
    },
    trial::trial,
};

fn node(arguments: &[&str], objects: &str) -> anyhow::Result<Node> {
    let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    Node::start_as(Setup { arguments, ..Setup::default() }, &[("all.yaml", objects)])
}

fn pods() -> String {
    [pod("shop/web", "app: web"), pod("shop/other", "app: other"), pod("infra/dns", "app: dns")].concat()
}

/// What the record of a lookup says beyond the flow API.
fn lookup(flow: &Value) -> &Value {
    &flow["extensions"]["value"]["lookup"]
}

/// The only record of a lookup of this name and type.
fn found(node: &Node, name: &str, rtype: &str) -> anyhow::Result<Value> {
    let pattern = format!("^{name}$");
    let is_it = |flow: &Value| lookup(flow)["type"] == rtype;
    let all = node.bulkhead().flows_when(&["--dns-query", &pattern], |found| found.iter().any(is_it))?;
    let mut all: Vec<Value> = all.into_iter().filter(is_it).collect();
    ensure!(all.len() == 1, "{all:?}");
    Ok(all.remove(0))
}

/// Names that the record of a new connection of the pod gives an address; it is opened anew for this.
fn names(node: &Node, from: &tests::pod::Pod, to: IpAddr, port: u16) -> anyhow::Result<Value> {
    reach(&from.sandbox, Udp, SocketAddr::new(to, port), Duration::from_millis(20)).ok();
    let port = port.to_string();
    let options = ["--to-ip", &to.to_string(), "--to-port", &port, "--from-ip", &from.addresses()[0].to_string()];
    let options_v6 = ["--to-ip", &to.to_string(), "--to-port", &port, "--from-ip", &from.addresses()[1].to_string()];
    let options = if to.is_ipv4() { options } else { options_v6 };
    let flows = node.bulkhead().flows_when(&options, |found| !found.is_empty())?;
    Ok(flows[0]["destination_names"].clone())
}

#[test]
fn questions_and_answers_are_records() {
    trial(|| {
        let node = node(&[], &pods())?;
        let [web, dns] = node.add_all(["shop/web", "infra/dns"])?;
        let _server = Server::start(&dns.sandbox, 53)?;
        for (place, (protocol, server)) in
            [(Udp, dns.at(53)[0]), (Udp, dns.at(53)[1]), (Tcp, dns.at(53)[0]), (Tcp, dns.at(53)[1])]
                .into_iter()
                .enumerate()
        {
            let name = format!("www{place}.example");
            for (rtype, text) in [(A, "A"), (AAAA, "AAAA")] {
                ask(&web.sandbox, protocol, server, &question(7 + rtype, &name, rtype))?;
                let flow = found(&node, &name, text)?;
                ensure!(flow["Type"] == "L7" && flow["verdict"] == "FORWARDED", "{flow}");
                ensure!(flow["source"]["pod_name"] == "web" && flow["destination"]["pod_name"] == "dns", "{flow}");
                ensure!(flow["is_reply"] == false && flow["event_type"]["type"] == 129, "{flow}");
                let l4 = if protocol == Udp { "UDP" } else { "TCP" };
                ensure!(flow["l4"][l4]["destination_port"] == 53, "{flow}");
                let l7 = &flow["l7"];
                let said = &l7["dns"];
                ensure!(l7["type"] == "RESPONSE" && said["query"] == format!("{name}."), "{flow}");
                ensure!(said["ips"] == json!([meant(rtype).to_string()]) && said["ttl"] == 30, "{flow}");
                ensure!(said["qtypes"] == json!([text]) && said["rrtypes"] == json!([text]), "{flow}");
                let latency_ns: u64 = l7["latency_ns"].as_str().context("a number as text")?.parse()?;
                ensure!((1..5_000_000_000).contains(&latency_ns), "{flow}");
                let lookup = lookup(&flow);
                ensure!(lookup["rcode"] == "NOERROR" && lookup["outcome"] == "ANSWERED", "{flow}");
                ensure!(lookup["id"] == 7 + rtype && lookup["tries"] == 1, "{flow}");
            }
        }
        ask(&web.sandbox, Udp, dns.at(53)[0], &question(1, "missing.example", A))?;
        let flow = found(&node, "missing.example", "A")?;
        ensure!(lookup(&flow)["rcode"] == "NXDOMAIN" && flow["l7"]["dns"]["rcode"] == 3, "{flow}");
        ensure!(flow["Summary"] == "DNS Answer RCode: NXDOMAIN (Query missing.example. A)", "{flow}");
        // Nobody answers: told after ten seconds.
        let begin = Instant::now();
        ensure!(ask(&web.sandbox, Udp, dns.at(53)[0], &question(2, "silent.example", A)).is_err());
        let flow = found(&node, "silent.example", "A")?;
        ensure!(begin.elapsed() > Duration::from_secs(9) && flow["l7"]["type"] == "REQUEST", "{flow}");
        ensure!(lookup(&flow)["outcome"] == "UNANSWERED", "{flow}");
        let table = node.bulkhead().succeed(&["flows", "--protocol", "dns"])?;
        ensure!(
            table.contains("missing.example A: NXDOMAIN in ") && table.contains("silent.example A: no answer"),
            "{table}"
        );
        ensure!(table.contains(&format!("www0.example A: {ADDRESS} in ")), "{table}");
        for (metric, count) in [
            ("bulkhead_dns_lookups_total{outcome=\"answered\"}", 9.0),
            ("bulkhead_dns_lookups_total{outcome=\"unanswered\"}", 1.0),
            ("bulkhead_dns_messages_ignored_total{reason=\"malformed\"}", 0.0),
            ("bulkhead_dns_messages_ignored_total{reason=\"unsolicited\"}", 0.0),
        ] {
            ensure!(eventually(PATIENCE, || Ok(node.metric(metric)? == count))?, "{metric}: {}", node.metric(metric)?);
        }
        Ok(())
    });
}

#[test]
fn servers_outside_and_behind_a_service_are_listened_to() {
    trial(|| {
        let at = IpAddr::from([10, 96, 0, 10]);
        let node = node(
            &["--dns-ports", "53,1053"],
            &[pods(), service("infra/dns", &[at], "{name: dns, port: 53, protocol: UDP}, {name: tcp, port: 53}")]
                .concat(),
        )?;
        let [web, dns] = node.add_all(["shop/web", "infra/dns"])?;
        // Through the host's stack, both ways: the node's own process.
        let _outside = Server::start(&node.sandbox, 1053)?;
        for (place, gateway) in ["10.77.0.1", "fd77::1"].into_iter().enumerate() {
            for protocol in [Udp, Tcp] {
                let name = format!("{protocol:?}{place}.example").to_lowercase();
                ask(&web.sandbox, protocol, SocketAddr::new(gateway.parse()?, 1053), &question(3, &name, A))?;
                let flow = found(&node, &name, "A")?;
                ensure!(flow["l7"]["dns"]["ips"] == json!([ADDRESS.to_string()]), "{flow}");
            }
        }
        // Listens at a port that nobody was told of.
        let _server = Server::start(&dns.sandbox, 5353)?;
        node.write(
            "slices.yaml",
            &endpoint_slice(
                "infra/dns",
                &[(dns.addresses()[0], true)],
                "{name: dns, port: 5353, protocol: UDP}, {name: tcp, port: 5353}",
            ),
        )?;
        let ready = || Ok(ask(&web.sandbox, Tcp, SocketAddr::new(at, 53), &question(3, "ready.example", A)).is_ok());
        ensure!(eventually(PATIENCE, ready)?);
        for protocol in [Udp, Tcp] {
            let name = format!("{protocol:?}.service.example").to_lowercase();
            ask(&web.sandbox, protocol, SocketAddr::new(at, 53), &question(4, &name, A))?;
            let flow = found(&node, &name, "A")?;
            ensure!(flow["destination_service"]["name"] == "dns" && flow["destination"]["pod_name"] == "dns", "{flow}");
        }
        // Straight to the same pod it is no DNS, as far as anybody has said.
        ask(&web.sandbox, Udp, dns.at(5353)[0], &question(5, "unheard.example", A))?;
        ask(&web.sandbox, Udp, SocketAddr::new(at, 53), &question(6, "heard.example", A))?;
        found(&node, "heard.example", "A")?;
        ensure!(node.bulkhead().flows(&["--dns-query", "unheard"])?.is_empty());
        Ok(())
    });
}

#[test]
fn flows_have_the_names_that_their_own_pod_has_asked_for() {
    trial(|| {
        let node = node(&[], &pods())?;
        let [web, other, dns] = node.add_all(["shop/web", "shop/other", "infra/dns"])?;
        let _server = Server::start(&dns.sandbox, 53)?;
        ensure!(names(&node, &web, ADDRESS.into(), 1001)?.is_null());
        ask(&web.sandbox, Udp, dns.at(53)[0], &question(1, "Alias.Example.com", A))?;
        ensure!(
            names(&node, &web, ADDRESS.into(), 1002)? == json!(["alias.example.com"]),
            "the name that was asked for"
        );
        ask(&web.sandbox, Tcp, dns.at(53)[1], &question(2, "six.example", AAAA))?;
        ensure!(names(&node, &web, ADDRESS_V6.into(), 1003)? == json!(["six.example"]));
        ensure!(names(&node, &other, ADDRESS.into(), 1004)?.is_null(), "nobody else's");
        ask(&web.sandbox, Udp, dns.at(53)[0], &question(3, "second.example", A))?;
        ensure!(names(&node, &web, ADDRESS.into(), 1005)? == json!(["second.example", "alias.example.com"]));
        let by_name = node.bulkhead().flows(&["--to-fqdn", "second.*", "--from-pod", "shop/web"])?;
        ensure!(
            by_name.iter().all(|flow| flow["l4"]["UDP"]["destination_port"] == 1005) && !by_name.is_empty(),
            "{by_name:?}"
        );
        let table = node.bulkhead().succeed(&["flows", "--to-port", "1002"])?;
        ensure!(table.contains("shop/web -> 192.0.2.7:1002 (alias.example.com)"), "{table}");
        Ok(())
    });
}

#[test]
fn forged_answers_change_nothing() {
    trial(|| {
        let node = node(&[], &pods())?;
        let [web, evil, dns] = node.add_all(["shop/web", "shop/other", "infra/dns"])?;
        let _server = Server::start(&dns.sandbox, 53)?;
        // By the server itself: another number, another question. By somebody else, at the client's own port: no answer at
        // all, whatever it says.
        ask(&web.sandbox, Udp, dns.at(53)[0], &question(5, "forged.example", A))?;
        let client = {
            let _inside = web.sandbox.enter()?;
            UdpSocket::bind((web.addresses()[0], 0))?
        };
        let forger = {
            let _inside = evil.sandbox.enter()?;
            UdpSocket::bind((evil.addresses()[0], 53))?
        };
        let asked = question(9, "silent.example", A);
        client.send_to(&asked, dns.at(53)[0])?;
        let mut forged = asked.clone();
        (forged[2], forged[3], forged[7]) = (0x81, 0x80, 1);
        forged.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4]);
        forged.extend(FORGED.octets());
        client.set_read_timeout(Some(SILENT))?;
        for _ in 0..5 {
            forger.send_to(&forged, client.local_addr()?)?;
            let mut got = [0; 512];
            ensure!(client.recv(&mut got)? == forged.len(), "it got there");
        }
        ask(&web.sandbox, Udp, dns.at(53)[0], &question(6, "last.example", A))?;
        found(&node, "last.example", "A")?;
        ensure!(names(&node, &web, FORGED.into(), 1001)?.is_null());
        ensure!(names(&node, &web, ADDRESS.into(), 1002)? == json!(["last.example", "forged.example"]));
        let flow = found(&node, "forged.example", "A")?;
        ensure!(flow["l7"]["dns"]["ips"] == json!([ADDRESS.to_string()]), "{flow}");
        ensure!(node.bulkhead().flows(&["--dns-query", "other.example"])?.is_empty());
        let flow = found(&node, "silent.example", "A")?;
        ensure!(lookup(&flow)["outcome"] == "UNANSWERED", "{flow}");
        let unsolicited = "bulkhead_dns_messages_ignored_total{reason=\"unsolicited\"}";
        ensure!(node.metric(unsolicited)? == 2.0, "the server's own: {}", node.metric(unsolicited)?);
        Ok(())
    });
}

#[test]
fn broken_and_oversized_messages_do_no_harm() {
    trial(|| {
        let node = node(&[], &pods())?;
        let [web, dns] = node.add_all(["shop/web", "infra/dns"])?;
        let _server = Server::start(&dns.sandbox, 53)?;
        for (id, (protocol, server)) in
            (1u16..).zip([Udp, Tcp].into_iter().flat_map(|it: Protocol| dns.at(53).map(|at| (it, at))))
        {
            ask(&web.sandbox, protocol, server, &question(id, &format!("junk.n{id}.example"), A))?;
            let flow = found(&node, &format!("junk.n{id}.example"), "A")?;
            ensure!(flow["l7"]["dns"]["ips"] == json!([ADDRESS.to_string()]), "{flow}");
        }
        // Longer than what is taken of it: read as far as it goes.
        ask(&web.sandbox, Udp, dns.at(53)[0], &question(1, "big.udp.example", A))?;
        let flow = found(&node, "big.udp.example", "A")?;
        ensure!(lookup(&flow)["flags"].as_u64().context("flags")? & 0x0200 != 0, "{flow}");
        ask(&web.sandbox, Tcp, dns.at(53)[0], &question(2, "big.tcp.example", A))?;
        let flow = found(&node, "big.tcp.example", "A")?;
        let told = lookup(&flow);
        ensure!(told["announced"] == MANY && told["cut"] == true, "{flow}");
        ensure!(told["records"].as_array().map(Vec::len) == Some(16), "{flow}");
        // A client that sends nonsense, and one that says half a length and goes.
        for length in [1, 2, 11, 12, 13, 500, 1231, 1232, 1233, 9000] {
            let socket = tests::traffic::connected_udp(&web.sandbox, dns.at(53)[0])?;
            socket.send(&vec![0xff; length])?;
        }
        ask(&web.sandbox, Tcp, dns.at(53)[1], &[&question(3, "after.example", A)[..]].concat())?;
        found(&node, "after.example", "A")?;
        ensure!(node.metric("bulkhead_dns_messages_ignored_total{reason=\"malformed\"}")? > 50.0);
        ensure!(node.metric("bulkhead_dns_lost_total")? == 0.0);
        Ok(())
    });
}

#[test]
fn a_flood_is_counted_and_loses_no_denial() {
    trial(|| {
        let objects = [pods(), policy("infra/locked", "  podSelector: {matchLabels: {app: locked}}")].concat();
        let node = node(
            &["--map-capacity=DNS=65536", "--flow-records=65536"],
            &[objects, pod("infra/locked", "app: locked")].concat(),
        )?;
        let [web, dns, locked] = node.add_all(["shop/web", "infra/dns", "infra/locked"])?;
        let denied =
            |node: &Node| node.metric("bulkhead_dropped_packets_total{hook=\"from_pod\",reason=\"default_deny\"}");
        let mut sent = 0;
        for round in 0..10u16 {
            sent += pour(&web.sandbox, dns.at(53)[usize::from(round % 2)], 10_000)?;
            ensure!(reach(&web.sandbox, Udp, (locked.addresses()[0], 1000 + round).into(), SILENT)? == Reached::No);
            // What is dropped is no DNS.
            ensure!(reach(&web.sandbox, Udp, (locked.addresses()[1], 53).into(), SILENT)? == Reached::No);
        }
        let metric = |name: &str| node.metric(name);
        let accounted =
            || Ok(metric("bulkhead_dns_written_total")? + metric("bulkhead_dns_lost_total")? == sent as f64);
        ensure!(
            eventually(PATIENCE, accounted)?,
            "{sent} were sent, {} and {} are told",
            metric("bulkhead_dns_written_total")?,
            metric("bulkhead_dns_lost_total")?
        );
        ensure!(metric("bulkhead_dns_lost_total")? > 0.0, "it was no flood");
        let read = || Ok(metric("bulkhead_dns_packets_total")? == metric("bulkhead_dns_written_total")?);
        ensure!(eventually(PATIENCE, read)?, "every one that was written is read");
        ensure!(metric("bulkhead_events_lost_total")? == 0.0);
        ensure!(denied(&node)? == 20.0, "{}", denied(&node)?);
        let ask = node.ask()?;
        ensure!(ask.dropped("default_deny")? == 20);
        let told = || anyhow::Ok(node.bulkhead().flows(&["--verdict", "denied"])?.len());
        let all = eventually(PATIENCE, || Ok(told()? == 20))?;
        ensure!(all, "{} of 20 denials are records", told()?);
        ensure!(
            node.bulkhead().flows(&["--to-port", "53", "--protocol", "dns", "--to-pod", "infra/locked"])?.is_empty()
        );
        Ok(())
    });
}

#[test]
fn nobody_listens_who_was_not_told_to() {
    trial(|| {
        let node = node(&["--dns-ports="], &pods())?;
        let [web, dns] = node.add_all(["shop/web", "infra/dns"])?;
        let _server = Server::start(&dns.sandbox, 53)?;
        ask(&web.sandbox, Udp, dns.at(53)[0], &question(1, "www.example", A))?;
        ensure!(names(&node, &web, ADDRESS.into(), 1001)?.is_null());
        ensure!(node.bulkhead().flows(&["--protocol", "dns"])?.is_empty());
        ensure!(node.metric("bulkhead_dns_written_total")? == 0.0);
        Ok(())
    });
}

#[test]
fn what_is_to_be_hidden_is_in_no_record_and_rules_hold_all_the_same() {
    trial(|| {
        let rule = "  podSelector: {matchLabels: {app: dns}}\n  ingress: [{from: [{podSelector: {matchLabels: {app: web}}, \
                    namespaceSelector: {}}]}]";
        let objects = [pods(), policy("infra/dns", rule)].concat();
        let node = node(&["--redact-names=*.Secret.example", "--redact-labels=app"], &objects)?;
        let [web, other, dns] = node.add_all(["shop/web", "shop/other", "infra/dns"])?;
        let _server = Server::start(&dns.sandbox, 53)?;
        ask(&web.sandbox, Udp, dns.at(53)[0], &question(1, "db.secret.example", A))?;
        ask(&web.sandbox, Udp, dns.at(53)[0], &question(2, "www.example", AAAA))?;
        ensure!(ask(&other.sandbox, Udp, dns.at(53)[0], &question(3, "www.example", A)).is_err(), "by its label");
        let flow = found(&node, "redacted", "A")?;
        ensure!(flow["l7"]["dns"]["query"] == "redacted." && flow["source"]["pod_name"] == "web", "{flow}");
        found(&node, "www.example", "AAAA")?;
        ensure!(names(&node, &web, ADDRESS.into(), 99)? == json!(["redacted"]));
        ensure!(names(&node, &web, ADDRESS_V6.into(), 99)? == json!(["www.example"]));
        node.bulkhead().flows_when(&["--verdict", "denied", "--label", "app=redacted"], |found| !found.is_empty())?;
        let all = node.bulkhead().succeed(&["flows", "--all", "-o", "json"])?;
        ensure!(all.contains("k8s:app=redacted") && !all.contains("app=web") && !all.contains("secret"), "{all}");
        Ok(())
    });
}
