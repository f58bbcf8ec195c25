//! A node: containerd and a kubelet in a room of their own, joined with a bootstrap token as kubeadm
//! joins one. It has a network interface and no network for pods: that is what is tested.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde_json::json;

use super::{
    control::{Control, TOKEN},
    layout::{self, Families, Seat},
};
use crate::{
    cgroup::Cgroup,
    room::{Process, Room},
};

/// How long a part may take to be ready: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(120);
/// The plugin that containerd calls for the loopback interface of each pod.
const LOOPBACK: &str = "/usr/lib/cni/loopback";

/// Beside what every room has: a network's own view of /sys, an /etc that can be written, and mounts
/// that containers see, which is what a container runtime and a DaemonSet expect of a machine.
const FURNITURE: &str = r#"
mkdir -p /run/etc/upper /run/etc/work /run/cgroup
mount --rbind /sys/fs/cgroup /run/cgroup
mount -t sysfs sysfs /sys
mount --rbind /run/cgroup /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work /etc
rm -rf /etc/cni
mkdir -p /etc/cni/net.d /etc/kubernetes
mount -t tmpfs -o mode=755 tmpfs /opt
mkdir -p /opt/cni/bin
mount -t tmpfs -o mode=755 tmpfs /var/log
mkdir -p /run/netns /var/lib/kubelet /var/lib/containerd
mount --make-rshared /
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
"#;

/// All that differs from containerd's defaults. Sandboxes get no lower score for the kernel's OOM
/// killer than we have: lowering it is not allowed everywhere.
const CONTAINERD: &str = r#"
version = 3
disabled_plugins = [
    "io.containerd.internal.v1.opt",
    "io.containerd.snapshotter.v1.blockfile",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.erofs",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.nri.v1.nri",
]

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "IMAGE"

