//! The command line. The doc comments are the help; every subcommand's own arguments are in its
//! file under `commands/`.

use std::time::Duration;

use clap::{ArgAction, Parser, Subcommand};

use crate::{
    commands::{
        completion::CompletionArgs, counters::CountersArgs, dump::DumpArgs, endpoint::EndpointArgs,
        explain::ExplainArgs, flows::FlowsArgs, identity::IdentityArgs, policy::PolicyArgs, service::ServiceArgs,
        status::StatusArgs, version::VersionArgs,
    },
    connect::{DEFAULT_SERVER, Server},
    parse,
    render::out::{ColorChoice, Output},
};

/// Behind the help of the program itself.
const AFTER_HELP: &str = "\
Asks the daemon of this node over its API socket. Nothing here changes anything.

Start here:
  bulkhead status                                   is everything in force?
  bulkhead flows --follow                           every new connection and denial, with the rule
  bulkhead flows --verdict denied --since 10m       what was denied lately, and why
  bulkhead explain shop/web-0 shop/db-0:5432        would it be allowed, by which rule?

Exit codes:
   0  it worked
   1  it did not: the named object is not there, the daemon refused, output cannot be written
   3  it worked and the answer is no: `explain` found the connection denied,
      `status --check` found something not in force
  64  the command line is wrong
  69  no daemon answers at the socket
  77  the socket is not ours to use: try sudo";

/// See what Bulkhead enforces, and why
#[derive(Parser, Debug)]
#[command(name = "bulkhead", after_help = AFTER_HELP, subcommand_required = true, disable_help_subcommand = true)]
#[command(arg_required_else_help = true, max_term_width = 110, disable_help_flag = true)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Global {
    /// Print help
    // One form of help, the compact one: what it explains at length is at its end.
    #[arg(short, long, global = true, action = ArgAction::HelpShort)]
    help: Option<bool>,

    /// Socket of the daemon
    #[arg(long, global = true, env = "BULKHEAD_SERVER", hide_env_values = true)]
    #[arg(default_value = DEFAULT_SERVER, value_name = "unix:///PATH")]
    pub(crate) server: Server,

    /// table for people, json for programs; flows --dir also csv and parquet
    #[arg(short, long, global = true, value_enum, hide_possible_values = true)]
    #[arg(default_value = "table", value_name = "FORMAT")]
    pub(crate) output: Output,

    /// auto (on a terminal, unless NO_COLOR is set), always or never
    #[arg(long, global = true, value_enum, hide_possible_values = true)]
    #[arg(default_value = "auto", value_name = "WHEN")]
    pub(crate) color: ColorChoice,

    /// How long to wait for the daemon: to connect, and for each answer
    #[arg(long, global = true, value_parser = parse::deadline, default_value = "10s", value_name = "DURATION")]
    pub(crate) timeout: Duration,
}

/// One variant per subcommand.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    Flows(FlowsArgs),
    Status(StatusArgs),
    Endpoint(EndpointArgs),
    Identity(IdentityArgs),
    Policy(PolicyArgs),
    Service(ServiceArgs),
    Explain(ExplainArgs),
    Counters(CountersArgs),
    Dump(DumpArgs),
    Version(VersionArgs),
    Completion(CompletionArgs),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_holds_together() {
        Args::command().debug_assert();
    }
}
