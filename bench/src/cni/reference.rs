//! The reference: plugin `ptp` with `host-local`, in a node's namespace of its own.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use tests::sandbox::Sandbox;

/// The reference plugins, ready to be called.
#[derive(Debug)]
pub(super) struct Reference {
    plugins: PathBuf,
    conf: Value,
    node: Sandbox,
}

impl Reference {
    /// With plugins from `plugins`; host-local keeps its leases below `state`.
    pub(super) fn new(plugins: &Path, state: &Path, dual: bool) -> anyhow::Result<Self> {
        for name in ["ptp", "host-local"] {
            ensure!(
                plugins.join(name).is_file(),
                "{} is not there: install the package containernetworking-plugins, or say --reference",
                plugins.join(name).display()
            );
        }
        let mut ranges = vec![json!([{"subnet": "10.78.0.0/23"}])];
        if dual {
            ranges.push(json!([{"subnet": "fd78::/64"}]));
        }
        let conf = json!({
            "cniVersion": "1.0.0",
            "name": "reference",
            "type": "ptp",
            "ipMasq": false,
            "ipam": {"type": "host-local", "dataDir": state.join("host-local"), "ranges": ranges},
        });
        let node = Sandbox::new("link set lo up\nlink add spare0 type veth peer name spare1\n")?;
        Ok(Self { plugins: plugins.to_owned(), conf, node })
    }

    /// The namespace of a pod.
    pub(super) fn blank(&self) -> anyhow::Result<Sandbox> {
        Sandbox::new("link set lo up\n")
    }

    /// Calls the plugin, in the node's namespace, which is where it makes its links.
    pub(super) fn call(&self, command: &str, pod: &Sandbox) -> anyhow::Result<()> {
        let mut plugin = Command::new(self.plugins.join("ptp"));
        plugin.env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        plugin.env("CNI_COMMAND", command).env("CNI_PATH", &self.plugins).env("CNI_IFNAME", "eth0");
        plugin.env("CNI_CONTAINERID", pod.name()).env("CNI_NETNS", pod.path());
        let mut child = {
            let _inside = self.node.enter()?;
            plugin.spawn().context("starting ptp")?
        };
        let mut input = child.stdin.take().context("standard input is piped")?;
        input.write_all(self.conf.to_string().as_bytes())?;
        drop(input);
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("ptp {command}: {}", String::from_utf8_lossy(&output.stdout));
        }
        Ok(())
    }
}
