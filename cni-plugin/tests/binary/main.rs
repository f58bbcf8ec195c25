//! The built binary against a daemon on a real socket: what only the real thing shows, such as a daemon
//! that hangs, dies or is none. Everything that strings can show is tested beside the code.

mod cnitool;
mod daemon;

use std::{
    fs,
    io::{Read, Write},
    os::unix::{
        fs::MetadataExt,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use daemon::{Behaviour, Daemon};
use prost::Message;
use proto::bulkhead::cni::v1::Tombstone;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder with a socket and a state folder in it. Another network namespace is not to be had without
/// privilege, so CNI_NETNS_OVERRIDE lets our own pass.
struct Node {
    dir: TempDir,
}

impl Node {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("cni.sock")
    }

    fn tombstone(&self) -> PathBuf {
        self.dir.path().join("state/tombstones/shop:c1:eth0.del")
    }

    fn conf(&self) -> Value {
        json!({
            "cniVersion": "1.1.0",
            "name": "shop",
            "type": "bulkhead-cni",
            "socket": self.socket(),
            "stateDir": self.dir.path().join("state"),
            "timeoutSeconds": 1,
            "prevResult": {"ips": [{"address": "10.0.0.2/32"}]},
        })
    }

    fn run(&self, command: &str) -> Output {
        run(command, &self.conf())
    }
}

fn plugin(command: &str) -> Command {
    let mut plugin = Command::new(env!("CARGO_BIN_EXE_bulkhead-cni"));
    plugin
        .env_clear()
        .envs([
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", "c1"),
            ("CNI_NETNS", "/proc/self/ns/net"),
            ("CNI_NETNS_OVERRIDE", "1"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", "/opt/cni/bin"),
            ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web"),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    plugin
}

fn run(command: &str, conf: &Value) -> Output {
    let mut child = plugin(command).spawn().unwrap();
    child.stdin.take().unwrap().write_all(conf.to_string().as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn error(output: &Output) -> (u64, String) {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    (value["code"].as_u64().unwrap(), value["msg"].as_str().unwrap().to_owned())
}

fn succeeded(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn every_command_reaches_the_daemon() {
    let node = Node::new();
    let daemon = Daemon::start(&node.socket(), Behaviour::Serve);
    let inode = fs::metadata("/proc/self/ns/net").unwrap().ino();
    let result: Value = serde_json::from_str(&succeeded(&node.run("ADD"))).unwrap();
    assert_eq!(result["interfaces"][1], json!({"name": "eth0", "sandbox": "/proc/self/ns/net"}));
    assert_eq!(result["ips"][1], json!({"address": "10.0.0.2/32", "interface": 1}));
    for command in ["CHECK", "STATUS", "GC", "DEL"] {
        assert_eq!(succeeded(&node.run(command)), "");
    }
    let heard: Vec<_> = daemon.heard.try_iter().collect();
    assert_eq!(
        heard,
        [
            format!("ADD eth0 shop/web inode {inode}"),
            "CHECK eth0 with 1 addresses".to_owned(),
            "STATUS shop".to_owned(),
            "GC None".to_owned(),
            "DEL eth0 with 1 addresses".to_owned(),
        ]
    );
    assert!(!node.tombstone().exists());
}

/// What each command does when the daemon cannot be had, whatever the reason.
fn assert_absence(node: &Node, reason: &str) {
    for (command, code) in [("ADD", 11), ("CHECK", 11), ("GC", 11), ("STATUS", 50)] {
        let (found, msg) = error(&node.run(command));
        assert_eq!(found, code, "{command}: {msg}");
        assert!(msg.contains(reason) && msg.contains(node.socket().to_str().unwrap()), "{command}: {msg}");
    }
    assert_eq!(succeeded(&node.run("DEL")), "");
    let stone = Tombstone::decode(fs::read(node.tombstone()).unwrap().as_slice()).unwrap();
    let request = stone.request.unwrap();
    assert_eq!(request.id.unwrap().container_id, "c1");
    assert_eq!(request.pod.unwrap().name, "web");
    assert_eq!(request.prev_result.unwrap().ips[0].address, "10.0.0.2/32");
    assert!(stone.deleted_at_unix_ms > 1_700_000_000_000);
    assert_eq!(fs::read_dir(node.tombstone().parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn no_socket() {
    assert_absence(&Node::new(), "No such file or directory");
}

#[test]
fn a_socket_that_nobody_listens_on() {
    let node = Node::new();
    drop(UnixListener::bind(node.socket()).unwrap());
    assert_absence(&node, "Connection refused");
}

#[test]
fn a_file_in_the_sockets_place() {
    let node = Node::new();
    fs::write(node.socket(), "").unwrap();
    assert_absence(&node, "Connection refused");
}

#[test]
fn a_daemon_that_hangs() {
    let node = Node::new();
    let _daemon = Daemon::start(&node.socket(), Behaviour::Hang);
    let start = Instant::now();
    assert_absence(&node, "did not answer");
    assert!(start.elapsed() >= Duration::from_secs(5), "five calls of a second each");
}

#[test]
fn a_listener_that_never_accepts() {
    let node = Node::new();
    let _listener = UnixListener::bind(node.socket()).unwrap();
    assert_absence(&node, "did not answer");
}

#[test]
fn a_daemon_that_is_shutting_down() {
    let node = Node::new();
    let _daemon = Daemon::start(&node.socket(), Behaviour::Fail(tonic::Code::Unavailable));
    assert_absence(&node, "went away");
}

/// Plays something that accepts, and serves each connection by `serve`, until dropped.
struct Peer {
    socket: PathBuf,
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Peer {
    fn start(socket: &Path, serve: fn(UnixStream)) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(std::sync::atomic::Ordering::SeqCst) {
                    return;
                }
                serve(stream.unwrap());
            }
        });
        Self { socket: socket.to_owned(), stop, thread: Some(thread) }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::SeqCst);
        let _ = UnixStream::connect(&self.socket);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

#[test]
fn a_daemon_that_dies_during_the_call() {
    let node = Node::new();
    let _peer = Peer::start(&node.socket(), |mut stream| {
        // An empty SETTINGS frame (RFC 9113 section 6.5), the request, in however many pieces it
        // comes, and the end.
        let mut buffer = [0; 4096];
        let _ = stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
        let _ = stream.set_read_timeout(Some(Duration::from_millis(100)));
        while stream.read(&mut buffer).is_ok_and(|length| length > 0) {}
    });
    assert_absence(&node, "went away");
}

#[test]
fn a_peer_that_speaks_something_else() {
    let node = Node::new();
    let _peer = Peer::start(&node.socket(), |mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        let _ = stream.read(&mut [0; 4096]);
    });
    assert_absence(&node, "bulkhead-daemon");
}

#[test]
fn an_older_daemon_is_named_as_such() {
    let node = Node::new();
    let _daemon = Daemon::start(&node.socket(), Behaviour::Fail(tonic::Code::Unimplemented));
    for command in ["ADD", "DEL", "CHECK", "GC", "STATUS"] {
        let (code, msg) = error(&node.run(command));
        assert_eq!(code, 101, "{command}");
        assert!(msg.ends_with("does not know this call"), "{msg}");
    }
    assert!(!node.tombstone().exists());
}

#[test]
fn a_daemon_with_a_defect_is_named_as_such() {
    let node = Node::new();
    let _daemon = Daemon::start(&node.socket(), Behaviour::Fail(tonic::Code::Internal));
    let (code, msg) = error(&node.run("DEL"));
    assert_eq!(code, 100);
    assert!(msg.ends_with("failed: Internal: played"), "{msg}");
    assert!(!node.tombstone().exists());
}

#[test]
fn a_result_that_cannot_be_written_is_a_failure() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = plugin("VERSION").stdin(Stdio::null()).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.starts_with("bulkhead-cni: cannot write to stdout: No space left"), "{stderr}");
}

#[test]
fn without_a_command_it_says_what_it_is() {
    let output = plugin("").stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8(output.stderr).unwrap().starts_with("bulkhead-cni "));
}

#[test]
fn version_does_not_wait_for_stdin() {
    let mut child = plugin("VERSION").spawn().unwrap();
    let _stdin = child.stdin.take();
    let mut stdout = String::new();
    child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(stdout.contains("supportedVersions"), "{stdout}");
}
