//! `bulkhead dump` of the tables of connections, read from the kernel while they live.

use std::net::TcpStream;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tests::{
    manifest::{pod, policy},
    node::{Node, PATIENCE, eventually},
    traffic::{Echo, OPEN, Protocol::Tcp, Reached, connected_udp, reach},
    trial::trial,
};

/// Entries of a table whose key or value has this text.
fn dump(node: &Node, arguments: &[&str], with: &str) -> anyhow::Result<Vec<(String, String)>> {
    let printed = node.bulkhead().run(&[&["dump", "-o", "json"], arguments].concat())?;
    ensure!(printed.code == 0, "{}", printed.err);
    let mut found = Vec::new();
    for line in printed.out.lines() {
        let entry: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        if let (Some(key), Some(value)) = (entry["key"].as_str(), entry["value"].as_str())
            && (key.contains(with) || value.contains(with))
        {
            found.push((key.to_owned(), value.to_owned()));
        }
    }
    Ok(found)
}

/// The pair of numbers after a name, such as `packets 3/2`.
fn pair(value: &str, name: &str) -> anyhow::Result<[u64; 2]> {
    let text = value.split(", ").find_map(|part| part.strip_prefix(name)?.strip_prefix(' '));
    let (there, back) = text.and_then(|text| text.split_once('/')).with_context(|| format!("no {name} in {value}"))?;
    Ok([there.parse()?, back.parse()?])
}

#[test]
fn connections_are_told_with_pods_state_age_and_packets_both_ways() {
    trial(|| {
        let rule = "  podSelector: {matchLabels: {app: db}}\n  ingress: [{from: [{podSelector: {}}]}]";
        let objects = [pod("shop/web", "app: web"), pod("shop/db", "app: db"), policy("shop/db", rule)].concat();
        let node = Node::start(&[("all.yaml", &objects)])?;
        let [web, db] = node.add_all(["shop/web", "shop/db"])?;
        let _echo = Echo::start(&db.sandbox, &[80], &[])?;
        let silent = {
            let _inside = db.sandbox.enter()?;
            std::net::UdpSocket::bind("[::]:99")?
        };
        for (open, quiet) in db.at(80).into_iter().zip(db.at(99)) {
            let held = {
                let _inside = web.sandbox.enter()?;
                TcpStream::connect_timeout(&open, OPEN)?
            };
            let asking = connected_udp(&web.sandbox, quiet)?;
            asking.send(b"hello?")?;

            let end = held.local_addr()?.to_string();
            let found = dump(&node, &["conntrack"], &end)?;
            let [(key, value)] = &found[..] else { anyhow::bail!("{found:?}") };
            ensure!(key.starts_with("tcp ") && key.contains(&open.to_string()), "{key}");
            ensure!(value.starts_with("Established, shop/web to shop/db, age 0."), "{value}");
            // SYN and ACK; SYN-ACK.
            let ([there, back], bytes) = (pair(value, "packets")?, pair(value, "bytes")?);
            ensure!(there == 2 && back == 1 && bytes[0] > bytes[1] && bytes[1] >= 40, "{value}");
            ensure!(value.contains(&format!("initiator {end}")), "{value}");
            // A look leaves it as it is.
            ensure!(dump(&node, &["conntrack"], &end)?.len() == 1);

            let found = dump(&node, &["PENDING"], &asking.local_addr()?.to_string())?;
            let [(key, value)] = &found[..] else { anyhow::bail!("{found:?}") };
            ensure!(key.starts_with("udp "), "{key}");
            ensure!(
                value.starts_with("New, shop/web to shop/db, age 0.") && pair(value, "packets")? == [1, 0],
                "{value}"
            );
        }
        drop(silent);
        Ok(())
    });
}

#[test]
fn fragments_are_told_with_the_ports_of_their_first() {
    trial(|| {
        let rule = "  podSelector: {matchLabels: {app: db}}\n  ingress: [{from: [{podSelector: {}}]}]";
        let objects = [pod("shop/web", "app: web"), pod("shop/db", "app: db"), policy("shop/db", rule)].concat();
        let node = Node::start(&[("all.yaml", &objects)])?;
        let [web, db] = node.add_all(["shop/web", "shop/db"])?;
        let _echo = Echo::start(&db.sandbox, &[], &[53])?;
        for to in db.at(53) {
            let asking = connected_udp(&web.sandbox, to)?;
            asking.send(&[b'x'; 4000])?;
            let ends = format!("{} to {to}", asking.local_addr()?);
            let there = || Ok(dump(&node, &["fragments"], &ends)?.len() == 1);
            ensure!(eventually(PATIENCE, there)?, "no {ends} in {:?}", dump(&node, &["FRAGMENTS"], "")?);
            let (key, value) = dump(&node, &["FRAGMENTS"], &ends)?.remove(0);
            ensure!(key.contains(", id 0x") && value == format!("udp {ends}"), "{key} = {value}");
        }
        Ok(())
    });
}

#[test]
fn a_dump_is_as_long_as_is_asked_for_and_says_what_it_leaves_out() {
    trial(|| {
        let node = Node::start(&[])?;
        let [web, db] = node.add_all(["shop/web", "shop/db"])?;
        let _echo = Echo::start(&db.sandbox, &[80], &[])?;
        for to in [db.at(80), db.at(80), db.at(80)].concat() {
            ensure!(reach(&web.sandbox, Tcp, to, OPEN)? == Reached::Yes);
        }
        let count = || Ok(dump(&node, &["CONNTRACK"], "shop/web to shop/db")?.len() == 6);
        ensure!(eventually(PATIENCE, count)?, "{:?}", dump(&node, &["CONNTRACK"], "")?);
        let shown = node.bulkhead().run(&["dump", "CONNTRACK", "--limit", "4"])?;
        ensure!(shown.code == 0 && shown.out.lines().count() == 4, "{shown:?}");
        ensure!(shown.err.contains("CONNTRACK: only 4 entries are told and there are more"), "{}", shown.err);
        let shown = node.bulkhead().run(&["dump", "CONNTRACK", "--limit", "6"])?;
        ensure!(shown.out.lines().count() == 6 && shown.err.is_empty(), "{shown:?}");
        Ok(())
    });
}
