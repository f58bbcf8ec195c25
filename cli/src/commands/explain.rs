//! `bulkhead explain SRC DST`: what would happen to a connection, and why.

use clap::ValueEnum;
use proto::bulkhead::admin::v1::{self as pb, ExplainRequest};

use super::Context;
use crate::{
    failure::{Exit, Failure},
    parse::{self, Party, Target},
    render::{explain, out::Format},
    view::{Verdict, explain::Explanation},
};

/// Ask what would happen to a new connection, and why
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Answers from the rules that are in force now, without sending a packet: the verdict, what the egress
policies of the source and the ingress policies of the destination said, and every rule that was
considered with the reason why it matched or did not.

Examples:
  bulkhead explain shop/web-0 shop/db-0 --port 5432
  bulkhead explain shop/web-0 shop/db-0:5432                the same
  bulkhead explain shop/Deployment/web 192.0.2.7:443        a workload, to an address outside
  bulkhead explain shop/web-0 '[fd00::53]:53' --protocol udp
  bulkhead explain shop/web-0 shop/db-0 --protocol icmp

Exit codes: 0 allowed, 3 denied; see `bulkhead --help` for the others.")]
pub(crate) struct ExplainArgs {
    /// Who connects: NAMESPACE/POD, NAMESPACE/KIND/WORKLOAD, or an IP address
    #[arg(value_name = "SRC", value_parser = Party::parse)]
    source: Party,

    /// To whom: the same, with :PORT behind it if you like
    #[arg(value_name = "DST", value_parser = Target::parse)]
    destination: Target,

    /// Port of the destination
    #[arg(short, long, value_parser = parse::port)]
    port: Option<u16>,

    /// Protocol
    #[arg(long, value_enum, default_value = "tcp", ignore_case = true)]
    protocol: Protocol,
}

/// What can be asked about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Protocol {
    Tcp,
    Udp,
    Sctp,
    Icmp,
    Icmpv6,
}

impl Protocol {
    /// Its name in the request.
    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
            Self::Icmp => "icmp",
            Self::Icmpv6 => "icmpv6",
        }
    }

    /// Whether it has ports.
    fn has_ports(self) -> bool {
        matches!(self, Self::Tcp | Self::Udp | Self::Sctp)
    }
}

/// For the request.
fn wire(party: Party) -> pb::Party {
    use pb::party::Who;
    let who = match party {
        Party::Pod { namespace, name } => Who::Pod(pb::PodName { namespace, name }),
        Party::Workload { namespace, kind, name } => Who::Workload(pb::WorkloadName { namespace, kind, name }),
        Party::Ip(ip) => Who::Ip(ip.to_string()),
    };
    pb::Party { who: Some(who) }
}

impl ExplainArgs {
    /// The port that is meant, 0 for a protocol without ports.
    fn port(&self) -> Result<u16, Failure> {
        let protocol = self.protocol.name();
        match (self.port, self.destination.port, self.protocol.has_ports()) {
            (Some(flag), Some(behind), _) if flag != behind => Err(Failure::usage(
                format_args!("the destination says port {behind}, --port says {flag}"),
                "name the port once",
            )),
            (None, None, true) => Err(Failure::usage(
                format_args!("{protocol} needs a port"),
                "add --port, or write it behind the destination, as in shop/db-0:5432",
            )),
            (Some(port), _, true) | (None, Some(port), true) => Ok(port),
            (None, None, false) => Ok(0),
            (_, _, false) => Err(Failure::usage(
                format_args!("{protocol} has no ports"),
                "leave the port out, or choose another --protocol",
            )),
        }
    }

    /// Asks and prints.
    pub(crate) async fn run(self, context: &mut Context) -> Result<Exit, Failure> {
        let port = self.port()?;
        let request = ExplainRequest {
            source: Some(wire(self.source)),
            destination: Some(wire(self.destination.party)),
            protocol: self.protocol.name().to_owned(),
            port: port.into(),
        };
        let connection = context.connect().await?;
        let explanation: Explanation = connection.answer("explain", connection.admin().explain(request)).await?.into();
        match context.out.format() {
            Format::Table => explain::render(&mut context.out, &explanation)?,
            Format::Json => context.out.json(&explanation)?,
        }
        match explanation.verdict {
            Verdict::Allow => Ok(Exit::Success),
            Verdict::Deny => Ok(Exit::No),
            Verdict::Pass | Verdict::Unknown => Err(Failure::Refused {
                message: "the daemon gave no verdict that this program knows".to_owned(),
                fix: "compare the versions with `bulkhead version`".to_owned(),
            }),
        }
    }
}
