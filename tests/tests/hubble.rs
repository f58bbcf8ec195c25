//! The stock clients of the Hubble API, against our nodes: the command line, straight and through a relay that asks every
//! node. Both from their own modules, built as they are.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tests::{
    authority::Authority,
    cluster::parts,
    manifest::shop,
    node::{NODES, Node, PATIENCE, Setup, eventually},
    owner,
    server::Server,
    traffic::{Echo, OPEN, Protocol::Tcp, Reached, SILENT, reach},
    trial::trial,
};

/// Where the relay listens, on n1.
const RELAY: &str = "192.0.2.1:4245";

/// A node with an uplink, whose flows can be read from outside.
fn node(
    node: &str,
    address: &str,
    pools: [&str; 2],
    objects: &str,
    servers: &Authority,
    clients: &Authority,
) -> anyhow::Result<Node> {
    let name = owner::fresh_name();
    let folder = owner::folder(&name).join("certificates");
    let server = format!("{node}.default.hubble-grpc.cilium.io");
    let folder = servers.folder(&folder, &server, clients)?;
    let arguments = vec![format!("--flow-listen={address}:4244"), format!("--flow-tls={}", folder.display())];
    let pools = pools.map(str::to_owned).to_vec();
    let setup = Setup { name, node: node.to_owned(), arguments, pools, ..Setup::default() };
    Node::without_daemon(setup, &[("nodes.yaml", NODES), ("objects.yaml", objects)])
}

/// One connection that is let in, and one that is not.
fn talk(node: &Node, namespace_name: &str) -> anyhow::Result<()> {
    let [web, db] = node.add_all([&format!("{namespace_name}/web"), &format!("{namespace_name}/db")])?;
    let _echo = Echo::start(&db.sandbox, &[80, 81], &[])?;
    let (open, closed) = (db.at(80)[0], db.at(81)[0]);
    ensure!(reach(&web.sandbox, Tcp, open, OPEN)? == Reached::Yes);
    ensure!(reach(&web.sandbox, Tcp, closed, SILENT)? == Reached::No);
    Ok(())
}

/// A client of the API, in the network of a node.
struct Hubble<'a> {
    node: &'a Node,
    program: PathBuf,
    connection: Vec<String>,
}

impl<'a> Hubble<'a> {
    fn new(node: &'a Node, programs: &Path, connection: &[&str]) -> Self {
        let connection = connection.iter().map(|&it| it.to_owned()).collect();
        Self { node, program: programs.join("hubble"), connection }
    }

    /// What it prints.
    fn said(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let all: Vec<&str> = arguments.iter().copied().chain(self.connection.iter().map(String::as_str)).collect();
        self.node.sandbox.said(&self.program, &all)
    }

    /// Flows that match, as JSON.
    fn flows(&self, filters: &[&str]) -> anyhow::Result<Vec<Value>> {
        let arguments = [&["observe", "--last=100", "--output=jsonpb"], filters].concat();
        let text = self.said(&arguments)?;
        text.lines()
            .map(|line| Ok(serde_json::from_str::<Value>(line).context(line.to_owned())?["flow"].take()))
            .collect()
    }
}

/// The relay, in the network of a node whose daemon it asks for the others.
fn relay(node: &Node, programs: &Path, certificates: &Path) -> anyhow::Result<Server> {
    let file = |name: &str| certificates.join(name).display().to_string();
    let arguments = [
        "serve".to_owned(),
        "--gops=false".to_owned(),
        "--disable-server-tls".to_owned(),
        "--retry-timeout=1s".to_owned(),
        format!("--listen-address={RELAY}"),
        "--health-listen-address=127.0.0.1:4222".to_owned(),
        format!("--peer-service=unix://{}", node.api_socket().display()),
        format!("--tls-hubble-client-cert-file={}", file("tls.crt")),
        format!("--tls-hubble-client-key-file={}", file("tls.key")),
        format!("--tls-hubble-server-ca-files={}", file("ca.crt")),
    ];
    Server::start(node, &programs.join("hubble-relay"), arguments, &node.folder().join("relay.log"))
}

