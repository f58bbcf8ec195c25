//! The cluster, pods on it, and questions from pod to pod, asked by a program in the pod's container.

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead as _, BufReader},
    net::{IpAddr, SocketAddr},
    process::{Child, ChildStdout, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use tests::cluster::{Cluster, Plan, Routing, layout::Families};

/// How long something may take to be so that takes effect at once.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// How long the control plane's controllers may take: after the API server was away they look for it in growing pauses.
const CONTROLLERS: Duration = Duration::from_secs(120);
/// How long to wait for an answer. One that is allowed takes milliseconds, on a machine with nothing else to do.
const PATIENCE: Duration = Duration::from_millis(700);
/// Ports that pods serve, for TCP and UDP.
pub(crate) const PORTS: [u16; 2] = [80, 81];

/// See the module.
pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
}

/// A pod that serves and asks.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    /// `namespace/name`.
    pub(crate) key: String,
    /// Its addresses, IPv4 first.
    pub(crate) ips: Vec<IpAddr>,
}

/// One question and the answer it should get.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) from: String,
    /// For people.
    pub(crate) to: String,
    /// `tcp:10.0.0.1:80`.
    pub(crate) target: String,
    /// `yes`, `refused` or `silence`.
    pub(crate) answer: &'static str,
}

impl Stage {
    /// Two nodes, both families, kube-proxy, and Bulkhead. `BULKHEAD_TEST_ROUTING` says how packets get from node to node.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let routing = match env::var("BULKHEAD_TEST_ROUTING").as_deref() {
            Ok("overlay") | Err(_) => Routing::Overlay,
            Ok("native") => Routing::Native,
            Ok(other) => bail!("BULKHEAD_TEST_ROUTING is {other:?}: native or overlay"),
        };
        Self::of(Plan { routing, ..Plan::default() })
    }

    /// A cluster of another kind, with Bulkhead.
    pub(crate) fn of(plan: Plan) -> anyhow::Result<Self> {
        let mut cluster = Cluster::start(plan, |_| {})?;
        cluster.install()?;
        Ok(Self { cluster })
    }

    pub(crate) fn tails(&self) -> String {
        self.cluster.tails()
    }

    /// Waits until the agent of each node answers.
    pub(crate) fn agents_answer(&self) -> anyhow::Result<()> {
        for node in &self.cluster.nodes {
            soon(&format!("the agent of {} answers", node.name), || node.daemon_answers())?;
        }
        Ok(())
    }

    pub(crate) fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.cluster.control.kubectl(arguments)
    }

    pub(crate) fn apply(&self, objects: &[Value]) -> anyhow::Result<()> {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        self.cluster.control.kubectl_with(&["apply", "-f", "-"], &list.to_string()).map(drop)
    }

    /// Makes namespaces and waits until pods can be made in them.
    pub(crate) fn namespaces(&self, names: &[&str]) -> anyhow::Result<()> {
        let objects: Vec<Value> = names
            .iter()
            .map(|name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))
            .collect();
        self.apply(&objects)?;
        for name in names {
            within(CONTROLLERS, &format!("service account of {name}"), || {
                self.kubectl(&["get", "serviceaccount", "default", "-n", name, "-o", "name"]).map(drop)
            })?;
        }
        Ok(())
    }

    /// Removes namespaces with everything in them. Nobody waits for that, which takes ten seconds: each has its name once.
    pub(crate) fn forget(&self, names: &[&str]) -> anyhow::Result<()> {
        let arguments: Vec<&str> = ["delete", "namespace", "--wait=false"].iter().chain(names).copied().collect();
        self.kubectl(&arguments).map(drop)
    }

    /// Makes pods that serve [`PORTS`]; each is `namespace/name`, its labels, and the node it is to be on.
    pub(crate) fn pods(&self, wanted: &[(&str, Value, &str)]) -> anyhow::Result<BTreeMap<String, Pod>> {
        let objects = wanted
            .iter()
            .map(|(key, labels, node)| pod(key, labels, node, json!({})))
            .collect::<anyhow::Result<Vec<Value>>>()?;
        self.apply(&objects)?;
        wanted.iter().map(|(key, ..)| Ok(((*key).to_owned(), self.ready(key)?))).collect()
    }

    /// Makes a pod that has its node's network, serves nothing, and can be told to ask.
    pub(crate) fn host_pod(&self, key: &str, labels: &Value, node: &str) -> anyhow::Result<()> {
        let (namespace, name) = key.split_once('/').context("a pod is namespace/name")?;
        let idle = json!({"command": ["/bin/sleep", "100000"], "ports": [], "readinessProbe": null});
        let mut object = pod(key, labels, node, idle)?;
        object["spec"]["hostNetwork"] = json!(true);
        self.apply(&[object])?;
        let name = format!("pod/{name}");
        self.kubectl(&["wait", "-n", namespace, "--for=condition=Ready", &name, "--timeout=120s"]).map(drop)
    }

    /// Waits until a pod is ready.
    pub(crate) fn ready(&self, key: &str) -> anyhow::Result<Pod> {
        let (namespace, name) = key.split_once('/').context("a pod is namespace/name")?;
        self.kubectl(&["wait", "-n", namespace, "--for=condition=Ready", "pod", name, "--timeout=120s"])
            .with_context(|| self.kubectl(&["describe", "pod", "-n", namespace, name]).unwrap_or_default())?;
        let object = serde_json::from_str(&self.kubectl(&["get", "pod", "-n", namespace, name, "-o", "json"])?)?;
        Pod::of(&object, self.cluster.plan.families)
    }

    /// All pods of a namespace, which are ready.
    pub(crate) fn found(&self, namespace: &str) -> anyhow::Result<BTreeMap<String, Pod>> {
        let list: Value = serde_json::from_str(&self.kubectl(&["get", "pods", "-n", namespace, "-o", "json"])?)?;
        let pods = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        let families = self.cluster.plan.families;
        pods.iter().map(|object| Pod::of(object, families).map(|pod| (pod.key.clone(), pod))).collect()
    }

    /// Runs a command in a pod's container.
    pub(crate) fn exec(&self, key: &str, command: &[&str]) -> anyhow::Result<String> {
        let (namespace, name) = key.split_once('/').context("a pod is namespace/name")?;
        let arguments: Vec<&str> = ["exec", "-n", namespace, name, "--"].iter().chain(command).copied().collect();
        self.kubectl(&arguments)
    }

    /// A connection from a pod to port 80 of another, on which something is said all the time.
    pub(crate) fn session(&self, from: &str, to: &Pod) -> anyhow::Result<Session> {
        let (namespace, name) = from.split_once('/').context("a pod is namespace/name")?;
        let target = format!("tcp:{}", SocketAddr::new(to.ips[0], 80));
        let mut command = self.cluster.control.program("kubectl");
        command.args(["exec", "-i", "-n", namespace, name, "--", "/own/talk", "stay", &target]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
        let mut output = BufReader::new(child.stdout.take().context("output of kubectl")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        ensure!(line == "begun\n", "the connection of {from} begins with {line:?}");
        Ok(Session { child, output })
    }

    /// Asks everything once. Returns the answers, in the order of the questions.
    pub(crate) fn answers(&self, asks: &[Ask]) -> anyhow::Result<Vec<String>> {
        let mut by_sender: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (at, ask) in asks.iter().enumerate() {
            by_sender.entry(&ask.from).or_default().push(at);
        }
        let patience = PATIENCE.as_millis().to_string();
        let mut all = vec![String::new(); asks.len()];
        thread::scope(|scope| {
            let threads: Vec<_> = by_sender
                .into_iter()
                .map(|(from, places)| {
                    let patience = patience.as_str();
                    scope.spawn(move || {
                        let targets = places.iter().map(|at| asks[*at].target.as_str());
                        let command: Vec<&str> = ["/own/talk", "ask", patience].into_iter().chain(targets).collect();
                        let said = self.exec(from, &command)?;
                        let answers: Vec<String> =
                            said.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
                        let (found, wanted) = (answers.len(), places.len());
                        ensure!(found == wanted, "{from} has {found} answers of {wanted}: {said}");
                        Ok(places.into_iter().zip(answers))
                    })
                })
                .collect();
            for thread in threads {
                for (at, answer) in thread.join().map_err(|_| anyhow::anyhow!("a thread has panicked"))?? {
                    all[at] = answer;
                }
            }
            Ok(all)
        })
    }

    /// Asks until every answer is as it should be: what has just been changed is in force a moment later.
    pub(crate) fn expect(&self, asks: &[Ask]) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let answers = self.answers(asks)?;
            let wrong = asks.iter().zip(&answers).filter(|(ask, answer)| ask.answer != **answer);
            let wrong: Vec<String> = wrong.map(|(ask, answer)| ask.told(answer)).collect();
            if wrong.is_empty() {
                return Ok(());
            }
            if began.elapsed() > SOON {
                bail!("after {SOON:?} {} of {} answers are wrong:\n{}", wrong.len(), asks.len(), wrong.join("\n"));
            }
        }
    }
}

