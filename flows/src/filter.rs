//! What a `flow.FlowFilter` means: every field that is set must match (AND), of a repeated field
//! one value must (OR). One implementation, for the API and for the CLI, on [`FlowRecord`].
//!
//! Filters come from clients and are hostile until compiled: numbers and lengths are bounded,
//! every value is parsed, nothing backtracks without bound. A field that our records can never
//! answer (HTTP, trace ids, translated addresses, CEL) is refused by name rather
//! than matching nothing in silence.
//!
//! One record stands for what the Hubble reference sends as two events when policy denies a
//! packet, a policy verdict and a drop, and as two policy verdicts when it lets a connection pass
//! between two pods of the node. Filters for either type, or either direction, find it.

mod compile;
mod pattern;
mod selector;

use datapath_abi::policy::Direction;
use proto::flow::{FlowFilter, Verdict};

use crate::record::{End, FlowRecord, protocol};
pub(crate) use pattern::Glob;
use pattern::{Name, Network, NodeName};
use selector::Selector;

/// Filters in one list of a request.
pub const MAX_FILTERS: usize = 256;
/// Values in all fields of all filters of one list.
pub const MAX_VALUES: usize = 4096;
/// Bytes of one text value.
pub const MAX_TEXT_BYTES: usize = 1024;

/// A filter that cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct FilterError {
    /// Where: `whitelist[0].source_ip[2]`.
    pub field: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a filter. Texts of the client are given back without control characters, which
/// a terminal would obey.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// More filters than [`MAX_FILTERS`].
    #[error("{0} filters, at most {MAX_FILTERS} are taken")]
    TooManyFilters(usize),
    /// More values than [`MAX_VALUES`].
    #[error("more than {MAX_VALUES} values in all filters together")]
    TooManyValues,
    /// Longer than [`MAX_TEXT_BYTES`].
    #[error("{0} bytes long, at most {MAX_TEXT_BYTES} are taken")]
    TooLong(usize),
    /// Neither an address nor a CIDR.
    #[error("`{}` is neither an IP address nor a CIDR such as 10.0.0.0/8", .0.escape_debug())]
    NotAnAddress(String),
    /// Not a port.
    #[error("`{}` is not a port, want 0 to 65535", .0.escape_debug())]
    NotAPort(String),
    /// Not a protocol.
    #[error("unknown protocol `{}`, want tcp, udp, sctp, icmp, icmpv4, icmpv6, igmp, vrrp or dns", .0.escape_debug())]
    NotAProtocol(String),
    /// Not a regular expression, or too large a one.
    #[error("`{}` is not a regular expression, or too large a one", .0.escape_debug())]
    NotAPattern(String),
    /// Not a number of an enumeration.
    #[error("unknown number {0}")]
    UnknownNumber(i32),
    /// Not a UUID.
    #[error("`{}` is not a UUID", .0.escape_debug())]
    NotAUuid(String),
    /// Nothing where a name should be.
    #[error("is empty, want a name")]
    Empty,
    /// A label selector that does not parse.
    #[error("label selector, byte {at}: {wanted}")]
    Selector {
        /// Offset of the first byte that does not fit.
        at: usize,
        /// What should be there.
        wanted: &'static str,
    },
    /// Our records do not carry what it asks for.
    #[error("cannot be filtered by: {0}")]
    NotRecorded(&'static str),
}

/// Which end of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    Source,
    Destination,
}

impl Side {
    fn of(self, record: &FlowRecord) -> &End {
        match self {
            Side::Source => &record.source,
            Side::Destination => &record.destination,
        }
    }
}

/// One field of a filter: matches if one of its values does.
#[derive(Clone, Debug)]
enum Test {
    Uuid(Vec<crate::uuid::Uuid>),
    Address(Side, Vec<Network>),
    Pod(Side, Vec<Name>),
    Service(Side, Vec<Name>),
    Fqdn(Side, Vec<Glob>),
    Labels(Side, Vec<Selector>),
    Workload(Side, Vec<Owner>),
    Cluster(Side, Vec<String>),
    Port(Side, Vec<u16>),
    Identity(Side, Vec<u32>),
    Direction(Vec<Towards>),
    Verdict(Vec<i32>),
    DropReason(Vec<i32>),
    Interface(Vec<u32>),
    EventType(Vec<EventType>),
    Protocol(Vec<Protocol>),
    DnsQuery(Vec<regex::Regex>),
    Reply(Vec<bool>),
    TcpFlags(Vec<u16>),
    NodeName(Vec<NodeName>),
    NodeLabels(Vec<Selector>),
    IpVersion(Vec<i32>),
    Encrypted(Vec<bool>),
}

/// Kind and name of a workload, empty: any.
#[derive(Clone, Debug)]
struct Owner {
    kind: String,
    name: String,
}

/// Type, and sub type if that is asked for. Type 0: any.
#[derive(Clone, Copy, Debug)]
struct EventType {
    kind: i32,
    sub: Option<i32>,
}

/// A policy direction, or the lack of one.
#[derive(Clone, Copy, Debug)]
struct Towards(Option<Direction>);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Protocol {
    Number(u8),
    /// ICMP of either family.
    Icmp,
    /// A lookup.
    Dns,
}

/// One filter, ready to use.
#[derive(Clone, Debug)]
pub struct Filter {
    tests: Vec<Test>,
}

