//! `bulkhead endpoint list|get`: pods' interfaces on this node.

use std::net::IpAddr;

use clap::Subcommand;
use proto::bulkhead::admin::v1::{
    GetEndpointRequest, ListEndpointsRequest, PodName, get_endpoint_request::Which as Wire,
};
use serde::Serialize;

use super::Context;
use crate::{
    failure::{Exit, Failure},
    parse,
    render::{endpoint, out::Format},
    view::endpoint::{Detail, Endpoint},
};

/// Shortest beginning of a container id that is taken.
const MIN_ID: usize = 6;

/// Pods' interfaces on this node: addresses, identity, isolation, rules
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  bulkhead endpoint list                    every endpoint of this node
  bulkhead endpoint get shop/web-0          one pod, with its rules")]
pub(crate) struct EndpointArgs {
    #[command(subcommand)]
    command: EndpointCommand,
}

#[derive(Subcommand, Debug)]
enum EndpointCommand {
    List(ListArgs),
    Get(GetArgs),
}

/// List the endpoints of this node
#[derive(clap::Args, Debug)]
#[command(after_help = "\
EGRESS and INGRESS say whether policies isolate the pod in that direction, and by how many.

Examples:
  bulkhead endpoint list
  bulkhead endpoint list -n shop
  bulkhead endpoint list -o json | jq -r '.endpoints[] | select(.state != \"ready\") | .pod'")]
struct ListArgs {
    /// Only this namespace
    #[arg(short, long, value_parser = parse::namespace)]
    namespace: Option<String>,
}

/// Show one pod's endpoints, with their rules as they lie in the kernel
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  bulkhead endpoint get shop/web-0          every interface of the pod
  bulkhead endpoint get 10.88.0.5           whoever has the address
  bulkhead endpoint get 3f2a9c41d7          by container id, or its first 6 characters or more
  bulkhead endpoint get slot:4              by its place in the map ENDPOINTS")]
struct GetArgs {
    /// NAMESPACE/POD, an IP address, a container id, or slot:NUMBER
    #[arg(value_parser = Which::parse)]
    endpoint: Which,
}

/// Which endpoint is meant.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Which {
    Pod(String, String),
    Ip(IpAddr),
    Container(String),
    Slot(u32),
}

impl Which {
    /// From the command line.
    fn parse(text: &str) -> Result<Self, String> {
        if let Ok(ip) = text.parse() {
            return Ok(Self::Ip(ip));
        }
        if let Some(slot) = text.strip_prefix("slot:") {
            return match slot.parse() {
                Ok(0) | Err(_) => Err(format!("{slot:?} is not a slot; write a number from 1, as in slot:4")),
                Ok(slot) => Ok(Self::Slot(slot)),
            };
        }
        if text.contains('/') {
            return parse::namespaced(text).map(|(namespace, name)| Self::Pod(namespace, name));
        }
        // What CNI 1.1.0 allows in CNI_CONTAINERID.
        let id = text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        match (id, text.len()) {
            (true, MIN_ID..) => Ok(Self::Container(text.to_owned())),
            _ => Err(format!(
                "{text:?} is neither a pod (shop/web-0), nor an IP address, nor at least {MIN_ID} characters of a \
                 container id, nor a slot (slot:4)"
            )),
        }
    }

    /// For the request.
    fn wire(self) -> Wire {
        match self {
            Self::Pod(namespace, name) => Wire::Pod(PodName { namespace, name }),
            Self::Ip(ip) => Wire::Ip(ip.to_string()),
            Self::Container(id) => Wire::ContainerId(id),
            Self::Slot(slot) => Wire::Slot(slot),
        }
    }
}

/// Outermost object of the JSON.
#[derive(Serialize)]
struct Endpoints<T> {
    endpoints: Vec<T>,
}

impl EndpointArgs {
    /// Asks and prints.
    pub(crate) async fn run(self, context: &mut Context) -> Result<Exit, Failure> {
        match self.command {
            EndpointCommand::List(args) => args.run(context).await,
            EndpointCommand::Get(args) => args.run(context).await,
        }
    }
}

impl ListArgs {
    async fn run(self, context: &mut Context) -> Result<Exit, Failure> {
        let connection = context.connect().await?;
        let request = ListEndpointsRequest { namespace: self.namespace.unwrap_or_default() };
        let answer = connection.answer("endpoint list", connection.admin().list_endpoints(request)).await?;
        let endpoints: Vec<Endpoint> = answer.endpoints.into_iter().map(Endpoint::from).collect();
        match context.out.format() {
            Format::Table => endpoint::list(&mut context.out, &endpoints)?,
            Format::Json => context.out.json(&Endpoints { endpoints })?,
        }
        Ok(Exit::Success)
    }
}

impl GetArgs {
    async fn run(self, context: &mut Context) -> Result<Exit, Failure> {
        let connection = context.connect().await?;
        let request = GetEndpointRequest { which: Some(self.endpoint.wire()) };
        let answer = connection.answer("endpoint get", connection.admin().get_endpoint(request)).await?;
        let endpoints: Vec<Detail> = answer.endpoints.into_iter().map(Detail::from).collect();
        match context.out.format() {
            Format::Table => endpoint::details(&mut context.out, &endpoints)?,
            Format::Json => context.out.json(&Endpoints { endpoints })?,
        }
        Ok(Exit::Success)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_named_in_four_ways() {
        assert_eq!(Which::parse("shop/web-0"), Ok(Which::Pod("shop".into(), "web-0".into())));
        assert_eq!(Which::parse("10.0.0.1"), Ok(Which::Ip("10.0.0.1".parse().unwrap())));
        assert_eq!(Which::parse("fd00::5"), Ok(Which::Ip("fd00::5".parse().unwrap())));
        assert_eq!(Which::parse("3f2a9c"), Ok(Which::Container("3f2a9c".into())));
        assert_eq!(Which::parse("slot:4"), Ok(Which::Slot(4)));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "web-0", "3f2a9", "-f2a9c1", "slot:", "slot:0", "slot:x", "shop/", "a/b/c"] {
            assert!(Which::parse(text).is_err(), "{text}");
        }
    }
}
