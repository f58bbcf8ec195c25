//! Questions to a daemon: by the `bulkhead` command, as people ask, and by gRPC, where a test has
//! to ask often or wrongly.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use hyper_util::rt::TokioIo;
use proto::bulkhead::{
    admin::v1::{self as admin, admin_client::AdminClient},
    cni::v1::cni_client::CniClient,
};
use serde_json::Value;
use tokio::{net::UnixStream, runtime::Runtime, time::timeout};
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use crate::{agent, node::eventually};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A gRPC client of one socket, for callers that may block.
#[derive(Debug)]
pub struct Ask {
    runtime: Runtime,
    channel: Channel,
}

impl Ask {
    /// Connects when the first question is asked.
    pub fn at(socket: &Path) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let path = socket.to_owned();
        let connector = service_fn(move |_: Uri| {
            let path: PathBuf = path.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
        });
        // The address is not used: the connector knows the path.
        let guard = runtime.enter();
        let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector);
        drop(guard);
        Ok(Self { runtime, channel })
    }

    /// The connection, for clients of any service.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Client of the CNI service.
    pub fn cni(&self) -> CniClient<Channel> {
        CniClient::new(self.channel())
    }

    /// Waits for something that a client does.
    pub fn wait<T>(&self, what: impl Future<Output = Result<T, tonic::Status>>) -> anyhow::Result<T> {
        self.runtime.block_on(async { timeout(PATIENCE, what).await }).context("no answer")?.map_err(Into::into)
    }

    /// What the daemon says of itself.
    pub fn status(&self) -> anyhow::Result<admin::StatusResponse> {
        let mut client = AdminClient::new(self.channel());
        Ok(self.wait(async move { client.status(admin::StatusRequest {}).await })?.into_inner())
    }

    /// Policies of a namespace.
    pub fn policies(&self, namespace: &str) -> anyhow::Result<Vec<admin::Policy>> {
        let mut client = AdminClient::new(self.channel());
        let request = admin::ListPoliciesRequest { namespace: namespace.to_owned() };
        Ok(self.wait(async move { client.list_policies(request).await })?.into_inner().policies)
    }

    /// All endpoints.
    pub fn endpoints(&self) -> anyhow::Result<Vec<admin::Endpoint>> {
        let mut client = AdminClient::new(self.channel());
        let request = admin::ListEndpointsRequest::default();
        Ok(self.wait(async move { client.list_endpoints(request).await })?.into_inner().endpoints)
    }

    /// Packets dropped so far, by name of the reason; what was let through is not among them.
    pub fn drops(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        let mut client = AdminClient::new(self.channel());
        let counters = self.wait(async move { client.counters(admin::CountersRequest {}).await })?.into_inner();
        let mut drops = BTreeMap::new();
        for counter in counters.counters.into_iter().filter(|counter| counter.reason != 0) {
            *drops.entry(counter.reason_name).or_default() += counter.packets;
        }
        Ok(drops)
    }

    /// Packets dropped so far for one reason, by its name.
    pub fn dropped(&self, reason: &str) -> anyhow::Result<u64> {
        Ok(self.drops()?.get(reason).copied().unwrap_or(0))
    }
}

/// The `bulkhead` command, aimed at one daemon.
#[derive(Clone, Debug)]
pub struct Bulkhead {
    /// The API socket.
    pub server: PathBuf,
}

/// What a command has printed, and how it ended.
#[derive(Clone, Debug)]
pub struct Printed {
    /// Exit status; -1 if a signal ended it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Bulkhead {
    /// The command, to be started by the caller.
    pub fn command(&self, arguments: &[&str]) -> anyhow::Result<Command> {
        let mut command = Command::new(agent::binary("bulkhead")?);
        command.arg("--server").arg(&self.server).args(arguments);
        Ok(command)
    }

    /// Runs it to its end.
    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<Printed> {
        let output = self.command(arguments)?.output().context("starting bulkhead")?;
        Ok(Printed {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).context("its output is text")?,
            err: String::from_utf8(output.stderr).context("its error output is text")?,
        })
    }

    /// Runs it with `-o json`; it must succeed and print one document.
    pub fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let printed = self.succeed(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&printed).with_context(|| format!("bulkhead {} printed {printed}", arguments.join(" ")))
    }

    /// What `flows stats` says of an exporter, or of the history.
    pub fn exporter(&self, name: &str) -> anyhow::Result<Value> {
        let stats = self.json(&["flows", "stats"])?;
        let found = stats["exporters"].as_array().and_then(|all| all.iter().find(|it| it["name"] == name));
        found.cloned().with_context(|| format!("{name} in {stats}"))
    }

    /// Recorded flows that match these options, oldest first.
    pub fn flows(&self, options: &[&str]) -> anyhow::Result<Vec<Value>> {
        let printed = self.succeed(&[&["flows", "--all", "-o", "json"], options].concat())?;
        let flow = |line: &str| -> anyhow::Result<Value> {
            let mut response: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
            Ok(response["flow"].take())
        };
        printed.lines().map(flow).filter(|flow| !matches!(flow, Ok(Value::Null))).collect()
    }

    /// Recorded flows that match these options, as soon as they are what is wanted: a packet is recorded
    /// a little after it was sent. An error with what was found if they never are.
    pub fn flows_when(&self, options: &[&str], wanted: impl Fn(&[Value]) -> bool) -> anyhow::Result<Vec<Value>> {
        let mut found = Vec::new();
        let come = eventually(PATIENCE, || {
            found = self.flows(options)?;
            Ok(wanted(&found))
        })?;
        ensure!(come, "flows {options:?} never were what is wanted: {found:?}");
        Ok(found)
    }

    /// What it prints; it must succeed.
    pub fn succeed(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let Printed { code, out, err } = self.run(arguments)?;
        if code != 0 {
            bail!("bulkhead {} ended with {code}: {err}", arguments.join(" "));
        }
        Ok(out)
    }
}
