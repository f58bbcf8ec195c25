//! CNI_COMMAND -> request -> answer on stdout. Environment, streams, clock and daemon are parameters.
//!
//! Order of checks, as in CNI's own dispatcher (pkg/skel): command, missing variables, stdin is JSON
//! with a name, the variables' values, the version, then the rest of the configuration. Errors go
//! to stdout as JSON with exit status 1 (SPEC.md 1.1.0, "Error"; libcni reads nothing else).

#[cfg(test)]
mod fake;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::{
    io::{Read, Write},
    path::Path,
    time::{Duration, SystemTime},
};

use proto::bulkhead::cni::v1::{
    AddRequest, AttachmentId, AttachmentList, CheckRequest, CniError, DelRequest, GcRequest, Netns, Network, Pod,
    StatusRequest, add_reply::Outcome,
};
use serde_json::{Value, json};

use crate::{
    args::{self, Args, Asked, Command, Env, Variables},
    chain,
    client::{CallError, Daemon, Target},
    conf::{Conf, Document, Settings, Wanted},
    error::{Code, Failure},
    netns::{NetnsError, Seen},
    result, tombstone,
    version::Version,
};

/// Everything outside that is not a stream.
pub(crate) struct World<'a> {
    pub(crate) env: &'a Env<'a>,
    /// What a path is as a network namespace.
    pub(crate) netns: &'a dyn Fn(&Path) -> std::io::Result<Seen>,
    pub(crate) now: SystemTime,
    pub(crate) daemon: &'a dyn Daemon,
}

/// The process's streams.
pub(crate) struct Streams<'a> {
    pub(crate) stdin: &'a mut dyn Read,
    pub(crate) stdout: &'a mut dyn Write,
    pub(crate) stderr: &'a mut dyn Write,
}

/// More than any runtime sends; also what a gRPC server takes in one message unless told otherwise.
const LARGEST_INPUT: u64 = 4 << 20;

/// Runtimes ask for STATUS every few seconds: an answer that takes longer is none.
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs one command; returns the exit status.
pub(crate) fn run(world: &World<'_>, streams: Streams<'_>) -> u8 {
    let Streams { stdin, stdout, stderr } = streams;
    let mut version = Version::CURRENT;
    let (output, status) = match serve(world, stdin, &mut version) {
        Ok(Answer::About) => {
            // Nobody is left to tell if this fails.
            let _ = writeln!(stderr, "{}", about());
            return 0;
        }
        Ok(Answer::Nothing) => return 0,
        Ok(Answer::Print(value)) => (value, 0),
        Err(failure) => (failure.to_json(version), 1),
    };
    match writeln!(stdout, "{output}").and_then(|()| stdout.flush()) {
        Ok(()) => status,
        Err(error) => {
            let _ = writeln!(stderr, "bulkhead-cni: cannot write to stdout: {error}");
            1
        }
    }
}

/// What goes to the runtime when all went well.
enum Answer {
    /// Somebody ran the binary by hand.
    About,
    Nothing,
    Print(Value),
}

fn about() -> String {
    format!(
        "bulkhead-cni {}: the CNI plugin of Bulkhead, to be called by a container runtime\n\
         CNI protocol versions supported: {}",
        env!("CARGO_PKG_VERSION"),
        Version::list()
    )
}

fn serve(world: &World<'_>, stdin: &mut dyn Read, version: &mut Version) -> Result<Answer, Failure> {
    let command = match args::asked(world.env)? {
        Asked::Nothing => return Ok(Answer::About),
        Asked::Version => {
            let supported = Version::ALL.map(Version::as_str);
            let current = Version::CURRENT.as_str();
            return Ok(Answer::Print(json!({"cniVersion": current, "supportedVersions": supported})));
        }
        Asked::Command(command) => command,
    };
    let variables = Variables::read(world.env, command)?;
    let document = Document::parse(&read(stdin)?)?;
    let name = document.name()?;
    let request = match command {
        Command::Add => Request::Add(variables.into_args(command)?),
        Command::Del => Request::Del(variables.into_args(command)?),
        Command::Check => Request::Check(variables.into_args(command)?),
        Command::Gc => Request::Gc,
        Command::Status => Request::Status,
    };
    *version = document.version()?;
    let conf = document.conf(command, *version)?;
    let network = Network { name, cni_version: version.to_string(), mtu: conf.settings.mtu };
    let call = Call { world, network, version: *version, conf };
    match request {
        Request::Add(args) => call.add(args),
        Request::Del(args) => call.del(args),
        Request::Check(args) => call.check(args),
        Request::Gc => call.gc(),
        Request::Status => call.status(),
    }
}

/// A command with its environment.
enum Request {
    Add(Args),
    Del(Args),
    Check(Args),
    Gc,
    Status,
}

fn read(stdin: &mut dyn Read) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = stdin.take(LARGEST_INPUT + 1).read_to_end(&mut bytes);
    read.map_err(|error| Failure::new(Code::Io, format!("cannot read stdin: {error}"), ""))?;
    if bytes.len() as u64 > LARGEST_INPUT {
        let msg = format!("network configuration on stdin is larger than {LARGEST_INPUT} bytes");
        return Err(Failure::new(Code::Decode, msg, ""));
    }
    Ok(bytes)
}

/// A command with all that is known about it.
struct Call<'a> {
    world: &'a World<'a>,
    network: Network,
    version: Version,
    conf: Conf,
}

