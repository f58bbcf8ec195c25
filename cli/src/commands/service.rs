//! `bulkhead service list|get`: where Services stand, and who serves.

use clap::Subcommand;
use proto::bulkhead::admin::v1::ListServicesRequest;
use serde::Serialize;

use super::Context;
use crate::{
    failure::{Exit, Failure},
    parse,
    render::{out::Format, service},
    view::service::Service,
};

/// Services: where they stand, who serves, and why somebody does not
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  bulkhead service list                     every Service, and how many serve for it
  bulkhead service get shop/db              one Service: its addresses, and each of its backends")]
pub(crate) struct ServiceArgs {
    #[command(subcommand)]
    command: ServiceCommand,
}

#[derive(Subcommand, Debug)]
enum ServiceCommand {
    List(ListArgs),
    Get(GetArgs),
}

/// List Services
#[derive(clap::Args, Debug)]
#[command(after_help = "\
One line for each port at each address. STATUS is in-force, no-backend (packets to it are dropped),
taken (an older Service has the address and port), no-room (a map is full: kube-proxy does it), or
waiting; READY counts the backends that serve, of all that may.

Examples:
  bulkhead service list
  bulkhead service list -n shop
  bulkhead service list -o json | jq '.services[].ports[] | select(.state != \"in-force\")'")]
struct ListArgs {
    /// Only this namespace
    #[arg(short, long, value_parser = parse::namespace)]
    namespace: Option<String>,
}

/// Show one Service: its addresses, and each of its backends
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  bulkhead service get shop/db
  bulkhead service get shop/db -o json | jq '.ports[].backends[] | select(.state == \"not-ready\")'")]
struct GetArgs {
    /// NAMESPACE/NAME
    #[arg(value_parser = parse::namespaced)]
    service: (String, String),
}

/// Outermost object of the JSON.
#[derive(Serialize)]
struct Services {
    services: Vec<Service>,
}

impl ServiceArgs {
    /// Asks and prints.
    pub(crate) async fn run(self, context: &mut Context) -> Result<Exit, Failure> {
        match self.command {
            ServiceCommand::List(args) => args.run(context).await,
            ServiceCommand::Get(args) => args.run(context).await,
        }
    }
}

impl ListArgs {
    async fn run(self, context: &mut Context) -> Result<Exit, Failure> {
        let services = ask(context, "service list", self.namespace.unwrap_or_default(), String::new()).await?;
        match context.out.format() {
            Format::Table => service::list(&mut context.out, &services)?,
            Format::Json => context.out.json(&Services { services })?,
        }
        Ok(Exit::Success)
    }
}

impl GetArgs {
    async fn run(self, context: &mut Context) -> Result<Exit, Failure> {
        let (namespace, name) = self.service;
        for found in ask(context, "service get", namespace, name).await? {
            match context.out.format() {
                Format::Table => service::detail(&mut context.out, &found)?,
                Format::Json => context.out.json(&found)?,
            }
        }
        Ok(Exit::Success)
    }
}

async fn ask(context: &Context, what: &str, namespace: String, name: String) -> Result<Vec<Service>, Failure> {
    let connection = context.connect().await?;
    let request = ListServicesRequest { namespace, name };
    let answer = connection.answer(what, connection.admin().list_services(request)).await?;
    Ok(answer.services.into_iter().map(Service::from).collect())
}
