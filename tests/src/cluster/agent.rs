//! Bulkhead on a test cluster: the daemon of each node, as a process with the rights of its ServiceAccount.

use std::fs;

use anyhow::Context as _;
use serde_json::json;

use super::{Cluster, layout};
use crate::agent;

/// Where the daemon's credentials are on a node.
const KUBECONFIG: &str = "/run/bulkhead-kubeconfig";
/// What it may do in the cluster.
const RIGHTS: &str = include_str!("../../../manifests/kubernetes/rbac.yaml");

impl Cluster {
    /// Starts the daemons, which install the plugin and make nodes Ready.
    pub fn install(&mut self) -> anyhow::Result<()> {
        self.control.kubectl_with(&["apply", "-f", "-"], RIGHTS)?;
        let token = self.control.kubectl(&["create", "token", "bulkhead", "-n", "kube-system", "--duration=24h"])?;
        let authority = fs::read_to_string(self.control.authority())?;
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "bulkhead",
            "clusters": [{"name": "cluster", "cluster": {
                "server": format!("https://{}", layout::api_server(self.plan.families)),
                "certificate-authority": "/run/bulkhead-authority.crt",
            }}],
            "contexts": [{"name": "bulkhead", "context": {"cluster": "cluster", "user": "bulkhead"}}],
            "users": [{"name": "bulkhead", "user": {"token": token.trim()}}],
        });
        for node in &mut self.nodes {
            fs::write(node.room.outside("/run/bulkhead-authority.crt"), &authority)?;
            fs::write(node.room.outside(KUBECONFIG), kubeconfig.to_string())?;
            node.start_daemon()?;
        }
        self.wait_for("nodes are Ready", |cluster| {
            cluster.control.kubectl(&["wait", "--for=condition=Ready", "node", "--all", "--timeout=1s"]).map(drop)
        })
    }
}

impl super::node::Node {
    /// Starts the daemon, on what an earlier one has left.
    pub fn start_daemon(&mut self) -> anyhow::Result<()> {
        let daemon = agent::binary("bulkhead-daemon")?;
        agent::binary("bulkhead-cni")?;
        let source = format!("--source=kubernetes:{KUBECONFIG}");
        let name = format!("--node-name={}", self.name);
        let program = daemon.to_str().context("the path of the daemon is text")?.to_owned();
        self.run("bulkhead-daemon", &program, &["run", &source, &name, "--install=true"])
    }
}
