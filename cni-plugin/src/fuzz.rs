//! Entry point for fuzzers: hostile bytes as environment, stdin and the daemon's answer of one
//! command, and what holds of whatever the runtime then gets. Nothing leaves the process: the
//! daemon is a stand-in, and is always there, so that no tombstone is written.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    os::unix::ffi::OsStringExt as _,
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use proto::bulkhead::cni::v1::{
    AddReply, AddRequest, CheckReply, CheckRequest, CniError, CniResult, DelReply, DelRequest, GcReply, GcRequest,
    Interface, Ip, Route, StatusReply, StatusRequest, add_reply::Outcome,
};
use serde_json::Value;

use crate::{
    client::{CallError, Daemon, Target},
    dispatch::{Streams, World, run},
    netns::Seen,
    version::Version,
};

/// Runs one command. `bytes` are up to three parts with a zero byte between them: lines
/// `NAME=VALUE` that change the environment of an ordinary ADD, stdin, and the daemon's answer to an
/// ADD (an encoded `AddReply`, whose error is the answer to everything else; what cannot be
/// decoded is a failed call). Without the third part the daemon serves as asked.
///
/// # Panics
///
/// When the runtime would get something that is no result and no error, or when running does;
/// both are bugs.
pub fn command(bytes: &[u8]) {
    let mut parts = bytes.splitn(3, |byte| *byte == 0);
    let env = env(parts.next().unwrap_or_default());
    let mut stdin = parts.next().unwrap_or_default();
    let answer = parts.next();
    let daemon = Scripted(answer.map(|reply| prost::Message::decode(reply).map_err(|_| ())));
    let netns = |path: &Path| match path.to_str() {
        Some("/proc/1/ns/net") => Ok(Seen { inode: 1, own: true }),
        Some(path) if path.starts_with("/run/netns/") => Ok(Seen { inode: 4_026_532_000, own: false }),
        _ => Err(io::Error::new(io::ErrorKind::NotFound, "no such file")),
    };
    let world = World {
        env: &|name| env.get(name).cloned(),
        netns: &netns,
        now: UNIX_EPOCH + Duration::from_millis(1_700_000_000_000),
        daemon: &daemon,
    };
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let exit = run(&world, Streams { stdin: &mut stdin, stdout: &mut stdout, stderr: &mut stderr });
    let command = env.get("CNI_COMMAND").and_then(|name| name.to_str());
    // Without a command somebody has run it by hand, and is told what it is.
    let by_hand = command.is_none_or(str::is_empty);
    let codes = if answer.is_some() { Codes::Any } else { Codes::Own };
    let outcome = if by_hand && exit == 0 { Ok(()) } else { is_proper(command, codes, exit, &stdout, &stderr) };
    if let Err(problem) = outcome {
        panic!("{problem}: exit {exit}, stdout {:?}", String::from_utf8_lossy(&stdout));
    }
}

/// Which codes an error may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Codes {
    /// Those that the plugin gives by itself.
    Own,
    /// Whatever the daemon says.
    Any,
}

/// What the runtime relies on (SPEC.md 1.1.0, "Execution Protocol"): one line of JSON or nothing on
/// stdout, with a version we speak, and a code and a message where there was an error.
pub(crate) fn is_proper(
    command: Option<&str>,
    codes: Codes,
    exit: u8,
    stdout: &[u8],
    stderr: &[u8],
) -> Result<(), String> {
    let ensure = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
    ensure(stderr.is_empty(), "something on stderr")?;
    if exit == 0 && !["ADD", "VERSION"].map(Some).contains(&command) {
        return ensure(stdout.is_empty(), "a result where none belongs");
    }
    let text = std::str::from_utf8(stdout).map_err(|error| error.to_string())?;
    ensure(text.lines().count() == 1, "not one line")?;
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let version = value["cniVersion"].as_str().and_then(Version::parse);
    ensure(version.is_some(), "no version")?;
    if exit == 0 {
        return ensure(value.get("code").is_none(), "an error with exit status 0");
    }
    ensure(exit == 1, "an exit status that nobody knows")?;
    let Some(code) = value["code"].as_u64() else { return Err("an error without a code".to_owned()) };
    ensure(codes == Codes::Any || matches!(code, 1..=8 | 11 | 100), "a code that is not ours")?;
    let message = value["msg"].as_str().unwrap_or_default();
    ensure(codes == Codes::Any || !message.is_empty(), "an error without a message")
}

