//! Field masks: which fields of a flow a client wants. Paths are relative to `flow.Flow`. The
//! first part of a path is honoured for every field, the second one for `source`, `destination`
//! and `IP`; below that the whole message is sent, which does no harm.
//!
//! Six fields are added to every mask: direction, match type and the four lists of policies.
//! Clients up to Hubble 1.19.4 print them without asking for them.

use prost_types::FieldMask;
use proto::flow::{Endpoint, Flow, Ip};

/// Paths in one mask. `flow.Flow` has fewer fields, nested ones included.
const MAX_PATHS: usize = 512;

/// Sent whatever the mask says.
const ALWAYS: [&str; 6] = [
    "traffic_direction",
    "policy_match_type",
    "egress_allowed_by",
    "ingress_allowed_by",
    "egress_denied_by",
    "ingress_denied_by",
];

/// A mask that cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MaskError {
    /// No such field.
    #[error("field_mask: flow.Flow has no field `{}`", .0.escape_debug())]
    Unknown(String),
    /// More paths than there are fields.
    #[error("field_mask: {0} paths, at most {MAX_PATHS} are taken")]
    TooMany(usize),
}

/// Which fields to send. The default is all.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mask {
    /// Bits in the order of [`FLOW`]; likewise below.
    flow: u64,
    source: u64,
    destination: u64,
    ip: u64,
}

/// Names of a message's fields, and the function that empties those whose bit is not set.
macro_rules! fields {
    ($names:ident, $clear:ident, $message:ty, $($name:literal => $field:ident,)*) => {
        const $names: &[&str] = &[$($name),*];

        #[allow(deprecated)] // Old clients may ask for them.
        fn $clear(message: &mut $message, keep: u64) {
            let mut bit = 1u64;
            $(
                if keep & bit == 0 {
                    message.$field = Default::default();
                }
                bit <<= 1;
            )*
            let _ = bit;
        }
    };
}

fields! { FLOW, clear_flow, Flow,
    "time" => time,
    "uuid" => uuid,
    "emitter" => emitter,
    "verdict" => verdict,
    "drop_reason" => drop_reason,
    "auth_type" => auth_type,
    "ethernet" => ethernet,
    "IP" => ip,
    "l4" => l4,
    "tunnel" => tunnel,
    "source" => source,
    "destination" => destination,
    "Type" => r#type,
    "node_name" => node_name,
    "node_labels" => node_labels,
    "source_names" => source_names,
    "destination_names" => destination_names,
    "l7" => l7,
    "reply" => reply,
    "event_type" => event_type,
    "source_service" => source_service,
    "destination_service" => destination_service,
    "traffic_direction" => traffic_direction,
    "policy_match_type" => policy_match_type,
    "trace_observation_point" => trace_observation_point,
    "trace_reason" => trace_reason,
    "file" => file,
    "ip_trace_id" => ip_trace_id,
    "drop_reason_desc" => drop_reason_desc,
    "is_reply" => is_reply,
    "debug_capture_point" => debug_capture_point,
    "interface" => interface,
    "proxy_port" => proxy_port,
    "trace_context" => trace_context,
    "sock_xlate_point" => sock_xlate_point,
    "socket_cookie" => socket_cookie,
    "cgroup_id" => cgroup_id,
    "Summary" => summary,
    "extensions" => extensions,
    "egress_allowed_by" => egress_allowed_by,
    "ingress_allowed_by" => ingress_allowed_by,
    "egress_denied_by" => egress_denied_by,
    "ingress_denied_by" => ingress_denied_by,
    "policy_log" => policy_log,
    "aggregate" => aggregate,
}

fields! { ENDPOINT, clear_endpoint, Endpoint,
    "ID" => id,
    "identity" => identity,
    "cluster_name" => cluster_name,
    "namespace" => namespace,
    "labels" => labels,
    "pod_name" => pod_name,
    "workloads" => workloads,
}

fields! { IP, clear_ip, Ip,
    "source" => source,
    "source_xlated" => source_xlated,
    "destination" => destination,
    "ipVersion" => ip_version,
    "encrypted" => encrypted,
}

