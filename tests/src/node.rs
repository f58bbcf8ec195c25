//! A throwaway node: a network namespace with folders, a daemon and a folder of manifests. All of
//! it goes when the value is dropped.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use crate::{
    agent::{self, Agent, Group},
    ask::{Ask, Bulkhead},
    owner,
    plugin::Plugin,
    pod::{Blank, Pod},
    sandbox::Sandbox,
    trial,
};

/// Ranges of the pods' addresses.
pub const POOLS: [&str; 2] = ["10.77.0.0/24", "fd77::/64"];
/// Two nodes as objects, by the addresses of their uplinks. A daemon is the first, unless its [`Setup`] says otherwise.
pub const NODES: &str = "
apiVersion: v1
kind: Node
metadata: {name: n1}
spec: {podCIDRs: [10.77.0.0/24, 'fd77::/64']}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}
---
apiVersion: v1
kind: Node
metadata: {name: n2}
spec: {podCIDRs: [10.78.0.0/24, 'fd78::/64']}
status: {addresses: [{type: InternalIP, address: 192.0.2.2}]}
";
/// Name of the CNI network.
pub const NETWORK: &str = "bulkhead-test";
/// Namespace of the policies that mark what has been read.
const MARKS: &str = "bh-marks";
/// How long anything may take that should take milliseconds. The machine may be busy, and the kernel then
/// takes its time to take namespaces and tables of others apart, for which nft waits.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How a node is to be.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Name of the namespace, and of all that goes with it.
    pub name: String,
    /// What its daemon calls it.
    pub node: String,
    /// More arguments of `bulkhead-daemon run`.
    pub arguments: Vec<String>,
    /// Ranges of the pods' addresses.
    pub pools: Vec<String>,
    /// Who gets a Ctrl-C.
    pub group: Group,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            name: owner::fresh_name(),
            node: "n1".to_owned(),
            arguments: Vec::new(),
            pools: POOLS.map(str::to_owned).to_vec(),
            group: Group::Ours,
        }
    }
}

/// A node.
#[derive(Debug)]
pub struct Node {
    setup: Setup,
    agent: Option<Agent>,
    marks: AtomicU32,
    kept: bool,
    /// Its namespace. Last, so that the daemon goes first.
    pub sandbox: Sandbox,
}

impl Node {
    /// With these manifests (name of the file, text), ready for pods.
    pub fn start(manifests: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::start_as(Setup::default(), manifests)
    }

    /// As [`Node::start`], set up as told.
    pub fn start_as(setup: Setup, manifests: &[(&str, &str)]) -> anyhow::Result<Self> {
        let mut node = Self::without_daemon(setup, manifests)?;
        node.start_daemon()?;
        Ok(node)
    }

    /// A node whose daemon does not run yet.
    pub fn without_daemon(setup: Setup, manifests: &[(&str, &str)]) -> anyhow::Result<Self> {
        // A real node has an uplink before its first pod: index 2 is taken.
        let sandbox = Sandbox::named(&setup.name, "link set lo up\nlink add spare0 type veth peer name spare1\n")?;
        let node = Self { setup, agent: None, marks: AtomicU32::new(0), kept: false, sandbox };
        fs::create_dir_all(node.objects()).context("a folder for manifests")?;
        for (file, text) in manifests {
            node.write(file, text)?;
        }
        Ok(node)
    }

    /// Its name, and that of its namespace.
    pub fn name(&self) -> &str {
        &self.setup.name
    }

    /// The folder of all that is its own.
    pub fn folder(&self) -> PathBuf {
        owner::folder(self.name())
    }

    /// The folder of manifests.
    pub fn objects(&self) -> PathBuf {
        self.folder().join("objects")
    }

    /// The folder of pins.
    pub fn pins(&self) -> PathBuf {
        owner::pins(self.name())
    }

    /// The daemon's state folder.
    pub fn state(&self) -> PathBuf {
        self.folder().join("state")
    }

    /// The socket of the CNI service.
    pub fn cni_socket(&self) -> PathBuf {
        self.folder().join("run/cni.sock")
    }

    /// The socket of the API.
    pub fn api_socket(&self) -> PathBuf {
        self.folder().join("run/api.sock")
    }

    /// The daemon's log.
    pub fn log(&self) -> PathBuf {
        self.folder().join("daemon.log")
    }

