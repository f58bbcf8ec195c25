//! A program of somebody else's that serves in a node's network. Ends with its value.

use std::{
    ffi::OsStr,
    fs::OpenOptions,
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::Context as _;

use crate::node::Node;

/// See the module.
#[derive(Debug)]
pub struct Server(Child);

impl Server {
    /// Starts it; what it says is appended to `log`.
    ///
    /// # Errors
    /// The program is not there, or the log cannot be written.
    pub fn start<S: AsRef<OsStr>>(
        node: &Node,
        program: &Path,
        arguments: impl IntoIterator<Item = S>,
        log: &Path,
    ) -> anyhow::Result<Self> {
        let log = OpenOptions::new().create(true).append(true).open(log).with_context(|| log.display().to_string())?;
        let mut command = Command::new("ip");
        // It becomes the program, whose process is thereby ours to end.
        command.args(["netns", "exec", node.name()]).arg(program).args(arguments);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(Self(command.spawn().with_context(|| format!("starting {}", program.display()))?))
    }

    /// Ends it at once, as a crash would.
    pub fn kill(self) {}
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
