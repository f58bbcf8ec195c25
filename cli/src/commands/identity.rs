//! `bulkhead identity list`: the numbers that stand for pods.

use clap::Subcommand;
use proto::bulkhead::admin::v1::ListIdentitiesRequest;
use serde::Serialize;

use super::Context;
use crate::{
    failure::{Exit, Failure},
    render::{identity, out::Format},
    view::identity::Identity,
};

/// The numbers that stand for pods with the same namespace, labels and service account
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  bulkhead identity list                    every identity, and how many pods have it")]
pub(crate) struct IdentityArgs {
    #[command(subcommand)]
    command: IdentityCommand,
}

#[derive(Subcommand, Debug)]
enum IdentityCommand {
    List(ListArgs),
}

/// List identities
#[derive(clap::Args, Debug)]
#[command(after_help = "\
PODS counts the pods that have the identity, in the whole cluster and on this node.

Examples:
  bulkhead identity list
  bulkhead identity list --reserved         also host, world and the like
  bulkhead identity list -o json | jq '.identities[] | select(.pods == 0)'")]
struct ListArgs {
    /// Also the reserved ones: host, world, remote-node...
    #[arg(long)]
    reserved: bool,
}

/// Outermost object of the JSON.
#[derive(Serialize)]
struct Identities {
    identities: Vec<Identity>,
}

impl IdentityArgs {
    /// Asks and prints.
    pub(crate) async fn run(self, context: &mut Context) -> Result<Exit, Failure> {
        let IdentityCommand::List(args) = self.command;
        let connection = context.connect().await?;
        let request = ListIdentitiesRequest { reserved: args.reserved };
        let answer = connection.answer("identity list", connection.admin().list_identities(request)).await?;
        let identities: Vec<Identity> = answer.identities.into_iter().map(Identity::from).collect();
        match context.out.format() {
            Format::Table => identity::list(&mut context.out, &identities)?,
            Format::Json => context.out.json(&Identities { identities })?,
        }
        Ok(Exit::Success)
    }
}
