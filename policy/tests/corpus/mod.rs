//! What the corpora share: gzipped JSON, and NetworkPolicy as an API server returns it -> model.
//!
//! Strict about the little it reads: a field it does not know fails the test. Manifests that
//! people write are read by the crate `objects`, which depends on this one.

use std::collections::BTreeMap;
use std::io::Read;

use datapath_abi::policy::Direction;
use flate2::read::GzDecoder;
use policy::compile::compile;
use policy::index::Index;
use policy::lower::{CookieTable, RuleSet, lower};
use policy::model::{
    ContainerPort, Few, IpBlock, Labels, NamespaceScope, NetworkPolicy, Peer, PodKey, Port, PortRange, PortSpec,
    Protocol, Rule,
};
use policy::selector::{Operator, Requirement, Selector, Values};
use policy::world::World;
use serde_json::{Map, Value};

type Object = Map<String, Value>;

/// Reads a file of `testdata`.
pub(crate) fn read(path: &str) -> Value {
    let path = format!("{}/testdata/{path}", env!("CARGO_MANIFEST_DIR"));
    let file = std::fs::File::open(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut text = String::new();
    GzDecoder::new(file).read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap()
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is not a string"))
}

pub(crate) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    match value {
        Value::Null => [].iter(),
        Value::Array(list) => list.iter(),
        other => panic!("{other} is not a list"),
    }
}

fn object<'a>(value: &'a Value, fields: &[&str]) -> &'a Object {
    let object = value.as_object().unwrap_or_else(|| panic!("{value} is not an object"));
    for field in object.keys() {
        assert!(fields.contains(&field.as_str()), "unknown field {field} in {value}");
    }
    object
}

pub(crate) fn labels(value: &Value) -> Labels {
    value.as_object().into_iter().flatten().map(|(key, value)| (key.as_str(), text(value))).collect()
}

/// Every port from `ports` for every protocol, under the name `serve-80-tcp` that both suites use.
pub(crate) fn served(ports: &[u16]) -> Few<ContainerPort> {
    let all = ports.iter().flat_map(|port| Protocol::ALL.map(|protocol| (*port, protocol)));
    let named = all.map(|(port, protocol)| ContainerPort {
        name: format!("serve-{port}-{}", protocol.as_str().to_lowercase()),
        protocol,
        port,
    });
    named.collect()
}

pub(crate) fn network_policy(value: &Value) -> NetworkPolicy {
    let top = object(value, &["apiVersion", "kind", "metadata", "spec"]);
    assert_eq!((text(&top["apiVersion"]), text(&top["kind"])), ("networking.k8s.io/v1", "NetworkPolicy"));
    let metadata = object(&top["metadata"], &["name", "namespace"]);
    let spec = object(&top["spec"], &["podSelector", "policyTypes", "ingress", "egress"]);
    let types: Vec<&str> = list(&spec["policyTypes"]).map(text).collect();
    let rules = |direction: &str, name: &str, peers: &str| {
        let rules = list(spec.get(name).unwrap_or(&Value::Null)).map(|it| rule(it, peers)).collect();
        types.contains(&direction).then_some(rules)
    };
    NetworkPolicy {
        namespace: text(&metadata["namespace"]).to_owned(),
        name: text(&metadata["name"]).to_owned(),
        pod_selector: selector(&spec["podSelector"]),
        ingress: rules("Ingress", "ingress", "from"),
        egress: rules("Egress", "egress", "to"),
        staged: false,
    }
}

fn rule(value: &Value, peers: &str) -> Rule {
    let rule = object(value, &[peers, "ports"]);
    let list_of = |field: &str| list(rule.get(field).unwrap_or(&Value::Null)).collect::<Vec<_>>();
    let peers: Vec<Peer> = list_of(peers).into_iter().map(peer).collect();
    let ports: Vec<Port> = list_of("ports").into_iter().map(port).collect();
    Rule { peers: peers.into(), ports: ports.into() }
}

fn peer(value: &Value) -> Peer {
    let peer = object(value, &["podSelector", "namespaceSelector", "ipBlock"]);
    if let Some(block) = peer.get("ipBlock") {
        let block = object(block, &["cidr", "except"]);
        let holes = list(block.get("except").unwrap_or(&Value::Null)).map(|hole| text(hole).parse().unwrap());
        return Peer::Block(IpBlock::new(text(&block["cidr"]).parse().unwrap(), holes).unwrap());
    }
    let namespaces = match peer.get("namespaceSelector") {
        None => NamespaceScope::Own,
        Some(namespaces) => NamespaceScope::Matching(selector(namespaces)),
    };
    Peer::Pods { namespaces, pods: peer.get("podSelector").map(selector).unwrap_or_default() }
}

fn port(value: &Value) -> Port {
    let port = object(value, &["protocol", "port", "endPort"]);
    let number = |value: &Value| u16::try_from(value.as_u64().unwrap()).unwrap();
    Port {
        protocol: port.get("protocol").map_or(Protocol::Tcp, |protocol| text(protocol).parse().unwrap()),
        port: match (port.get("port"), port.get("endPort")) {
            (None, None) => PortSpec::Numbers(PortRange::ALL),
            (Some(Value::String(name)), None) => PortSpec::Named(name.clone()),
            (Some(from), to) => {
                let from = number(from);
                PortSpec::Numbers(PortRange::new(from, to.map_or(from, number)).unwrap())
            }
            (None, Some(_)) => panic!("endPort without port in {value}"),
        },
    }
}

fn selector(value: &Value) -> Selector {
    let selector = object(value, &["matchLabels", "matchExpressions"]);
    let equal = selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten();
    let equal = equal.map(|(key, value)| Requirement::equals(key, text(value)));
    let expressions = list(selector.get("matchExpressions").unwrap_or(&Value::Null)).map(|expression| {
        let expression = object(expression, &["key", "operator", "values"]);
        let values = || Values::new(list(&expression["values"]).map(text)).unwrap();
        let operator = match text(&expression["operator"]) {
            "In" => Operator::In(values()),
            "NotIn" => Operator::NotIn(values()),
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            other => panic!("unknown operator {other}"),
        };
        Requirement { key: text(&expression["key"]).to_owned(), operator }
    });
    Selector::new(equal.chain(expressions))
}

/// The rule sets of every pod in both directions.
pub(crate) fn rule_sets(index: &Index, world: &World<'_>) -> BTreeMap<(PodKey, Direction), RuleSet> {
    let mut sets = BTreeMap::new();
    for pod in index.pods() {
        for direction in [Direction::Egress, Direction::Ingress] {
            let table = compile(index, &pod.key, direction);
            let set = lower(&table, world.universe(), &mut CookieTable::default()).unwrap();
            sets.insert((pod.key.clone(), direction), set);
        }
    }
    sets
}
