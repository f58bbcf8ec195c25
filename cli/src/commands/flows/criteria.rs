//! From options to the API's filters. The API knows only source and destination; "either end"
//! becomes alternatives here. Whether a flow matches is decided by the daemon.

use std::net::IpAddr;

use datapath_abi::identity;
use proto::flow::{FlowFilter, Verdict, Workload};

use crate::{
    failure::Failure,
    parse::{is_name, port},
};

/// What an option is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Field {
    Namespace,
    Pod,
    Label,
    Workload,
    Ip,
    Identity,
    Port,
    Protocol,
    Verdict,
    Fqdn,
    DnsQuery,
}

/// Which end of a flow it is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    Source,
    Destination,
    Either,
    /// The flow has it, not an end.
    Whole,
}

/// Pods by namespace and beginning of the name; empty: any.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Pods {
    namespace: String,
    prefix: String,
}

impl Pods {
    /// Those that are in both, if there can be any.
    fn and(&self, other: &Self) -> Option<Self> {
        let namespace = match (self.namespace.as_str(), other.namespace.as_str()) {
            ("", namespace) | (namespace, "") => namespace,
            (one, two) if one == two => one,
            _ => return None,
        };
        let (short, long) = if self.prefix.len() <= other.prefix.len() {
            (&self.prefix, &other.prefix)
        } else {
            (&other.prefix, &self.prefix)
        };
        long.starts_with(short.as_str()).then(|| Self { namespace: namespace.to_owned(), prefix: long.clone() })
    }

    /// As in a filter: `ns/prefix`.
    fn pattern(&self) -> String {
        format!("{}/{}", self.namespace, self.prefix)
    }

    /// From a filter.
    fn of(pattern: &str) -> Self {
        let (namespace, prefix) = pattern.split_once('/').unwrap_or(("", pattern));
        Self { namespace: namespace.to_owned(), prefix: prefix.to_owned() }
    }
}

/// Value of an option.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Value {
    Pods(Pods),
    Text(String),
    Identity(u32),
    Workload(Workload),
    Verdict(Verdict),
}

impl Value {
    /// From the command line.
    pub(crate) fn parse(field: Field, text: &str) -> Result<Self, String> {
        let wrong = |form: &str| format!("{text:?} does not fit; write {form}");
        match field {
            Field::Namespace if is_name(text) => {
                Ok(Self::Pods(Pods { namespace: text.to_owned(), prefix: String::new() }))
            }
            Field::Namespace => Err(wrong("the name of a namespace, as in shop")),
            Field::Pod => {
                let pods = Pods::of(text);
                let chars = |part: &str| part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
                let some = !pods.namespace.is_empty() || !pods.prefix.is_empty();
                if some && chars(&pods.namespace) && chars(&pods.prefix) {
                    Ok(Self::Pods(pods))
                } else {
                    Err(wrong("shop/web-0, shop/web (every pod that begins so), shop/ or web"))
                }
            }
            Field::Label if text.trim().is_empty() => Err(wrong("a label selector, as in app=web")),
            Field::Label => Ok(Self::Text(text.to_owned())),
            Field::Workload => {
                let (kind, name) = text.split_once('/').unwrap_or(("", text));
                if is_name(name) && kind.bytes().all(|b| b.is_ascii_alphanumeric()) {
                    Ok(Self::Workload(Workload { name: name.to_owned(), kind: kind.to_owned() }))
                } else {
                    Err(wrong("web or Deployment/web"))
                }
            }
            Field::Ip if is_address(text) => Ok(Self::Text(text.to_owned())),
            Field::Ip => Err(wrong("an IP address or a CIDR, as in 10.0.0.0/8")),
            Field::Identity => identity_number(text).map(Self::Identity).ok_or_else(|| {
                let names: Vec<&str> = RESERVED.iter().map(|(name, _)| *name).collect();
                wrong(&format!("a number up to {} or one of {}", identity::MAX, names.join(", ")))
            }),
            Field::Port => port(text).map(|port| Self::Text(port.to_string())),
            Field::Protocol => match text.to_ascii_lowercase().as_str() {
                name @ ("tcp" | "udp" | "sctp" | "icmp" | "icmpv4" | "icmpv6" | "dns") => {
                    Ok(Self::Text(name.to_owned()))
                }
                _ => Err(wrong("tcp, udp, sctp, icmp, icmpv4, icmpv6 or dns")),
            },
            Field::Fqdn if !text.is_empty() => Ok(Self::Text(text.to_owned())),
            Field::Fqdn => Err(wrong("a DNS name, in which * stands for anything")),
            Field::DnsQuery if !text.is_empty() => Ok(Self::Text(text.to_owned())),
            Field::DnsQuery => Err(wrong("a regular expression")),
            Field::Verdict => match text.to_ascii_lowercase().as_str() {
                "allowed" | "forwarded" => Ok(Self::Verdict(Verdict::Forwarded)),
                "denied" | "dropped" => Ok(Self::Verdict(Verdict::Dropped)),
                _ => Err(wrong("allowed or denied")),
            },
        }
    }
}

