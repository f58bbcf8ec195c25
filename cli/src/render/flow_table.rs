//! Flows as lines for people: when, what happened, between whom, and why. One record is one
//! line; parts of a stream stand under each other.

use prost_types::Timestamp;
use proto::{
    bulkhead::flow::v1::{EndReason, EventKind, FlowExtension, Traffic},
    flow::{DropReason, Endpoint, Flow, LostEvent, LostEventSource, Verdict, layer4::Protocol},
    relay::{NodeState, NodeStatusEvent},
};

use super::{
    flow_json::extension,
    flow_lookup, flow_reason,
    table::{Item, Table, Tone},
    text::{count, or_dash, size},
};

/// What the lines are made from, as a field mask names it.
pub(crate) const FIELDS: &[&str] = &[
    "time",
    "verdict",
    "IP",
    "l4",
    "source",
    "destination",
    "source_names",
    "destination_names",
    "drop_reason_desc",
    "extensions",
    "egress_allowed_by",
    "ingress_allowed_by",
    "egress_denied_by",
    "ingress_denied_by",
];

/// Titles of the columns.
const HEADER: [&str; 5] = ["TIME (UTC)", "VERDICT", "FLOW", "PROTO", "WHY"];

/// Lines that were made and not yet taken.
#[derive(Debug)]
pub(crate) struct FlowTable {
    rows: Table,
    widths: Vec<u16>,
    begun: bool,
}

impl Default for FlowTable {
    fn default() -> Self {
        Self { rows: Table::new(HEADER), widths: Vec::new(), begun: false }
    }
}

impl FlowTable {
    /// Adds a flow.
    pub(crate) fn flow(&mut self, flow: &Flow) {
        let extension = extension(flow.extensions.as_ref());
        let (tone, word) = verdict(flow, extension.as_ref());
        self.rows.row([
            Item::new(Tone::Faint, time(flow.time.as_ref())),
            Item::new(tone, word),
            Item::from(ends(flow)),
            Item::from(protocol(flow, extension.as_ref())),
            Item::from(match extension.as_ref().and_then(flow_reason::staged) {
                None => why(flow, extension.as_ref()),
                Some(staged) => format!("{} [with staged policies: {staged}]", why(flow, extension.as_ref())),
            }),
        ]);
    }

    /// Adds a gap.
    pub(crate) fn lost(&mut self, lost: &LostEvent, at: Option<&Timestamp>) {
        let place = match LostEventSource::try_from(lost.source) {
            Ok(LostEventSource::PerfEventRingBuffer) => "between the kernel and the daemon: its ring buffer was full",
            Ok(LostEventSource::ObserverEventsQueue) => "in the daemon: its queue was full",
            Ok(LostEventSource::HubbleRingBuffer) => "here: this reader was slower than the records came",
            Ok(LostEventSource::UnknownLostEventSource) | Err(_) => "at an unknown place",
        };
        self.note(Tone::Warn, "LOST", at, format!("{} lost {place}", count(lost.num_events_lost, "event")));
    }

    /// Adds what a relay says about its nodes.
    pub(crate) fn node(&mut self, status: &NodeStatusEvent, at: Option<&Timestamp>) {
        let state = match NodeState::try_from(status.state_change) {
            Ok(NodeState::NodeConnected) => "connected",
            Ok(NodeState::NodeUnavailable) => "unavailable",
            Ok(NodeState::NodeGone) => "gone",
            Ok(NodeState::NodeError) => "failed",
            Ok(NodeState::UnknownNodeState) | Err(_) => "in an unknown state",
        };
        let message = if status.message.is_empty() { String::new() } else { format!(": {}", status.message) };
        self.note(Tone::Warn, "NODE", at, format!("{} {state}{message}", status.node_names.join(", ")));
    }

    /// A line that is about no flow.
    fn note(&mut self, tone: Tone, word: &str, at: Option<&Timestamp>, text: String) {
        let (flow, protocol) = (Item::from("-"), Item::from("-"));
        self.rows.row([Item::new(Tone::Faint, time(at)), Item::new(tone, word), flow, protocol, Item::new(tone, text)]);
    }

