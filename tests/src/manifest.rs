//! Manifests as text, for tests and the demo.

use std::net::IpAddr;

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

/// A namespace with the pods `web` and `db`; `db` lets `web` in at port 80, and nobody else.
pub fn shop(name: &str) -> String {
    let db = format!("{name}/db");
    [
        namespace(name, ""),
        pod(&format!("{name}/web"), "app: web"),
        pod(&db, "app: db"),
        policy(
            &db,
            "  podSelector: {matchLabels: {app: db}}\n  ingress:\n  - from: [{podSelector: {matchLabels: {app: web}}}]\n\
             \x20   ports: [{port: 80}]",
        ),
    ]
    .concat()
}

/// A ClusterNetworkPolicy with this spec, indented by two spaces.
pub fn cluster_policy(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\n\
         metadata: {{name: {name}}}\nspec:\n{spec}\n"
    )
}

/// A Service `namespace/name` with these addresses, and ports written as in a flow sequence: `"{name: http, port: 80}"`.
pub fn service(key: &str, addresses: &[IpAddr], ports: &str) -> String {
    let (namespace, name) = split(key);
    let all: Vec<String> = addresses.iter().map(|address| format!("\"{address}\"")).collect();
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{clusterIP: {}, clusterIPs: [{}], ports: [{ports}]}}\n",
        all.first().map_or("None", String::as_str),
        all.join(", ")
    )
}

/// An EndpointSlice of a Service `namespace/name`: endpoints of one family by address and whether each is ready, and ports
/// written as in a flow sequence.
pub fn endpoint_slice(key: &str, endpoints: &[(IpAddr, bool)], ports: &str) -> String {
    let (namespace, name) = split(key);
    let family = if endpoints.iter().all(|(ip, _)| ip.is_ipv4()) { "IPv4" } else { "IPv6" };
    let endpoints =
        endpoints.iter().map(|(ip, ready)| format!("{{addresses: [\"{ip}\"], conditions: {{ready: {ready}}}}}"));
    format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: {family}\n\
         metadata: {{name: {name}-{}, namespace: {namespace}, labels: {{kubernetes.io/service-name: {name}}}}}\n\
         endpoints: [{}]\nports: [{ports}]\n",
        family.to_lowercase(),
        endpoints.collect::<Vec<_>>().join(", ")
    )
}

/// The same policy, staged.
pub fn staged(policy: &str) -> String {
    policy.replacen("metadata: {", "metadata: {annotations: {policy.bulkhead.io/enforcement: staged}, ", 1)
}

fn split(key: &str) -> (&str, &str) {
    key.split_once('/').unwrap_or_else(|| panic!("{key:?} is no namespace/name"))
}
