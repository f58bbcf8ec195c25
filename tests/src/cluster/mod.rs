//! A Kubernetes cluster on this machine: a real control plane, and nodes with real containerds and
//! kubelets, each in namespaces of its own. All of it ends when it is dropped, or our process ends.
//!
//! ```text
//!  parts    programs, built from Go modules          layout  addresses of everything
//!  control  etcd, API server, controllers            node    containerd, kubelet
//!  agent    Bulkhead on it                        chart   what it is installed with
//! ```
//!
//! How it differs from what `kubeadm init` and `kubeadm join` make: docs/test-cluster.md.

pub mod agent;
pub mod chart;
pub mod control;
pub mod layout;
pub mod node;
pub mod parts;

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde_json::json;

use self::{
    control::Control,
    layout::{Families, Seat},
    node::Node,
};
use crate::image::{self, Image};

/// How long the cluster may take to get somewhere: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(180);

/// Name of the image with Kubernetes' test program, which serves and asks in many ways.
pub const AGNHOST: &str = "localhost/agnhost:test";
/// Name of the image with the cluster's DNS.
pub const COREDNS: &str = "localhost/coredns:test";

/// Name of kube-proxy's process on a node.
const PROXY: &str = "kube-proxy";

/// Who makes Services work for what Bulkhead leaves alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Proxy {
    /// Nobody.
    None,
    /// kube-proxy with nftables.
    #[default]
    Nftables,
    /// kube-proxy with iptables.
    Iptables,
}

impl Proxy {
    fn mode(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Nftables => Some("nftables"),
            Self::Iptables => Some("iptables"),
        }
    }
}

/// How packets get to pods of other nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Routing {
    /// As they are.
    Native,
    /// Each in a packet from node to node.
    #[default]
    Overlay,
}

impl Routing {
    /// As the chart calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Overlay => "overlay",
        }
    }
}

/// What cluster it is to be.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many nodes, at least one.
    pub nodes: usize,
    /// Families of pods, Services and nodes.
    pub families: Families,
    /// Who makes Services work.
    pub proxy: Proxy,
    /// How packets get to pods of other nodes, once there is a network for them.
    pub routing: Routing,
}

impl Default for Plan {
    fn default() -> Self {
        Self { nodes: 2, families: Families::default(), proxy: Proxy::default(), routing: Routing::default() }
    }
}

/// A cluster without a network for its pods. Ends when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    // Nodes end before what they report to.
    /// The nodes, by index.
    pub nodes: Vec<Node>,
    /// The control plane.
    pub control: Control,
    /// What it was to be.
    pub plan: Plan,
    /// Folder of the programs it is made of.
    pub programs: PathBuf,
    images: tempfile::TempDir,
}

impl Cluster {
    /// Builds what is missing, starts it all, and waits until every node has been registered. They become
    /// Ready when pods have a network.
    ///
    /// # Errors
    /// A part cannot be built or does not start. The text has the end of its log.
    pub fn start(plan: Plan, mut progress: impl FnMut(&str)) -> anyhow::Result<Self> {
        let programs = parts::folder()?;
        let images = tempfile::tempdir().context("a folder for images")?;
        write_images(&programs, images.path())?;
        progress("control plane");
        let control = Control::start(&programs, plan.families)?;
        let mut cluster = Self { nodes: Vec::new(), control, plan, programs, images };
        for index in 0..plan.nodes {
            progress(&format!("node {}", layout::node_name(index)));
            cluster.start_node(Seat::of(index))?;
        }
        progress("registration of nodes");
        for index in 0..plan.nodes {
            let name = layout::node_name(index);
            cluster.registered(&name)?;
        }
        for index in 0..plan.nodes {
            cluster.start_proxy(index)?;
        }
        cluster.start_dns()?;
        Ok(cluster)
    }

    fn start_node(&mut self, seat: Seat) -> anyhow::Result<()> {
        let node = Node::start(&self.programs, &self.control, seat, self.plan.families, self.images.path())?;
        self.nodes.push(node);
        Ok(())
    }

    fn registered(&mut self, name: &str) -> anyhow::Result<()> {
        self.wait_for(&format!("node {name}"), |cluster| {
            cluster.control.kubectl(&["get", "node", name, "-o", "name"]).map(drop)
        })
    }

