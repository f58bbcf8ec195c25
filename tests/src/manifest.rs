//! Manifests as text, for tests and the demo.

/// A namespace with labels, written as in a flow mapping: `"team: shop"`.
pub fn namespace(name: &str, labels: &str) -> String {
    format!("---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{{labels}}}}}\n")
}

/// A pod `namespace/name` with labels.
pub fn pod(key: &str, labels: &str) -> String {
    pod_with_ports(key, labels, "")
}

/// A pod with container ports, written as in a flow sequence: `"{name: http, containerPort: 80}"`.
pub fn pod_with_ports(key: &str, labels: &str, ports: &str) -> String {
    let (namespace, name) = split(key);
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{{labels}}}}}\n\
         spec:\n  containers:\n  - {{name: main, image: none, ports: [{ports}]}}\n"
    )
}

/// A NetworkPolicy `namespace/name` with this spec, indented by two spaces.
pub fn policy(key: &str, spec: &str) -> String {
    let (namespace, name) = split(key);
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
         metadata: {{name: {name}, namespace: {namespace}}}\nspec:\n{spec}\n"
    )
}

/// A ClusterNetworkPolicy with this spec, indented by two spaces.
pub fn cluster_policy(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\n\
         metadata: {{name: {name}}}\nspec:\n{spec}\n"
    )
}

/// The same policy, staged.
pub fn staged(policy: &str) -> String {
    policy.replacen("metadata: {", "metadata: {annotations: {policy.bulkhead.io/enforcement: staged}, ", 1)
}

fn split(key: &str) -> (&str, &str) {
    key.split_once('/').unwrap_or_else(|| panic!("{key:?} is no namespace/name"))
}
