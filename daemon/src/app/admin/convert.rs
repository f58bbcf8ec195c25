//! Words of the API that several nouns share: our types to the wire's, and names in requests
//! checked. Requests are hostile: every text is bounded, and quoted when it is given back.

use std::net::IpAddr;

use datapath_abi::{identity, policy::Direction};
use policy::{
    compile::RuleRef,
    model::{Action, Labels, ObjectKey, PodKey, PodName, PolicyKind, PolicyRef, ServiceKey, canonical_ip},
};
use proto::bulkhead::admin::v1 as pb;
use tonic::Status;

use crate::source::Origin;

/// Longest name of an object (RFC 1123 subdomain).
const MAX_NAME: usize = 253;
/// How much of a text that makes no sense is given back.
const MAX_QUOTED: usize = 64;

/// Both directions, in the order in which answers list them.
pub(super) const DIRECTIONS: [Direction; 2] = [Direction::Egress, Direction::Ingress];

/// Identities that are not pods, with the names the Hubble API gives them.
pub(super) const RESERVED: [(u32, &str); 6] = [
    (identity::UNKNOWN, "unknown"),
    (identity::HOST, "host"),
    (identity::WORLD, "world"),
    (identity::UNMANAGED, "unmanaged"),
    (identity::REMOTE_NODE, "remote-node"),
    (identity::KUBE_APISERVER, "kube-apiserver"),
];

/// Name of a reserved identity; empty for pods' and numbers without a meaning.
pub(super) fn reserved_name(number: u32) -> &'static str {
    RESERVED.iter().find(|(reserved, _)| *reserved == number).map_or("", |(_, name)| name)
}

pub(super) fn labels(labels: &Labels) -> Vec<pb::Label> {
    labels.iter().map(|(key, value)| pb::Label { key: key.to_owned(), value: value.to_owned() }).collect()
}

pub(super) fn policy(policy: &PolicyRef) -> pb::ObjectRef {
    let PolicyRef { kind, namespace, name } = policy;
    pb::ObjectRef { kind: kind.as_str().to_owned(), namespace: namespace.clone(), name: name.clone() }
}

pub(super) fn pod_object(pod: &PodKey) -> pb::ObjectRef {
    let PodName { namespace, name } = &**pod;
    pb::ObjectRef { kind: "Pod".to_owned(), namespace: namespace.clone(), name: name.clone() }
}

fn service_object(kind: &str, key: &ServiceKey) -> pb::ObjectRef {
    let ServiceKey { namespace, name } = key;
    pb::ObjectRef { kind: kind.to_owned(), namespace: namespace.clone(), name: name.clone() }
}

pub(super) fn object(key: &ObjectKey) -> pb::ObjectRef {
    match key {
        ObjectKey::Namespace(name) => {
            pb::ObjectRef { kind: "Namespace".to_owned(), namespace: String::new(), name: name.clone() }
        }
        ObjectKey::Pod(pod) => pod_object(pod),
        ObjectKey::Node(name) => {
            pb::ObjectRef { kind: "Node".to_owned(), namespace: String::new(), name: name.clone() }
        }
        ObjectKey::Service(key) => service_object("Service", key),
        ObjectKey::EndpointSlice(key) => service_object("EndpointSlice", key),
        ObjectKey::Policy(of) => policy(of),
    }
}

pub(super) fn pod_name(pod: &PodKey) -> pb::PodName {
    let PodName { namespace, name } = &**pod;
    pb::PodName { namespace: namespace.clone(), name: name.clone() }
}

pub(super) fn workload(workload: &policy::model::Workload) -> pb::Workload {
    let policy::model::Workload { kind, name } = workload;
    pb::Workload { kind: kind.clone(), name: name.clone() }
}

pub(super) fn direction(direction: Direction) -> i32 {
    let wire = match direction {
        Direction::Egress => pb::Direction::Egress,
        Direction::Ingress => pb::Direction::Ingress,
    };
    wire as i32
}

pub(super) fn direction_word(direction: Direction) -> &'static str {
    match direction {
        Direction::Egress => "egress",
        Direction::Ingress => "ingress",
    }
}

/// A rule, with the number that the kernel has for it (0: none).
pub(super) fn rule(rule: &RuleRef, cookie: u32) -> pb::RuleRef {
    let RuleRef { policy: of, direction: towards, index } = rule;
    pb::RuleRef { policy: Some(policy(of)), direction: direction(*towards), index: *index, cookie }
}

pub(super) fn origin(origin: &Origin) -> pb::Origin {
    let Origin { file, document, item: _, line } = origin;
    pb::Origin { file: file.clone(), document: small(*document), line: small(*line) }
}

