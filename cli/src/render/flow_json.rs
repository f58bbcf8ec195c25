//! Flows as JSON, in the form that clients of the Hubble API write (`-o jsonpb`): proto field
//! names, declaration order. Our extension comes as a google.protobuf.Struct for this output, because
//! other clients of the API read back no type that they do not know.
//!
//! Every message is taken apart completely, so that a new field cannot be forgotten here.

use prost::Message;
use prost_types::{Any, Struct};
use proto::{
    bulkhead::flow::v1 as ext,
    flow::{self, layer4::Protocol},
    observer::{GetFlowsResponse, get_flows_response::ResponseTypes},
    relay,
};

use super::proto_json::Object;

/// Type of our extension inside [`Any`].
pub(crate) const EXTENSION_TYPE: &str = "bulkhead.flow.v1.FlowExtension";

/// Type of a message that has the form of any JSON object.
const STRUCT_TYPE: &str = "google.protobuf.Struct";

/// Every field of a flow, as a field mask names them.
pub(crate) const FIELDS: &[&str] = &[
    "time",
    "uuid",
    "emitter",
    "verdict",
    "drop_reason",
    "auth_type",
    "ethernet",
    "IP",
    "l4",
    "tunnel",
    "source",
    "destination",
    "Type",
    "node_name",
    "node_labels",
    "source_names",
    "destination_names",
    "l7",
    "reply",
    "event_type",
    "source_service",
    "destination_service",
    "traffic_direction",
    "policy_match_type",
    "trace_observation_point",
    "trace_reason",
    "file",
    "ip_trace_id",
    "drop_reason_desc",
    "is_reply",
    "debug_capture_point",
    "interface",
    "proxy_port",
    "trace_context",
    "sock_xlate_point",
    "socket_cookie",
    "cgroup_id",
    "Summary",
    "extensions",
    "egress_allowed_by",
    "ingress_allowed_by",
    "egress_denied_by",
    "ingress_denied_by",
    "policy_log",
    "aggregate",
];

/// The extension inside a flow, if there is one and it is ours.
pub(crate) fn extension(any: Option<&Any>) -> Option<ext::FlowExtension> {
    let any = any?;
    let ours = type_name(any) == EXTENSION_TYPE;
    ours.then(|| ext::FlowExtension::decode(any.value.as_slice()).ok()).flatten()
}

/// What a client puts into its request to get the extension in our own type.
pub(crate) fn reads_extension() -> Any {
    Any { type_url: format!("type.googleapis.com/{EXTENSION_TYPE}"), value: Vec::new() }
}

/// Name of the type inside.
fn type_name(any: &Any) -> &str {
    any.type_url.rsplit('/').next().unwrap_or_default()
}

/// One line of the output.
pub(crate) fn response(message: &GetFlowsResponse) -> Object {
    let GetFlowsResponse { node_name, time, response_types } = message;
    let object = match response_types {
        Some(ResponseTypes::Flow(flow)) => Object::new().object("flow", Some(flow), self::flow),
        Some(ResponseTypes::NodeStatus(status)) => Object::new().object("node_status", Some(status), node_status),
        Some(ResponseTypes::LostEvents(lost)) => Object::new().object("lost_events", Some(lost), lost_events),
        None => Object::new(),
    };
    object.text("node_name", node_name).time("time", time.as_ref())
}

/// Name of an enum's value, by its number.
macro_rules! name {
    ($enum:ty, $number:expr) => {
        <$enum>::try_from($number).ok().map(|value| value.as_str_name())
    };
}