    /// Everything added since the last time, as text; the header before the first line.
    pub(crate) fn take(&mut self, color: bool) -> String {
        let rows = std::mem::replace(&mut self.rows, Table::new(HEADER));
        if rows.is_empty() {
            return String::new();
        }
        let with_header = !std::mem::replace(&mut self.begun, true);
        rows.render_aligned(color, &mut self.widths, with_header)
    }
}

/// `Nov 22 05:19:21.843`. UTC, because records of several nodes are compared.
fn time(time: Option<&Timestamp>) -> String {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let Some(time) = time else {
        return "-".to_owned();
    };
    // Whole milliseconds, so that RFC 3339 has the same length always: 2026-11-22T05:19:21.843Z
    let text = Timestamp { nanos: 0, ..*time }.to_string();
    let parts = (text.get(5..7).and_then(|month| month.parse::<usize>().ok()), text.get(8..10), text.get(11..19));
    match parts {
        (Some(month @ 1..=12), Some(day), Some(clock)) if text.len() == 20 => {
            format!("{} {day} {clock}.{:03}", MONTHS[month - 1], time.nanos / 1_000_000)
        }
        _ => time.to_string(),
    }
}

/// What happened, in one word.
fn verdict(flow: &Flow, extension: Option<&FlowExtension>) -> (Tone, &'static str) {
    let kind = extension.and_then(|extension| EventKind::try_from(extension.kind).ok());
    let end = extension.and_then(|extension| EndReason::try_from(extension.end_reason).ok());
    match (kind, end, Verdict::try_from(flow.verdict)) {
        (Some(EventKind::Closed), Some(EndReason::PolicyChange), _) => (Tone::Bad, "CUT"),
        (Some(EventKind::Closed), _, _) => (Tone::Faint, "CLOSED"),
        (Some(EventKind::Active), _, _) => (Tone::Faint, "ACTIVE"),
        (Some(EventKind::Dns), _, _) => flow_lookup::word(extension),
        (_, _, Ok(Verdict::Forwarded | Verdict::Redirected)) => (Tone::Good, "ALLOWED"),
        (_, _, Ok(Verdict::Dropped | Verdict::Error)) => (Tone::Bad, "DENIED"),
        (_, _, Ok(Verdict::Audit)) => (Tone::Warn, "AUDITED"),
        (_, _, Ok(Verdict::Traced)) => (Tone::Plain, "TRACED"),
        (_, _, Ok(Verdict::Translated)) => (Tone::Plain, "TRANSLATED"),
        (_, _, Ok(Verdict::Unknown) | Err(_)) => (Tone::Warn, "UNKNOWN"),
    }
}

/// `shop/web-0 -> shop/db-0:5432`
fn ends(flow: &Flow) -> String {
    let ip = flow.ip.clone().unwrap_or_default();
    let port = match flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref()) {
        Some(Protocol::Tcp(tcp)) => tcp.destination_port,
        Some(Protocol::Udp(udp)) => udp.destination_port,
        Some(Protocol::Sctp(sctp)) => sctp.destination_port,
        _ => 0,
    };
    let source = end(flow.source.as_ref(), &ip.source, &flow.source_names, 0);
    let destination = end(flow.destination.as_ref(), &ip.destination, &flow.destination_names, port);
    format!("{source} -> {destination}")
}

/// One end: a pod by name, anything else by address with the name of what it is.
fn end(endpoint: Option<&Endpoint>, ip: &str, names: &[String], port: u32) -> String {
    let port = if port == 0 { String::new() } else { format!(":{port}") };
    if let Some(Endpoint { namespace, pod_name, .. }) = endpoint.filter(|endpoint| !endpoint.pod_name.is_empty()) {
        return format!("{namespace}/{pod_name}{port}");
    }
    let address = if ip.contains(':') && !port.is_empty() { format!("[{ip}]") } else { or_dash(ip) };
    let reserved =
        endpoint.and_then(|endpoint| endpoint.labels.iter().find_map(|label| label.strip_prefix("reserved:")));
    let kind = match names {
        [] => reserved.map(str::to_owned),
        names => Some(names.join(",")),
    };
    format!("{address}{port}{}", kind.map(|kind| format!(" ({kind})")).unwrap_or_default())
}

