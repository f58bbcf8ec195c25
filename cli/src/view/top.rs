//! Who is at the top: flows added up by who has talked to whom, who was denied, or which ports were used. Pure.

use std::{
    cmp::Reverse,
    collections::{HashMap, hash_map::Entry},
};

use clap::ValueEnum;
use prost_types::Timestamp;
use proto::{
    bulkhead::flow::v1::{EventKind, FlowExtension, Traffic},
    flow::{Endpoint, Flow, Verdict, layer4::Protocol},
};
use serde::Serialize;

use crate::render::flow_json::extension;

/// Rows that are counted one by one; what comes beyond them is counted together. A pod that scans ports makes a row
/// for each.
const ROWS: usize = 20_000;
/// Connections whose bytes are followed while they live; of others they count when they have ended.
const LIVING: usize = 65_536;

/// What is read of each flow, as a field mask names it.
pub(crate) const FIELDS: &[&str] = &[
    "time",
    "verdict",
    "IP",
    "l4",
    "source",
    "destination",
    "source_names",
    "destination_names",
    "is_reply",
    "node_name",
    "extensions",
];

/// What is added up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum What {
    /// Who has talked to whom, by bytes
    Talkers,
    /// Who was denied what, by how often
    Denied,
    /// Which ports were used, by connections
    Ports,
}

/// What an end is called by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum By {
    /// Deployment, StatefulSet...; the pod where it has none, outside of the cluster the DNS name
    #[default]
    Workload,
    /// Pod; outside of the cluster the address
    Pod,
    /// Namespace
    Namespace,
}

/// What one row is about. What a summary does not tell apart is empty.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
struct Key {
    source: String,
    destination: String,
    /// `TCP`, `IP 47`.
    protocol: String,
    port: u32,
    /// Why it was denied: the datapath's own name.
    reason: String,
}

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Sums {
    /// Connections that were let begin.
    pub(crate) connections: u64,
    /// Packets that were denied.
    pub(crate) denied: u64,
    /// Packets of connections, both ways.
    pub(crate) packets: u64,
    /// Bytes of them, from the network header on.
    pub(crate) bytes: u64,
    /// When the first of it was seen, seconds and nanoseconds of Unix time.
    #[serde(skip)]
    first: Option<(i64, i32)>,
    #[serde(skip)]
    last: Option<(i64, i32)>,
}

impl Sums {
    fn see(&mut self, at: Option<(i64, i32)>) {
        let Some(at) = at else { return };
        self.first = Some(self.first.map_or(at, |first| first.min(at)));
        self.last = Some(self.last.map_or(at, |last| last.max(at)));
    }

    fn add(&mut self, more: &Self) {
        self.connections += more.connections;
        self.denied += more.denied;
        self.packets += more.packets;
        self.bytes += more.bytes;
        self.see(more.first);
        self.see(more.last);
    }
}

/// A connection, until it has ended.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Connection {
    node: String,
    addresses: [String; 2],
    ports: [u32; 2],
    protocol: u32,
    opened: Option<(i64, i32)>,
}

/// Flows as they are added up.
#[derive(Debug)]
pub(crate) struct Top {
    what: What,
    by: By,
    /// Rows that are shown.
    most: usize,
    rows: HashMap<Key, Sums>,
    beyond: Sums,
    all: Sums,
    /// Packets and bytes that are counted already.
    living: HashMap<Connection, [u64; 2]>,
    flows: u64,
    lost: u64,
}

/// The whole answer.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    /// `talkers`, `denied`, `ports`.
    pub(crate) top: String,
    /// `workload`, `pod`, `namespace`.
    pub(crate) by: String,
    /// When the first and the last flow were seen, RFC 3339.
    pub(crate) since: Option<String>,
    pub(crate) until: Option<String>,
    /// How many flows there were.
    pub(crate) flows: u64,
    /// How many could not be read.
    pub(crate) lost: u64,
    pub(crate) rows: Vec<Row>,
    /// Rows that are not shown.
    pub(crate) more: u64,
    /// What they have together.
    pub(crate) others: Sums,
    /// What all have together.
    pub(crate) total: Sums,
}

