//! From `flow.FlowFilter` to tests. Takes every field of the message apart by name, so that a new
//! one cannot be forgotten.

use datapath_abi::policy::Direction;
use proto::flow::{
    EventTypeFilter, FlowFilter, NetworkInterface, TcpFlags, TrafficDirection, Workload, flow_filter::Experimental,
};

use regex::{Regex, RegexBuilder};

use crate::record::{protocol, tcp_flag_bits};

use super::{
    EventType, Filter, FilterError, MAX_FILTERS, MAX_TEXT_BYTES, Owner, Problem, Protocol, Side, Test, Towards,
    pattern::{Glob, Name, Network, NodeName},
    selector::Selector,
};

const NO_L7: &str = "flows carry no application data but DNS";
const NO_TRACE: &str = "flows carry no trace ids";

pub(super) fn list(filters: &[FlowFilter], name: &str) -> Result<Vec<Filter>, FilterError> {
    if filters.len() > MAX_FILTERS {
        return Err(FilterError { field: name.to_owned(), problem: Problem::TooManyFilters(filters.len()) });
    }
    let mut budget = super::MAX_VALUES;
    filters.iter().enumerate().map(|(index, f)| filter(f, &format!("{name}[{index}]"), &mut budget)).collect()
}

/// Of how many other values a regular expression takes the place: it may take [`MOST_PATTERN_BYTES`] of memory.
const PATTERN_WEIGHT: usize = 63;
const MOST_PATTERN_BYTES: usize = 64 << 10;

/// Collects the tests of one filter.
struct Builder<'a> {
    path: &'a str,
    budget: &'a mut usize,
    tests: Vec<Test>,
}

impl Builder<'_> {
    fn error(&self, field: &str, problem: Problem) -> FilterError {
        FilterError { field: format!("{}.{field}", self.path), problem }
    }

    /// Adds a field: nothing if it is not set, else one test made of its parsed values.
    fn field<V, P>(
        &mut self,
        name: &str,
        values: &[V],
        parse: impl Fn(&V) -> Result<P, Problem>,
        test: impl FnOnce(Vec<P>) -> Test,
    ) -> Result<(), FilterError> {
        if values.is_empty() {
            return Ok(());
        }
        *self.budget = self.budget.checked_sub(values.len()).ok_or_else(|| self.error(name, Problem::TooManyValues))?;
        let mut parsed = Vec::with_capacity(values.len());
        for (index, value) in values.iter().enumerate() {
            let value = parse(value).map_err(|problem| self.error(&format!("{name}[{index}]"), problem))?;
            parsed.push(value);
        }
        self.tests.push(test(parsed));
        Ok(())
    }

    /// Adds a field of text.
    fn text<P>(
        &mut self,
        name: &str,
        values: &[String],
        parse: impl Fn(&str) -> Result<P, Problem>,
        test: impl FnOnce(Vec<P>) -> Test,
    ) -> Result<(), FilterError> {
        self.field(name, values, |value| parse(bounded(value)?), test)
    }

    /// Refuses a field that our records cannot answer.
    fn refuse(&self, name: &str, set: bool, why: &'static str) -> Result<(), FilterError> {
        if set { Err(self.error(name, Problem::NotRecorded(why))) } else { Ok(()) }
    }
}

