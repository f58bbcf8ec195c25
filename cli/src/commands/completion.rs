//! `bulkhead completion SHELL`: completions for shells.

use clap::{CommandFactory, ValueEnum};

use super::Context;
use crate::{
    args::Args,
    failure::{Exit, Failure},
};

/// Print a completion script for a shell
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  source <(bulkhead completion bash)                                        for this shell
  bulkhead completion bash > /etc/bash_completion.d/bulkhead                for everybody
  bulkhead completion zsh > \"${fpath[1]}/_bulkhead\"
  bulkhead completion fish > ~/.config/fish/completions/bulkhead.fish")]
pub(crate) struct CompletionArgs {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Shells we have completions for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl From<Shell> for clap_complete::Shell {
    fn from(shell: Shell) -> Self {
        match shell {
            Shell::Bash => Self::Bash,
            Shell::Zsh => Self::Zsh,
            Shell::Fish => Self::Fish,
        }
    }
}

impl CompletionArgs {
    /// Prints.
    pub(crate) fn run(self, context: &mut Context) -> Result<Exit, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(clap_complete::Shell::from(self.shell), &mut Args::command(), "bulkhead", &mut script);
        context.out.raw(&String::from_utf8_lossy(&script))?;
        Ok(Exit::Success)
    }
}
