//! The control plane: etcd, API server, controller manager and scheduler in a room of their own,
//! with the certificates, kubeconfigs and bootstrap tokens that kubeadm makes.
//!
//! What kubeadm would have started from images as static pods is started here as processes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};

use super::layout::{self, Families};
use crate::room::{Process, Room};

/// How long a part may take to be ready: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(120);

/// A bootstrap token, as kubeadm's documentation writes it. Nobody but this cluster's own nodes can reach
/// its API server.
pub const TOKEN: &str = "abcdef.0123456789abcdef";

/// What the API server notes, in its room.
const AUDIT_POLICY: &str = "/run/kubernetes/audit.yaml";
/// Where.
const AUDIT_LOG: &str = "/run/kubernetes/audit.log";
/// What Bulkhead asks for, and nobody else.
const AUDITED: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: Metadata
    users: ['system:serviceaccount:kube-system:bulkhead']
  - level: None
";

/// The control plane. Ends when it is dropped.
#[derive(Debug)]
pub struct Control {
    // In the order in which they are to end: an API server that has lost its etcd drains for minutes.
    processes: Vec<Process>,
    /// Its namespaces, with the bridge that nodes are joined to.
    pub room: Room,
    families: Families,
}

impl Control {
    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// A part does not start. The text has the end of its log.
    pub fn start(programs: &Path, families: Families) -> anyhow::Result<Self> {
        let room = Room::new(&[(programs, "k8s")])?;
        let mut control = Self { processes: Vec::new(), room, families };
        control.build_network()?;
        control.make_certificates()?;
        control.start_parts()?;
        control.welcome_nodes()?;
        Ok(control)
    }

    /// A program of Kubernetes, in the room.
    pub fn program(&self, name: &str) -> Command {
        let mut command = self.room.command(format!("/run/k8s/{name}"));
        command.env("KUBECONFIG", "/run/kubernetes/super-admin.conf").env("HOME", "/run");
        command
    }