/// One row.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) source: String,
    pub(crate) destination: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) protocol: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) port: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) reason: String,
    #[serde(flatten)]
    pub(crate) sums: Sums,
    pub(crate) first_seen: Option<String>,
    pub(crate) last_seen: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Top {
    /// Nothing as yet.
    pub(crate) fn new(what: What, by: By, most: usize) -> Self {
        let (rows, living) = <(HashMap<_, _>, HashMap<_, _>)>::default();
        let (beyond, all) = <(Sums, Sums)>::default();
        Self { what, by, most, rows, beyond, all, living, flows: 0, lost: 0 }
    }

    /// Takes note of flows that nobody could read.
    pub(crate) fn lost(&mut self, events: u64) {
        self.lost += events;
    }

    /// Adds a flow.
    pub(crate) fn flow(&mut self, flow: &Flow) {
        self.flows += 1;
        let extension = extension(flow.extensions.as_ref());
        let at = flow.time.as_ref().map(time);
        self.all.see(at);
        let Some(mut sums) = self.sums(flow, extension.as_ref()) else { return };
        sums.see(at);
        self.all.add(&sums);
        if self.what == What::Denied && sums.denied == 0 {
            return;
        }
        let key = self.key(flow, extension.as_ref());
        let room = self.rows.len() < ROWS;
        match self.rows.entry(key) {
            Entry::Occupied(mut row) => row.get_mut().add(&sums),
            Entry::Vacant(new) if room => {
                new.insert(sums);
            }
            Entry::Vacant(_) => self.beyond.add(&sums),
        }
    }

    /// What a flow adds; `None`: nothing, a lookup's connection has flows of its own.
    fn sums(&mut self, flow: &Flow, extension: Option<&FlowExtension>) -> Option<Sums> {
        let kind = extension.and_then(|it| EventKind::try_from(it.kind).ok()).unwrap_or(EventKind::Unspecified);
        let is_denied = matches!(Verdict::try_from(flow.verdict), Ok(Verdict::Dropped | Verdict::Error));
        let mut sums = Sums::default();
        match kind {
            EventKind::Dns => return None,
            EventKind::Opened => sums.connections = 1,
            EventKind::Closed | EventKind::Active => {
                let extension = extension?;
                [sums.packets, sums.bytes] = self.news(flow, extension, kind == EventKind::Closed);
            }
            EventKind::Dropped => sums.denied = 1,
            EventKind::Unspecified if is_denied => sums.denied = 1,
            EventKind::Unspecified => sums.connections = 1,
        }
        Some(sums)
    }

    /// Packets and bytes of a connection that have not been counted yet: its flows tell what it has carried in all.
    fn news(&mut self, flow: &Flow, extension: &FlowExtension, is_over: bool) -> [u64; 2] {
        let add = |pick: fn(&Traffic) -> u64| {
            [&extension.forward, &extension.reverse].into_iter().flatten().map(pick).fold(0, u64::saturating_add)
        };
        let totals = [add(|it| it.packets), add(|it| it.bytes)];
        let (source_port, port) = ports(flow);
        let ip = flow.ip.clone().unwrap_or_default();
        let connection = Connection {
            node: flow.node_name.clone(),
            addresses: [ip.source, ip.destination],
            ports: [source_port, port],
            protocol: extension.protocol,
            opened: extension.opened.as_ref().map(time),
        };
        let room = self.living.len() < LIVING;
        let counted = match self.living.entry(connection) {
            Entry::Occupied(known) if is_over => known.remove(),
            Entry::Occupied(mut known) => known.insert(totals),
            Entry::Vacant(_) if is_over => [0; 2],
            Entry::Vacant(new) if room => {
                new.insert(totals);
                [0; 2]
            }
            // It counts as a whole when it has ended.
            Entry::Vacant(_) => totals,
        };
        [0, 1].map(|at| totals[at].saturating_sub(counted[at]))
    }

    /// The row that a flow belongs to.
    fn key(&self, flow: &Flow, extension: Option<&FlowExtension>) -> Key {
        let ip = flow.ip.clone().unwrap_or_default();
        let (source_port, destination_port) = ports(flow);
        let mut ends = [
            (flow.source.as_ref(), &ip.source, &flow.source_names, source_port),
            (flow.destination.as_ref(), &ip.destination, &flow.destination_names, destination_port),
        ];
        // A denied answer is about the connection that it belongs to.
        let is_denied = matches!(Verdict::try_from(flow.verdict), Ok(Verdict::Dropped | Verdict::Error));
        if is_denied && flow.is_reply == Some(true) {
            ends.reverse();
        }
        let [source, destination] = ends.map(|(endpoint, ip, names, _)| self.name(endpoint, ip, names));
        let port = ends[1].3;
        let protocol = protocol(flow, extension);
        let nothing = String::new;
        match self.what {
            What::Talkers => Key { source, destination, protocol: nothing(), port: 0, reason: nothing() },
            What::Ports => Key { source: nothing(), destination, protocol, port, reason: nothing() },
            What::Denied => {
                let reason = extension.map_or_else(nothing, |it| it.drop_reason.clone());
                Key { source, destination, protocol, port, reason }
            }
        }
    }

    /// What an end is called.
    fn name(&self, endpoint: Option<&Endpoint>, ip: &str, names: &[String]) -> String {
        let reserved = endpoint.and_then(|it| it.labels.iter().find_map(|label| label.strip_prefix("reserved:")));
        let outside = || match (self.by, names.first(), reserved) {
            (By::Pod, Some(name), _) => format!("{ip} ({name})"),
            (By::Pod, None, Some(kind)) => format!("{ip} ({kind})"),
            (By::Workload, Some(name), _) => name.clone(),
            (_, _, Some(kind)) => kind.to_owned(),
            _ => if ip.is_empty() { "unknown" } else { ip }.to_owned(),
        };
        let Some(endpoint) = endpoint.filter(|it| !it.namespace.is_empty()) else { return outside() };
        let namespace = &endpoint.namespace;
        match (self.by, endpoint.workloads.first(), endpoint.pod_name.as_str()) {
            (By::Namespace, _, _) => namespace.clone(),
            (By::Workload, Some(workload), _) => format!("{namespace}/{}", workload.name),
            (By::Workload | By::Pod, _, "") => format!("{namespace}/?"),
            (By::Workload | By::Pod, _, pod) => format!("{namespace}/{pod}"),
        }
    }

    /// What there is to tell now.
    pub(crate) fn summary(&self) -> Summary {
        let mut rows: Vec<(&Key, &Sums)> = self.rows.iter().collect();
        let weight = |sums: &Sums| match self.what {
            What::Talkers => [sums.bytes, sums.connections, sums.denied],
            What::Denied => [sums.denied, 0, 0],
            What::Ports => [sums.connections, sums.bytes, sums.denied],
        };
        rows.sort_by_cached_key(|(key, sums)| (Reverse(weight(sums)), (*key).clone()));
        let mut others = self.beyond.clone();
        for (_, sums) in rows.iter().skip(self.most) {
            others.add(sums);
        }
        let more = rows.len().saturating_sub(self.most) as u64 + u64::from(self.beyond.first.is_some());
        let row = |(key, sums): (&Key, &Sums)| {
            let Key { source, destination, protocol, port, reason } = key.clone();
            let (first_seen, last_seen) = (sums.first.map(text), sums.last.map(text));
            Row { source, destination, protocol, port, reason, sums: sums.clone(), first_seen, last_seen }
        };
        Summary {
            top: word(self.what),
            by: word(self.by),
            since: self.all.first.map(text),
            until: self.all.last.map(text),
            flows: self.flows,
            lost: self.lost,
            rows: rows.into_iter().take(self.most).map(row).collect(),
            more,
            others,
            total: self.all.clone(),
        }
    }
}

