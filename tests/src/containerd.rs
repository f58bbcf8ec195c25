//! A machine with a real containerd on it, and our daemon as its network: both in a room of their
//! own, at the places where an installation has them. Pods are made through the CRI, as a kubelet
//! makes them. For pods without containers see `node`.
//!
//! ```text
//!   test --CRI--> containerd --exec--> bulkhead-cni --gRPC--> bulkhead-daemon <-- /run/objects
//!                     |                                            |
//!                     +--> shim --> runc --> sandbox, containers   +--> veth, programs, flows
//! ```

use std::{
    env, fs,
    net::{IpAddr, SocketAddr},
    os::unix::{fs::symlink, net::UnixStream},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use crate::{
    agent,
    ask::Ask,
    cgroup::Cgroup,
    cri::{Cri, Ended, v1},
    image,
    plugin::Plugin,
    room::{Process, Room},
};

/// How long a daemon may take to be ready: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// Programs of others that this needs, and Debian's packages of them.
const NEEDED: [(&str, &str); 6] = [
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("containerd-shim-runc-v2", "containerd"),
    ("runc", "runc"),
    ("nsenter", "util-linux"),
    ("ip", "iproute2"),
];

/// The plugin that containerd calls for the loopback interface of each pod, whatever the network.
const LOOPBACK: &str = "/usr/lib/cni/loopback";

/// The network that containerd is told of.
pub const NETWORK: &str = "pods";

/// All that differs from containerd's defaults. Its optional plugins that would look for other
/// file systems, or make folders outside of the room, are left out. Sandboxes get no lower score
/// for the kernel's OOM killer than we have: lowering it is not allowed everywhere.
const CONTAINERD: &str = r#"
version = 2
disabled_plugins = [
    "io.containerd.internal.v1.opt",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
]

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "IMAGE"
restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/run/cni/bin"
conf_dir = "/run/cni/net.d"
"#;

/// The machine. Everything on it goes when it is dropped.
#[derive(Debug)]
pub struct Machine {
    cri: Cri,
    containerd: Option<Process>,
    daemon: Option<Process>,
    /// Its namespaces.
    pub room: Room,
    // Last: it can be removed when nothing runs in it any more.
    cgroup: Cgroup,
}

/// A pod with one container, which serves.
#[derive(Debug)]
pub struct Pod {
    /// `namespace/name`.
    pub key: String,
    /// The sandbox's id, which is CNI_CONTAINERID.
    pub id: String,
    /// The container's id.
    pub container: String,
    /// Its IPv4 address.
    pub v4: IpAddr,
    /// Its IPv6 address.
    pub v6: IpAddr,
    /// Path of its network namespace, in the room.
    pub netns: String,
    /// The sandbox's process, by its number in the room.
    pub pid: u64,
}

impl Machine {
    /// With these manifests (name of the file, text), ready for pods.
    ///
    /// # Errors
    /// Something is not installed, or does not start. The text says which.
    pub fn start(manifests: &[(&str, &str)]) -> anyhow::Result<Self> {
        for (program, package) in NEEDED {
            ensure!(
                is_installed(program),
                "{program} is not there: install the package {package} (`cargo xtask setup --for test`)"
            );
        }
        ensure!(
            Path::new(LOOPBACK).is_file(),
            "{LOOPBACK} is not there: install the package containernetworking-plugins (`cargo xtask setup --for test`)"
        );
        let bin = agent::binary("bulkhead-daemon")?;
        agent::binary("bulkhead-cni")?;
        let bin = bin.parent().context("a program lies in a folder")?;
        let own = own_binaries()?;
        let room = Room::new(&[(bin, "bin"), (&own, "own")])?;

        fs::create_dir_all(room.outside("/run/objects"))?;
        write_all(&room.outside("/run/objects"), manifests)?;
        for folder in ["/run/cni/bin", "/run/cni/net.d"] {
            fs::create_dir_all(room.outside(folder))?;
        }
        for plugin in ["/run/bin/bulkhead-cni", LOOPBACK] {
            let name = Path::new(plugin).file_name().context("a plugin has a name")?;
            symlink(plugin, room.outside("/run/cni/bin").join(name))?;
        }
        // A runtime that knows "cniVersions" takes the highest that it knows; others look at the first.
        let network = json!({
            "cniVersion": "1.0.0",
            "cniVersions": ["1.0.0", "1.1.0"],
            "name": NETWORK,
            "plugins": [{"type": "bulkhead-cni"}],
        });
        fs::write(room.outside("/run/cni/net.d/10-bulkhead.conflist"), network.to_string())?;
        fs::write(room.outside("/run/containerd.toml"), CONTAINERD.replace("IMAGE", image::NAME))?;
        let cri = Cri::at(&room.outside("/run/containerd/containerd.sock"))?;
        let mut machine = Self { cri, containerd: None, daemon: None, room, cgroup: Cgroup::fresh()? };
        machine.start_daemon()?;
        machine.start_containerd()?;
        image::write(&machine.room.outside("/run/image.tar"))?;
        machine.room.run("ctr", &["--namespace=k8s.io", "images", "import", "/run/image.tar"])?;
        Ok(machine)
    }

    /// Starts our daemon, on what an earlier one has left, and waits until it serves.
    pub fn start_daemon(&mut self) -> anyhow::Result<()> {
        let mut daemon = self.room.start(
            "bulkhead-daemon",
            "/run/bin/bulkhead-daemon",
            &["run", "--source=directory:/run/objects", "--node-name=n1"],
        )?;
        let sockets = ["api.sock", "cni.sock"].map(|socket| self.room.outside("/run/bulkhead").join(socket));
        wait(&mut daemon, || {
            for socket in &sockets {
                // Not only that it is there: an earlier daemon may have left it.
                UnixStream::connect(socket).with_context(|| format!("connecting to {}", socket.display()))?;
            }
            ensure!(
                self.ask()?.status()?.source.is_some_and(|source| source.synced),
                "the manifests have not been read"
            );
            Ok(())
        })?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Kills our daemon.
    pub fn kill_daemon(&mut self) -> anyhow::Result<()> {
        self.room.kill(self.daemon.take().context("the daemon does not run")?)
    }

    /// Starts containerd, on what an earlier one has left, and waits until it is ready for pods.
    pub fn start_containerd(&mut self) -> anyhow::Result<()> {
        let mut containerd = self.room.start("containerd", "containerd", &["--config=/run/containerd.toml"])?;
        wait(&mut containerd, || {
            let trouble = self.cri.trouble()?;
            ensure!(trouble.is_empty(), "{}", trouble.join("; "));
            Ok(())
        })?;
        self.containerd = Some(containerd);
        Ok(())
    }

    /// Kills containerd. Containers and their shims live on.
    pub fn kill_containerd(&mut self) -> anyhow::Result<()> {
        self.room.kill(self.containerd.take().context("containerd does not run")?)
    }

    /// The runtime.
    pub fn cri(&self) -> &Cri {
        &self.cri
    }

    /// A client of the daemon's API.
    pub fn ask(&self) -> anyhow::Result<Ask> {
        Ask::at(&self.room.outside("/run/bulkhead/api.sock"))
    }

    /// Puts a manifest into the daemon's folder, complete from the first moment.
    pub fn write(&self, file: &str, text: &str) -> anyhow::Result<()> {
        write_all(&self.room.outside("/run/objects"), &[(file, text)])
    }

    /// Makes a pod, named `namespace/name`, whose container serves these ports (`tcp:80`).
    pub fn pod(&self, key: &str, serves: &[&str]) -> anyhow::Result<Pod> {
        let config = self.pod_config(key)?;
        let id = self.cri.run_pod(&config)?;
        let container = v1::ContainerConfig {
            metadata: Some(v1::ContainerMetadata { name: "talk".to_owned(), attempt: 0 }),
            image: Some(v1::ImageSpec { image: image::NAME.to_owned() }),
            command: ["/own/talk", "serve"].iter().chain(serves).map(|&word| word.to_owned()).collect(),
            mounts: mounts(),
            ..v1::ContainerConfig::default()
        };
        let container = self.cri.run_container(&id, &config, container)?;
        let (status, info) = self.cri.pod_status(&id)?;
        let network = status.network.context("a pod without network")?;
        let addresses: Vec<IpAddr> = std::iter::once(network.ip)
            .chain(network.additional_ips.into_iter().map(|additional| additional.ip))
            .map(|ip| ip.parse().with_context(|| format!("{key}: address {ip:?}")))
            .collect::<anyhow::Result<_>>()?;
        let [v4, v6] = addresses[..] else { bail!("{key} has the addresses {addresses:?}, not one of each family") };
        ensure!(v4.is_ipv4() && v6.is_ipv6(), "{key} has the addresses {addresses:?}, not one of each family");
        let netns = netns_of(&info).with_context(|| format!("{key}: no network namespace in {info}"))?;
        let pid = info["pid"].as_u64().with_context(|| format!("{key}: no process in {info}"))?;
        Ok(Pod { key: key.to_owned(), id, container, v4, v6, netns, pid })
    }

    fn pod_config(&self, key: &str) -> anyhow::Result<v1::PodSandboxConfig> {
        let (namespace, name) = key.split_once('/').with_context(|| format!("{key:?} is no namespace/name"))?;
        Ok(v1::PodSandboxConfig {
            metadata: Some(v1::PodSandboxMetadata {
                name: name.to_owned(),
                uid: format!("uid-of-{namespace}-{name}"),
                namespace: namespace.to_owned(),
                attempt: 0,
            }),
            hostname: name.to_owned(),
            linux: Some(v1::LinuxPodSandboxConfig { cgroup_parent: self.cgroup.path() }),
            ..v1::PodSandboxConfig::default()
        })
    }

    /// Ends everything in a pod and takes its network namespace away, behind the runtime's back.
    pub fn destroy(&self, pod: &Pod) -> anyhow::Result<()> {
        // The containers are in the sandbox's process namespace, and end with its first process.
        self.room.run("kill", &["-KILL", &pod.pid.to_string()])?;
        self.room.run("umount", &[&pod.netns])?;
        self.room.run("rm", &[&pod.netns])?;
        Ok(())
    }

    /// The CNI plugin as containerd calls it, for calls that containerd does not make.
    pub fn plugin(&self) -> Plugin {
        let (socket, state) = (self.room.outside("/run/bulkhead/cni.sock"), self.room.outside("/var/lib/bulkhead"));
        Plugin {
            conf: json!({
                "cniVersion": "1.1.0",
                "name": NETWORK,
                "type": "bulkhead-cni",
                "socket": socket,
                "stateDir": state,
            }),
        }
    }

    /// The control group that all containers are in, in every hierarchy that has it.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        self.cgroup.found()
    }

    /// Asks from a pod's container who answers at these targets (`tcp:10.0.0.1:80`). Returns a line for
    /// each: `yes`, `refused` or `silence`.
    pub fn ask_from(&self, pod: &Pod, patience: Duration, targets: &[String]) -> anyhow::Result<Vec<String>> {
        let milliseconds = patience.as_millis().to_string();
        let command: Vec<&str> =
            ["/own/talk", "ask", &milliseconds].into_iter().chain(targets.iter().map(String::as_str)).collect();
        let Ended { code, out, err } = self.cri.exec(&pod.container, &command)?;
        ensure!(code == 0, "{}: {} ended with {code}: {err}", pod.key, command.join(" "));
        Ok(out.lines().map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect())
    }

    /// Stops and removes a pod.
    pub fn remove(&self, pod: Pod) -> anyhow::Result<()> {
        self.cri.stop_pod(&pod.id)?;
        self.cri.remove_pod(&pod.id)
    }
}

impl Pod {
    /// A port of it, in both families, as a target of [`Machine::ask_from`].
    pub fn targets(&self, protocol: &str, port: u16) -> [String; 2] {
        [self.v4, self.v6].map(|address| format!("{protocol}:{}", SocketAddr::new(address, port)))
    }
}

/// Waits until a process that was started is ready.
fn wait(process: &mut Process, ready: impl Fn() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        process.must_run()?;
        let Err(error) = ready() else { return Ok(()) };
        if began.elapsed() > PATIENCE {
            bail!("not ready after {PATIENCE:?}: {error:#}; the log ends with:\n{}", process.tail());
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn write_all(folder: &Path, manifests: &[(&str, &str)]) -> anyhow::Result<()> {
    for (file, text) in manifests {
        let (path, unfinished) = (folder.join(file), folder.join(format!(".{file}")));
        fs::write(&unfinished, text).with_context(|| format!("writing {}", unfinished.display()))?;
        fs::rename(&unfinished, &path).with_context(|| format!("renaming to {}", path.display()))?;
    }
    Ok(())
}

/// What our own binary needs to run in a container: itself, and the machine's libraries.
fn mounts() -> Vec<v1::Mount> {
    let libraries = ["/usr", "/lib", "/lib64"].into_iter().filter(|folder| Path::new(folder).is_dir());
    let mount = |outside: &str, inside: &str| v1::Mount {
        container_path: inside.to_owned(),
        host_path: outside.to_owned(),
        readonly: true,
    };
    libraries.map(|folder| mount(folder, folder)).chain([mount("/run/own", "/own")]).collect()
}

/// The folder with `talk`: beside what cargo has built of us.
fn own_binaries() -> anyhow::Result<PathBuf> {
    let exe = env::current_exe().context("where this program is")?;
    let folder = exe.parent().context("a program lies in a folder")?;
    let folder = if folder.ends_with("deps") { folder.parent().context("deps lies in a folder")? } else { folder };
    ensure!(
        folder.join("talk").is_file(),
        "{}/talk is not there: build it with `cargo build -p tests`",
        folder.display()
    );
    Ok(folder.to_owned())
}

/// The path in the sandbox's runtime configuration (OCI runtime specification, config-linux.md).
fn netns_of(info: &Value) -> Option<String> {
    let namespaces = info["runtimeSpec"]["linux"]["namespaces"].as_array()?;
    let network = namespaces.iter().find(|namespace| namespace["type"] == "network")?;
    Some(network["path"].as_str()?.to_owned())
}

fn is_installed(program: &str) -> bool {
    // An administrator's programs are not in everyone's PATH.
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.into_iter().any(|folder| folder.join(program).is_file())
}