/// Reserved identities by name.
const RESERVED: &[(&str, u32)] = &[
    ("unknown", identity::UNKNOWN),
    ("host", identity::HOST),
    ("world", identity::WORLD),
    ("unmanaged", identity::UNMANAGED),
    ("remote-node", identity::REMOTE_NODE),
    ("kube-apiserver", identity::KUBE_APISERVER),
];

/// An identity by number or reserved name.
fn identity_number(text: &str) -> Option<u32> {
    let reserved = RESERVED.iter().find(|(name, _)| *name == text).map(|(_, number)| *number);
    reserved.or_else(|| text.parse().ok().filter(|number| *number <= identity::MAX))
}

/// Whether `text` is an address or a CIDR.
fn is_address(text: &str) -> bool {
    match text.split_once('/') {
        None => text.parse::<IpAddr>().is_ok(),
        Some((ip, length)) => match (ip.parse(), length.parse::<u8>()) {
            (Ok(IpAddr::V4(_)), Ok(length)) => length <= 32,
            (Ok(IpAddr::V6(_)), Ok(length)) => length <= 128,
            _ => false,
        },
    }
}

/// An option as given.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Given {
    pub(crate) flag: &'static str,
    pub(crate) field: Field,
    pub(crate) end: End,
    pub(crate) value: Value,
    pub(crate) negated: bool,
}

/// Whitelist and blacklist of the request.
pub(crate) fn filters(given: &[Given]) -> Result<(Vec<FlowFilter>, Vec<FlowFilter>), Failure> {
    let (negated, wanted): (Vec<Given>, Vec<Given>) = given.iter().cloned().partition(|given| given.negated);
    // Each --not leaves out on its own.
    let mut blacklist = Vec::new();
    for given in &negated {
        blacklist.extend(product(std::slice::from_ref(given))?);
    }
    Ok((product(&give_pods_their_namespace(wanted))?, blacklist))
}

/// `-n shop --pod web` means `shop/web`, for every direction of the pod option.
fn give_pods_their_namespace(given: Vec<Given>) -> Vec<Given> {
    let is_plain_namespace = |given: &Given| given.field == Field::Namespace && given.end == End::Either;
    let lacks_namespace = |given: &Given| matches!(&given.value, Value::Pods(pods) if given.field == Field::Pod && pods.namespace.is_empty());
    if !given.iter().any(lacks_namespace) || !given.iter().any(is_plain_namespace) {
        return given;
    }
    let (namespaces, others): (Vec<Given>, Vec<Given>) = given.into_iter().partition(is_plain_namespace);
    let mut result = Vec::new();
    for given in others {
        if !lacks_namespace(&given) {
            result.push(given);
            continue;
        }
        for namespace in &namespaces {
            if let (Value::Pods(pods), Value::Pods(space)) = (&given.value, &namespace.value) {
                result.extend(pods.and(space).map(|pods| Given { value: Value::Pods(pods), ..given.clone() }));
            }
        }
    }
    result
}