    /// Gives the next daemon other ranges of pods' addresses.
    pub fn set_pools(&mut self, pools: &[&str]) {
        self.setup.pools = pools.iter().map(|&pool| pool.to_owned()).collect();
    }

    /// Gives the next daemon other arguments.
    pub fn set_arguments(&mut self, arguments: &[&str]) {
        self.setup.arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
    }

    /// Where things are, as flags of the daemon.
    pub fn places(&self) -> Vec<String> {
        let folder = self.folder();
        let mut places = vec![
            format!("--run-dir={}", folder.join("run").display()),
            format!("--state-dir={}", self.state().display()),
            format!("--pin-dir={}", self.pins().display()),
        ];
        places.extend(self.setup.pools.iter().map(|pool| format!("--pool={pool}")));
        places
    }

    /// Starts the daemon, on what an earlier one has left, and waits until it serves.
    pub fn start_daemon(&mut self) -> anyhow::Result<()> {
        self.spawn_daemon()?;
        self.wait_until_ready()
    }

    /// Starts the daemon and does not wait.
    pub fn spawn_daemon(&mut self) -> anyhow::Result<()> {
        let mut arguments = vec![
            "run".to_owned(),
            format!("--source=directory:{}", self.objects().display()),
            format!("--node-name={}", self.setup.node),
        ];
        arguments.extend(self.places());
        arguments.extend(self.setup.arguments.iter().cloned());
        self.agent = Some(Agent::start(&self.sandbox, &arguments, self.setup.group, &self.log())?);
        Ok(())
    }

