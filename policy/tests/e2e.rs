//! Every truth table of the Kubernetes end-to-end suite for NetworkPolicy through compile, lower
//! and the map model, and through the oracle; once with IPv4 and once with IPv6 addresses.

mod corpus;

use std::collections::BTreeMap;
use std::net::IpAddr;

use corpus::{list, network_policy, read, rule_sets, served, text};
use datapath_abi::policy::Direction;
use policy::index::Index;
use policy::map_model::MapModel;
use policy::model::{Labels, Namespace, Object, ObjectKey, Pod, PodKey, Protocol};
use policy::oracle::Oracle;
use policy::world::{End, Flow, World};
use serde_json::Value;

/// How a family writes addresses.
struct Family {
    host_bits: u8,
    ip: fn(usize) -> String,
    /// The /4 around all of them.
    large: &'static str,
}

const FAMILIES: [Family; 2] = [
    Family { host_bits: 32, ip: |host| format!("10.244.1.{host}"), large: "0.0.0.0/4" },
    Family { host_bits: 128, ip: |host| format!("fd00:10:244::{host:x}"), large: "f000::/4" },
];

#[test]
fn every_truth_table_holds_in_both_families() {
    let corpus = read("e2e/netpol.json.gz");
    let (mut cells, mut differences) = (0, Vec::new());
    for family in &FAMILIES {
        for case in list(&corpus["cases"]) {
            let mut cluster = Cluster::new(family, case);
            for (number, step) in list(&case["steps"]).enumerate() {
                cluster.act(step);
                let place = format!("{} step {number}", case["name"]);
                cells += cluster.compare(step, &place, &mut differences);
            }
        }
    }
    assert!(differences.is_empty(), "{} differences\n{}", differences.len(), differences.join("\n"));
    assert_eq!(cells, 1_012, "the corpus is not complete");
}

/// Objects as the steps of a case leave them.
struct Cluster<'a> {
    family: &'a Family,
    addresses: BTreeMap<String, String>,
    objects: BTreeMap<ObjectKey, Object>,
}

fn key(path: &str) -> PodKey {
    let (namespace, name) = path.split_once('/').unwrap();
    PodKey::new(namespace, name)
}

impl<'a> Cluster<'a> {
    fn new(family: &'a Family, case: &Value) -> Self {
        let paths: Vec<&str> = list(&case["pods"]).map(text).collect();
        let addresses =
            paths.iter().enumerate().map(|(host, path)| (path.to_string(), (family.ip)(host + 2))).collect();
        let mut cluster = Self { family, addresses, objects: BTreeMap::new() };
        for path in paths {
            let key = key(path);
            cluster.put(Namespace::new(&key.namespace, Labels::default()));
            cluster.put(Pod {
                labels: [("pod", &key.name)].into_iter().collect(),
                ips: [cluster.addresses[path].parse().unwrap()].into(),
                ports: served(&[80, 81]),
                ..Pod::new(key)
            });
        }
        cluster
    }

    fn put(&mut self, object: impl Into<Object>) {
        let object = object.into();
        self.objects.insert(object.key(), object);
    }

    fn act(&mut self, step: &Value) {
        if step["delete_all"] == true {
            self.objects.retain(|key, _| !matches!(key, ObjectKey::Policy(_)));
        }
        for (namespace, labels) in step["set_ns_labels"].as_object().unwrap() {
            self.put(Namespace::new(namespace, corpus::labels(labels)));
        }
        for (path, labels) in step["add_pod_labels"].as_object().unwrap() {
            let Some(Object::Pod(pod)) = self.objects.get(&ObjectKey::Pod(key(path))) else { panic!("no pod {path}") };
            let more = corpus::labels(labels);
            let labels = more.iter().fold(pod.labels.clone(), |all, (key, value)| all.with(key, value));
            self.put(Pod { labels, ..Pod::clone(pod) });
        }
        for policy in list(&step["create"]).chain(list(&step["update"])) {
            let policy = self.filled_in(policy);
            self.put(network_policy(&policy));
        }
    }

    /// With addresses in the place of `$IP(ns/pod)/32` and `$LARGE(ns/pod)`.
    fn filled_in(&self, policy: &Value) -> Value {
        let mut text = policy.to_string();
        for (path, ip) in &self.addresses {
            text = text.replace(&format!("$IP({path})/32"), &format!("{ip}/{}", self.family.host_bits));
            text = text.replace(&format!("$LARGE({path})"), self.family.large);
        }
        assert!(!text.contains('$'), "{text}");
        serde_json::from_str(&text).unwrap()
    }

    fn compare(&self, step: &Value, place: &str, differences: &mut Vec<String>) -> usize {
        let mut index = Index::default();
        for object in self.objects.values() {
            index.apply(object.clone());
        }
        let oracle = Oracle::new(self.objects.values().cloned());
        let world = World::new(&index);
        let sets = rule_sets(&index, &world);
        let proto = text(&step["protocol"]).parse::<Protocol>().unwrap().number();
        let port = u16::try_from(step["port"].as_u64().unwrap()).unwrap();
        let end = |path: &str| -> (PodKey, IpAddr) { (key(path), self.addresses[path].parse().unwrap()) };
        let passes = |direction, subject: &(PodKey, IpAddr), peer: &(PodKey, IpAddr)| {
            let identity = world.identity(&End::Pod(peer.0.clone(), peer.1));
            MapModel::new(&sets[&(subject.0.clone(), direction)]).passes(identity, peer.1, proto, port)
        };
        let mut cells = 0;
        for (source, row) in step["expected"].as_object().unwrap() {
            for (destination, expected) in row.as_object().unwrap() {
                // The suite ignores what a pod says to itself.
                if source == destination {
                    continue;
                }
                cells += 1;
                let (from, to) = (end(source), end(destination));
                let entries = passes(Direction::Egress, &from, &to) && passes(Direction::Ingress, &to, &from);
                let (from, to) = (End::Pod(from.0, from.1), End::Pod(to.0, to.1));
                let oracle = oracle.allows(&Flow { source: from, destination: to, proto, port });
                let expected = expected.as_bool().unwrap();
                if entries != expected || oracle != expected {
                    differences.push(format!(
                        "{place}: {source} -> {destination}: entries {entries}, oracle {oracle}, suite {expected}"
                    ));
                }
            }
        }
        cells
    }
}