/// Fields of the other messages in a flow, to tell a mistake from a path we do not split.
const NESTED: &[(&str, &[&str])] = &[
    ("time", &["seconds", "nanos"]),
    ("emitter", &["name", "version"]),
    ("ethernet", &["source", "destination"]),
    ("l4", &["TCP", "UDP", "ICMPv4", "ICMPv6", "SCTP", "VRRP", "IGMP"]),
    ("tunnel", &["protocol", "IP", "l4", "vni"]),
    ("event_type", &["type", "sub_type"]),
    ("source_service", &["name", "namespace"]),
    ("destination_service", &["name", "namespace"]),
    ("file", &["name", "line"]),
    ("ip_trace_id", &["trace_id", "ip_option_type"]),
    ("is_reply", &["value"]),
    ("interface", &["index", "name"]),
    ("trace_context", &["parent"]),
    ("extensions", &["type_url", "value"]),
    ("aggregate", &["ingress_flow_count", "egress_flow_count", "unknown_direction_flow_count"]),
    // Application data: we have none, so any part of it is right, and empty.
];

impl Default for Mask {
    fn default() -> Self {
        Self { flow: u64::MAX, source: u64::MAX, destination: u64::MAX, ip: u64::MAX }
    }
}

impl Mask {
    /// From the request; no mask, or an empty one, means all.
    ///
    /// # Errors
    /// A path that is no field.
    pub fn parse(mask: Option<&FieldMask>) -> Result<Self, MaskError> {
        let paths = mask.map_or(&[][..], |mask| &mask.paths);
        Self::of(paths, &ALWAYS)
    }

    /// Exactly these paths, for outputs that print nothing which was not asked for; none means all.
    ///
    /// # Errors
    /// A path that is no field, or too many of them.
    pub fn exactly(paths: &[String]) -> Result<Self, MaskError> {
        Self::of(paths, &[])
    }

    fn of(paths: &[String], besides: &[&str]) -> Result<Self, MaskError> {
        if paths.is_empty() {
            return Ok(Self::default());
        }
        if paths.len() > MAX_PATHS {
            return Err(MaskError::TooMany(paths.len()));
        }
        let mut parsed = Self { flow: 0, source: 0, destination: 0, ip: 0 };
        for path in paths.iter().map(String::as_str).chain(besides.iter().copied()) {
            parsed.add(path).ok_or_else(|| MaskError::Unknown(path.chars().take(100).collect()))?;
        }
        Ok(parsed)
    }

    /// Whether a field is wanted: a field of a flow (`uuid`), or one of `source`, `destination` or `IP`
    /// (`source.labels`). A name that is no field is not wanted.
    pub fn keeps(&self, path: &str) -> bool {
        let (first, second) = path.split_once('.').map_or((path, None), |(first, second)| (first, Some(second)));
        let has = |bits: u64, names: &[&str], name: &str| bit(names, name).is_some_and(|bit| bits & bit != 0);
        let inside = second.is_none_or(|second| match first {
            "source" => has(self.source, ENDPOINT, second),
            "destination" => has(self.destination, ENDPOINT, second),
            "IP" => has(self.ip, IP, second),
            _ => false,
        });
        has(self.flow, FLOW, first) && inside
    }

    /// Adds a path; `None` if there is no such field.
    fn add(&mut self, path: &str) -> Option<()> {
        let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
        self.flow |= bit(FLOW, first)?;
        let second = rest.map(|rest| rest.split_once('.').map_or(rest, |(second, _)| second));
        let (target, names) = match first {
            "source" => (&mut self.source, ENDPOINT),
            "destination" => (&mut self.destination, ENDPOINT),
            "IP" => (&mut self.ip, IP),
            "l7" => return Some(()),
            _ => {
                let Some(second) = second else { return Some(()) };
                let (_, names) = NESTED.iter().find(|(name, _)| *name == first)?;
                return names.contains(&second).then_some(());
            }
        };
        *target |= second.map_or(Some(u64::MAX), |second| bit(names, second))?;
        Some(())
    }

    /// Whether the labels of any end are wanted: they cost the most.
    pub(super) fn wants_labels(&self) -> bool {
        let labels = bit(ENDPOINT, "labels").unwrap_or(0);
        (self.source | self.destination) & labels != 0
    }

    /// Whether `extensions` is wanted.
    pub(super) fn wants_extensions(&self) -> bool {
        self.flow & bit(FLOW, "extensions").unwrap_or(0) != 0
    }

    /// Empties every field that is not wanted.
    pub(super) fn apply(&self, flow: &mut Flow) {
        if *self == Self::default() {
            return;
        }
        clear_flow(flow, self.flow);
        if let Some(source) = &mut flow.source {
            clear_endpoint(source, self.source);
        }
        if let Some(destination) = &mut flow.destination {
            clear_endpoint(destination, self.destination);
        }
        if let Some(ip) = &mut flow.ip {
            clear_ip(ip, self.ip);
        }
    }
}

/// The bit of a field.
fn bit(names: &[&str], name: &str) -> Option<u64> {
    names.iter().position(|known| *known == name).map(|index| 1 << index)
}

#[cfg(test)]
mod tests;