    /// Waits until the daemon serves and has read its manifests.
    pub fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            self.agent.as_mut().context("the daemon was not started")?.must_run()?;
            // The CNI socket comes last.
            if self.cni_socket().exists()
                && self.ask()?.status().is_ok_and(|status| status.source.is_some_and(|source| source.synced))
            {
                return Ok(());
            }
            if began.elapsed() > PATIENCE {
                bail!("the daemon is not ready after {PATIENCE:?}; its log ends with:\n{}", agent::tail(&self.log()));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The daemon.
    ///
    /// # Errors
    /// It does not run.
    pub fn agent(&mut self) -> anyhow::Result<&mut Agent> {
        let agent = self.agent.as_mut().context("the daemon was not started")?;
        agent.must_run()?;
        Ok(agent)
    }

    /// Takes the daemon out, to be killed or stopped.
    pub fn take_agent(&mut self) -> anyhow::Result<Agent> {
        self.agent.take().context("the daemon was not started")
    }

    /// Names of the node's ends of pods' links.
    pub fn pod_links(&self) -> anyhow::Result<BTreeSet<String>> {
        let links: Value = serde_json::from_str(&self.sandbox.said("ip", &["-json", "link"])?)?;
        let names = links.as_array().into_iter().flatten().filter_map(|link| link["ifname"].as_str());
        Ok(names.filter(|name| name.starts_with("bh")).map(str::to_owned).collect())
    }

    /// A client of the API.
    pub fn ask(&self) -> anyhow::Result<Ask> {
        Ask::at(&self.api_socket())
    }

    /// The `bulkhead` command.
    pub fn bulkhead(&self) -> Bulkhead {
        Bulkhead { server: self.api_socket() }
    }

    /// The CNI plugin with this node's network.
    pub fn plugin(&self) -> Plugin {
        Plugin {
            conf: json!({
                "cniVersion": "1.1.0",
                "name": NETWORK,
                "type": "bulkhead-cni",
                "socket": self.cni_socket(),
                "stateDir": self.state(),
            }),
        }
    }

    /// Adds a pod, named `namespace/name`.
    pub fn add(&self, key: &str) -> anyhow::Result<Pod> {
        self.blank(key)?.add()
    }

    /// Adds several pods, one after the other.
    pub fn add_all<const N: usize>(&self, keys: [&str; N]) -> anyhow::Result<[Pod; N]> {
        let mut pods = Vec::new();
        for key in keys {
            pods.push(self.add(key)?);
        }
        Ok(pods.try_into().expect("as many pods as keys"))
    }

    /// The namespace of a pod, without a network.
    pub fn blank(&self, key: &str) -> anyhow::Result<Blank> {
        Blank::new(key, &self.plugin())
    }

    /// Puts a file in the folder of manifests, as an editor does: complete from the first moment.
    /// Returns when it was there.
    pub fn write(&self, file: &str, text: &str) -> anyhow::Result<Instant> {
        let path = self.objects().join(file);
        let unfinished = self.objects().join(format!(".{file}"));
        fs::write(&unfinished, text).with_context(|| format!("writing {}", unfinished.display()))?;
        fs::rename(&unfinished, &path).with_context(|| format!("renaming to {}", path.display()))?;
        Ok(Instant::now())
    }

    /// As [`Node::write`], and waits until everything in the file is in force. Returns when it was
    /// there. The text must have no error.
    pub fn apply(&self, file: &str, text: &str) -> anyhow::Result<Instant> {
        // In the same file, so that whoever has read the mark has read the rest.
        let mark = format!("mark-{}", self.marks.fetch_add(1, Ordering::Relaxed));
        let document = format!(
            "{text}\n---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
             metadata: {{name: {mark}, namespace: {MARKS}}}\nspec: {{podSelector: {{}}, policyTypes: [Ingress]}}\n"
        );
        let at = self.write(file, &document)?;
        self.wait_for_mark(|marks| marks.contains(&mark))?;
        Ok(at)
    }

    /// Removes a file and waits until that is in force. Only files of [`Node::apply`].
    pub fn remove(&self, file: &str) -> anyhow::Result<Instant> {
        let path = self.objects().join(file);
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let (_, mark) = text.rsplit_once("{name: mark-").context("the file was not written by apply")?;
        let (number, _) = mark.split_once(',').context("the file was not written by apply")?;
        let mark = format!("mark-{number}");
        fs::remove_file(&path)?;
        let at = Instant::now();
        self.wait_for_mark(|marks| !marks.contains(&mark))?;
        Ok(at)
    }

    fn wait_for_mark(&self, done: impl Fn(&[String]) -> bool) -> anyhow::Result<()> {
        let ask = self.ask()?;
        let reached = eventually(PATIENCE, || {
            let names = |policy: proto::bulkhead::admin::v1::Policy| Some(policy.policy?.name);
            let marks: Vec<String> = ask.policies(MARKS)?.into_iter().filter_map(names).collect();
            Ok(done(&marks))
        })?;
        if !reached {
            bail!("the daemon has not read the change; its log ends with:\n{}", agent::tail(&self.log()));
        }
        // What is known is carried out before the next question is answered.
        ask.status()?;
        Ok(())
    }

    /// What the daemon's web server says at a path such as `/metrics`: status line and body.
    pub fn http(&self, path: &str) -> anyhow::Result<(String, String)> {
        let mut stream = {
            let _inside = self.sandbox.enter()?;
            TcpStream::connect("127.0.0.1:9965").context("the daemon's web server")?
        };
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let (head, body) = text.split_once("\r\n\r\n").with_context(|| format!("no HTTP: {text}"))?;
        Ok((head.lines().next().unwrap_or_default().to_owned(), body.to_owned()))
    }

    /// The value of a metric, named with its labels as they are printed.
    pub fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let (_, body) = self.http("/metrics")?;
        let value = body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = value.with_context(|| format!("no metric {name} in\n{body}"))?;
        value.parse().with_context(|| format!("{name} is {value}"))
    }

    /// Lets everything stay when this is dropped. The daemon's process, if it runs.
    pub fn keep(mut self) -> Option<u32> {
        self.kept = true;
        let pid = self.agent.as_ref().map(Agent::pid);
        if let Some(agent) = self.agent.take() {
            agent.keep();
        }
        std::mem::forget(self);
        pid
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.log().exists() {
            let log = format!("log of the daemon of {}:\n{}", self.name(), agent::tail(&self.log()));
            if thread::panicking() {
                eprintln!("{log}");
            }
            trial::remember(log);
        }
        drop(self.agent.take());
        let _ = fs::remove_dir_all(self.pins());
        owner::unmount_below(&self.folder());
        let _ = fs::remove_dir_all(self.folder());
    }
}

/// Asks again until the answer is yes; no if it never is.
pub fn eventually(patience: Duration, mut question: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<bool> {
    let began = Instant::now();
    loop {
        if question()? {
            return Ok(true);
        }
        if began.elapsed() > patience {
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a folder is there and holds anything.
pub fn holds_anything(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}
