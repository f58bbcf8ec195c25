//! `bulkhead counters`: what the programs in the kernel have counted.

use proto::bulkhead::admin::v1::CountersRequest;

use super::Context;
use crate::{
    failure::{Exit, Failure},
    render::{counters, out::Format},
    view::counters::Counters,
};

/// Show packets and bytes by hook and reason, as the programs in the kernel count them
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Counts since the programs were loaded, on all CPUs together. The reason `passed` is what was not
dropped.

Examples:
  bulkhead counters
  bulkhead counters -o json | jq '.counters[] | select(.reason_name == \"default_deny\")'")]
pub(crate) struct CountersArgs {}

impl CountersArgs {
    /// Asks and prints.
    pub(crate) async fn run(self, context: &mut Context) -> Result<Exit, Failure> {
        let connection = context.connect().await?;
        let counters: Counters =
            connection.answer("counters", connection.admin().counters(CountersRequest {})).await?.into();
        match context.out.format() {
            Format::Table => counters::render(&mut context.out, &counters)?,
            Format::Json => context.out.json(&counters)?,
        }
        Ok(Exit::Success)
    }
}