    /// Starts one more node, which knows the images that the others know.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn add_node(&mut self, seat: Seat) -> anyhow::Result<()> {
        let name = seat.name.clone();
        self.start_node(seat)?;
        self.registered(&name)?;
        self.start_proxy(self.nodes.len() - 1)
    }

    /// Has every node's kube-proxy replaced by one of another mode, with nothing left of the one before.
    ///
    /// # Errors
    /// None runs, it does not clean up, or the new one does not start.
    pub fn change_proxy(&mut self, proxy: Proxy) -> anyhow::Result<()> {
        for node in &mut self.nodes {
            node.end(PROXY)?;
            node.room.run("/run/k8s/kube-proxy", &["--cleanup"])?;
        }
        self.plan.proxy = proxy;
        (0..self.nodes.len()).try_for_each(|index| self.start_proxy(index))
    }

    /// Takes a node away with all that runs on it, as if its power had failed. Nobody is told.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn remove_node(&mut self, name: &str) -> anyhow::Result<()> {
        let index = self.nodes.iter().position(|node| node.name == name).with_context(|| format!("no node {name}"))?;
        drop(self.nodes.remove(index));
        Ok(())
    }

    /// Makes the images of an archive known to every node.
    pub fn import(&self, archive: &Path) -> anyhow::Result<()> {
        let name = archive.file_name().context("an archive has a name")?;
        let place = self.images.path().join(name);
        if archive != place {
            fs::copy(archive, &place).with_context(|| format!("copying {}", archive.display()))?;
        }
        for node in &self.nodes {
            node.import(&format!("/run/images/{}", name.to_string_lossy()))?;
        }
        Ok(())
    }

    /// Waits until something is so.
    ///
    /// # Errors
    /// It was not in time, or a part of the cluster has ended. The text says why it is not so.
    pub fn wait_for(
        &mut self,
        what: &str,
        mut holds: impl FnMut(&mut Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            for node in &mut self.nodes {
                node.must_run()?;
            }
            let Err(error) = holds(self) else { return Ok(()) };
            if began.elapsed() > PATIENCE {
                bail!("{what}: not after {PATIENCE:?}: {error:#}\n{}", self.tails());
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// The ends of all logs.
    pub fn tails(&self) -> String {
        let agents = self.nodes.iter().map(Node::daemon_tail);
        self.nodes.iter().map(Node::tails).chain(agents).chain([self.control.tails()]).collect()
    }

    fn start_proxy(&mut self, index: usize) -> anyhow::Result<()> {
        let Some(mode) = self.plan.proxy.mode() else { return Ok(()) };
        let families = self.plan.families;
        let config = json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": mode,
            "clusterCIDR": families.list(layout::POD_RANGES.0, layout::POD_RANGES.1),
            "clientConnection": {"kubeconfig": "/run/kube-proxy.conf"},
            // Not ours alone: they are limits of the machine.
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        });
        let node = &mut self.nodes[index];
        fs::write(node.room.outside("/run/kube-proxy.yaml"), config.to_string())?;
        fs::write(node.room.outside("/run/kube-proxy.conf"), fs::read(self.control.admin_config())?)?;
        let name = format!("--hostname-override={}", node.name);
        node.run(PROXY, "/run/k8s/kube-proxy", &["--config=/run/kube-proxy.yaml", &name])
    }

    fn start_dns(&self) -> anyhow::Result<()> {
        let families = self.plan.families;
        let ips = families.list(layout::DNS.0, layout::DNS.1);
        let ips: Vec<&str> = ips.split(',').collect();
        let labels = json!({"k8s-app": "kube-dns"});
        let corefile = "\
            .:53 {\n    errors\n    health :8080\n    ready :8181\n    \
            kubernetes cluster.local in-addr.arpa ip6.arpa {\n        pods insecure\n        fallthrough in-addr.arpa ip6.arpa\n    }\n    \
            cache 5\n}\n";
        let meta = |name: &str| json!({"name": name, "namespace": "kube-system"});
        let port =
            |name: &str, protocol: &str| json!({"name": name, "protocol": protocol, "port": 53, "targetPort": 53});
        let items = json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta("coredns")},
            {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "system:coredns"}, "rules": [
                {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": ["list", "watch"]},
                {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
            ]},
            {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "system:coredns"},
             "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns"},
             "subjects": [{"kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system"}]},
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta("coredns"), "data": {"Corefile": corefile}},
            {"apiVersion": "v1", "kind": "Service", "metadata": meta("kube-dns"), "spec": {
                "clusterIP": ips[0], "clusterIPs": ips,
                "ipFamilyPolicy": if ips.len() == 2 { "RequireDualStack" } else { "SingleStack" },
                "selector": labels, "ports": [port("dns", "UDP"), port("dns-tcp", "TCP")],
            }},
            {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta("coredns"), "spec": {
                "replicas": 1, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": {
                    "serviceAccountName": "coredns", "dnsPolicy": "Default",
                    "containers": [{
                        "name": "coredns", "image": COREDNS, "imagePullPolicy": "Never", "args": ["-conf", "/etc/coredns/Corefile"],
                        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns"}],
                        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
                        "livenessProbe": {"httpGet": {"path": "/health", "port": 8080}, "initialDelaySeconds": 60},
                    }],
                    "volumes": [{"name": "config", "configMap": {"name": "coredns"}}],
                }},
            }},
        ]});
        self.control.kubectl_with(&["apply", "-f", "-"], &items.to_string()).map(drop)
    }
}

fn write_images(programs: &Path, folder: &Path) -> anyhow::Result<()> {
    image::write(&folder.join("sandbox.tar"))?;
    let agnhost = programs.join("agnhost");
    Image { name: AGNHOST, entry_point: &["/agnhost"], programs: &[("agnhost", &agnhost)] }
        .write(&folder.join("agnhost.tar"))?;
    let coredns = programs.join("coredns");
    Image { name: COREDNS, entry_point: &["/coredns"], programs: &[("coredns", &coredns)] }
        .write(&folder.join("coredns.tar"))
}