/// See [`Stage::session`].
pub(crate) struct Session {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Session {
    /// Ends it; fails if it did not live until now or a packet was lost.
    pub(crate) fn unharmed(mut self) -> anyhow::Result<()> {
        drop(self.child.stdin.take());
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let count: u64 = line.split(' ').next().and_then(|count| count.parse().ok()).unwrap_or_default();
        ensure!(count > 100 && line.ends_with(", 0 segments sent again\n"), "the connection ended with {line:?}");
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Pod {
    /// From what the API server says of it, in a cluster of these families.
    fn of(object: &Value, families: Families) -> anyhow::Result<Self> {
        let word = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
        let key = format!("{}/{}", word("namespace"), word("name"));
        let ips = object["status"]["podIPs"].as_array().map(Vec::as_slice).unwrap_or_default();
        let ips: Vec<IpAddr> = ips
            .iter()
            .map(|ip| Ok(ip["ip"].as_str().context("an address")?.parse()?))
            .collect::<anyhow::Result<_>>()?;
        let wanted = [(families.has_v4(), true), (families.has_v6(), false)];
        let wanted = wanted.into_iter().filter(|(there, _)| *there).map(|(_, is_v4)| is_v4);
        ensure!(ips.iter().map(IpAddr::is_ipv4).eq(wanted), "{key} has the addresses {ips:?}");
        Ok(Self { key, ips })
    }
}

impl Ask {
    /// About each address of a pod.
    pub(crate) fn both(from: &str, to: &Pod, protocol: &str, port: u16, answer: &'static str) -> Vec<Self> {
        let ask = |ip: &IpAddr| Self {
            from: from.to_owned(),
            to: to.key.clone(),
            target: format!("{protocol}:{}", SocketAddr::new(*ip, port)),
            answer,
        };
        to.ips.iter().map(ask).collect()
    }

    fn told(&self, answer: &str) -> String {
        let Self { from, to, target, answer: wanted } = self;
        format!("{from} -> {to} ({target}): {answer}, not {wanted}")
    }
}

/// A pod's object. `more` is merged into its spec's container.
pub(crate) fn pod(key: &str, labels: &Value, node: &str, more: Value) -> anyhow::Result<Value> {
    let (namespace, name) = key.split_once('/').context("a pod is namespace/name")?;
    let own = env::current_exe().context("where this program is")?;
    let own = own.parent().and_then(|deps| deps.parent()).context("a program lies in a folder")?;
    let protocols = ["TCP", "UDP"];
    let ports: Vec<Value> = PORTS
        .iter()
        .flat_map(|port| protocols.map(|protocol| (port, protocol)))
        .map(|(port, protocol)| {
            let name = format!("serve-{port}-{}", protocol.to_lowercase());
            json!({"name": name, "containerPort": port, "protocol": protocol})
        })
        .collect();
    // What our own program needs: itself, and the machine's libraries.
    let folders = [
        ("own", own.to_str().context("the path is text")?, "/own"),
        ("usr", "/usr", "/usr"),
        ("lib", "/lib", "/lib"),
        ("lib64", "/lib64", "/lib64"),
    ];
    let volumes: Vec<Value> =
        folders.iter().map(|(name, path, _)| json!({"name": name, "hostPath": {"path": path}})).collect();
    let mounts: Vec<Value> =
        folders.iter().map(|(name, _, at)| json!({"name": name, "mountPath": at, "readOnly": true})).collect();
    let mut container = json!({
        "name": "talk",
        "image": tests::image::NAME,
        "imagePullPolicy": "Never",
        "command": ["/own/talk", "serve", "tcp:80", "tcp:81", "udp:80", "udp:81"],
        "ports": ports,
        "volumeMounts": mounts,
        "readinessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 1},
    });
    for (field, value) in more.as_object().into_iter().flatten() {
        container[field] = value.clone();
    }
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "containers": [container],
            "volumes": volumes,
        },
    }))
}

/// Tries until it succeeds.
pub(crate) fn soon(what: &str, attempt: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
    within(SOON, what, attempt)
}

/// The same, for so long.
fn within(patience: Duration, what: &str, mut attempt: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let Err(error) = attempt() else { return Ok(()) };
        if began.elapsed() > patience {
            return Err(error.context(format!("{what}: not after {patience:?}")));
        }
        thread::sleep(Duration::from_millis(50));
    }
}
