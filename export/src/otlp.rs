//! Records as log records of OTLP 1.x, with attributes of OpenTelemetry's semantic conventions where there are any and
//! `bulkhead.*` where there are none. Pure: record in, message out. The mapping as a table: docs/flow-export.md.

use datapath_abi::event::EventKind;
use dns::{
    Lookup,
    lookup::{class_name, type_name},
};
use flows::{
    FlowRecord,
    record::{End, Node, RuleRef, Ruling, protocol},
};
use proto::opentelemetry::proto::{
    common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value::Value},
    logs::v1::LogRecord,
    resource::v1::Resource,
};

use crate::{
    facts::{self, Verdict},
    notice::Notice,
    wanted::{Wanted, WantedEnd},
};

/// `event_name` of a record.
pub const FLOW: &str = "bulkhead.flow";
/// `event_name` of a notice of lost records.
pub const LOST: &str = "bulkhead.flow.lost";

const INFO: (i32, &str) = (9, "INFO");
const WARN: (i32, &str) = (13, "WARN");

fn text(value: &str) -> AnyValue {
    AnyValue { value: Some(Value::StringValue(value.to_owned())) }
}

/// Attributes that are being collected.
#[derive(Debug, Default)]
struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn value(&mut self, key: &str, value: Value) {
        self.0.push(KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) });
    }

    /// Nothing if it is empty.
    fn text(&mut self, key: &str, value: &str) {
        if !value.is_empty() {
            self.value(key, Value::StringValue(value.to_owned()));
        }
    }

    /// What is beyond the protocol's signed numbers is as large as they get.
    fn number(&mut self, key: &str, value: u64) {
        self.value(key, Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)));
    }

    fn texts(&mut self, key: &str, values: impl IntoIterator<Item = String>) {
        let values: Vec<_> = values.into_iter().map(|value| text(&value)).collect();
        if !values.is_empty() {
            self.value(key, Value::ArrayValue(ArrayValue { values }));
        }
    }
}

/// The node, for whom all records of a request speak.
pub fn resource(node: &Node) -> Resource {
    let mut attributes = Attributes::default();
    attributes.text("service.name", "bulkhead");
    attributes.text("service.version", env!("CARGO_PKG_VERSION"));
    attributes.text("k8s.node.name", &node.name);
    attributes.text("k8s.cluster.name", &node.cluster);
    Resource { attributes: attributes.0, dropped_attributes_count: 0 }
}

/// Who wrote the records.
pub fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "bulkhead".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

/// A record.
pub fn log_record(record: &FlowRecord, wanted: &Wanted, observed_unix_ns: u64) -> LogRecord {
    let verdict = facts::verdict(record);
    let mut to = Attributes::default();
    if wanted.uid {
        to.text("log.record.uid", &record.uuid().to_string());
    }
    to.number("bulkhead.sequence", record.sequence);
    to.text("bulkhead.node.epoch", &record.node.epoch.to_string());
    to.text("bulkhead.event", facts::kind(record.kind));
    if let Some(aggregate) = &record.aggregate {
        to.number("bulkhead.aggregate.count", aggregate.count);
        to.number("bulkhead.aggregate.first", aggregate.first_unix_ns);
        to.number("bulkhead.aggregate.first_sequence", aggregate.first_sequence);
    }
    to.text("bulkhead.verdict", verdict.name());
    to.text("bulkhead.reason", facts::reason(record));
    if wanted.direction
        && let Some(direction) = record.direction()
    {
        to.text("bulkhead.policy.direction", facts::direction(direction));
    }
    if wanted.protocol {
        to.text("network.transport", &facts::protocol_name(record.protocol));
        to.text("network.type", if record.source.ip.is_ipv4() { "ipv4" } else { "ipv6" });
        if let Some(icmp) = record.icmp {
            to.number("bulkhead.icmp.type", icmp.kind.into());
            to.number("bulkhead.icmp.code", icmp.code.into());
        }
    }
    if wanted.protocol && wanted.source.address && wanted.destination.address {
        to.text("network.community_id", &facts::community(record).unwrap_or_default());
    }
    end(&mut to, "source", &record.source, record, &wanted.source, wanted);
    end(&mut to, "destination", &record.destination, record, &wanted.destination, wanted);
    if let Some(lookup) = record.dns.as_deref().filter(|_| wanted.lookup) {
        self::lookup(&mut to, lookup);
    }
    if wanted.policies {
        policy(&mut to, record);
    }
    if wanted.details {
        details(&mut to, record);
    }
    let (severity_number, severity_text) = if verdict == Verdict::Allowed { INFO } else { WARN };
    LogRecord {
        time_unix_nano: record.time_unix_ns,
        observed_time_unix_nano: observed_unix_ns,
        severity_number,
        severity_text: severity_text.to_owned(),
        body: wanted.summary.then(|| text(&facts::summary(record))),
        attributes: to.0,
        event_name: FLOW.to_owned(),
        ..LogRecord::default()
    }
}