    /// Runs `kubectl` to its end and returns what it printed.
    ///
    /// # Errors
    /// It did not succeed. The text has what it said on standard error.
    pub fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.run("kubectl", arguments, None)
    }

    /// Gives `kubectl` something to read.
    ///
    /// # Errors
    /// As [`Self::kubectl`].
    pub fn kubectl_with(&self, arguments: &[&str], input: &str) -> anyhow::Result<String> {
        self.run("kubectl", arguments, Some(input))
    }

    fn run(&self, name: &str, arguments: &[&str], input: Option<&str>) -> anyhow::Result<String> {
        let mut command = self.program(name);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("starting `nsenter`")?;
        let mut pipe = child.stdin.take().context("input of a process")?;
        let text = input.unwrap_or_default().to_owned();
        // Beside us: it may print before it has read all.
        let writer = thread::spawn(move || std::io::Write::write_all(&mut pipe, text.as_bytes()));
        let output = child.wait_with_output()?;
        let _ = writer.join();
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{name} {}: {}", arguments.join(" "), said.trim());
        String::from_utf8(output.stdout).with_context(|| format!("{name} printed no text"))
    }

    /// A kubeconfig with which a process in any room reaches the API server as an administrator.
    pub fn admin_config(&self) -> PathBuf {
        self.room.outside("/run/kubernetes/super-admin.conf")
    }

    /// The certificate of the cluster's authority.
    pub fn authority(&self) -> PathBuf {
        self.room.outside("/run/kubernetes/pki/ca.crt")
    }

    /// Joins a node's room to the bridge; there the interface is called `eth0`.
    pub fn join(&self, node: &Room, name: &str, host: u8) -> anyhow::Result<()> {
        let holder = node.holder().to_string();
        let mtu = layout::MTU.to_string();
        // The new namespace is named by a process outside, so it has to be seen from outside.
        let link = ["link", "add", name, "mtu", &mtu, "type", "veth", "peer", "name", "eth0", "mtu", &mtu, "netns"];
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.room.holder())).arg("ip").args(link).arg(&holder);
        let output = command.stdin(Stdio::null()).output()?;
        ensure!(output.status.success(), "joining {name}: {}", String::from_utf8_lossy(&output.stderr).trim());
        self.ip(&self.room, &["link", "set", name, "master", "br0", "up"])?;
        self.ip(node, &["link", "set", "eth0", "up"])?;
        let ((v4, v6), (control4, control6)) = (layout::underlay(host), layout::underlay(layout::CONTROL));
        if self.families.has_v4() {
            self.ip(node, &["address", "add", &format!("{v4}/24"), "dev", "eth0"])?;
            self.ip(node, &["route", "add", "default", "via", &control4.to_string()])?;
        }
        if self.families.has_v6() {
            self.ip(node, &["address", "add", &format!("{v6}/64"), "dev", "eth0", "nodad"])?;
            self.ip(node, &["-6", "route", "add", "default", "via", &control6.to_string()])?;
        }
        Ok(())
    }

    fn ip(&self, room: &Room, arguments: &[&str]) -> anyhow::Result<()> {
        room.run("ip", arguments).map(drop)
    }

    fn build_network(&self) -> anyhow::Result<()> {
        let room = &self.room;
        let (v4, v6) = layout::underlay(layout::CONTROL);
        self.ip(room, &["link", "add", "br0", "mtu", &layout::MTU.to_string(), "type", "bridge"])?;
        self.ip(room, &["link", "set", "br0", "up"])?;
        if self.families.has_v4() {
            self.ip(room, &["address", "add", &format!("{v4}/24"), "dev", "br0"])?;
        }
        if self.families.has_v6() {
            self.ip(room, &["address", "add", &format!("{v6}/64"), "dev", "br0", "nodad"])?;
        }
        Ok(())
    }

    fn make_certificates(&self) -> anyhow::Result<()> {
        fs::create_dir_all(self.room.outside("/run/kubernetes"))?;
        let families = self.families;
        let (v4, v6) = layout::underlay(layout::CONTROL);
        let address = families.first(v4.to_string(), v6.to_string());
        let endpoint = layout::api_server(families);
        let config = format!(
            "apiVersion: kubeadm.k8s.io/v1beta4\n\
             kind: InitConfiguration\n\
             bootstrapTokens: [{{token: {TOKEN}, groups: ['system:bootstrappers:kubeadm:default-node-token']}}]\n\
             localAPIEndpoint: {{advertiseAddress: '{address}', bindPort: {port}}}\n\
             nodeRegistration: {{name: control, criSocket: 'unix:///run/containerd/containerd.sock'}}\n\
             ---\n\
             apiVersion: kubeadm.k8s.io/v1beta4\n\
             kind: ClusterConfiguration\n\
             kubernetesVersion: {version}\n\
             clusterName: bulkhead-test\n\
             controlPlaneEndpoint: '{endpoint}'\n\
             certificatesDir: /run/kubernetes/pki\n\
             networking: {{podSubnet: '{pods}', serviceSubnet: '{services}'}}\n",
            port = layout::API_PORT,
            version = super::parts::KUBERNETES,
            pods = families.list(layout::POD_RANGES.0, layout::POD_RANGES.1),
            services = families.list(layout::SERVICE_RANGES.0, layout::SERVICE_RANGES.1),
        );
        fs::write(self.room.outside("/run/kubernetes/kubeadm.yaml"), config)?;
        let config = "--config=/run/kubernetes/kubeadm.yaml";
        self.run("kubeadm", &["init", "phase", "certs", "all", config], None)?;
        for who in ["admin", "super-admin", "controller-manager", "scheduler"] {
            let folder = "--kubeconfig-dir=/run/kubernetes";
            self.run("kubeadm", &["init", "phase", "kubeconfig", who, config, folder], None)?;
        }
        Ok(())
    }

    fn start_parts(&mut self) -> anyhow::Result<()> {
        let pki = |file: &str| format!("/run/kubernetes/pki/{file}");
        let families = self.families;
        let services = families.list(layout::SERVICE_RANGES.0, layout::SERVICE_RANGES.1);
        self.begin(
            "etcd",
            &[
                ("data-dir", "/run/etcd"),
                ("listen-client-urls", "http://127.0.0.1:2379"),
                ("advertise-client-urls", "http://127.0.0.1:2379"),
                ("listen-peer-urls", "http://127.0.0.1:2380"),
                ("log-level", "warn"),
                // What it keeps ends with the room.
                ("unsafe-no-fsync", "true"),
            ],
        )?;
        fs::write(self.room.outside(AUDIT_POLICY), AUDITED)?;
        self.start_api_server()?;
        let kubeconfig = "/run/kubernetes/controller-manager.conf";
        let mut flags = vec![
            ("kubeconfig", kubeconfig.to_owned()),
            ("authentication-kubeconfig", kubeconfig.to_owned()),
            ("authorization-kubeconfig", kubeconfig.to_owned()),
            ("allocate-node-cidrs", "true".to_owned()),
            ("cluster-cidr", families.list(layout::POD_RANGES.0, layout::POD_RANGES.1)),
            ("service-cluster-ip-range", services),
            ("cluster-signing-cert-file", pki("ca.crt")),
            ("cluster-signing-key-file", pki("ca.key")),
            ("client-ca-file", pki("ca.crt")),
            ("root-ca-file", pki("ca.crt")),
            ("service-account-private-key-file", pki("sa.key")),
            ("use-service-account-credentials", "true".to_owned()),
            ("controllers", "*,bootstrapsigner,tokencleaner".to_owned()),
            ("leader-elect", "false".to_owned()),
        ];
        let (mask4, mask6) = layout::NODE_MASKS;
        match families {
            Families::DualStack => {
                flags.push(("node-cidr-mask-size-ipv4", mask4.to_string()));
                flags.push(("node-cidr-mask-size-ipv6", mask6.to_string()));
            }
            one => flags.push(("node-cidr-mask-size", one.first(mask4, mask6).to_string())),
        }
        let flags: Vec<(&str, &str)> = flags.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.begin("kube-controller-manager", &flags)?;
        let kubeconfig = "/run/kubernetes/scheduler.conf";
        self.begin(
            "kube-scheduler",
            &[
                ("kubeconfig", kubeconfig),
                ("authentication-kubeconfig", kubeconfig),
                ("authorization-kubeconfig", kubeconfig),
                ("leader-elect", "false"),
            ],
        )
    }

    /// Starts the API server and waits until it answers.
    pub fn start_api_server(&mut self) -> anyhow::Result<()> {
        let pki = |file: &str| format!("/run/kubernetes/pki/{file}");
        let families = self.families;
        let (v4, v6) = layout::underlay(layout::CONTROL);
        let services = families.list(layout::SERVICE_RANGES.0, layout::SERVICE_RANGES.1);
        self.begin(
            "kube-apiserver",
            &[
                ("etcd-servers", "http://127.0.0.1:2379"),
                ("advertise-address", &families.first(v4.to_string(), v6.to_string())),
                ("secure-port", &layout::API_PORT.to_string()),
                ("service-cluster-ip-range", &services),
                ("service-account-key-file", &pki("sa.pub")),
                ("service-account-signing-key-file", &pki("sa.key")),
                ("service-account-issuer", "https://kubernetes.default.svc.cluster.local"),
                ("client-ca-file", &pki("ca.crt")),
                ("tls-cert-file", &pki("apiserver.crt")),
                ("tls-private-key-file", &pki("apiserver.key")),
                ("kubelet-client-certificate", &pki("apiserver-kubelet-client.crt")),
                ("kubelet-client-key", &pki("apiserver-kubelet-client.key")),
                ("kubelet-preferred-address-types", "InternalIP"),
                ("requestheader-client-ca-file", &pki("front-proxy-ca.crt")),
                ("requestheader-allowed-names", "front-proxy-client"),
                ("requestheader-username-headers", "X-Remote-User"),
                ("requestheader-group-headers", "X-Remote-Group"),
                ("requestheader-extra-headers-prefix", "X-Remote-Extra-"),
                ("proxy-client-cert-file", &pki("front-proxy-client.crt")),
                ("proxy-client-key-file", &pki("front-proxy-client.key")),
                ("authorization-mode", "Node,RBAC"),
                ("enable-admission-plugins", "NodeRestriction"),
                ("enable-bootstrap-token-auth", "true"),
                ("allow-privileged", "true"),
                ("audit-policy-file", AUDIT_POLICY),
                ("audit-log-path", AUDIT_LOG),
            ],
        )?;
        let began = Instant::now();
        while let Err(error) = self.kubectl(&["get", "--raw=/readyz"]) {
            for process in &mut self.processes {
                process.must_run()?;
            }
            if began.elapsed() > PATIENCE {
                bail!("the API server is not ready after {PATIENCE:?}: {error:#}\n{}", self.tails());
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// What the agent has asked the API server for: one event a line, as audit.k8s.io/v1 Event.
    pub fn audit_log(&self) -> anyhow::Result<String> {
        let path = self.room.outside(AUDIT_LOG);
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    }

    /// Ends the API server, and nothing else.
    pub fn stop_api_server(&mut self) -> anyhow::Result<()> {
        let at = self.processes.iter().position(|process| process.name() == "kube-apiserver");
        let process = self.processes.remove(at.context("the API server does not run")?);
        self.room.kill(process)
    }

    fn begin(&mut self, name: &str, flags: &[(&str, &str)]) -> anyhow::Result<()> {
        let flags: Vec<String> = flags.iter().map(|(name, value)| format!("--{name}={value}")).collect();
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let process = self.room.start(name, format!("/run/k8s/{name}"), &flags)?;
        // What is started later ends first.
        self.processes.insert(0, process);
        Ok(())
    }

    /// Lets nodes in with the token, and people with kubeadm's kubeconfig, as `kubeadm init` does.
    fn welcome_nodes(&self) -> anyhow::Result<()> {
        for (name, role, group_or_user) in [
            ("kubeadm:cluster-admins", "cluster-admin", "--group=kubeadm:cluster-admins"),
            ("test:kubelet-api", "system:kubelet-api-admin", "--user=kube-apiserver-kubelet-client"),
        ] {
            self.kubectl(&["create", "clusterrolebinding", name, &format!("--clusterrole={role}"), group_or_user])?;
        }
        self.run(
            "kubeadm",
            &[
                "init",
                "phase",
                "bootstrap-token",
                "--config=/run/kubernetes/kubeadm.yaml",
                "--kubeconfig=/run/kubernetes/super-admin.conf",
            ],
            None,
        )?;
        Ok(())
    }

    /// The ends of all logs.
    pub fn tails(&self) -> String {
        self.processes.iter().map(|process| process.tail() + "\n").collect()
    }
}
