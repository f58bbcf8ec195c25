//! The objects that make the cluster look large. Pure: counts in, objects out.
//!
//! Everything is spread over all namespaces in turn: object `i` is in namespace `i % namespaces`, and has to do with
//! the app `i / namespaces % APPS` there.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::ensure;
use serde_json::{Value, json};

/// Apps of each namespace. Pods of one app in one namespace have the same labels.
pub(crate) const APPS: usize = 5;
/// Pods on a node that is an object only.
const PODS_PER_NODE: usize = 100;
/// Third number of the first such node's range of pods, below which real nodes have theirs.
const FIRST_RANGE: usize = 100;
/// Label of the pods that are real, and what it says.
pub(crate) const REAL: (&str, &str) = ("scale", "real");
/// What fake nodes bear, so that nobody is sent there.
const FAKE: &str = "scale";

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct World {
    /// Namespaces that all of it is in.
    pub(crate) namespaces: usize,
    /// Pods that are objects only.
    pub(crate) pods: usize,
    /// Services.
    pub(crate) services: usize,
    /// NetworkPolicies.
    pub(crate) policies: usize,
}

impl World {
    /// Fails if there is no address for every pod.
    pub(crate) fn check(self) -> anyhow::Result<()> {
        let most = (256 - FIRST_RANGE) * PODS_PER_NODE;
        ensure!(self.pods <= most, "at most {most} fake pods: there are no addresses for more");
        ensure!(self.namespaces > 0 && self.namespaces <= 1000, "1 to 1000 namespaces");
        Ok(())
    }

    /// Nodes that the fake pods are on.
    pub(crate) fn nodes(self) -> usize {
        self.pods.div_ceil(PODS_PER_NODE)
    }

    /// Different sets of labels that fake pods have, namespaces included.
    pub(crate) fn label_sets(self) -> usize {
        self.pods.min(self.namespaces * APPS)
    }

    /// Endpoints of all Services together, once they are all found.
    pub(crate) fn endpoints(self) -> usize {
        let of = |service| (0..self.pods).filter(|pod| self.place(*pod) == self.place(service)).count();
        // Services repeat after so many.
        let kinds = self.namespaces * APPS;
        (0..kinds.min(self.services)).map(|kind| of(kind) * (self.services - kind).div_ceil(kinds)).sum()
    }

    fn place(self, index: usize) -> (usize, usize) {
        (index % self.namespaces, index / self.namespaces % APPS)
    }

    /// Namespace of an object.
    pub(crate) fn namespace_of(self, index: usize) -> String {
        namespace(index % self.namespaces)
    }

    /// Labels of a pod.
    fn labels(self, index: usize) -> Value {
        json!({"app": app(self.place(index).1)})
    }

    /// A node that is an object only. Nothing is scheduled there, no DaemonSet wants a pod there.
    pub(crate) fn node(index: usize) -> Value {
        let range = FIRST_RANGE + index;
        let ranges = [format!("10.244.{range}.0/24"), format!("fd00:10:244:{range:x}::/64")];
        json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": node_name(index)},
            "spec": {
                "podCIDR": ranges[0], "podCIDRs": ranges, "unschedulable": true,
                "taints": [{"key": FAKE, "effect": "NoSchedule"}],
            },
        })
    }

    /// What its kubelet would say of it.
    pub(crate) fn node_status(index: usize) -> Value {
        let addresses = [format!("172.31.1.{}", FIRST_RANGE + index), format!("fd31::1:{:x}", FIRST_RANGE + index)];
        let addresses = addresses.map(|address| json!({"type": "InternalIP", "address": address}));
        json!({"status": {
            "addresses": addresses,
            "conditions": [{"type": "Ready", "status": "True", "reason": "Fake", "message": "an object only"}],
        }})
    }

    /// What says that a node lives: renewed all the time, else its pods would be taken for lost.
    pub(crate) fn lease(index: usize, now: &str) -> Value {
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": node_name(index), "namespace": "kube-node-lease"},
            "spec": {"holderIdentity": node_name(index), "leaseDurationSeconds": 40, "renewTime": now},
        })
    }

    /// A pod that is an object only.
    pub(crate) fn pod(self, index: usize) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": pod_name(index), "namespace": self.namespace_of(index), "labels": self.labels(index)},
            "spec": {
                "nodeName": node_name(index / PODS_PER_NODE),
                "terminationGracePeriodSeconds": 0,
                "automountServiceAccountToken": false,
                // Also if its node should be taken for dead.
                "tolerations": [{"operator": "Exists"}],
                "containers": [{"name": "none", "image": "none"}],
            },
        })
    }

    /// What the kubelet would say of it.
    pub(crate) fn pod_status(index: usize) -> Value {
        // The first addresses of a range are its node's.
        let (range, host) = (FIRST_RANGE + index / PODS_PER_NODE, 2 + index % PODS_PER_NODE);
        let small = |number: usize| u8::try_from(number).unwrap_or(u8::MAX);
        let v4 = Ipv4Addr::new(10, 244, small(range), small(host));
        let v6 = Ipv6Addr::new(0xfd00, 0x10, 0x244, u16::from(small(range)), 0, 0, 0, u16::from(small(host)));
        json!({"status": {
            "phase": "Running",
            "podIP": v4, "podIPs": [{"ip": v4}, {"ip": v6}],
            "conditions": [{"type": "Ready", "status": "True"}],
        }})
    }

    /// A Service that leads to the fake pods of one app of one namespace.
    pub(crate) fn service(self, index: usize) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": format!("service-{index}"), "namespace": self.namespace_of(index)},
            "spec": {"selector": self.labels(index), "ports": [{"port": 80, "targetPort": 8080}]},
        })
    }

    /// A policy of one app: who may reach it, within its namespace and from another; every other five of a namespace
    /// say what it may reach, by labels and by address.
    pub(crate) fn policy(self, index: usize) -> Value {
        let own = self.place(index).1;
        let other = json!({"matchLabels": {"kubernetes.io/metadata.name": self.namespace_of(index + 7)}});
        let ports = json!([{"protocol": "TCP", "port": 8080}]);
        let rules = if (index / self.namespaces / APPS).is_multiple_of(2) {
            json!({"policyTypes": ["Ingress"], "ingress": [
                {"from": [{"podSelector": {"matchLabels": {"app": app((own + 1) % APPS)}}}], "ports": ports},
                {"from": [{"namespaceSelector": other, "podSelector": {"matchLabels": {"app": app(own)}}}], "ports": ports},
            ]})
        } else {
            let block = format!("10.{}.0.0/16", index % 200);
            let except = format!("10.{}.{}.0/24", index % 200, index / 200);
            json!({"policyTypes": ["Egress"], "egress": [
                {"to": [{"namespaceSelector": other}], "ports": ports},
                {"to": [{"ipBlock": {"cidr": block, "except": [except]}}], "ports": [{"protocol": "TCP", "port": 443}]},
            ]})
        };
        let mut policy = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": format!("policy-{index}"), "namespace": self.namespace_of(index)},
            "spec": {"podSelector": {"matchLabels": {"app": app(own)}}},
        });
        for (field, value) in rules.as_object().into_iter().flatten() {
            policy["spec"][field] = value.clone();
        }
        policy
    }

    /// A real pod on a node, which sleeps; under the policies of its app.
    pub(crate) fn real(self, index: usize, node: &str) -> Value {
        let mut labels = self.labels(index);
        labels[REAL.0] = json!(REAL.1);
        sleeper(&real_name(index), &self.namespace_of(index), &labels, node)
    }
}

