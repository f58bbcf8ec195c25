//! The cluster that a process in the background has, and what tells of it: /run/bulkhead-cluster.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Seek as _, SeekFrom},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::{Value, json};
use tests::cluster::{Cluster, Plan};
use tokio::signal::unix::{SignalKind, signal};

const FOLDER: &str = "/run/bulkhead-cluster";
/// Says which process has it, and what is where.
const STATE: &str = "/run/bulkhead-cluster/cluster.json";
/// What that process says.
const LOG: &str = "/run/bulkhead-cluster/log";
/// The last line of the log when all is there.
const READY: &str = "ready";
/// How long everything in a cluster may take to end.
const ENDING: Duration = Duration::from_secs(60);

/// A cluster that runs.
pub(crate) struct Held {
    pid: i32,
    state: Value,
}

impl Held {
    /// The one that runs.
    pub(crate) fn find() -> anyhow::Result<Self> {
        match Self::look()? {
            Some(held) if held.state.get("control").is_some() => Ok(held),
            Some(_) => bail!("the cluster is still starting, see {LOG}"),
            None => bail!("no cluster runs: start one with `cargo xtask cluster up`"),
        }
    }

    fn look() -> anyhow::Result<Option<Self>> {
        let Ok(text) = fs::read_to_string(STATE) else { return Ok(None) };
        let state: Value = serde_json::from_str(&text).with_context(|| STATE.to_owned())?;
        let pid = state["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).context("a state without a process")?;
        Ok(is_holder(pid).then_some(Self { pid, state }))
    }

    pub(crate) fn describe(&self) {
        println!("logs        {LOG}, and /proc/{}/root/run/log", self.state["control"]);
        println!("kubeconfig  /proc/{}/root/run/kubernetes/super-admin.conf", self.state["control"]);
        for (name, holder) in self.state["nodes"].as_object().into_iter().flatten() {
            println!("node {name}     /proc/{holder}/root");
        }
    }

    /// kubectl, which reaches the API server in its namespace.
    pub(crate) fn kubectl(&self) -> Command {
        let mut command = self.inside(&self.state["control"]);
        // Files that the user names lie where the user is; the way into a namespace leads to its root.
        command.args(["sh", "-c", r#"cd "$0" && exec /run/k8s/kubectl "$@""#]);
        command.arg(std::env::current_dir().unwrap_or_else(|_| "/".into()));
        command
    }

    /// A shell, or a command, in a node's or the control plane's place.
    pub(crate) fn shell(&self, node: Option<&str>, words: &[String]) -> anyhow::Result<Command> {
        let holder = match node {
            None => &self.state["control"],
            Some(name) => self.state["nodes"].get(name).with_context(|| {
                let names: Vec<&String> =
                    self.state["nodes"].as_object().into_iter().flatten().map(|it| it.0).collect();
                format!("there is no node {name:?}, only {names:?}")
            })?,
        };
        let mut command = self.inside(holder);
        if words.is_empty() {
            let shell = std::env::var("SHELL").unwrap_or_else(|_| "/bin/sh".to_owned());
            command.arg(shell);
        } else {
            command.args(words);
        }
        Ok(command)
    }

    /// Gives an image to every node.
    pub(crate) fn import(&self, archive: &Path) -> anyhow::Result<()> {
        for (name, holder) in self.state["nodes"].as_object().into_iter().flatten() {
            let file = File::open(archive).with_context(|| format!("reading {}", archive.display()))?;
            let mut import = self.inside(holder);
            import.args(["/run/k8s/ctr", "--namespace=k8s.io", "images", "import", "-"]).stdin(file);
            let output = import.output()?;
            ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr).trim());
            println!("{name} has {}", archive.display());
        }
        Ok(())
    }

    fn inside(&self, holder: &Value) -> Command {
        let mut command = Command::new("nsenter");
        command.args([format!("--target={holder}"), "--mount".to_owned(), "--net".to_owned()]);
        command.arg(format!("--pid=/proc/{holder}/ns/pid_for_children")).arg("--");
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("/run/k8s:{path}"));
        command.env("KUBECONFIG", "/run/kubernetes/super-admin.conf");
        command
    }
}

/// Whether a process is one that has a cluster: its number may be another's by now.
fn is_holder(pid: i32) -> bool {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = words.split(|byte| *byte == 0);
    words.next().is_some_and(|program| program.ends_with(b"cluster")) && words.next() == Some(b"hold")
}