impl Call<'_> {
    fn target(&self) -> Target {
        Target { socket: self.conf.settings.socket.clone(), timeout: self.conf.settings.timeout }
    }

    fn add(self, args: Args) -> Result<Answer, Failure> {
        let target = self.target();
        let Self { world, network, version, conf } = self;
        let Conf { settings, prev_result, wanted, dns, valid_attachments: _ } = conf;
        chain::check(prev_result.as_ref(), &args.ifname)?;
        let netns = look(world, &args)?;
        let Args { container_id, ifname, netns: _, cni_args, netns_override: _ } = args;
        let id = AttachmentId { container_id, ifname };
        let pod = named(cni_args.pod, &settings);
        let Wanted { mac, ips, aliases, cgroup_path, pod_annotations, labels } = wanted
            .with(cni_args.ip, cni_args.mac)
            .map_err(|reason| Failure::new(Code::InvalidEnvironment, format!("CNI_ARGS: IP: {reason}"), ""))?;
        let request = AddRequest {
            id: Some(id.clone()),
            netns: netns.clone(),
            network: Some(network.clone()),
            pod: Some(pod.clone()),
            mac: mac.map(|m| m.to_string()).unwrap_or_default(),
            ips: ips.iter().map(ToString::to_string).collect(),
            aliases,
            cgroup_path,
            pod_annotations: pod_annotations.into_iter().collect(),
            labels: labels.into_iter().collect(),
            other_args: cni_args.other.into_iter().collect(),
        };
        let made = match world.daemon.add(&target, request)?.outcome {
            Some(Outcome::Result(made)) => made,
            Some(Outcome::Error(error)) => return Err(error.into()),
            None => return Err(CallError::Empty { socket: target.socket }.into()),
        };
        let merged = chain::merge(prev_result, made, dns);
        result::render(&merged, version).map(Answer::Print).map_err(|error| {
            // The interface is there and cannot be told of: it must not stay. The runtime calls DEL
            // after a failed ADD as well, so a failure here is not lost.
            let undo = DelRequest { id: Some(id), netns, network: Some(network), pod: Some(pod), prev_result: None };
            let _ = world.daemon.del(&target, undo);
            error.into()
        })
    }

    fn del(self, args: Args) -> Result<Answer, Failure> {
        let target = self.target();
        let Self { world, network, version: _, conf } = self;
        let netns = look_if_there(world, &args);
        let Args { container_id, ifname, netns: _, cni_args, netns_override: _ } = args;
        let request = DelRequest {
            id: Some(AttachmentId { container_id, ifname }),
            netns,
            network: Some(network),
            pod: Some(cni_args.pod),
            prev_result: conf.prev_result,
        };
        match world.daemon.del(&target, request.clone()) {
            Ok(reply) => outcome(reply.error),
            Err(error) if error.is_absence() => {
                tombstone::leave(&conf.settings.state_dir, request, world.now)
                    .map_err(|cannot| Failure { details: error.to_string(), ..Failure::from(cannot) })?;
                Ok(Answer::Nothing)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn check(self, args: Args) -> Result<Answer, Failure> {
        let target = self.target();
        let netns = look(self.world, &args)?;
        let Args { container_id, ifname, netns: _, cni_args, netns_override: _ } = args;
        let request = CheckRequest {
            id: Some(AttachmentId { container_id, ifname }),
            netns,
            network: Some(self.network),
            pod: Some(named(cni_args.pod, &self.conf.settings)),
            prev_result: self.conf.prev_result,
        };
        outcome(self.world.daemon.check(&target, request)?.error)
    }

    fn gc(self) -> Result<Answer, Failure> {
        let target = self.target();
        let valid_attachments = self.conf.valid_attachments.map(|ids| AttachmentList { ids });
        let request = GcRequest { network: Some(self.network), valid_attachments };
        outcome(self.world.daemon.gc(&target, request)?.error)
    }

    fn status(self) -> Result<Answer, Failure> {
        let mut target = self.target();
        target.timeout = target.timeout.min(STATUS_TIMEOUT);
        match self.world.daemon.status(&target, StatusRequest { network: Some(self.network) }) {
            Ok(reply) => outcome(reply.error),
            Err(error) if error.is_absence() => Err(Failure::new(Code::NotReady, error.to_string(), error.fix())),
            Err(error) => Err(error.into()),
        }
    }
}

/// The pod, in the configuration's namespace where the runtime says none.
fn named(pod: Pod, settings: &Settings) -> Pod {
    if pod.namespace.is_empty() { Pod { namespace: settings.namespace.clone(), ..pod } } else { pod }
}

fn outcome(error: Option<CniError>) -> Result<Answer, Failure> {
    error.map_or(Ok(Answer::Nothing), |error| Err(error.into()))
}

/// The namespace of an ADD or CHECK: it must be there and not be the host's.
fn look(world: &World<'_>, args: &Args) -> Result<Option<Netns>, Failure> {
    let path = args.netns.clone().unwrap_or_default();
    match (world.netns)(Path::new(&path)) {
        Ok(seen) if seen.own && !args.netns_override => Err(NetnsError::Own { path }.into()),
        Ok(seen) => Ok(Some(Netns { path, inode: seen.inode })),
        Err(source) => Err(NetnsError::Open { path, source }.into()),
    }
}

/// The namespace of a DEL: it may be gone. The host's is never handed on, lest something is removed
/// from it.
fn look_if_there(world: &World<'_>, args: &Args) -> Option<Netns> {
    let path = args.netns.clone()?;
    match (world.netns)(Path::new(&path)) {
        Ok(seen) if seen.own && !args.netns_override => None,
        Ok(seen) => Some(Netns { path, inode: seen.inode }),
        Err(_) => Some(Netns { path, inode: 0 }),
    }
}