/// The protocol, for ICMP with what it says.
fn protocol(flow: &Flow, extension: Option<&FlowExtension>) -> String {
    match flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref()) {
        Some(Protocol::Tcp(_)) => "TCP".to_owned(),
        Some(Protocol::Udp(_)) => "UDP".to_owned(),
        Some(Protocol::Sctp(_)) => "SCTP".to_owned(),
        Some(Protocol::Vrrp(_)) => "VRRP".to_owned(),
        Some(Protocol::Igmp(_)) => "IGMP".to_owned(),
        // Types: IANA, "Internet Control Message Protocol (ICMP) Parameters".
        Some(Protocol::IcmPv4(icmp)) => match icmp.r#type {
            0 => "ICMP echo reply".to_owned(),
            3 => format!("ICMP unreachable/{}", icmp.code),
            8 => "ICMP echo request".to_owned(),
            11 => "ICMP time exceeded".to_owned(),
            other => format!("ICMP {other}/{}", icmp.code),
        },
        // Types: IANA, "Internet Control Message Protocol version 6 (ICMPv6) Parameters".
        Some(Protocol::IcmPv6(icmp)) => match icmp.r#type {
            1 => format!("ICMPv6 unreachable/{}", icmp.code),
            2 => "ICMPv6 packet too big".to_owned(),
            3 => "ICMPv6 time exceeded".to_owned(),
            128 => "ICMPv6 echo request".to_owned(),
            129 => "ICMPv6 echo reply".to_owned(),
            other => format!("ICMPv6 {other}/{}", icmp.code),
        },
        None => extension.map_or_else(|| "-".to_owned(), |extension| format!("IP {}", extension.protocol)),
    }
}

/// Why it happened; for a connection that is over, how it ended and what it carried.
fn why(flow: &Flow, extension: Option<&FlowExtension>) -> String {
    let Some(extension) = extension else {
        return flow_reason::without_extension(flow);
    };
    match EventKind::try_from(extension.kind) {
        Ok(EventKind::Closed) => {
            let how = match EndReason::try_from(extension.end_reason) {
                Ok(EndReason::Fin) => "closed by both ends",
                Ok(EndReason::Rst) => "reset",
                Ok(EndReason::Idle) => "silent for too long",
                Ok(EndReason::PolicyChange) => "a policy or label change forbids it",
                Ok(EndReason::EndpointGone) => "its pod is gone",
                Ok(EndReason::Replaced) => "replaced by a new connection",
                Ok(EndReason::Unspecified) | Err(_) => "ended",
            };
            let by = flow_reason::denied(extension).map(|by| format!("; {by}")).unwrap_or_default();
            format!("{how}{by}; {}", traffic(extension))
        }
        Ok(EventKind::Active) => traffic(extension),
        Ok(EventKind::Dns) => flow_lookup::text(extension),
        Ok(EventKind::Opened | EventKind::Dropped | EventKind::Unspecified) | Err(_) => {
            flow_reason::of(extension, DropReason::try_from(flow.drop_reason_desc).ok())
        }
    }
}

/// `12 packets 3.4 KiB there, 10 packets 1.1 KiB back`
fn traffic(extension: &FlowExtension) -> String {
    let words = |traffic: Option<&Traffic>| {
        let (packets, bytes) = traffic.map_or((0, 0), |traffic| (traffic.packets, traffic.bytes));
        format!("{} {}", count(packets, "packet"), size(bytes))
    };
    format!("{} there, {} back", words(extension.forward.as_ref()), words(extension.reverse.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short_and_of_one_length() {
        for (seconds, nanos, text) in [
            (1_795_324_761, 843_399_753, "Nov 22 05:19:21.843"),
            (0, 0, "Jan 01 00:00:00.000"),
            (951_782_400, 999_999_999, "Feb 29 00:00:00.999"),
        ] {
            assert_eq!(time(Some(&Timestamp { seconds, nanos })), text);
        }
        assert_eq!(time(None), "-");
    }
}