[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["/opt/cni/bin"]
conf_dir = "/etc/cni/net.d"
"#;

/// A node. Everything on it goes when it is dropped.
#[derive(Debug)]
pub struct Node {
    /// What it is called.
    pub name: String,
    // In the order in which they are to end.
    processes: Vec<Process>,
    /// Its namespaces.
    pub room: Room,
    // Last: it can be removed when nothing runs in it any more.
    cgroup: Cgroup,
}

impl Node {
    /// Starts one. Returns when its containerd has these images and its kubelet is under way.
    ///
    /// # Errors
    /// A part does not start. The text has the end of its log.
    pub fn start(
        programs: &Path,
        control: &Control,
        seat: Seat,
        families: Families,
        images: &Path,
    ) -> anyhow::Result<Self> {
        let room = Room::furnished(&[(programs, "k8s"), (images, "images")], FURNITURE)?;
        let cgroup = Cgroup::fresh()?;
        cgroup.make()?;
        let Seat { name, host } = seat;
        let mut node = Self { name, processes: Vec::new(), room, cgroup };
        control.join(&node.room, &node.name, host)?;
        symlink(LOOPBACK, node.room.outside("/opt/cni/bin/loopback"))?;
        node.start_containerd()?;
        node.start_kubelet(control, host, families)?;
        Ok(node)
    }

    fn start_containerd(&mut self) -> anyhow::Result<()> {
        fs::write(self.room.outside("/run/containerd.toml"), CONTAINERD.replace("IMAGE", crate::image::NAME))?;
        let path = format!("/run/k8s:{}", std::env::var("PATH").unwrap_or_default());
        let mut containerd = self.room.start(
            "containerd",
            "env",
            &[&format!("PATH={path}"), "containerd", "--config=/run/containerd.toml"],
        )?;
        let began = Instant::now();
        loop {
            containerd.must_run()?;
            let Err(error) = self.room.run("/run/k8s/ctr", &["version"]) else { break };
            if began.elapsed() > PATIENCE {
                bail!("containerd is not ready after {PATIENCE:?}: {error:#}\n{}", containerd.tail());
            }
            thread::sleep(Duration::from_millis(50));
        }
        self.processes.push(containerd);
        for archive in fs::read_dir(self.room.outside("/run/images"))? {
            let archive = format!("/run/images/{}", archive?.file_name().to_string_lossy());
            self.import(&archive)?;
        }
        Ok(())
    }

    /// Gives containerd the images of an archive; the path is one in the room.
    pub fn import(&self, archive: &str) -> anyhow::Result<()> {
        self.room.run("/run/k8s/ctr", &["--namespace=k8s.io", "images", "import", archive]).map(drop)
    }

    fn start_kubelet(&mut self, control: &Control, host: u8, families: Families) -> anyhow::Result<()> {
        let authority = fs::read(control.authority())?;
        fs::create_dir_all(self.room.outside("/etc/kubernetes/pki"))?;
        fs::write(self.room.outside("/etc/kubernetes/pki/ca.crt"), authority)?;
        let bootstrap = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "bootstrap",
            "clusters": [{"name": "cluster", "cluster": {
                "server": format!("https://{}", layout::api_server(families)),
                "certificate-authority": "/etc/kubernetes/pki/ca.crt",
            }}],
            "contexts": [{"name": "bootstrap", "context": {"cluster": "cluster", "user": "bootstrap"}}],
            "users": [{"name": "bootstrap", "user": {"token": TOKEN}}],
        });
        fs::write(self.room.outside("/etc/kubernetes/bootstrap-kubelet.conf"), bootstrap.to_string())?;
        let dns = families.first(layout::DNS.0.to_string(), layout::DNS.1.to_string());
        let config = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": false},
                "webhook": {"enabled": true},
                "x509": {"clientCAFile": "/etc/kubernetes/pki/ca.crt"},
            },
            "authorization": {"mode": "Webhook"},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": self.cgroup.path(),
            "failCgroupV1": false,
            "failSwapOn": false,
            "enforceNodeAllocatable": [],
            // The disk and memory of this machine are not the node's own.
            "evictionHard": {"memory.available": "1Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
            "imageGCHighThresholdPercent": 100,
            "makeIPTablesUtilChains": false,
            "clusterDNS": [dns],
            "clusterDomain": "cluster.local",
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "registerNode": true,
            "rotateCertificates": true,
            "staticPodPath": "/etc/kubernetes/manifests",
            "resolvConf": "/run/resolv.conf",
            "maxPods": 250,
            "syncFrequency": "5s",
            // Agents that are killed come back at once, and not after minutes when it was the fifth time.
            "featureGates": {"KubeletCrashLoopBackOffMax": true},
            "crashLoopBackOff": {"maxContainerRestartPeriod": "1s"},
        });
        fs::create_dir_all(self.room.outside("/etc/kubernetes/manifests"))?;
        fs::write(self.room.outside("/run/resolv.conf"), "")?;
        fs::write(self.room.outside("/var/lib/kubelet/config.yaml"), config.to_string())?;
        let (v4, v6) = layout::underlay(host);
        let kubelet = self.room.start(
            "kubelet",
            "/run/k8s/kubelet",
            &[
                "--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf",
                "--kubeconfig=/etc/kubernetes/kubelet.conf",
                "--config=/var/lib/kubelet/config.yaml",
                &format!("--hostname-override={}", self.name),
                &format!("--node-ip={}", families.list(v4, v6)),
                "--v=2",
            ],
        )?;
        self.processes.insert(0, kubelet);
        Ok(())
    }

    /// Fails if a process that must run has ended, with the end of its log.
    pub fn must_run(&mut self) -> anyhow::Result<()> {
        for process in &mut self.processes {
            process.must_run().with_context(|| format!("node {}", self.name))?;
        }
        Ok(())
    }

    /// Starts another process that stays until the node goes.
    pub fn run(&mut self, name: &str, program: &str, arguments: &[&str]) -> anyhow::Result<()> {
        let process = self.room.start(name, program, arguments)?;
        self.processes.insert(0, process);
        Ok(())
    }

    /// Ends a process that [`Node::run`] has started.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn end(&mut self, name: &str) -> anyhow::Result<()> {
        let index = self.processes.iter().position(|process| process.name() == name);
        let index = index.with_context(|| format!("no {name} runs on {}", self.name))?;
        self.room.kill(self.processes.remove(index))
    }

    /// The ends of all logs.
    pub fn tails(&self) -> String {
        self.processes.iter().map(|process| format!("--- {}\n{}\n", self.name, process.tail())).collect()
    }
}
