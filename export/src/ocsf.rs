//! Records as events of OCSF 1.8.0, class Network Activity (4001), lookups DNS Activity (4003), one JSON object a line; and notices of lost
//! records as Base Events, for which OCSF has no class. Pure: record in, bytes out. What the class has no field for
//! is in `unmapped`. The mapping as a table: docs/flow-export.md.

use datapath_abi::{event::EventKind, policy::Direction};
use flows::{
    FlowRecord,
    record::{DEFAULT_CLUSTER, End, Node, PolicyInfo, RuleRef, Ruling, Traffic},
};

use crate::{
    facts::{self, Verdict},
    json::Object,
    notice::Notice,
    wanted::{Wanted, WantedEnd},
};

/// Version of the schema.
pub const VERSION: &str = "1.8.0";

const CATEGORY: u64 = 4;
/// Network Activity.
const CLASS: Word = (4001, "Network Activity");
const NS_PER_MS: u64 = 1_000_000;

/// A number of the schema and its caption.
type Word = (u64, &'static str);

const IPV4: Word = (4, "Internet Protocol version 4 (IPv4)");
const IPV6: Word = (6, "Internet Protocol version 6 (IPv6)");

fn activity(record: &FlowRecord) -> Word {
    match (record.kind, facts::verdict(record)) {
        (EventKind::Opened, _) => (1, "Open"),
        (EventKind::Closed, _) => (2, "Close"),
        (EventKind::Active, _) | (EventKind::Dropped, Verdict::Allowed | Verdict::Denied) => (6, "Traffic"),
        (EventKind::Dropped, Verdict::Error) => (4, "Fail"),
        (EventKind::Dns, _) => dns::activity(record),
    }
}

/// Severity, action, disposition, status.
fn judgement(verdict: Verdict) -> [Word; 4] {
    match verdict {
        Verdict::Allowed => [(1, "Informational"), (1, "Allowed"), (1, "Allowed"), (1, "Success")],
        // Not disposition 6, Dropped, which speaks of a threat.
        Verdict::Denied => [(3, "Medium"), (2, "Denied"), (2, "Blocked"), (2, "Failure")],
        Verdict::Error => [(2, "Low"), (0, "Unknown"), (27, "Error"), (2, "Failure")],
    }
}

/// One line, with its end.
pub fn event(record: &FlowRecord, wanted: &Wanted, logged_unix_ns: u64, out: &mut Vec<u8>) {
    let mut event = Object::begin(out);
    let (activity, verdict) = (activity(record), facts::verdict(record));
    let [severity, action, disposition, mut status] = judgement(verdict);
    if let Some(lookup) = &record.dns {
        status = dns::status(lookup);
    }
    event.number("activity_id", activity.0).text("activity_name", activity.1);
    event.number("category_uid", CATEGORY).text("category_name", "Network Activity");
    let class = if record.dns.is_some() { dns::CLASS } else { CLASS };
    event.number("class_uid", class.0).text("class_name", class.1);
    event.number("type_uid", class.0 * 100 + activity.0);
    event.text("type_name", &format!("{}: {}", class.1, activity.1));
    event.word("severity", severity).word("action", action).word("disposition", disposition).word("status", status);
    match (record.drop_reason, record.end_reason) {
        (Some(reason), _) => {
            event.text("status_code", reason.name()).text("status_detail", reason.text());
        }
        (None, Some(reason)) => {
            event.text("status_code", facts::end_reason(reason)).text("status_detail", facts::end_reason(reason));
        }
        (None, None) => {
            if let Some(lookup) = &record.dns {
                event.text("status_code", &facts::lookup_outcome(lookup));
            }
        }
    }
    event.number("time", record.time_unix_ns / NS_PER_MS);
    if let Some(aggregate) = &record.aggregate {
        event.number("count", aggregate.count).number("start_time", aggregate.first_unix_ns / NS_PER_MS);
        event.number("end_time", record.time_unix_ns / NS_PER_MS);
    } else if let Some(opened) = record.opened_unix_ns.filter(|_| wanted.details) {
        event.number("start_time", opened / NS_PER_MS);
        if record.kind == EventKind::Closed {
            event.number("end_time", record.time_unix_ns / NS_PER_MS);
            event.number("duration", record.time_unix_ns.saturating_sub(opened) / NS_PER_MS);
        }
    }
    if wanted.summary {
        event.text("message", &facts::summary(record));
    }
    let uid = if wanted.uid { record.uuid().to_string() } else { String::new() };
    metadata(&mut event, &record.node, &uid, record.sequence, logged_unix_ns, wanted.node);
    for (name, end, wanted, details) in [
        ("src_endpoint", &record.source, &wanted.source, wanted),
        ("dst_endpoint", &record.destination, &wanted.destination, wanted),
    ] {
        event.object(name, |it| endpoint(it, end, record, wanted, details));
    }
    event.object("connection_info", |it| connection(it, record, wanted));
    if wanted.details {
        // An event of one packet is told as such; of a connection the totals so far, which are no sums to add up. What
        // stands for many is the sum of what they add.
        let name = match record.kind {
            _ if record.aggregate.is_some() => "traffic",
            EventKind::Opened | EventKind::Dropped | EventKind::Dns => "traffic",
            EventKind::Closed | EventKind::Active => "cumulative_traffic",
        };
        event.object(name, |it| traffic(it, record.forward, record.reverse));
    }
    if wanted.direction
        && let Some(direction) = record.direction()
    {
        event.word("observation_point", observation_point(record, direction));
    }
    if let Some(lookup) = record.dns.as_deref().filter(|_| wanted.lookup) {
        dns::lookup(&mut event, record, lookup);
    }
    if wanted.policies {
        policy(&mut event, record);
    }
    event.object("unmapped", |it| unmapped(it, record, wanted));
    event.end();
    out.push(b'\n');
}

fn metadata(event: &mut Object<'_>, node: &Node, uid: &str, sequence: u64, logged_unix_ns: u64, reporter: bool) {
    event.object("metadata", |it| {
        it.text("version", VERSION).text("uid", uid).number("sequence", sequence);
        it.number("logged_time", logged_unix_ns / NS_PER_MS).text("log_name", "flows");
        it.object("product", |it| {
            it.text("name", "Bulkhead").text("vendor_name", "Bulkhead").text("version", env!("CARGO_PKG_VERSION"));
        });
        it.texts("profiles", ["security_control", "container"]);
        if reporter {
            it.object("reporter", |it| {
                it.text("name", &node.name);
            });
        }
        if node.cluster != DEFAULT_CLUSTER {
            it.text("tenant_uid", &node.cluster);
        }
    });
}

fn endpoint(out: &mut Object<'_>, end: &End, record: &FlowRecord, wanted: &WantedEnd, all: &Wanted) {
    if wanted.address
        && let Some(ip) = facts::address(record, end)
    {
        out.shown("ip", ip);
    }
    if all.protocol
        && let Some(port) = facts::port(record, end)
    {
        out.number("port", port.into());
    }
    let pod = end.pod.as_deref();
    if wanted.pod {
        out.text("name", end.pod_name());
        out.text("uid", pod.filter(|_| all.details).map_or("", |pod| &pod.uid));
    }
    if wanted.names
        && let Some(name) = end.dns_names.as_deref().and_then(<[String]>::first)
    {
        out.text("hostname", name.trim_end_matches('.'));
    }
    if wanted.service
        && let Some(service) = &end.service
    {
        out.text("svc_name", &format!("{}/{}", service.namespace, service.name));
    }
    if wanted.identity || wanted.cluster {
        let scope = if facts::is_inside(end) { (1, "Internal") } else { (2, "External") };
        out.word("network_scope", scope).text("type", facts::end_kind(end));
    }
    out.object("container", |it| container(it, end, record, wanted, all));
}

/// What Kubernetes says of an end. The object wants a name or uid, which only a pod gives; of many pods it is that of
/// their workload.
fn container(out: &mut Object<'_>, end: &End, record: &FlowRecord, wanted: &WantedEnd, all: &Wanted) {
    let Some(pod) = end.pod.as_deref().filter(|_| wanted.pod) else { return };
    let many = pod.workload.as_ref().filter(|_| pod.name.is_empty());
    out.text("name", many.map_or(&pod.name, |workload| &workload.name)).text("orchestrator", "kubernetes");
    if all.details && is_uuid(&pod.uid) {
        out.text("pod_uuid", &pod.uid);
    }
    if wanted.labels
        && let Some(labels) = end.labels()
    {
        out.texts("labels", labels.iter().map(|(key, value)| format!("{key}={value}")));
    }
    let mut tags: Vec<(String, &str)> = Vec::new();
    if wanted.namespace {
        tags.push(("k8s.namespace.name".to_owned(), &pod.namespace));
    }
    if wanted.workload
        && let Some(workload) = &pod.workload
    {
        tags.push((format!("k8s.{}.name", workload.kind.to_ascii_lowercase()), &workload.name));
    }
    if all.details {
        tags.push(("k8s.serviceaccount.name".to_owned(), end.service_account()));
    }
    if wanted.cluster {
        tags.push(("k8s.cluster.name".to_owned(), end.cluster(&record.node)));
    }
    let tags = tags.into_iter().filter(|(_, value)| !value.is_empty());
    out.objects("tags", tags, |it, (name, value)| {
        it.text("name", &name).text("value", value);
    });
}

/// Whether text has the form of a UUID, which the schema asks for.
fn is_uuid(text: &str) -> bool {
    text.parse::<flows::Uuid>().is_ok()
}

fn connection(out: &mut Object<'_>, record: &FlowRecord, wanted: &Wanted) {
    let (source, destination) = (facts::is_inside(&record.source), facts::is_inside(&record.destination));
    let direction = match (source, destination) {
        (true, true) => (3, "Lateral"),
        (false, true) => (1, "Inbound"),
        (true, false) => (2, "Outbound"),
        (false, false) => (0, "Unknown"),
    };
    out.word("direction", direction);
    out.word("boundary", if source && destination { (2, "Internal") } else { (3, "External") });
    if wanted.protocol {
        out.number("protocol_num", record.protocol.into());
        out.text("protocol_name", &facts::protocol_name(record.protocol));
        if record.protocol == flows::record::protocol::TCP && wanted.details {
            out.number("tcp_flags", record.forward.tcp_flags.into());
        }
    }
    if wanted.source.address {
        out.word("protocol_ver", if record.source.ip.is_ipv4() { IPV4 } else { IPV6 });
    }
    if wanted.source.address && wanted.destination.address && wanted.protocol {
        out.text("community_uid", &facts::community(record).unwrap_or_default());
    }
}

fn traffic(out: &mut Object<'_>, forward: Traffic, reverse: Traffic) {
    out.number("bytes", forward.bytes + reverse.bytes).number("packets", forward.packets + reverse.packets);
    out.number("bytes_out", forward.bytes).number("packets_out", forward.packets);
    out.number("bytes_in", reverse.bytes).number("packets_in", reverse.packets);
}

fn observation_point(record: &FlowRecord, direction: Direction) -> Word {
    match (record.source.is_local() && record.destination.is_local(), direction) {
        (true, _) => (4, "Both"),
        (false, Direction::Egress) => (1, "Source"),
        (false, Direction::Ingress) => (2, "Destination"),
    }
}

/// The policy that decided, and the rule in it.
fn policy(event: &mut Object<'_>, record: &FlowRecord) {
    let Some((direction, ruling)) = facts::deciding(record) else { return };
    let direction = facts::direction(direction);
    match ruling {
        Ruling::Allowed(RuleRef { cookie, info }) | Ruling::Denied(RuleRef { cookie, info }) => {
            if let Some(info) = info {
                named(event, &info.policy);
            }
            event.object("firewall_rule", |it| {
                match info {
                    Some(info) => it.text("name", &format!("{direction}[{}]", info.index)),
                    None => it.text("name", "of a policy that is gone"),
                };
                it.shown("uid", cookie).text("category", direction).text("type", "rule");
            });
        }
        Ruling::Isolated(policies) => {
            if let Some(first) = policies.first() {
                named(event, first);
            }
            event.object("firewall_rule", |it| {
                it.text("name", "default deny").text("category", direction).text("type", "implicit-deny");
                it.texts("match_details", policies.iter().map(|policy| facts::policy_name(policy)));
            });
        }
        Ruling::NotAsked | Ruling::Open | Ruling::Exempt => {}
    }
}

fn named(event: &mut Object<'_>, policy: &PolicyInfo) {
    event.object("policy", |it| {
        it.text("name", &facts::policy_name(policy)).text("uid", &policy.uid).text("type", &policy.kind);
        if policy.revision != 0 {
            it.shown("version", policy.revision);
        }
        it.flag("is_applied", true);
    });
}

fn unmapped(out: &mut Object<'_>, record: &FlowRecord, wanted: &Wanted) {
    for (name, end, wanted) in
        [("src_identity", &record.source, &wanted.source), ("dst_identity", &record.destination, &wanted.destination)]
    {
        if wanted.identity {
            out.number(name, end.identity.into());
        }
    }
    if wanted.direction
        && let Some(direction) = record.direction()
    {
        out.text("policy_direction", facts::direction(direction));
    }
    if wanted.interface && record.ifindex != 0 {
        out.number("ifindex", record.ifindex.into());
    }
    if !wanted.details {
        return;
    }
    out.text("event", facts::kind(record.kind)).shown("node_epoch", record.node.epoch);
    if let Some(reply) = record.is_reply() {
        out.flag("is_reply", reply);
    }
    if let Some(icmp) = record.icmp {
        out.number("icmp_type", icmp.kind.into()).number("icmp_code", icmp.code.into());
    }
    if record.reverse.tcp_flags != 0 {
        out.number("dst_tcp_flags", record.reverse.tcp_flags.into());
    }
    if let Some(rtt) = record.rtt_us {
        out.number("rtt_us", u32::from(rtt).into());
    }
    if let Some(lookup) = &record.dns {
        dns::unmapped(out, lookup);
    }
    if let Some(addressed) = record.addressed {
        out.text("service_address", &addressed.to_string());
    }
    let rulings = [
        ("egress", Some(&record.egress)),
        ("ingress", Some(&record.ingress)),
        ("staged_egress", record.staged_egress.as_ref()),
        ("staged_ingress", record.staged_ingress.as_ref()),
    ];
    for (name, ruling) in rulings {
        if let Some(ruling) = ruling {
            out.object(name, |it| said(it, ruling));
        }
    }
}

/// What policies said in one direction.
fn said(out: &mut Object<'_>, ruling: &Ruling) {
    if *ruling == Ruling::NotAsked {
        return;
    }
    out.text("verdict", if ruling.blocks() { "deny" } else { "allow" }).text("by", facts::outcome(ruling));
    let policies: Vec<(&PolicyInfo, Option<u32>)> = match ruling {
        Ruling::Allowed(RuleRef { info, .. }) | Ruling::Denied(RuleRef { info, .. }) => {
            info.iter().map(|info| (&*info.policy, Some(info.index))).collect()
        }
        Ruling::Isolated(policies) => policies.iter().map(|policy| (&**policy, None)).collect(),
        Ruling::NotAsked | Ruling::Open | Ruling::Exempt => Vec::new(),
    };
    out.objects("policies", policies, |it, (policy, rule)| {
        it.text("kind", &policy.kind).text("namespace", &policy.namespace).text("name", &policy.name);
        it.text("uid", &policy.uid);
        if let Some(rule) = rule {
            it.number("rule", rule.into());
        }
    });
}

/// One line that says how many records are missing, with its end.
pub fn loss(notice: &Notice, node: &Node, out: &mut Vec<u8>) {
    let Notice { gap, count, time_unix_ns, after, before, exporter } = notice;
    let mut event = Object::begin(out);
    event.number("activity_id", 99).text("activity_name", "Lost");
    event.number("category_uid", 0).text("category_name", "Uncategorized");
    event.number("class_uid", 0).text("class_name", "Base Event");
    event.number("type_uid", 99).text("type_name", "Base Event: Lost");
    event.word("severity", (3, "Medium")).word("status", (2, "Failure"));
    event.text("status_code", gap.name());
    event.number("time", time_unix_ns / NS_PER_MS).number("count", *count).text("message", &notice.summary());
    event.object("metadata", |it| {
        it.text("version", VERSION).text("uid", &notice.uid(node.epoch)).text("log_name", "flows");
        it.object("product", |it| {
            it.text("name", "Bulkhead").text("vendor_name", "Bulkhead").text("version", env!("CARGO_PKG_VERSION"));
        });
        it.object("reporter", |it| {
            it.text("name", &node.name);
        });
    });
    event.object("unmapped", |it| {
        it.text("event", "lost").text("exporter", exporter).shown("node_epoch", node.epoch);
        it.number("after_sequence", *after).number("before_sequence", *before);
    });
    event.end();
    out.push(b'\n');
}

mod dns;

#[cfg(test)]
mod tests;