pub(super) fn filter(filter: &FlowFilter, path: &str, budget: &mut usize) -> Result<Filter, FilterError> {
    let FlowFilter {
        uuid,
        source_ip,
        source_ip_xlated,
        source_pod,
        source_fqdn,
        source_label,
        source_service,
        source_workload,
        source_cluster_name,
        destination_ip,
        destination_pod,
        destination_fqdn,
        destination_label,
        destination_service,
        destination_workload,
        destination_cluster_name,
        traffic_direction,
        verdict,
        drop_reason_desc,
        interface,
        event_type,
        http_status_code,
        protocol,
        source_port,
        destination_port,
        reply,
        dns_query,
        source_identity,
        destination_identity,
        http_method,
        http_path,
        http_url,
        http_header,
        tcp_flags,
        node_name,
        node_labels,
        ip_version,
        trace_id,
        ip_trace_id,
        encrypted,
        experimental,
    } = filter;
    let mut b = Builder { path, budget, tests: Vec::new() };
    use Side::{Destination, Source};

    b.refuse("http_status_code", !http_status_code.is_empty(), NO_L7)?;
    b.refuse("http_method", !http_method.is_empty(), NO_L7)?;
    b.refuse("http_path", !http_path.is_empty(), NO_L7)?;
    b.refuse("http_url", !http_url.is_empty(), NO_L7)?;
    b.refuse("http_header", !http_header.is_empty(), NO_L7)?;
    b.refuse("trace_id", !trace_id.is_empty(), NO_TRACE)?;
    b.refuse("ip_trace_id", !ip_trace_id.is_empty(), NO_TRACE)?;
    b.refuse("source_ip_xlated", !source_ip_xlated.is_empty(), "flows carry no translated addresses")?;
    let cel = matches!(experimental, Some(Experimental { cel_expression }) if !cel_expression.is_empty());
    b.refuse("experimental.cel_expression", cel, "CEL expressions are not evaluated")?;

    b.text("uuid", uuid, |t| t.parse().map_err(|_| Problem::NotAUuid(t.to_owned())), Test::Uuid)?;
    for (side, name, values) in [(Source, "source_ip", source_ip), (Destination, "destination_ip", destination_ip)] {
        let parse = |t: &str| Network::parse(t).ok_or_else(|| Problem::NotAnAddress(t.to_owned()));
        b.text(name, values, parse, |v| Test::Address(side, v))?;
    }
    for (side, name, values) in [(Source, "source_pod", source_pod), (Destination, "destination_pod", destination_pod)]
    {
        b.text(name, values, name_of, |v| Test::Pod(side, v))?;
    }
    for (side, name, values) in
        [(Source, "source_service", source_service), (Destination, "destination_service", destination_service)]
    {
        b.text(name, values, name_of, |v| Test::Service(side, v))?;
    }
    for (side, name, values) in
        [(Source, "source_fqdn", source_fqdn), (Destination, "destination_fqdn", destination_fqdn)]
    {
        let parse = |t: &str| Ok(Glob::new(filled(t)?.trim_end_matches('.')));
        b.text(name, values, parse, |v| Test::Fqdn(side, v))?;
    }
    for (side, name, values) in
        [(Source, "source_label", source_label), (Destination, "destination_label", destination_label)]
    {
        b.text(name, values, Selector::parse, |v| Test::Labels(side, v))?;
    }
    for (side, name, values) in
        [(Source, "source_workload", source_workload), (Destination, "destination_workload", destination_workload)]
    {
        b.field(name, values, owner, |v| Test::Workload(side, v))?;
    }
    for (side, name, values) in [
        (Source, "source_cluster_name", source_cluster_name),
        (Destination, "destination_cluster_name", destination_cluster_name),
    ] {
        b.text(name, values, |t| Ok(filled(t)?.to_owned()), |v| Test::Cluster(side, v))?;
    }
    for (side, name, values) in
        [(Source, "source_port", source_port), (Destination, "destination_port", destination_port)]
    {
        b.text(name, values, |t| t.parse().map_err(|_| Problem::NotAPort(t.to_owned())), |v| Test::Port(side, v))?;
    }
    for (side, name, values) in
        [(Source, "source_identity", source_identity), (Destination, "destination_identity", destination_identity)]
    {
        b.field(name, values, |v| Ok(*v), |v| Test::Identity(side, v))?;
    }
    b.field("traffic_direction", traffic_direction, |v| towards(*v), Test::Direction)?;
    b.field("verdict", verdict, |v| Ok(*v), Test::Verdict)?;
    b.field("drop_reason_desc", drop_reason_desc, |v| Ok(*v), Test::DropReason)?;
    b.field("interface", interface, interface_of, Test::Interface)?;
    b.field("event_type", event_type, |v| Ok(event_type_of(v)), Test::EventType)?;
    b.text("protocol", protocol, protocol_of, Test::Protocol)?;
    let weight = dns_query.len().saturating_mul(PATTERN_WEIGHT);
    *b.budget = b.budget.checked_sub(weight).ok_or_else(|| b.error("dns_query", Problem::TooManyValues))?;
    b.text("dns_query", dns_query, pattern_of, Test::DnsQuery)?;
    b.field("reply", reply, |v| Ok(*v), Test::Reply)?;
    b.field("tcp_flags", tcp_flags, |v| Ok(tcp_flags_of(v)), Test::TcpFlags)?;
    b.text("node_name", node_name, |t| Ok(NodeName::parse(filled(t)?)), Test::NodeName)?;
    b.text("node_labels", node_labels, Selector::parse, Test::NodeLabels)?;
    b.field("ip_version", ip_version, |v| Ok(*v), Test::IpVersion)?;
    b.field("encrypted", encrypted, |v| Ok(*v), Test::Encrypted)?;
    Ok(Filter { tests: b.tests })
}