impl Filter {
    /// Compiles one filter. `path` is what errors call it.
    ///
    /// # Errors
    /// Names the field and what is wrong with it.
    pub fn compile(filter: &FlowFilter, path: &str) -> Result<Self, FilterError> {
        let mut budget = MAX_VALUES;
        compile::filter(filter, path, &mut budget)
    }

    /// Whether the record matches every field.
    pub fn matches(&self, record: &FlowRecord) -> bool {
        self.tests.iter().all(|test| test.matches(record))
    }
}

/// Both lists of a request.
#[derive(Clone, Debug, Default)]
pub struct FilterSet {
    whitelist: Vec<Filter>,
    blacklist: Vec<Filter>,
}

impl FilterSet {
    /// Compiles both lists.
    ///
    /// # Errors
    /// Names the list, the filter, the field and what is wrong with it.
    pub fn compile(whitelist: &[FlowFilter], blacklist: &[FlowFilter]) -> Result<Self, FilterError> {
        Ok(Self {
            whitelist: compile::list(whitelist, "whitelist")?,
            blacklist: compile::list(blacklist, "blacklist")?,
        })
    }

    /// Whether one filter of the whitelist matches (or it is empty) and none of the blacklist.
    pub fn matches(&self, record: &FlowRecord) -> bool {
        (self.whitelist.is_empty() || self.whitelist.iter().any(|filter| filter.matches(record)))
            && !self.blacklist.iter().any(|filter| filter.matches(record))
    }
}

impl Test {
    fn matches(&self, record: &FlowRecord) -> bool {
        match self {
            Test::Uuid(values) => values.contains(&record.uuid()),
            Test::Address(side, values) => values.iter().any(|value| value.contains(side.of(record).ip)),
            Test::Pod(side, values) => {
                let end = side.of(record);
                values.iter().any(|value| value.matches(end.namespace(), end.pod_name()))
            }
            Test::Service(side, values) => side
                .of(record)
                .service
                .as_ref()
                .is_some_and(|service| values.iter().any(|value| value.matches(&service.namespace, &service.name))),
            Test::Fqdn(side, values) => side.of(record).dns_names.as_ref().is_some_and(|names| {
                names.iter().any(|name| values.iter().any(|value| value.matches(name.trim_end_matches('.'))))
            }),
            Test::Labels(side, values) => values.iter().any(|value| value.matches_end(side.of(record))),
            Test::Workload(side, values) => {
                let pod = side.of(record).pod.as_ref();
                pod.and_then(|pod| pod.workload.as_ref()).is_some_and(|workload| {
                    values.iter().any(|Owner { kind, name }| {
                        (kind.is_empty() || *kind == workload.kind) && (name.is_empty() || *name == workload.name)
                    })
                })
            }
            Test::Cluster(side, values) => {
                let cluster = side.of(record).cluster(&record.node);
                values.iter().any(|value| value == cluster)
            }
            Test::Port(side, values) => record.has_ports() && values.contains(&side.of(record).port),
            Test::Identity(side, values) => values.contains(&side.of(record).identity),
            Test::Direction(values) => values.iter().any(|value| value.matches(record)),
            Test::Verdict(values) => values.contains(&(record.verdict() as i32)),
            Test::DropReason(values) => {
                record.drop_reason.is_some_and(|reason| values.contains(&(reason.hubble() as i32)))
            }
            Test::Interface(values) => values.contains(&record.ifindex),
            Test::EventType(values) => values.iter().any(|value| value.matches(record)),
            Test::Protocol(values) => values.iter().any(|value| match value {
                Protocol::Number(number) => *number == record.protocol,
                Protocol::Icmp => matches!(record.protocol, protocol::ICMP | protocol::ICMPV6),
                Protocol::Dns => record.dns.is_some(),
            }),
            // With the last dot and without, as people write names.
            Test::DnsQuery(values) => record.dns.as_ref().is_some_and(|lookup| {
                let name = &*lookup.question.name;
                values.iter().any(|value| value.is_match(name) || value.is_match(&format!("{name}.")))
            }),
            Test::Reply(values) => {
                // A dropped packet counts as no reply; nothing is known about it.
                let reply = record.is_reply().or((record.verdict() == Verdict::Dropped).then_some(false));
                reply.is_some_and(|reply| values.contains(&reply))
            }
            Test::TcpFlags(values) => {
                let flags = u16::from(record.forward.tcp_flags);
                record.protocol == protocol::TCP && values.iter().any(|value| flags & value == *value)
            }
            Test::NodeName(values) => values.iter().any(|value| value.matches(&record.node.cluster, &record.node.name)),
            Test::NodeLabels(values) => values.iter().any(|value| value.matches_labels(&record.node.labels)),
            Test::IpVersion(values) => values.contains(&(record.ip_version() as i32)),
            // We encrypt nothing.
            Test::Encrypted(values) => values.contains(&false),
        }
    }
}

impl Towards {
    fn matches(self, record: &FlowRecord) -> bool {
        match self.0 {
            Some(direction) => record.concerns(direction),
            None => record.direction().is_none(),
        }
    }
}

impl EventType {
    fn matches(self, record: &FlowRecord) -> bool {
        let of = |(kind, sub): (i32, i32)| (self.kind == 0 || self.kind == kind) && self.sub.is_none_or(|s| s == sub);
        of(record.event_number()) || record.drop_number().is_some_and(of)
    }
}

#[cfg(test)]
mod tests;