fn end(to: &mut Attributes, side: &str, end: &End, record: &FlowRecord, wanted: &WantedEnd, all: &Wanted) {
    let key = |name: &str| format!("{side}.{name}");
    if wanted.address
        && let Some(ip) = facts::address(record, end)
    {
        to.text(&key("address"), &ip.to_string());
    }
    if all.protocol
        && let Some(port) = facts::port(record, end)
    {
        to.number(&key("port"), port.into());
    }
    if wanted.identity {
        to.number(&key("bulkhead.identity"), end.identity.into());
        to.text(&key("bulkhead.kind"), facts::end_kind(end));
    }
    if wanted.cluster {
        to.text(&key("k8s.cluster.name"), end.cluster(&record.node));
    }
    if wanted.namespace {
        to.text(&key("k8s.namespace.name"), end.namespace());
    }
    if let Some(pod) = &end.pod {
        if wanted.pod {
            to.text(&key("k8s.pod.name"), &pod.name);
            to.text(&key("k8s.pod.uid"), if all.details { &pod.uid } else { "" });
        }
        if wanted.workload
            && let Some(workload) = &pod.workload
        {
            to.text(&key(&format!("k8s.{}.name", workload.kind.to_ascii_lowercase())), &workload.name);
        }
    }
    if all.details {
        to.text(&key("k8s.serviceaccount.name"), end.service_account());
    }
    if wanted.labels
        && let Some(labels) = end.labels()
    {
        for (name, value) in labels {
            to.text(&key(&format!("k8s.pod.label.{name}")), value);
        }
    }
    if wanted.names {
        to.texts(&key("dns.names"), end.dns_names.as_deref().unwrap_or_default().iter().cloned());
    }
    if wanted.service
        && let Some(service) = &end.service
    {
        to.text(&key("k8s.service.name"), &service.name);
        to.text(&key("k8s.service.namespace"), &service.namespace);
    }
}

/// `dns.*` are the semantic conventions' own.
fn lookup(to: &mut Attributes, lookup: &Lookup) {
    let Lookup { question, id, tries, outcome: _ } = lookup;
    to.text("dns.question.name", &question.name);
    to.text("bulkhead.dns.question.type", &type_name(question.rtype));
    to.text("bulkhead.dns.question.class", &class_name(question.class));
    to.number("bulkhead.dns.id", (*id).into());
    to.number("bulkhead.dns.tries", (*tries).into());
    to.text("bulkhead.dns.outcome", &facts::lookup_outcome(lookup));
    let Some(answer) = lookup.answer() else { return };
    to.texts("dns.answers", answer.records.iter().map(|record| record.data.to_string()));
    to.texts("bulkhead.dns.answer.types", answer.records.iter().map(|record| type_name(record.rtype)));
    to.number("bulkhead.dns.answer.ttl", answer.ttl_s().into());
    to.number("bulkhead.dns.latency_us", answer.latency_ns / 1000);
}

/// The policy and rule that decided.
fn policy(to: &mut Attributes, record: &FlowRecord) {
    let Some((direction, ruling)) = facts::deciding(record) else { return };
    match ruling {
        Ruling::Allowed(RuleRef { cookie, info }) | Ruling::Denied(RuleRef { cookie, info }) => {
            to.text("security_rule.uuid", &cookie.to_string());
            if let Some(info) = info {
                to.text("security_rule.name", &format!("{}[{}]", facts::direction(direction), info.index));
                to.text("security_rule.ruleset.name", &facts::policy_name(&info.policy));
                to.text("security_rule.category", &info.policy.kind);
            }
        }
        Ruling::Isolated(policies) => {
            to.text("security_rule.name", "default deny");
            to.text("security_rule.category", facts::outcome(ruling));
            to.texts("bulkhead.isolated_by", policies.iter().map(|policy| facts::policy_name(policy)));
        }
        Ruling::NotAsked | Ruling::Open | Ruling::Exempt => {}
    }
}

fn details(to: &mut Attributes, record: &FlowRecord) {
    // Of connections totals so far, of other events the one packet.
    for (side, traffic) in [("source", record.forward), ("destination", record.reverse)] {
        to.number(&format!("{side}.bytes"), traffic.bytes);
        to.number(&format!("{side}.packets"), traffic.packets);
        if record.protocol == protocol::TCP {
            to.number(&format!("{side}.tcp_flags"), traffic.tcp_flags.into());
        }
    }
    if let Some(opened) = record.opened_unix_ns.filter(|_| record.aggregate.is_none()) {
        to.number("bulkhead.connection.start", opened);
        if record.kind == EventKind::Closed {
            to.number("bulkhead.connection.duration", record.time_unix_ns.saturating_sub(opened));
        }
    }
    if let Some(rtt) = record.rtt_us {
        to.number("bulkhead.rtt_us", u32::from(rtt).into());
    }
    if let Some(addressed) = record.addressed {
        to.text("bulkhead.service.address", &addressed.to_string());
    }
    for (key, ruling) in [
        ("bulkhead.staged.egress", record.staged_egress.as_ref()),
        ("bulkhead.staged.ingress", record.staged_ingress.as_ref()),
    ] {
        if let Some(ruling) = ruling {
            to.text(key, if ruling.blocks() { "denied" } else { "allowed" });
        }
    }
}

/// A notice of lost records.
pub fn loss(notice: &Notice, node: &Node) -> LogRecord {
    let Notice { gap, count, time_unix_ns, after, before, exporter } = notice;
    let mut to = Attributes::default();
    to.text("log.record.uid", &notice.uid(node.epoch));
    to.text("bulkhead.event", "lost");
    to.text("bulkhead.reason", gap.name());
    to.number("bulkhead.lost.count", *count);
    to.number("bulkhead.lost.after_sequence", *after);
    to.number("bulkhead.lost.before_sequence", *before);
    to.text("bulkhead.node.epoch", &node.epoch.to_string());
    to.text("bulkhead.exporter", exporter);
    LogRecord {
        time_unix_nano: *time_unix_ns,
        observed_time_unix_nano: *time_unix_ns,
        severity_number: WARN.0,
        severity_text: WARN.1.to_owned(),
        body: Some(text(&notice.summary())),
        attributes: to.0,
        event_name: LOST.to_owned(),
        ..LogRecord::default()
    }
}

#[cfg(test)]
mod tests;