/// A regular expression, as the reference takes them, whatever the case of its letters. Matched in linear time.
fn pattern_of(text: &str) -> Result<Regex, Problem> {
    RegexBuilder::new(filled(text)?)
        .case_insensitive(true)
        .size_limit(MOST_PATTERN_BYTES)
        .dfa_size_limit(MOST_PATTERN_BYTES)
        .build()
        .map_err(|_| Problem::NotAPattern(text.to_owned()))
}

fn towards(number: i32) -> Result<Towards, Problem> {
    Ok(Towards(match TrafficDirection::try_from(number) {
        Ok(TrafficDirection::Unknown) => None,
        Ok(TrafficDirection::Ingress) => Some(Direction::Ingress),
        Ok(TrafficDirection::Egress) => Some(Direction::Egress),
        Err(_) => return Err(Problem::UnknownNumber(number)),
    }))
}

fn bounded(text: &str) -> Result<&str, Problem> {
    if text.len() > MAX_TEXT_BYTES { Err(Problem::TooLong(text.len())) } else { Ok(text) }
}

fn filled(text: &str) -> Result<&str, Problem> {
    if text.is_empty() { Err(Problem::Empty) } else { Ok(text) }
}

fn name_of(text: &str) -> Result<Name, Problem> {
    Ok(Name::parse(filled(text)?))
}

fn owner(workload: &Workload) -> Result<Owner, Problem> {
    let Workload { name, kind } = workload;
    let (name, kind) = (bounded(name)?, bounded(kind)?);
    if name.is_empty() && kind.is_empty() {
        return Err(Problem::Empty);
    }
    Ok(Owner { kind: kind.to_owned(), name: name.to_owned() })
}

fn interface_of(interface: &NetworkInterface) -> Result<u32, Problem> {
    match interface {
        NetworkInterface { index: 0, name: _ } => {
            Err(Problem::NotRecorded("flows carry the number of the interface, not its name; give its index"))
        }
        NetworkInterface { index, name: _ } => Ok(*index),
    }
}

fn event_type_of(filter: &EventTypeFilter) -> EventType {
    let EventTypeFilter { r#type, match_sub_type, sub_type } = *filter;
    EventType { kind: r#type, sub: match_sub_type.then_some(sub_type) }
}

fn protocol_of(text: &str) -> Result<Protocol, Problem> {
    Ok(match text.to_ascii_lowercase().as_str() {
        "tcp" => Protocol::Number(protocol::TCP),
        "udp" => Protocol::Number(protocol::UDP),
        "sctp" => Protocol::Number(protocol::SCTP),
        "icmp" => Protocol::Icmp,
        "icmpv4" => Protocol::Number(protocol::ICMP),
        "icmpv6" => Protocol::Number(protocol::ICMPV6),
        "vrrp" => Protocol::Number(protocol::VRRP),
        "igmp" => Protocol::Number(protocol::IGMP),
        "dns" => Protocol::Dns,
        "http" | "kafka" => return Err(Problem::NotRecorded(NO_L7)),
        _ => return Err(Problem::NotAProtocol(text.to_owned())),
    })
}

/// The bits that must all be set. NS has no place in byte 13 of the header, so asking for it
/// matches nothing.
fn tcp_flags_of(flags: &TcpFlags) -> u16 {
    let ns = if flags.ns { 1 << 8 } else { 0 };
    u16::from(tcp_flag_bits(flags)) | ns
}
