//! Policies, as JSON: no more than saves writing the same again.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::stage::Pod;

/// All namespaces of the table: what subjects are to be within.
pub(super) fn both_teams() -> Value {
    json!({"matchExpressions": [{"key": "team", "operator": "Exists"}]})
}

/// A subject or peer: every pod of a namespace.
pub(super) fn team(name: &str) -> Value {
    json!({"namespaces": {"matchLabels": {"team": name}}})
}

/// A peer: every pod.
pub(super) fn anybody() -> Value {
    json!({"namespaces": {}})
}

/// A subject or peer: the pods `app` of a namespace.
pub(super) fn app(team: &str, app: &str) -> Value {
    let namespaces = json!({"matchLabels": {"team": team}});
    json!({"pods": {"namespaceSelector": namespaces, "podSelector": {"matchLabels": {"app": app}}}})
}

/// A peer: a node.
pub(super) fn node(name: &str) -> Value {
    json!({"nodes": {"matchLabels": {"kubernetes.io/hostname": name}}})
}

/// A peer: the addresses of a pod.
pub(super) fn addresses(pod: &Pod) -> Value {
    let blocks = pod.ips.iter().map(|ip| match ip {
        IpAddr::V4(ip) => format!("{ip}/32"),
        IpAddr::V6(ip) => format!("{ip}/128"),
    });
    json!({"networks": blocks.collect::<Vec<_>>()})
}

/// An ingress rule.
pub(super) fn from(action: &str, peers: &[Value]) -> Value {
    json!({"action": action, "from": peers})
}

/// An egress rule.
pub(super) fn to(action: &str, peers: &[Value]) -> Value {
    json!({"action": action, "to": peers})
}

/// A rule, for these protocols only.
pub(super) fn on(mut rule: Value, protocols: &[Value]) -> Value {
    rule["protocols"] = json!(protocols);
    rule
}

/// A port by its number.
pub(super) fn port(protocol: &str, number: u16) -> Value {
    json!({protocol: {"destinationPort": {"number": number}}})
}

/// Ports from one to another.
pub(super) fn ports(protocol: &str, start: u16, end: u16) -> Value {
    json!({protocol: {"destinationPort": {"range": {"start": start, "end": end}}}})
}

/// A port by its name.
pub(super) fn named(name: &str) -> Value {
    json!({"destinationNamedPort": name})
}

/// A ClusterNetworkPolicy of a tier; each rule is of the direction that its peers say.
pub(super) fn policy(name: &str, tier: &str, priority: i32, subject: &Value, rules: &[Value]) -> Value {
    let with = |peers| rules.iter().filter(|rule| rule.get(peers).is_some()).collect::<Vec<_>>();
    json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2",
        "kind": "ClusterNetworkPolicy",
        "metadata": {"name": name},
        "spec": {
            "tier": tier,
            "priority": priority,
            "subject": subject,
            "ingress": with("from"),
            "egress": with("to"),
        },
    })
}

/// One of the Admin tier.
pub(super) fn admin(name: &str, priority: i32, subject: &Value, rules: &[Value]) -> Value {
    policy(name, "Admin", priority, subject, rules)
}

/// One of the Baseline tier.
pub(super) fn baseline(name: &str, priority: i32, subject: &Value, rules: &[Value]) -> Value {
    policy(name, "Baseline", priority, subject, rules)
}

/// The same, staged.
pub(super) fn staged(mut policy: Value) -> Value {
    policy["metadata"]["annotations"] = json!({"policy.bulkhead.io/enforcement": "staged"});
    policy
}
