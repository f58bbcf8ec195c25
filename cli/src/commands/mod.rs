//! One file per subcommand: its arguments, what it asks, which rendering it picks.

pub(crate) mod completion;
pub(crate) mod counters;
pub(crate) mod dump;
pub(crate) mod endpoint;
pub(crate) mod explain;
pub(crate) mod flows;
pub(crate) mod identity;
pub(crate) mod policy;
pub(crate) mod service;
pub(crate) mod status;
pub(crate) mod version;

use crate::{
    args::{Args, Command, Global},
    connect::Connection,
    failure::{Exit, Failure},
    render::out::{Out, Tabular},
};

/// What a command works with.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) global: Global,
    pub(crate) out: Out,
    /// Columns are to be printed rather than what `out` renders.
    pub(crate) tabular: Option<Tabular>,
}

impl Context {
    /// Connects to the daemon.
    pub(crate) async fn connect(&self) -> Result<Connection, Failure> {
        Connection::open(&self.global.server, self.global.timeout).await
    }
}

/// Runs the command of `args`.
pub(crate) fn run(args: Args) -> Result<Exit, Failure> {
    let Args { global, command } = args;
    let (format, tabular) = global.output.parts();
    if tabular.is_some() && !matches!(&command, Command::Flows(flows) if flows.has_columns()) {
        return Err(Failure::usage("csv and parquet are for the flows of `bulkhead flows` alone", "use -o json"));
    }
    let mut context = Context { out: Out::new(format, global.color), tabular, global };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Runtime)?;
    let result = runtime.block_on(async {
        match command {
            Command::Flows(args) => args.run(&mut context).await,
            Command::Status(args) => args.run(&mut context).await,
            Command::Endpoint(args) => args.run(&mut context).await,
            Command::Identity(args) => args.run(&mut context).await,
            Command::Policy(args) => args.run(&mut context).await,
            Command::Service(args) => args.run(&mut context).await,
            Command::Explain(args) => args.run(&mut context).await,
            Command::Counters(args) => args.run(&mut context).await,
            Command::Dump(args) => args.run(&mut context).await,
            Command::Version(args) => args.run(&mut context).await,
            Command::Completion(args) => args.run(&mut context),
        }
    });
    // Also after a failure: what was received before it belongs to the user.
    context.out.flush()?;
    result
}