/// A policy for people: `shop/db`, as NetworkPolicy is by far the commonest kind, or
/// `ClusterNetworkPolicy guard`.
pub(super) fn policy_words(policy: &PolicyRef) -> String {
    let PolicyRef { kind, namespace, name } = policy;
    match kind {
        PolicyKind::NetworkPolicy => format!("{namespace}/{name}"),
        PolicyKind::ClusterNetworkPolicy => format!("{kind} {name}"),
    }
}

/// What a rule does.
pub(super) fn action(action: Action) -> i32 {
    let wire = match action {
        Action::Allow => pb::Verdict::Allow,
        Action::Deny => pb::Verdict::Deny,
        Action::Pass => pb::Verdict::Pass,
    };
    wire as i32
}

/// A rule for people: `shop/db ingress[0]`.
pub(super) fn rule_words(rule: &RuleRef) -> String {
    let RuleRef { policy, direction, index } = rule;
    format!("{} {}[{index}]", policy_words(policy), direction_word(*direction))
}

/// `a`, `a and b`, `a, b and c`.
pub(super) fn listed(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

/// A count as the wire has it.
pub(super) fn small(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// A count with its noun: `1 pod`, `2 pods`.
pub(super) fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// A text of a request, safe to give back.
pub(super) fn quoted(text: &str) -> String {
    let short: String = text.chars().take(MAX_QUOTED).collect();
    let more = if short.len() < text.len() { "..." } else { "" };
    format!("{short:?}{more}")
}

/// The name of something in a field of a request. Runtimes give pods names that Kubernetes would
/// not, so only what can be no name at all is refused.
pub(super) fn name<'a>(field: &str, text: &'a str) -> Result<&'a str, Status> {
    if !text.is_empty() && text.len() <= MAX_NAME && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/') {
        return Ok(text);
    }
    let what = if text.is_empty() { "is empty".to_owned() } else { format!("{} is no name", quoted(text)) };
    Err(Status::invalid_argument(format!(
        "{field} {what}: use 1 to {MAX_NAME} letters, digits and signs without spaces and slashes"
    )))
}

/// The same; empty means that none is asked for.
pub(super) fn optional_name<'a>(field: &str, text: &'a str) -> Result<Option<&'a str>, Status> {
    if text.is_empty() { Ok(None) } else { name(field, text).map(Some) }
}

/// A pod in a field of a request.
pub(super) fn pod_key(field: &str, pod: &pb::PodName) -> Result<PodKey, Status> {
    let pb::PodName { namespace, name: own } = pod;
    Ok(PodKey::new(name(&format!("{field}.namespace"), namespace)?, name(&format!("{field}.name"), own)?))
}

/// An address in a field of a request.
pub(super) fn ip(field: &str, text: &str) -> Result<IpAddr, Status> {
    text.parse().map(canonical_ip).map_err(|_| {
        Status::invalid_argument(format!(
            "{field} {} is not an IP address: write it like 10.0.0.1 or fd00::1, without port and prefix length",
            quoted(text)
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_texts_come_back_short_and_quoted() {
        let long = "\u{1b}[2J".repeat(10_000);
        let error = name("namespace", &long).unwrap_err();
        assert!(error.message().len() < 700 && !error.message().contains('\u{1b}'), "{}", error.message());
        assert!(error.message().starts_with("namespace \"\\u{1b}[2J"), "{}", error.message());
        let error = ip("source.ip", "10.0.0.1/8").unwrap_err();
        assert!(error.message().starts_with("source.ip \"10.0.0.1/8\" is not an IP address: write it like"));
        assert!(ip("ip", &"1".repeat(1 << 20)).unwrap_err().message().len() < 300);
    }

    #[test]
    fn names_are_what_can_be_a_name() {
        for good in ["a", "web-0", "Web_0.x", &"a".repeat(253)] {
            assert_eq!(name("pod", good).unwrap(), good);
        }
        for bad in ["", "a b", "a/b", "ä", "a\n", &"a".repeat(254)] {
            assert_eq!(name("pod", bad).unwrap_err().code(), tonic::Code::InvalidArgument, "{bad:?}");
        }
        assert_eq!(optional_name("namespace", "").unwrap(), None);
    }

    #[test]
    fn mapped_addresses_are_ipv4() {
        assert_eq!(ip("ip", "::ffff:10.0.0.1").unwrap(), IpAddr::from([10, 0, 0, 1]));
    }

    #[test]
    fn lists_read_as_people_write_them() {
        let words = ["a", "b", "c"].map(str::to_owned);
        assert_eq!([listed(&words[..0]), listed(&words[..1]), listed(&words)], ["", "a", "a, b and c"]);
    }
}
