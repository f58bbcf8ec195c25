//! `bulkhead flows stats`: the ledger of flows.

use proto::bulkhead::admin::v1::FlowStatsRequest;

use crate::{
    commands::Context,
    failure::{Exit, Failure},
    render::{flow_stats, out::Format},
    view::flow_stats::FlowStats,
};

/// Show what became of every flow event and record, up to each exporter's receiver
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Since the daemon started. Of each row CAME = WENT ON + FILTERED + WAITING + LOST; what an exporter found in
its spool at the start has come, too. Readers are the clients of the flow API, all of them together.

Examples:
  bulkhead flows stats
  bulkhead flows stats -o json | jq '.exporters[] | {name, spooled, trouble}'")]
pub(crate) struct StatsArgs {}

impl StatsArgs {
    /// Asks and prints.
    pub(crate) async fn run(self, context: &mut Context) -> Result<Exit, Failure> {
        let connection = context.connect().await?;
        let answer = connection.answer("flows", connection.admin().flow_stats(FlowStatsRequest {})).await?;
        let stats = FlowStats::from(answer);
        match context.out.format() {
            Format::Table => flow_stats::render(&mut context.out, &stats)?,
            Format::Json => context.out.json(&stats)?,
        }
        Ok(Exit::Success)
    }
}