/// All of `given` at once: options must all match, values of one option are alternatives.
fn product(given: &[Given]) -> Result<Vec<FlowFilter>, Failure> {
    let mut options: Vec<(&Given, Vec<&Value>)> = Vec::new();
    for given in given {
        match options.iter_mut().find(|(known, _)| known.flag == given.flag) {
            Some((_, values)) => values.push(&given.value),
            None => options.push((given, vec![&given.value])),
        }
    }
    if options.is_empty() {
        return Ok(Vec::new());
    }
    for (one, _) in &options {
        // A filter has one list per field and end, whose values are alternatives: no room for "and".
        let directed = options.iter().find(|(two, _)| {
            two.field == one.field && one.end == End::Either && two.end != End::Either && !one.is_about_pods()
        });
        if let Some((two, _)) = directed {
            return Err(Failure::usage(
                format_args!("--{} and --{} cannot be combined", one.flag, two.flag),
                format_args!("use --from-{0} and --to-{0}", one.flag),
            ));
        }
    }
    let mut filters = vec![FlowFilter::default()];
    for (option, values) in &options {
        filters = filters
            .iter()
            .flat_map(|filter| match option.end {
                End::Source | End::Whole => vec![narrow(filter, End::Source, option.field, values)],
                End::Destination => vec![narrow(filter, End::Destination, option.field, values)],
                End::Either => {
                    [End::Source, End::Destination].map(|end| narrow(filter, end, option.field, values)).to_vec()
                }
            })
            .flatten()
            .collect();
    }
    if filters.is_empty() {
        return Err(Failure::usage(
            "no pod can match all of the options for namespaces and pods",
            "leave one of them out, or name the same namespace in them",
        ));
    }
    Ok(filters)
}

impl Given {
    /// Namespaces and pods go into one field of the filter, which can express both at once.
    fn is_about_pods(&self) -> bool {
        matches!(self.field, Field::Namespace | Field::Pod)
    }
}

/// `filter` with one more condition; none if nothing can match any more.
fn narrow(filter: &FlowFilter, end: End, field: Field, values: &[&Value]) -> Option<FlowFilter> {
    let mut filter = filter.clone();
    let source = end == End::Source;
    for value in values {
        match (field, *value) {
            (Field::Namespace | Field::Pod, Value::Pods(_)) => {} // below, all at once
            (Field::Label, Value::Text(text)) => {
                if source { &mut filter.source_label } else { &mut filter.destination_label }.push(text.clone());
            }
            (Field::Ip, Value::Text(text)) => {
                if source { &mut filter.source_ip } else { &mut filter.destination_ip }.push(text.clone());
            }
            (Field::Port, Value::Text(text)) => {
                if source { &mut filter.source_port } else { &mut filter.destination_port }.push(text.clone());
            }
            (Field::Protocol, Value::Text(text)) => filter.protocol.push(text.clone()),
            (Field::DnsQuery, Value::Text(text)) => filter.dns_query.push(text.clone()),
            (Field::Fqdn, Value::Text(text)) => {
                if source { &mut filter.source_fqdn } else { &mut filter.destination_fqdn }.push(text.clone());
            }
            (Field::Identity, Value::Identity(number)) => {
                if source { &mut filter.source_identity } else { &mut filter.destination_identity }.push(*number);
            }
            (Field::Workload, Value::Workload(workload)) => {
                if source { &mut filter.source_workload } else { &mut filter.destination_workload }
                    .push(workload.clone());
            }
            (Field::Verdict, Value::Verdict(verdict)) => filter.verdict.push(*verdict as i32),
            (field, value) => unreachable!("Value::parse makes no {value:?} for {field:?}"),
        }
    }
    if matches!(field, Field::Namespace | Field::Pod) {
        let list = if source { &mut filter.source_pod } else { &mut filter.destination_pod };
        let wanted = values.iter().filter_map(|value| match value {
            Value::Pods(pods) => Some(pods.clone()),
            _ => None,
        });
        let both: Vec<String> = if list.is_empty() {
            wanted.map(|pods| pods.pattern()).collect()
        } else {
            let known: Vec<Pods> = list.iter().map(|pattern| Pods::of(pattern)).collect();
            wanted
                .flat_map(|pods| known.iter().filter_map(move |known| known.and(&pods)).collect::<Vec<_>>())
                .map(|pods| pods.pattern())
                .collect()
        };
        if both.is_empty() {
            return None;
        }
        *list = both;
    }
    Some(filter)
}

#[cfg(test)]
mod tests;
