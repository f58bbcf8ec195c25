//! What the daemon asks of the API server, and so what it has to be allowed: the chart grants this and nothing else.
//!
//! That the code asks for nothing else, and for all of this, is seen in the API server's audit log
//! (`tests/tests/kubernetes/install.rs`).

/// A right on one kind of objects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Right {
    /// API group; empty for the core.
    pub group: &'static str,
    /// Resource, as URLs name it.
    pub resource: &'static str,
    /// What is done with it.
    pub verbs: &'static [&'static str],
}

const WATCHED: &[&str] = &["list", "watch"];
/// `get`: ADD asks for a pod that the watch has not told of yet, a daemon that starts asks for its node.
const ASKED_FOR: &[&str] = &["get", "list", "watch"];

/// `create` at the start of a pod, `get` if somebody was quicker, `patch` for the mark of one that nobody uses.
const SHARED: &[&str] = &["get", "list", "watch", "create", "patch", "delete"];

/// In the whole cluster.
pub const RIGHTS: [Right; 9] = [
    Right { group: "", resource: "namespaces", verbs: WATCHED },
    Right { group: "", resource: "pods", verbs: ASKED_FOR },
    Right { group: "", resource: "nodes", verbs: ASKED_FOR },
    Right { group: "", resource: "services", verbs: WATCHED },
    Right { group: "discovery.k8s.io", resource: "endpointslices", verbs: WATCHED },
    Right { group: "networking.k8s.io", resource: "networkpolicies", verbs: WATCHED },
    Right { group: "policy.networking.k8s.io", resource: "clusternetworkpolicies", verbs: WATCHED },
    Right { group: "events.k8s.io", resource: "events", verbs: &["create"] },
    Right { group: objects::identity::GROUP, resource: objects::identity::PLURAL, verbs: SHARED },
];

/// In the agent's own namespace: the Lease by which one of them looks after Identities that nobody uses.
pub const OWN_RIGHTS: [Right; 1] =
    [Right { group: "coordination.k8s.io", resource: "leases", verbs: &["get", "create", "update"] }];

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    const FILES: [(&str, &[Right]); 2] = [("rights.yaml", &RIGHTS), ("own_rights.yaml", &OWN_RIGHTS)];

    fn yaml(rights: &[Right]) -> String {
        let mut text = String::from(
            "# Generated from daemon/src/source/kubernetes/rights.rs: `UPDATE_GOLDEN=1 cargo test -p daemon rights` writes it anew.\n",
        );
        for Right { group, resource, verbs } in rights {
            let group = if group.is_empty() { "\"\"" } else { group };
            let verbs = verbs.join(", ");
            let _ = writeln!(text, "- apiGroups: [{group}]\n  resources: [{resource}]\n  verbs: [{verbs}]");
        }
        text
    }

    #[test]
    fn the_chart_grants_what_is_asked_for() {
        for (name, rights) in FILES {
            let file = format!("{}/../manifests/helm/bulkhead/{name}", env!("CARGO_MANIFEST_DIR"));
            if std::env::var_os("UPDATE_GOLDEN").is_some() {
                std::fs::write(&file, yaml(rights)).unwrap();
            }
            let there = std::fs::read_to_string(&file).unwrap();
            assert_eq!(there, yaml(rights), "`UPDATE_GOLDEN=1 cargo test -p daemon rights` writes it");
        }
    }
}
