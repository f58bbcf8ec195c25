//! A daemon that answers as told and remembers what it was asked, and a run of `dispatch` against it.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use proto::bulkhead::cni::v1::{
    AddReply, AddRequest, CheckReply, CheckRequest, CniError, CniResult, DelReply, DelRequest, GcReply, GcRequest,
    StatusReply, StatusRequest, add_reply::Outcome,
};

use super::{Streams, World, run};
use crate::{
    client::{CallError, Daemon, Target},
    fuzz::made,
    netns::Seen,
};

/// What the daemon does with every request.
#[derive(Clone, Debug)]
pub(crate) enum Behaviour {
    /// Succeeds.
    Serve,
    /// Answers with an error.
    Refuse(CniError),
    /// Answers an ADD with this.
    Make(CniResult),
    /// Answers an ADD with nothing.
    Empty,
    /// Is not there.
    Down,
    /// Fails in a way that is no outcome.
    Fail(tonic::Code),
}

/// What it was asked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Asked {
    Add(AddRequest),
    Del(DelRequest),
    Check(CheckRequest),
    Gc(GcRequest),
    Status(StatusRequest),
}

pub(crate) struct Fake {
    behaviour: Behaviour,
    pub(crate) asked: RefCell<Vec<(Target, Asked)>>,
}

impl Fake {
    pub(crate) fn new(behaviour: Behaviour) -> Self {
        Self { behaviour, asked: RefCell::default() }
    }

    fn hear(&self, to: &Target, asked: Asked) -> Result<Option<CniError>, CallError> {
        self.asked.borrow_mut().push((to.clone(), asked));
        let socket = to.socket.clone();
        match &self.behaviour {
            Behaviour::Serve | Behaviour::Make(_) | Behaviour::Empty => Ok(None),
            Behaviour::Refuse(error) => Ok(Some(error.clone())),
            Behaviour::Down => Err(CallError::Unreachable { socket, cause: "No such file or directory".into() }),
            Behaviour::Fail(code) => Err(CallError::Status { socket, code: *code, message: "oh".into() }),
        }
    }
}

impl Daemon for Fake {
    fn add(&self, to: &Target, request: AddRequest) -> Result<AddReply, CallError> {
        let made = made(&request);
        let error = self.hear(to, Asked::Add(request))?;
        let outcome = match (&self.behaviour, error) {
            (_, Some(error)) => Some(Outcome::Error(error)),
            (Behaviour::Make(result), None) => Some(Outcome::Result(result.clone())),
            (Behaviour::Empty, None) => None,
            (_, None) => Some(Outcome::Result(made)),
        };
        Ok(AddReply { outcome })
    }

    fn del(&self, to: &Target, request: DelRequest) -> Result<DelReply, CallError> {
        self.hear(to, Asked::Del(request)).map(|error| DelReply { error })
    }

    fn check(&self, to: &Target, request: CheckRequest) -> Result<CheckReply, CallError> {
        self.hear(to, Asked::Check(request)).map(|error| CheckReply { error })
    }

    fn gc(&self, to: &Target, request: GcRequest) -> Result<GcReply, CallError> {
        self.hear(to, Asked::Gc(request)).map(|error| GcReply { error, removed: 1 })
    }

    fn status(&self, to: &Target, request: StatusRequest) -> Result<StatusReply, CallError> {
        self.hear(to, Asked::Status(request)).map(|error| StatusReply { error })
    }
}

/// The environment that a runtime gives, for a container `c1`.
pub(crate) fn env(command: &str) -> BTreeMap<String, OsString> {
    let pairs = [
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/run/netns/c1"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/opt/cni/bin"),
    ];
    pairs.into_iter().map(|(k, v)| (k.to_owned(), v.into())).collect()
}

/// What a run left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) exit: u8,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs one command. `/run/netns/*` exists, `/proc/1/ns/net` is the host's, nothing else is there.
pub(crate) fn dispatch(daemon: &Fake, env: &BTreeMap<String, OsString>, mut stdin: &[u8]) -> Ran {
    let netns = |path: &Path| match path.to_str() {
        Some("/proc/1/ns/net") => Ok(Seen { inode: 1, own: true }),
        Some(p) if p.starts_with("/run/netns/") => Ok(Seen { inode: 4_026_532_000, own: false }),
        _ => Err(io::Error::new(io::ErrorKind::NotFound, "no such file")),
    };
    let world = World {
        env: &|name| env.get(name).cloned(),
        netns: &netns,
        now: UNIX_EPOCH + Duration::from_millis(1_700_000_000_000),
        daemon,
    };
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let exit = run(&world, Streams { stdin: &mut stdin, stdout: &mut stdout, stderr: &mut stderr });
    Ran { exit, stdout: String::from_utf8(stdout).unwrap(), stderr: String::from_utf8(stderr).unwrap() }
}

/// The tombstones below a state folder.
pub(crate) fn tombstones(state_dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(state_dir.join("tombstones")) else { return Vec::new() };
    entries.map(|e| e.unwrap().path()).collect()
}