/// The environment that a runtime gives, changed by `lines`; a line without `=` takes a variable
/// away.
fn env(lines: &[u8]) -> BTreeMap<String, OsString> {
    let usual = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/run/netns/c1"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/opt/cni/bin"),
    ];
    let mut env: BTreeMap<String, OsString> = usual.map(|(name, value)| (name.to_owned(), value.into())).into();
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let at = line.iter().position(|byte| *byte == b'=');
        let name = String::from_utf8_lossy(&line[..at.unwrap_or(line.len())]).into_owned();
        match at {
            Some(at) => drop(env.insert(name, OsString::from_vec(line[at + 1..].to_vec()))),
            None => drop(env.remove(&name)),
        }
    }
    env
}

/// A daemon that answers as told: `None` serves, an error is a call that fails.
struct Scripted(Option<Result<AddReply, ()>>);

impl Scripted {
    fn error(&self, to: &Target) -> Result<Option<CniError>, CallError> {
        match &self.0 {
            None => Ok(None),
            Some(Ok(AddReply { outcome: Some(Outcome::Error(error)) })) => Ok(Some(error.clone())),
            Some(Ok(_)) => Ok(None),
            Some(Err(())) => {
                let (socket, message) = (to.socket.clone(), "no".to_owned());
                Err(CallError::Status { socket, code: tonic::Code::Internal, message })
            }
        }
    }
}

impl Daemon for Scripted {
    fn add(&self, to: &Target, request: AddRequest) -> Result<AddReply, CallError> {
        self.error(to)?;
        match &self.0 {
            Some(Ok(reply)) => Ok(reply.clone()),
            _ => Ok(AddReply { outcome: Some(Outcome::Result(made(&request))) }),
        }
    }

    fn del(&self, to: &Target, _: DelRequest) -> Result<DelReply, CallError> {
        self.error(to).map(|error| DelReply { error })
    }

    fn check(&self, to: &Target, _: CheckRequest) -> Result<CheckReply, CallError> {
        self.error(to).map(|error| CheckReply { error })
    }

    fn gc(&self, to: &Target, _: GcRequest) -> Result<GcReply, CallError> {
        self.error(to).map(|error| GcReply { error, removed: 1 })
    }

    fn status(&self, to: &Target, _: StatusRequest) -> Result<StatusReply, CallError> {
        self.error(to).map(|error| StatusReply { error })
    }
}

/// The result of an ADD: a pair of interfaces, an address, a default route.
pub(crate) fn made(request: &AddRequest) -> CniResult {
    let ifname = request.id.as_ref().map(|id| id.ifname.clone()).unwrap_or_default();
    let sandbox = request.netns.as_ref().map(|netns| netns.path.clone()).unwrap_or_default();
    let host = Interface { name: "bh0".into(), mac: "02:00:00:00:00:01".into(), ..Interface::default() };
    let pod = Interface { name: ifname, mac: "02:00:00:00:00:02".into(), sandbox, ..Interface::default() };
    CniResult {
        interfaces: vec![host, pod],
        ips: vec![Ip { address: "10.0.0.2/32".into(), gateway: "169.254.1.1".into(), interface: Some(1) }],
        routes: vec![Route { dst: "0.0.0.0/0".into(), gw: "169.254.1.1".into(), ..Route::default() }],
        dns: None,
    }
}