#[allow(deprecated)] // old clients read the deprecated fields
fn flow(message: &flow::Flow) -> Object {
    let flow::Flow {
        time,
        uuid,
        emitter,
        verdict,
        drop_reason,
        auth_type,
        ethernet,
        ip,
        l4,
        tunnel,
        source,
        destination,
        r#type,
        node_name,
        node_labels,
        source_names,
        destination_names,
        l7,
        reply,
        event_type,
        source_service,
        destination_service,
        traffic_direction,
        policy_match_type,
        trace_observation_point,
        trace_reason,
        file,
        ip_trace_id,
        drop_reason_desc,
        is_reply,
        debug_capture_point,
        interface,
        proxy_port,
        trace_context,
        sock_xlate_point,
        socket_cookie,
        cgroup_id,
        summary,
        extensions,
        egress_allowed_by,
        ingress_allowed_by,
        egress_denied_by,
        ingress_denied_by,
        policy_log,
        aggregate,
    } = message;
    let start = Object::new()
        .time("time", time.as_ref())
        .text("uuid", uuid)
        .object("emitter", emitter.as_ref(), |flow::Emitter { name, version }| {
            Object::new().text("name", name).text("version", version)
        })
        .word("verdict", *verdict, name!(flow::Verdict, *verdict))
        .number("drop_reason", *drop_reason)
        .word("auth_type", *auth_type, name!(flow::AuthType, *auth_type))
        .object("ethernet", ethernet.as_ref(), |flow::Ethernet { source, destination }| {
            Object::new().text("source", source).text("destination", destination)
        })
        .object("IP", ip.as_ref(), self::ip)
        .object("l4", l4.as_ref(), layer4)
        .object("tunnel", tunnel.as_ref(), self::tunnel)
        .object("source", source.as_ref(), endpoint)
        .object("destination", destination.as_ref(), endpoint)
        .word("Type", *r#type, name!(flow::FlowType, *r#type))
        .text("node_name", node_name)
        .texts("node_labels", node_labels)
        .texts("source_names", source_names)
        .texts("destination_names", destination_names);
    let middle = start
        .object("l7", l7.as_ref(), layer7)
        .flag("reply", *reply)
        .object("event_type", event_type.as_ref(), |flow::CiliumEventType { r#type, sub_type }| {
            Object::new().signed("type", *r#type).signed("sub_type", *sub_type)
        })
        .object("source_service", source_service.as_ref(), service)
        .object("destination_service", destination_service.as_ref(), service)
        .word("traffic_direction", *traffic_direction, name!(flow::TrafficDirection, *traffic_direction))
        .number("policy_match_type", *policy_match_type)
        .word(
            "trace_observation_point",
            *trace_observation_point,
            name!(flow::TraceObservationPoint, *trace_observation_point),
        )
        .word("trace_reason", *trace_reason, name!(flow::TraceReason, *trace_reason))
        .object("file", file.as_ref(), |flow::FileInfo { name, line }| {
            Object::new().text("name", name).number("line", *line)
        })
        .object("ip_trace_id", ip_trace_id.as_ref(), |flow::IpTraceId { trace_id, ip_option_type }| {
            Object::new().long("trace_id", *trace_id).number("ip_option_type", *ip_option_type)
        })
        .word("drop_reason_desc", *drop_reason_desc, name!(flow::DropReason, *drop_reason_desc))
        .wrapped_flag("is_reply", *is_reply);
    middle
        .word("debug_capture_point", *debug_capture_point, name!(flow::DebugCapturePoint, *debug_capture_point))
        .object("interface", interface.as_ref(), |flow::NetworkInterface { index, name }| {
            Object::new().number("index", *index).text("name", name)
        })
        .number("proxy_port", *proxy_port)
        .object("trace_context", trace_context.as_ref(), |flow::TraceContext { parent }| {
            Object::new().object("parent", parent.as_ref(), |flow::TraceParent { trace_id }| {
                Object::new().text("trace_id", trace_id)
            })
        })
        .word("sock_xlate_point", *sock_xlate_point, name!(flow::SocketTranslationPoint, *sock_xlate_point))
        .long("socket_cookie", *socket_cookie)
        .long("cgroup_id", *cgroup_id)
        .text("Summary", summary)
        .object("extensions", extensions.as_ref(), any)
        .objects("egress_allowed_by", egress_allowed_by, policy)
        .objects("ingress_allowed_by", ingress_allowed_by, policy)
        .objects("egress_denied_by", egress_denied_by, policy)
        .objects("ingress_denied_by", ingress_denied_by, policy)
        .texts("policy_log", policy_log)
        .object("aggregate", aggregate.as_ref(), |message| {
            let flow::Aggregate { ingress_flow_count, egress_flow_count, unknown_direction_flow_count } = message;
            Object::new()
                .number("ingress_flow_count", *ingress_flow_count)
                .number("egress_flow_count", *egress_flow_count)
                .number("unknown_direction_flow_count", *unknown_direction_flow_count)
        })
}

fn ip(message: &flow::Ip) -> Object {
    let flow::Ip { source, destination, ip_version, encrypted, source_xlated } = message;
    Object::new()
        .text("source", source)
        .text("destination", destination)
        .word("ipVersion", *ip_version, name!(flow::IpVersion, *ip_version))
        .flag("encrypted", *encrypted)
        .text("source_xlated", source_xlated)
}

fn layer4(message: &flow::Layer4) -> Object {
    let ports = |source: u32, destination: u32| {
        Object::new().number("source_port", source).number("destination_port", destination)
    };
    let object = Object::new();
    match &message.protocol {
        None => object,
        Some(Protocol::Tcp(flow::Tcp { source_port, destination_port, flags })) => {
            object.object("TCP", Some(&()), |()| {
                ports(*source_port, *destination_port).object("flags", flags.as_ref(), tcp_flags)
            })
        }
        Some(Protocol::Udp(flow::Udp { source_port, destination_port })) => {
            object.object("UDP", Some(&()), |()| ports(*source_port, *destination_port))
        }
        Some(Protocol::Sctp(flow::Sctp { source_port, destination_port })) => {
            object.object("SCTP", Some(&()), |()| ports(*source_port, *destination_port))
        }
        Some(Protocol::IcmPv4(flow::IcmPv4 { r#type, code })) => {
            object.object("ICMPv4", Some(&()), |()| Object::new().number("type", *r#type).number("code", *code))
        }
        Some(Protocol::IcmPv6(flow::IcmPv6 { r#type, code })) => {
            object.object("ICMPv6", Some(&()), |()| Object::new().number("type", *r#type).number("code", *code))
        }
        Some(Protocol::Vrrp(flow::Vrrp { r#type, vrid, priority })) => object.object("VRRP", Some(&()), |()| {
            Object::new().number("type", *r#type).number("vrid", *vrid).number("priority", *priority)
        }),
        Some(Protocol::Igmp(flow::Igmp { r#type, group_address })) => object
            .object("IGMP", Some(&()), |()| Object::new().number("type", *r#type).text("group_address", group_address)),
    }
}

fn layer7(message: &flow::Layer7) -> Object {
    let flow::Layer7 { r#type, latency_ns, record } = message;
    let object = Object::new().word("type", *r#type, name!(flow::L7FlowType, *r#type)).long("latency_ns", *latency_ns);
    let Some(flow::layer7::Record::Dns(dns)) = record else { return object };
    object.object("dns", Some(dns), |dns| {
        let flow::Dns { query, ips, ttl, cnames, observation_source, rcode, qtypes, rrtypes } = dns;
        Object::new()
            .text("query", query)
            .texts("ips", ips)
            .number("ttl", *ttl)
            .texts("cnames", cnames)
            .text("observation_source", observation_source)
            .number("rcode", *rcode)
            .texts("qtypes", qtypes)
            .texts("rrtypes", rrtypes)
    })
}

fn tcp_flags(message: &flow::TcpFlags) -> Object {
    let flow::TcpFlags { fin, syn, rst, psh, ack, urg, ece, cwr, ns } = message;
    Object::new()
        .flag("FIN", *fin)
        .flag("SYN", *syn)
        .flag("RST", *rst)
        .flag("PSH", *psh)
        .flag("ACK", *ack)
        .flag("URG", *urg)
        .flag("ECE", *ece)
        .flag("CWR", *cwr)
        .flag("NS", *ns)
}

fn tunnel(message: &flow::Tunnel) -> Object {
    let flow::Tunnel { protocol, ip, l4, vni } = message;
    Object::new()
        .word("protocol", *protocol, name!(flow::tunnel::Protocol, *protocol))
        .object("IP", ip.as_ref(), self::ip)
        .object("l4", l4.as_ref(), layer4)
        .number("vni", *vni)
}

fn endpoint(message: &flow::Endpoint) -> Object {
    let flow::Endpoint { id, identity, namespace, labels, pod_name, workloads, cluster_name } = message;
    Object::new()
        .number("ID", *id)
        .number("identity", *identity)
        .text("cluster_name", cluster_name)
        .text("namespace", namespace)
        .texts("labels", labels)
        .text("pod_name", pod_name)
        .objects("workloads", workloads, |flow::Workload { name, kind }| {
            Object::new().text("name", name).text("kind", kind)
        })
}

fn service(flow::Service { name, namespace }: &flow::Service) -> Object {
    Object::new().text("name", name).text("namespace", namespace)
}

fn policy(message: &flow::Policy) -> Object {
    let flow::Policy { name, namespace, labels, revision, kind } = message;
    Object::new()
        .text("name", name)
        .text("namespace", namespace)
        .texts("labels", labels)
        .long("revision", *revision)
        .text("kind", kind)
}

fn lost_events(message: &flow::LostEvent) -> Object {
    let flow::LostEvent { source, num_events_lost, cpu, first, last } = message;
    Object::new()
        .word("source", *source, name!(flow::LostEventSource, *source))
        .long("num_events_lost", *num_events_lost)
        .wrapped_signed("cpu", *cpu)
        .time("first", first.as_ref())
        .time("last", last.as_ref())
}

fn node_status(relay::NodeStatusEvent { state_change, node_names, message }: &relay::NodeStatusEvent) -> Object {
    Object::new()
        .word("state_change", *state_change, name!(relay::NodeState, *state_change))
        .texts("node_names", node_names)
        .text("message", message)
}

/// A message of any type. One that is not a struct is named but not shown.
fn any(message: &Any) -> Object {
    let object = Object::new().text("@type", &message.type_url);
    match Struct::decode(message.value.as_slice()) {
        Ok(value) if type_name(message) == STRUCT_TYPE => object.structure("value", value),
        Ok(_) | Err(_) => object,
    }
}

#[cfg(test)]
mod tests;
