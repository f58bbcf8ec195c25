//! `bulkhead version`: what this program and the daemon are built from.

use proto::bulkhead::admin::v1::StatusRequest;
use serde::Serialize;

use super::Context;
use crate::{
    failure::{Exit, Failure},
    render::{out::Format, text::clean},
    view::status::{Build, Status},
};

/// The oldest kernel whose verifier is known to accept the programs: Debian 12's.
const KERNEL_FLOOR: &str = "6.1";

/// Show the versions of this program and of the daemon
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Also without a daemon: what can be said without it is said. `ABI` is the version of the layout of
the kernel's maps.

Examples:
  bulkhead version
  bulkhead version --client                 without asking the daemon")]
pub(crate) struct VersionArgs {
    /// Do not ask the daemon
    #[arg(long)]
    client: bool,
}

/// The JSON.
#[derive(Serialize)]
struct Versions {
    client: Build,
    kernel_floor: &'static str,
    /// Absent if it was not asked or does not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    daemon: Option<Build>,
    /// Kernel the daemon runs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel: Option<String>,
    /// Why the daemon does not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    daemon_error: Option<String>,
}

/// What this program is built from.
fn ours() -> Build {
    Build {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: env!("BULKHEAD_BUILD_COMMIT").to_owned(),
        abi_version: datapath_abi::ABI_VERSION,
    }
}

/// One build as text.
fn words(name: &str, build: &Build) -> String {
    let commit = if build.commit.is_empty() { "unknown" } else { &build.commit };
    clean(&format!("{name:<9}{} (commit {commit}), ABI {}", build.version, build.abi_version)).into_owned()
}

impl VersionArgs {
    /// Asks and prints.
    pub(crate) async fn run(self, context: &mut Context) -> Result<Exit, Failure> {
        let daemon = if self.client { None } else { Some(self.daemon(context).await) };
        let client = ours();
        if context.out.format() == Format::Json {
            let (daemon, daemon_error) = match daemon {
                None => (None, None),
                Some(Ok(status)) => (Some(status), None),
                Some(Err(failure)) => (None, Some(failure.to_string())),
            };
            let kernel = daemon.as_ref().map(|status| status.datapath.kernel.clone());
            let daemon = daemon.map(|status| status.build);
            context.out.json(&Versions { client, kernel_floor: KERNEL_FLOOR, daemon, kernel, daemon_error })?;
            return Ok(Exit::Success);
        }
        context.out.line(&words("bulkhead", &client))?;
        match daemon {
            None => context.out.line(&format!("kernel   {KERNEL_FLOOR} or newer"))?,
            Some(Ok(status)) => {
                context.out.line(&words("daemon", &status.build))?;
                let kernel = clean(&status.datapath.kernel).into_owned();
                context.out.line(&format!("kernel   {KERNEL_FLOOR} or newer, the daemon runs on {kernel}"))?;
                if status.build.abi_version != client.abi_version {
                    context.out.line("note     the ABI versions differ: update the older of the two")?;
                }
            }
            Some(Err(failure)) => {
                context.out.line(&format!("daemon   not known: {}", clean(&failure.to_string())))?;
                context.out.line(&format!("kernel   {KERNEL_FLOOR} or newer"))?;
            }
        }
        Ok(Exit::Success)
    }

    /// What the daemon says of itself.
    async fn daemon(&self, context: &Context) -> Result<Status, Failure> {
        let connection = context.connect().await?;
        Ok(connection.answer("version", connection.admin().status(StatusRequest {})).await?.into())
    }
}