#[test]
fn the_stock_command_line_and_relay_read_our_nodes() {
    trial(|| {
        let programs = parts::folder()?;
        let (servers, clients) = (Authority::new("servers")?, Authority::new("clients")?);
        let mut near = node("n1", "192.0.2.1", ["10.77.0.0/24", "fd77::/64"], &shop("near"), &servers, &clients)?;
        let mut far = node("n2", "192.0.2.2", ["10.78.0.0/24", "fd78::/64"], &shop("far"), &servers, &clients)?;
        near.sandbox.ip(&format!("link add up0 type veth peer name up0 netns {}\n", far.name()))?;
        near.sandbox.ip("addr add 192.0.2.1/24 dev up0\nlink set up0 up\n")?;
        far.sandbox.ip("addr add 192.0.2.2/24 dev up0\nlink set up0 up\n")?;
        near.start_daemon()?;
        far.start_daemon()?;
        talk(&near, "near")?;
        talk(&far, "far")?;
        let alice = clients.folder(&near.folder().join("alice"), "alice", &servers)?;
        let file = |name: &str| alice.join(name).display().to_string();
        let (ca, certificate, key) = (file("ca.crt"), file("tls.crt"), file("tls.key"));
        let server = ["--server=tls://192.0.2.2:4244", "--tls-server-name=n2.default.hubble-grpc.cilium.io"];
        let believed = format!("--tls-ca-cert-files={ca}");
        let own = [format!("--tls-client-cert-file={certificate}"), format!("--tls-client-key-file={key}")];

        // Straight, from the other node's network.
        let straight = Hubble::new(&near, &programs, &[server[0], server[1], &believed, &own[0], &own[1]]);
        let denied = || straight.flows(&["--verdict=DROPPED", "--to-pod=far/db"]);
        ensure!(eventually(PATIENCE, || Ok(!denied()?.is_empty()))?, "no denial: {:?}", denied());
        let flow = denied()?.remove(0);
        ensure!(flow["source"]["pod_name"] == "web" && flow["node_name"] == "n2", "{flow}");
        ensure!(flow["l4"]["TCP"]["destination_port"] == 81 && flow["drop_reason_desc"] == "POLICY_DENIED", "{flow}");
        let audit = fs::read_to_string(far.log())?;
        let line = audit.lines().find(|line| line.contains("CN=alice")).context("no line about alice")?;
        ensure!(line.contains("bulkhead::audit") && line.contains("far/db"), "{line}");
        // Who shows no certificate reads nothing, and who asks in plain text neither.
        for connection in [&[server[0], server[1], &believed][..], &["--server=192.0.2.2:4244"]] {
            let stranger = Hubble::new(&near, &programs, connection);
            ensure!(stranger.said(&["observe", "--last=1", "--timeout=3s"]).is_err(), "{connection:?} was served");
        }

        // Through a relay, which knows nothing but the socket of one node.
        let _relay = relay(&near, &programs, &alice)?;
        let relayed = Hubble::new(&near, &programs, &[&format!("--server={RELAY}")]);
        let all = || -> anyhow::Result<Vec<Value>> { relayed.flows(&[]) };
        let both = || -> anyhow::Result<bool> {
            let Ok(found) = all() else { return Ok(false) };
            Ok(["n1", "n2"].iter().all(|node| found.iter().any(|flow| flow["node_name"] == *node)))
        };
        let log = || fs::read_to_string(near.folder().join("relay.log")).unwrap_or_default();
        ensure!(eventually(PATIENCE, both)?, "not both nodes: {:?}; {}", all(), log());
        let nodes = relayed.said(&["list", "nodes", "--output=json"])?;
        let nodes: Value = serde_json::from_str(&nodes).context(nodes)?;
        let connected = nodes.as_array().into_iter().flatten().filter(|node| {
            node["tls"]["server_name"].as_str().is_some_and(|name| name.ends_with(".default.hubble-grpc.cilium.io"))
        });
        ensure!(connected.count() == 2, "{nodes}");
        // The relay looks every five seconds whether it is well.
        let mut status = String::new();
        let well = || {
            status = relayed.said(&["status"]).unwrap_or_else(|error| error.to_string());
            Ok(status.contains("Connected Nodes: 2/2"))
        };
        ensure!(eventually(PATIENCE, well)?, "{status}");
        let namespaces = relayed.said(&["list", "namespaces"])?;
        ensure!(namespaces.contains("near") && namespaces.contains("far"), "{namespaces}");
        Ok(())
    });
}
