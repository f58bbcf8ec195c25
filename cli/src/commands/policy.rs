//! `bulkhead policy list|get`: what is in force, whom it selects, what it says.

use clap::Subcommand;
use proto::bulkhead::admin::v1::{GetPolicyRequest, ListPoliciesRequest};
use serde::Serialize;

use super::Context;
use crate::{
    failure::{Exit, Failure},
    parse,
    render::{out::Format, policy},
    view::policy::{Detail, Policy},
};

/// Policies: whether they are in force, whom they select, what they say
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  bulkhead policy list                      every policy, and whether it is in force
  bulkhead policy get shop/db-ingress       one policy: whom it selects, its rules in words")]
pub(crate) struct PolicyArgs {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Subcommand, Debug)]
enum PolicyCommand {
    List(ListArgs),
    Get(GetArgs),
}

/// List policies
#[derive(clap::Args, Debug)]
#[command(after_help = "\
SELECTS counts pods in the cluster and endpoints on this node; ENTRIES is what the rule sets it is
part of take in the kernel's maps; STATUS is accepted, refused (not in force), last-good (an
earlier version is in force because the present one has an error), or staged (evaluated and
reported, not enforced).

Examples:
  bulkhead policy list
  bulkhead policy list -n shop
  bulkhead policy list -o json | jq '.policies[] | select(.status != \"accepted\")'")]
struct ListArgs {
    /// Only this namespace
    #[arg(short, long, value_parser = parse::namespace)]
    namespace: Option<String>,
}

/// Show one policy: whom it selects, its rules in words, what is probably not meant
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  bulkhead policy get shop/db-ingress
  bulkhead policy get shop/db-ingress -o json | jq '.warnings'
  bulkhead policy get guard                 a ClusterNetworkPolicy")]
struct GetArgs {
    /// NAMESPACE/NAME, or NAME for kinds without a namespace
    #[arg(value_parser = Name::parse)]
    policy: Name,

    /// Kind of the policy [default: NetworkPolicy, or ClusterNetworkPolicy for a NAME alone]
    #[arg(long)]
    kind: Option<String>,
}

/// Name of a policy.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Name {
    namespace: String,
    name: String,
}

impl Name {
    /// From the command line.
    fn parse(text: &str) -> Result<Self, String> {
        if parse::is_name(text) {
            return Ok(Self { namespace: String::new(), name: text.to_owned() });
        }
        parse::namespaced(text).map(|(namespace, name)| Self { namespace, name })
    }
}

/// Outermost object of the JSON.
#[derive(Serialize)]
struct Policies {
    policies: Vec<Policy>,
}

impl PolicyArgs {
    /// Asks and prints.
    pub(crate) async fn run(self, context: &mut Context) -> Result<Exit, Failure> {
        match self.command {
            PolicyCommand::List(args) => args.run(context).await,
            PolicyCommand::Get(args) => args.run(context).await,
        }
    }
}

impl ListArgs {
    async fn run(self, context: &mut Context) -> Result<Exit, Failure> {
        let connection = context.connect().await?;
        let request = ListPoliciesRequest { namespace: self.namespace.unwrap_or_default() };
        let answer = connection.answer("policy list", connection.admin().list_policies(request)).await?;
        let policies: Vec<Policy> = answer.policies.into_iter().map(Policy::from).collect();
        match context.out.format() {
            Format::Table => policy::list(&mut context.out, &policies)?,
            Format::Json => context.out.json(&Policies { policies })?,
        }
        Ok(Exit::Success)
    }
}

impl GetArgs {
    async fn run(self, context: &mut Context) -> Result<Exit, Failure> {
        let Name { namespace, name } = self.policy;
        let kind = self.kind.unwrap_or_else(|| match namespace.is_empty() {
            true => "ClusterNetworkPolicy".to_owned(),
            false => "NetworkPolicy".to_owned(),
        });
        if kind == "NetworkPolicy" && namespace.is_empty() {
            return Err(Failure::usage(
                format_args!("a NetworkPolicy has a namespace, {name:?} names none"),
                format_args!("write NAMESPACE/{name}; `bulkhead policy list` shows them all"),
            ));
        }
        let connection = context.connect().await?;
        let request = GetPolicyRequest { namespace, name, kind };
        let detail: Detail = connection.answer("policy get", connection.admin().get_policy(request)).await?.into();
        match context.out.format() {
            Format::Table => policy::detail(&mut context.out, &detail)?,
            Format::Json => context.out.json(&detail)?,
        }
        Ok(Exit::Success)
    }
}
