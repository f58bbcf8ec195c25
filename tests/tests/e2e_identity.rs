//! Numbers of identities over time: nobody's for as long as `--identity-grace`, they are given back, and whoever comes
//! with the same labels then has another; not while a connection says whose it was.

use std::{fs, thread, time::Duration};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tests::{
    manifest::{namespace, pod, policy},
    node::{Node, PATIENCE, eventually},
    traffic::{Echo, Protocol::Udp, Reached, SILENT, connected_udp, reach},
    trial::trial,
};

/// Longer than the grace and the pause between two looks.
const LONG: Duration = Duration::from_secs(3);

fn shop(web: &str) -> String {
    namespace("shop", "team: shop") + &pod("shop/db", "app: db") + &pod("shop/web", &format!("app: {web}"))
}

fn from(apps: &str) -> String {
    policy(
        "shop/db",
        &format!(
            "  podSelector: {{matchLabels: {{app: db}}}}\n  ingress: [{{from: [{{podSelector: {{matchExpressions: \
             [{{key: app, operator: In, values: [{apps}]}}]}}}}]}}]"
        ),
    )
}

/// The number of the pods in shop with this label.
fn number(node: &Node, app: &str) -> anyhow::Result<Option<u64>> {
    let told: Value = serde_json::from_str(&node.bulkhead().run(&["identity", "list", "-o", "json"])?.out)?;
    let all = told["identities"].as_array().context("a list")?;
    Ok(all.iter().find(|it| it["labels"]["app"] == app).and_then(|it| it["number"].as_u64()))
}

fn given_back(node: &Node) -> anyhow::Result<bool> {
    Ok(fs::read_to_string(node.log())?.contains("Identities given back"))
}

#[test]
fn a_number_is_given_back_when_no_connection_has_it_either_and_the_labels_get_another() {
    trial(|| {
        let mut node =
            Node::without_daemon(Default::default(), &[("shop.yaml", &shop("old")), ("db.yaml", &from("old, new"))])?;
        node.set_arguments(&["--identity-grace=1"]);
        node.start_daemon()?;
        let [db, web] = node.add_all(["shop/db", "shop/web"])?;
        let _echo = Echo::start(&db.sandbox, &[], &[53])?;
        let to = *db.at(53).first().context("an address")?;
        let socket = connected_udp(&web.sandbox, to)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let say = || -> anyhow::Result<()> {
            let mut answer = [0; 8];
            socket.send(b"hello")?;
            socket.recv(&mut answer).context("no answer")?;
            Ok(())
        };
        say()?;
        say()?;
        let old = number(&node, "old")?.context("web has a number")?;

        // Nobody has the labels any more, but the connection was theirs, and rules that allow both need not be asked.
        node.apply("shop.yaml", &shop("new"))?;
        ensure!(eventually(PATIENCE, || Ok(number(&node, "new")?.is_some()))?, "web has other labels");
        ensure!(number(&node, "old")?.is_none() && number(&node, "new")? != Some(old));
        thread::sleep(LONG);
        ensure!(!given_back(&node)?, "a connection has the number");

        // Asked again, the connection is somebody else's.
        node.apply("db.yaml", &from("new"))?;
        let asked = || {
            say()?;
            given_back(&node)
        };
        ensure!(eventually(PATIENCE, asked)?, "nobody has the number");

        // The same labels come back, and are somebody else to the rules of before: who may now is by labels alone.
        node.apply("shop.yaml", &shop("old"))?;
        ensure!(eventually(PATIENCE, || Ok(number(&node, "old")?.is_some()))?, "web has its labels again");
        ensure!(number(&node, "old")? != Some(old), "its number waits for its turn");
        let denied = || Ok(reach(&web.sandbox, Udp, to, SILENT)? == Reached::No);
        ensure!(eventually(PATIENCE, denied)?, "only the other labels are allowed");
        ensure!(say_nothing(&socket)?, "nor does the connection of before live on");
        node.apply("db.yaml", &from("old"))?;
        ensure!(eventually(PATIENCE, || Ok(reach(&web.sandbox, Udp, to, SILENT)? == Reached::Yes))?, "allowed again");
        Ok(())
    });
}

/// Whether a message gets no answer.
fn say_nothing(socket: &std::net::UdpSocket) -> anyhow::Result<bool> {
    socket.set_read_timeout(Some(SILENT))?;
    socket.send(b"hello")?;
    Ok(socket.recv(&mut [0; 8]).is_err())
}
