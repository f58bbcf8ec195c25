//! `bulkhead status`: how the daemon is.

use proto::bulkhead::admin::v1::StatusRequest;

use super::Context;
use crate::{
    failure::{Exit, Failure},
    render::{out::Format, status},
    view::status::{Severity, Status},
};

/// Show how the daemon is: version, source, maps, addresses, and what is not in force
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Below the facts comes everything that needs attention, each with what to do about it: objects of the
source that are refused (file, line, field), policies that did not fit, maps that are nearly full,
lost events.

Examples:
  bulkhead status
  bulkhead status --check && echo all in force
  bulkhead status -o json | jq '.source.errors'")]
pub(crate) struct StatusArgs {
    /// Exit with 3 if a condition of severity error stands
    #[arg(long)]
    check: bool,
}

impl StatusArgs {
    /// Asks and prints.
    pub(crate) async fn run(self, context: &mut Context) -> Result<Exit, Failure> {
        let connection = context.connect().await?;
        let status: Status = connection.answer("status", connection.admin().status(StatusRequest {})).await?.into();
        match context.out.format() {
            Format::Table => status::render(&mut context.out, &status)?,
            Format::Json => context.out.json(&status)?,
        }
        let error = status.conditions.iter().any(|condition| condition.severity == Severity::Error);
        Ok(if self.check && error { Exit::No } else { Exit::Success })
    }
}
