//! Flows of all nodes, as a relay collects them.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tests::authority::Authority;

use crate::{
    install::NAMESPACE,
    stage::{Ask, Stage, soon},
};

/// The Secret that agents serve with.
pub(crate) const SECRET: &str = "flow-api";
/// A certificate for all nodes.
const SERVERS: &str = "*.default.hubble-grpc.cilium.io";
const RELAY: &str = "127.0.0.1:4245";
/// Where the control plane's machine has the certificates of a client who is let in.
const CLIENT: &str = "/run/flow-clients";
/// The first node's agent, whom the relay asks for the others.
const FIRST: &str = "172.31.0.11:4244";

/// Makes the Secret, and puts the certificates of a client who is let in where the relay finds them.
pub(crate) fn make_certificates(stage: &Stage) -> anyhow::Result<()> {
    let (servers, clients) = (Authority::new("servers")?, Authority::new("clients")?);
    let room = &stage.cluster.control.room;
    let own = servers.folder(&room.outside("/run/flow-servers"), SERVERS, &clients)?;
    clients.folder(&room.outside(CLIENT), "relay", &servers)?;
    let read = |name: &str| std::fs::read_to_string(own.join(name)).context("a certificate");
    let data = json!({"tls.crt": read("tls.crt")?, "tls.key": read("tls.key")?, "ca.crt": read("ca.crt")?});
    let metadata = json!({"name": SECRET, "namespace": NAMESPACE});
    stage.apply(&[json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data})])
}

/// After an update that has made agents serve: the relay asks one node which others there are, and is answered by all.
pub(crate) fn a_relay_reads_all_nodes(stage: &mut Stage) -> anyhow::Result<()> {
    stage.namespaces(&["relayed"])?;
    let app = |app: &str| json!({"app": app});
    let pods = stage.pods(&[("relayed/server", app("server"), "n1"), ("relayed/client", app("client"), "n2")])?;
    stage.expect(&Ask::both("relayed/client", &pods["relayed/server"], "tcp", 80, "yes"))?;
    let control = &stage.cluster.control;
    let arguments = [
        "serve".to_owned(),
        "--gops=false".to_owned(),
        "--disable-server-tls".to_owned(),
        "--retry-timeout=1s".to_owned(),
        format!("--listen-address={RELAY}"),
        "--health-listen-address=127.0.0.1:4222".to_owned(),
        format!("--peer-service={FIRST}"),
        format!("--tls-hubble-client-cert-file={CLIENT}/tls.crt"),
        format!("--tls-hubble-client-key-file={CLIENT}/tls.key"),
        format!("--tls-hubble-server-ca-files={CLIENT}/ca.crt"),
    ];
    let relay = control.room.start("relay", "/run/k8s/hubble-relay", &arguments.each_ref().map(String::as_str))?;
    soon("the relay tells of both ends of a connection", || {
        let mut hubble = control.program("hubble");
        hubble.args(["observe", "--last=100", "--output=jsonpb", "--to-pod=relayed/server", "--server", RELAY]);
        let output = hubble.output().context("starting hubble")?;
        ensure!(output.status.success(), "{}; {}", String::from_utf8_lossy(&output.stderr), relay.tail());
        let lines = String::from_utf8(output.stdout)?;
        let flows: Vec<Value> = lines
            .lines()
            .map(|line| Ok(serde_json::from_str::<Value>(line)?["flow"].take()))
            .collect::<anyhow::Result<_>>()?;
        for (node, direction) in [("n1", "INGRESS"), ("n2", "EGRESS")] {
            let told = flows.iter().any(|flow| {
                flow["node_name"] == node
                    && flow["traffic_direction"] == direction
                    && flow["source"]["pod_name"] == "client"
                    && flow["verdict"] == "FORWARDED"
            });
            ensure!(told, "nothing of {node}: {lines}");
        }
        Ok(())
    })?;
    control.room.kill(relay)?;
    stage.forget(&["relayed"])
}