/// Starts the process that has a cluster, and waits until all is there.
pub(crate) fn up(words: &[String]) -> anyhow::Result<()> {
    if Held::look()?.is_some() {
        bail!("a cluster runs already: `cargo xtask cluster status`, or `down`");
    }
    fs::create_dir_all(FOLDER).with_context(|| format!("making {FOLDER}"))?;
    let log = File::create(LOG).with_context(|| format!("making {LOG}"))?;
    let mut holder = Command::new(std::env::current_exe()?);
    holder.arg("hold").args(words).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    // Ctrl-C here is not meant for it once it runs.
    let mut holder = holder.process_group(0).spawn().context("starting the process that has the cluster")?;
    let interrupted = interruption()?;
    let mut read = BufReader::new(File::open(LOG)?);
    let began = Instant::now();
    loop {
        let mut line = String::new();
        while read.read_line(&mut line)? > 0 {
            if line.trim() == READY {
                println!(
                    "Up after {} s. `cargo xtask cluster kubectl get nodes`, `cargo xtask cluster shell`",
                    began.elapsed().as_secs()
                );
                return Ok(());
            }
            if line.ends_with('\n') {
                eprint!("{line}");
                line.clear();
            } else {
                read.seek(SeekFrom::Current(-i64::try_from(line.len())?))?;
                break;
            }
        }
        if let Some(status) = holder.try_wait()? {
            bail!("the cluster did not start ({status}); see above, and {LOG}");
        }
        if interrupted.recv_timeout(Duration::from_millis(100)).is_ok() {
            end(i32::try_from(holder.id())?)?;
            bail!("interrupted: nothing is left of the cluster");
        }
    }
}

/// Has a cluster until a signal comes.
pub(crate) fn hold(plan: Plan) -> anyhow::Result<()> {
    let write = |state: Value| {
        let unfinished = Path::new(FOLDER).join("new");
        fs::write(&unfinished, state.to_string())?;
        fs::rename(&unfinished, STATE)
    };
    let pid = std::process::id();
    write(json!({"pid": pid}))?;
    let ended = interruption()?;
    let (started, wait) = (Arc::new(AtomicBool::new(false)), Arc::new(Barrier::new(2)));
    let (is_started, waiting) = (started.clone(), wait.clone());
    thread::spawn(move || {
        let _ = ended.recv();
        if !is_started.load(Ordering::Acquire) {
            // In the middle of something. The kernel ends what is in rooms when we do.
            let _ = fs::remove_file(STATE);
            std::process::exit(1);
        }
        waiting.wait();
    });
    let began = Instant::now();
    let cluster = Cluster::start(plan, |what| eprintln!("{:>4} s  {what}", began.elapsed().as_secs()))?;
    let nodes: serde_json::Map<String, Value> =
        cluster.nodes.iter().map(|node| (node.name.clone(), json!(node.room.holder()))).collect();
    write(json!({"pid": pid, "control": cluster.control.room.holder(), "nodes": nodes}))?;
    started.store(true, Ordering::Release);
    eprintln!("{READY}");
    wait.wait();
    drop(cluster);
    fs::remove_file(STATE)?;
    Ok(())
}

/// Ends the cluster that runs. None is as good.
pub(crate) fn down() -> anyhow::Result<()> {
    match Held::look()? {
        Some(held) => end(held.pid)?,
        None => println!("No cluster runs."),
    }
    // Of one that was killed: what the kernel does not take away with its namespaces.
    tests::owner::sweep();
    tests::cgroup::sweep();
    let _ = fs::remove_dir_all(PathBuf::from(FOLDER));
    Ok(())
}

fn end(pid: i32) -> anyhow::Result<()> {
    let process = Pid::from_raw(pid).context("a process has a number")?;
    // With what it has started outside of rooms: a compiler, for one.
    kill_process_group(process, Signal::TERM).context("ending the cluster")?;
    let began = Instant::now();
    while is_holder(pid) {
        if began.elapsed() > ENDING {
            // The kernel ends what is in its rooms.
            kill_process(process, Signal::KILL)?;
            ensure!(began.elapsed() < 2 * ENDING, "process {pid} does not end");
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Tells when somebody wants this process to end.
fn interruption() -> anyhow::Result<mpsc::Receiver<()>> {
    let (sender, receiver) = mpsc::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        let _inside = runtime.enter();
        [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?]
    };
    thread::spawn(move || {
        runtime.block_on(async {
            let [interrupt, terminate] = &mut signals;
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        });
        let _ = sender.send(());
    });
    Ok(receiver)
}