/// As it stands on the command line.
fn word(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|it| it.get_name().to_owned()).unwrap_or_default()
}

fn time(time: &Timestamp) -> (i64, i32) {
    (time.seconds, time.nanos)
}

fn text((seconds, nanos): (i64, i32)) -> String {
    Timestamp { seconds, nanos }.to_string()
}

/// Of source and destination; 0 where there are none.
fn ports(flow: &Flow) -> (u32, u32) {
    match flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref()) {
        Some(Protocol::Tcp(it)) => (it.source_port, it.destination_port),
        Some(Protocol::Udp(it)) => (it.source_port, it.destination_port),
        Some(Protocol::Sctp(it)) => (it.source_port, it.destination_port),
        _ => (0, 0),
    }
}

fn protocol(flow: &Flow, extension: Option<&FlowExtension>) -> String {
    match flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref()) {
        Some(Protocol::Tcp(_)) => "TCP".to_owned(),
        Some(Protocol::Udp(_)) => "UDP".to_owned(),
        Some(Protocol::Sctp(_)) => "SCTP".to_owned(),
        Some(Protocol::IcmPv4(_)) => "ICMP".to_owned(),
        Some(Protocol::IcmPv6(_)) => "ICMPv6".to_owned(),
        Some(Protocol::Vrrp(_)) => "VRRP".to_owned(),
        Some(Protocol::Igmp(_)) => "IGMP".to_owned(),
        None => extension.map_or_else(String::new, |it| format!("IP {}", it.protocol)),
    }
}

#[cfg(test)]
mod tests;
