//! Calls of the real CNI plugin, as a runtime makes them: environment, configuration on standard
//! input, result or error on standard output.

use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::agent;

/// What every call of one network has in common.
#[derive(Clone, Debug)]
pub struct Plugin {
    /// The network configuration.
    pub conf: Value,
}

/// What is different from call to call: the specification's parameters.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// CNI_COMMAND.
    pub command: &'a str,
    /// CNI_CONTAINERID.
    pub container_id: &'a str,
    /// CNI_NETNS.
    pub netns: &'a str,
    /// CNI_IFNAME.
    pub ifname: &'a str,
    /// CNI_ARGS.
    pub args: &'a str,
}

impl<'a> Call<'a> {
    /// Without parameters, for VERSION, STATUS and GC.
    pub fn bare(command: &'a str) -> Self {
        Self { command, container_id: "", netns: "", ifname: "", args: "" }
    }
}

/// What the plugin answered.
#[derive(Debug)]
pub struct Answer {
    output: Output,
}

impl Plugin {
    /// Makes a call with the network's configuration.
    pub fn call(&self, call: Call<'_>) -> anyhow::Result<Answer> {
        self.call_with(call, self.conf.to_string().as_bytes())
    }

    /// Makes a call with other bytes on standard input.
    pub fn call_with(&self, call: Call<'_>, stdin: &[u8]) -> anyhow::Result<Answer> {
        let Call { command, container_id, netns, ifname, args } = call;
        let mut plugin = Command::new(agent::binary("bulkhead-cni")?);
        plugin.env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        plugin.envs([("CNI_COMMAND", command), ("CNI_PATH", "/opt/cni/bin")]);
        let optional =
            [("CNI_CONTAINERID", container_id), ("CNI_NETNS", netns), ("CNI_IFNAME", ifname), ("CNI_ARGS", args)];
        plugin.envs(optional.into_iter().filter(|(_, value)| !value.is_empty()));
        let mut child = plugin.spawn().context("starting bulkhead-cni")?;
        let mut input = child.stdin.take().context("standard input is piped")?;
        // It may end without having read everything: that is its answer.
        let _ = input.write_all(stdin);
        drop(input);
        Ok(Answer { output: child.wait_with_output()? })
    }

    /// The same network in another version of the specification.
    pub fn in_version(&self, version: &str) -> Self {
        let mut conf = self.conf.clone();
        conf["cniVersion"] = version.into();
        Self { conf }
    }

    /// The same network, with what an ADD has returned, as CHECK and DEL get it.
    pub fn after(&self, result: &Value) -> Self {
        let mut conf = self.conf.clone();
        conf["prevResult"] = result.clone();
        Self { conf }
    }
}

impl Answer {
    /// The result; `Null` where the specification wants none.
    ///
    /// # Errors
    /// The call has failed, or something is on standard error, which runtimes log as an error.
    pub fn result(self) -> anyhow::Result<Value> {
        let text = String::from_utf8(self.output.stdout).context("standard output is text")?;
        if !self.output.status.success() {
            bail!("the plugin answered: {text}");
        }
        ensure!(self.output.stderr.is_empty(), "on standard error: {}", String::from_utf8_lossy(&self.output.stderr));
        if text.is_empty() { Ok(Value::Null) } else { serde_json::from_str(&text).context("the result is JSON") }
    }

    /// The error's code and message.
    ///
    /// # Errors
    /// The call has succeeded, or the error has not the shape that the specification gives it.
    pub fn error(self) -> anyhow::Result<(u64, String)> {
        let text = String::from_utf8(self.output.stdout).context("standard output is text")?;
        ensure!(self.output.status.code() == Some(1), "{}, not a failure with status 1: {text}", self.output.status);
        let error: Value = serde_json::from_str(&text).with_context(|| format!("the error is JSON: {text}"))?;
        let code = error["code"].as_u64().with_context(|| format!("no code in {text}"))?;
        let message = error["msg"].as_str().with_context(|| format!("no msg in {text}"))?;
        let details = error["details"].as_str().unwrap_or_default();
        Ok((code, format!("{message}; {details}")))
    }
}
