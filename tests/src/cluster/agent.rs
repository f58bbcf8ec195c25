//! Bulkhead on a test cluster, as its users install it: the image given to each node, and the manifest applied.

use std::{
    env, fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};

use super::{Cluster, Proxy, Routing, layout, node::Node};

/// What people apply.
pub const MANIFEST: &str = include_str!("../../../manifests/bulkhead.yaml");
/// Name of the daemon's process on a node.
const DAEMON: &str = "bulkhead-daemon";
/// Where the daemon answers on a node.
const SOCKET: &str = "/run/bulkhead/api.sock";

/// The archive with the image: `BULKHEAD_IMAGE`, or where `cargo xtask image` puts it.
///
/// # Errors
/// It is not there.
pub fn image() -> anyhow::Result<PathBuf> {
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/image/bulkhead.tar");
    let archive = env::var_os("BULKHEAD_IMAGE").map_or(made, PathBuf::from);
    ensure!(archive.is_file(), "no image at {}: make it with `cargo xtask image`", archive.display());
    Ok(archive)
}

/// What people apply who have set the value `routing` of the chart.
fn manifest(routing: Routing) -> anyhow::Result<String> {
    let [default, wanted] = [Routing::default(), routing]
        .map(|it| format!("name: BULKHEAD_ROUTING\n              value: \"{}\"", it.name()));
    ensure!(MANIFEST.contains(&default), "the manifest does not say {default:?}");
    Ok(MANIFEST.replace(&default, &wanted))
}

impl Cluster {
    /// Installs Bulkhead and waits until nodes are Ready.
    ///
    /// # Errors
    /// There is no image, the API server refuses the manifest, or an agent does not get ready.
    pub fn install(&mut self) -> anyhow::Result<()> {
        self.import(&image()?)?;
        self.control.kubectl_with(&["apply", "-f", "-"], &manifest(self.plan.routing)?)?;
        if self.plan.proxy == Proxy::None {
            // Nobody leads to the Service `kubernetes`: the value kubernetes.server of the chart.
            let server = format!("BULKHEAD_KUBERNETES_SERVER=https://{}", layout::api_server(self.plan.families));
            self.control.kubectl(&["set", "env", "-n", "kube-system", "daemonset/bulkhead", &server])?;
        }
        self.wait_for("nodes are Ready", |cluster| {
            cluster.control.kubectl(&["wait", "--for=condition=Ready", "node", "--all", "--timeout=1s"]).map(drop)
        })
    }
}

impl Node {
    /// Ends the daemon at once, as a crash would. The kubelet starts another.
    ///
    /// # Errors
    /// None runs.
    pub fn crash_daemon(&self) -> anyhow::Result<()> {
        self.signal_daemon("-KILL")
    }

    /// Holds the daemon's process back: it hears of nothing until [`Node::continue_daemon`].
    ///
    /// # Errors
    /// None runs.
    pub fn stop_daemon(&self) -> anyhow::Result<()> {
        self.signal_daemon("-STOP")
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// None runs.
    pub fn continue_daemon(&self) -> anyhow::Result<()> {
        self.signal_daemon("-CONT")
    }

    fn signal_daemon(&self, signal: &str) -> anyhow::Result<()> {
        let pid = self.daemon().with_context(|| format!("no daemon runs on {}", self.name))?;
        self.room.run("kill", &[signal, &pid]).map(drop)
    }

    /// Fails if the daemon does not run and answer.
    pub fn daemon_answers(&self) -> anyhow::Result<()> {
        UnixStream::connect(self.room.outside(SOCKET)).with_context(|| format!("asking at {SOCKET}")).map(drop)
    }

    /// The number of its process, in the node's room.
    pub fn daemon(&self) -> Option<String> {
        let said = self.room.run("busybox", &["pidof", DAEMON]).ok()?;
        Some(said.split_whitespace().next()?.to_owned())
    }

    /// What its agents have said, the last of it, also when there is no API server to ask.
    pub fn daemon_tail(&self) -> String {
        let pods = fs::read_dir(self.room.outside("/var/log/pods")).into_iter().flatten().flatten();
        let ours = pods.filter(|pod| pod.file_name().to_string_lossy().starts_with("kube-system_bulkhead-"));
        let logs = ours.flat_map(|pod| fs::read_dir(pod.path().join("agent")).into_iter().flatten().flatten());
        logs.map(|log| format!("--- {} {}\n{}\n", self.name, log.path().display(), crate::agent::tail(&log.path())))
            .collect()
    }
}
