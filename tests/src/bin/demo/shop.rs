//! The manifests: a shop of three tiers, who watches it, and somebody from the street.

use tests::manifest::{namespace, pod};

/// Name of the file with pods and namespaces.
pub(crate) const PODS_FILE: &str = "pods.yaml";
/// Name of the file with policies.
pub(crate) const POLICIES_FILE: &str = "policies.yaml";

/// Port of each tier's service, and of the database's sessions.
pub(crate) const WEB: u16 = 80;
pub(crate) const CART: u16 = 8080;
pub(crate) const DB: u16 = 5432;
pub(crate) const DB_SESSION: u16 = 5433;
/// Where each of them tells its figures.
pub(crate) const METRICS: u16 = 9090;

/// Namespaces and pods.
pub(crate) fn pods() -> String {
    [
        namespace("shop", "team: shop"),
        namespace("ops", "team: ops"),
        namespace("street", ""),
        pod("shop/web", "app: web"),
        pod("shop/cart", "app: cart"),
        pod("shop/db", "app: db"),
        pod("ops/prober", "app: prober"),
        // The same label as the shop's own; it is in another namespace.
        pod("street/stranger", "app: web"),
    ]
    .concat()
}

/// The rule that the story takes away.
pub(crate) const REPORTS: &str = "  - from: [{podSelector: {matchLabels: {app: web}}}]   # reports";

/// The policies; with the rule that lets the web tier ask the database for reports, or without.
pub(crate) fn policies(reports: bool) -> String {
    let reports = if reports {
        format!("{REPORTS}\n    ports: [{{port: {DB}}}, {{port: {DB_SESSION}}}]\n")
    } else {
        String::new()
    };
    format!(
        "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: default-deny, namespace: shop}}
spec:
  podSelector: {{}}
  policyTypes: [Ingress]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: web-public, namespace: shop}}
spec:
  podSelector: {{matchLabels: {{app: web}}}}
  ingress:
  - ports: [{{port: {WEB}}}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: web-egress, namespace: shop}}
spec:
  podSelector: {{matchLabels: {{app: web}}}}
  policyTypes: [Egress]
  egress:
  - to: [{{podSelector: {{matchExpressions: [{{key: app, operator: In, values: [cart, db]}}]}}}}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: cart-clients, namespace: shop}}
spec:
  podSelector: {{matchLabels: {{app: cart}}}}
  ingress:
  - from: [{{podSelector: {{matchLabels: {{app: web}}}}}}]
    ports: [{{port: {CART}}}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: db-clients, namespace: shop}}
spec:
  podSelector: {{matchLabels: {{app: db}}}}
  ingress:
  - from: [{{podSelector: {{matchLabels: {{app: cart}}}}}}]
    ports: [{{port: {DB}}}, {{port: {DB_SESSION}}}]
{reports}---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: figures, namespace: shop}}
spec:
  podSelector: {{}}
  ingress:
  - from: [{{namespaceSelector: {{matchLabels: {{team: ops}}}}}}]
    ports: [{{port: {METRICS}}}]
"
    )
}