/// A pod with a busybox that sleeps.
pub(crate) fn sleeper(name: &str, namespace: &str, labels: &Value, node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "containers": [{
                "name": "sleep", "image": ::tests::image::NAME, "imagePullPolicy": "Never",
                "command": ["/bin/sleep", "1000000"],
            }],
        },
    })
}

/// Name of a namespace.
pub(crate) fn namespace(index: usize) -> String {
    format!("scale-{index}")
}

/// Name of a fake node.
pub(crate) fn node_name(index: usize) -> String {
    format!("fake-{index}")
}

/// Name of a fake pod.
pub(crate) fn pod_name(index: usize) -> String {
    format!("fake-{index}")
}

/// Name of a real pod.
pub(crate) fn real_name(index: usize) -> String {
    format!("real-{index}")
}

fn app(number: usize) -> String {
    format!("app-{number}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const WORLD: World = World { namespaces: 3, pods: 47, services: 40, policies: 10 };

    #[test]
    fn endpoints_are_counted_as_selectors_find_them() {
        let pods: Vec<Value> = (0..WORLD.pods).map(|pod| WORLD.pod(pod)).collect();
        let behind = |service: Value| {
            let found = pods.iter().filter(|pod| {
                pod["metadata"]["namespace"] == service["metadata"]["namespace"]
                    && pod["metadata"]["labels"] == service["spec"]["selector"]
            });
            found.count()
        };
        let all: usize = (0..WORLD.services).map(|service| behind(WORLD.service(service))).sum();
        assert_eq!(all, WORLD.endpoints());
        let few = World { services: 2, pods: 1, ..WORLD };
        assert_eq!(few.endpoints(), 1);
    }

    #[test]
    fn addresses_differ_and_lie_in_their_nodes_range() {
        let addresses: BTreeSet<String> =
            (0..15_600).map(|pod| World::pod_status(pod)["status"]["podIPs"].to_string()).collect();
        assert_eq!(addresses.len(), 15_600);
        assert_eq!(World::pod_status(101)["status"]["podIP"], "10.244.101.3");
        assert_eq!(World::node(1)["spec"]["podCIDRs"], json!(["10.244.101.0/24", "fd00:10:244:65::/64"]));
        assert_eq!(World::pod_status(101)["status"]["podIPs"][1]["ip"], "fd00:10:244:65::3");
        assert!(World { pods: 15_601, ..WORLD }.check().is_err());
    }

    #[test]
    fn policies_are_of_both_directions() {
        let world = World { namespaces: 2, policies: 20, ..WORLD };
        let types: Vec<Value> = (0..20).map(|policy| world.policy(policy)["spec"]["policyTypes"][0].clone()).collect();
        assert_eq!(types.iter().filter(|it| **it == "Ingress").count(), 10);
        assert_eq!(world.label_sets(), 10);
    }
}
