//! Every verdict of the cyclonus corpus through compile, lower and the map model, and through the
//! oracle. Each step's objects are brought about twice: by its actions upon the index of the step
//! before, and afresh from its listed state.
//!
//! Where the corpus contradicts the API's text we follow the text. Such places are listed in
//! [`EXCEPTIONS`] with the reason; the test fails for a difference that is not listed, and for
//! one that is listed and no longer there. (Cyclonus also reads `NotIn`, `DoesNotExist` and a
//! missing key otherwise than apimachinery does, but nowhere in this corpus does it matter.)

mod corpus;

use std::collections::BTreeMap;
use std::net::IpAddr;

use corpus::{labels, list, network_policy, read, rule_sets, served, text};
use datapath_abi::policy::Direction;
use policy::index::Index;
use policy::map_model::MapModel;
use policy::model::{Namespace, Object, ObjectKey, Pod, PodKey, PolicyRef, Protocol};
use policy::oracle::Oracle;
use policy::world::{End, Flow, World};
use serde_json::Value;

/// A kind of verdict on which we differ from the corpus on purpose.
struct Exception {
    name: &'static str,
    reason: &'static str,
    holds: fn(&Flow) -> bool,
    /// How many verdicts of the corpus it covers.
    verdicts: usize,
}

const EXCEPTIONS: &[Exception] = &[Exception {
    name: "a pod to itself",
    reason: "the corpus asks the pod's rules; the text says that a pod cannot block access to itself",
    holds: |flow| flow.source == flow.destination,
    verdicts: 1_554,
}];

#[test]
fn every_verdict_is_ours_or_an_exception_with_a_reason() {
    let corpus = read("cyclonus/verdicts.json.gz");
    let mut verdicts = 0;
    let mut differences = Vec::new();
    let mut excepted = vec![0; EXCEPTIONS.len()];
    for case in list(&corpus["cases"]) {
        let mut index = index_of(initial_state());
        for (number, step) in list(&case["steps"]).enumerate() {
            let place = format!("case {} ({}) step {number}", case["index"], case["description"]);
            for action in list(&step["actions"]) {
                act(&mut index, action, step);
            }
            let objects = state(step);
            assert_eq!(index, index_of(objects.clone()), "{place}: its actions lead elsewhere than its state");
            let compiled = Step::new(&index, &objects);
            for (flow, expected) in expected(step, &index) {
                verdicts += 1;
                let name = format!("{place}: {:?} -> {:?} {}/{}", flow.source, flow.destination, flow.proto, flow.port);
                let [ours, oracle, whole] = compiled.letters(&flow);
                if ours != expected || oracle != expected {
                    differences.push(format!("{name}: entries {ours}, oracle {oracle}, corpus {expected}"));
                }
                if whole != expected {
                    match EXCEPTIONS.iter().position(|exception| (exception.holds)(&flow)) {
                        Some(exception) => excepted[exception] += 1,
                        None => differences.push(format!("{name}: whole flow {whole}, corpus {expected}")),
                    }
                }
            }
        }
    }
    assert!(differences.is_empty(), "{} differences\n{}", differences.len(), differences.join("\n"));
    assert_eq!(verdicts, 123_669, "the corpus is not complete");
    for (exception, found) in EXCEPTIONS.iter().zip(excepted) {
        let Exception { name, reason, holds: _, verdicts } = exception;
        println!("{name}: {found} verdicts differ, because {reason}");
        assert_eq!(found, *verdicts, "exception {name}: as many as listed?");
    }
}

/// One step, compiled.
struct Step<'a> {
    world: World<'a>,
    oracle: Oracle,
    sets: BTreeMap<(PodKey, Direction), policy::lower::RuleSet>,
}

impl<'a> Step<'a> {
    fn new(index: &'a Index, objects: &[Object]) -> Self {
        let world = World::new(index);
        let sets = rule_sets(index, &world);
        Self { world, oracle: Oracle::new(objects.iter().cloned()), sets }
    }

    /// What the entries of both ends say, what the oracle says of both ends, and what comes out
    /// for the whole flow.
    fn letters(&self, flow: &Flow) -> [char; 3] {
        let entries = [Direction::Egress, Direction::Ingress].map(|direction| self.side(direction, flow));
        let oracle = [self.oracle.egress_allows(flow), self.oracle.ingress_allows(flow)];
        let whole = if flow.source == flow.destination { [true; 2] } else { entries };
        let same = self.oracle.allows(flow) == (whole == [true; 2]);
        assert!(same, "the oracle's parts contradict the whole for {flow:?}");
        [letter(entries), letter(oracle), letter(whole)]
    }

    /// What the rules of one end say, a pod to itself included.
    fn side(&self, direction: Direction, flow: &Flow) -> bool {
        let (subject, peer) = match direction {
            Direction::Egress => (&flow.source, &flow.destination),
            Direction::Ingress => (&flow.destination, &flow.source),
        };
        let End::Pod(key, _) = subject else { panic!("{subject:?} is no pod") };
        let model = MapModel::new(&self.sets[&(key.clone(), direction)]);
        model.passes(self.world.identity(peer), peer.ip(), flow.proto, flow.port)
    }
}

fn letter([egress, ingress]: [bool; 2]) -> char {
    match (egress, ingress) {
        (true, true) => '.',
        (true, false) => 'i',
        (false, true) => 'e',
        (false, false) => 'x',
    }
}

fn index_of(objects: impl IntoIterator<Item = Object>) -> Index {
    let mut index = Index::default();
    for object in objects {
        index.apply(object);
    }
    index
}

fn pod(namespace: &str, name: &str, labels: &Value, ip: &str) -> Pod {
    Pod {
        labels: corpus::labels(labels),
        ips: [ip.parse::<IpAddr>().unwrap()].into(),
        ports: served(&[80, 81]),
        ..Pod::new(PodKey::new(namespace, name))
    }
}

/// Nine pods in three namespaces, before the first action of every case.
fn initial_state() -> Vec<Object> {
    let mut objects = Vec::new();
    for (number, namespace) in (0..).zip(["x", "y", "z"]) {
        objects.push(Namespace::new(namespace, [("ns", namespace)].into_iter().collect()).into());
        for (host, name) in (1..).zip(["a", "b", "c"]) {
            let ip = format!("192.168.1.{}", 3 * number + host);
            objects.push(pod(namespace, name, &serde_json::json!({ "pod": name }), &ip).into());
        }
    }
    objects
}

fn state(step: &Value) -> Vec<Object> {
    let namespaces = step["namespaces"].as_object().unwrap().iter();
    let mut objects: Vec<Object> =
        namespaces.map(|(name, set)| Namespace::new(name.as_str(), labels(set)).into()).collect();
    for it in list(&step["pods"]) {
        objects.push(pod(text(&it["ns"]), text(&it["name"]), &it["labels"], text(&it["ip"])).into());
    }
    objects.extend(list(&step["policies_in_force"]).map(|it| Object::from(network_policy(it))));
    objects
}

/// Does to an index what an action did to the cluster. A new pod's address is the one that the
/// step's state gives it.
fn act(index: &mut Index, action: &Value, step: &Value) {
    let (verb, what) = action.as_object().unwrap().iter().next().unwrap();
    let name = |field: &str| text(&what[field]).to_owned();
    match verb.as_str() {
        "CreatePolicy" | "UpdatePolicy" => index.apply(network_policy(&what["Policy"]).into()),
        "DeletePolicy" => index.delete(&ObjectKey::Policy(PolicyRef::network_policy(name("Namespace"), name("Name")))),
        "CreateNamespace" | "SetNamespaceLabels" => {
            index.apply(Namespace::new(name("Namespace"), labels(&what["Labels"])).into())
        }
        "DeleteNamespace" => {
            // The namespace controller deletes what is in it first.
            let inside: Vec<PodKey> =
                index.pods().filter(|pod| pod.key.namespace == name("Namespace")).map(|pod| pod.key.clone()).collect();
            for key in inside {
                index.delete(&ObjectKey::Pod(key));
            }
            index.delete(&ObjectKey::Namespace(name("Namespace")))
        }
        "CreatePod" => {
            let is_it = |pod: &&Value| (&pod["ns"], &pod["name"]) == (&what["Namespace"], &what["Pod"]);
            let ip = text(&list(&step["pods"]).find(is_it).unwrap()["ip"]);
            index.apply(pod(&name("Namespace"), &name("Pod"), &what["Labels"], ip).into())
        }
        "SetPodLabels" => {
            let key = PodKey::new(name("Namespace"), name("Pod"));
            let old = index.pod(&key).unwrap().clone();
            index.apply(Pod { labels: labels(&what["Labels"]), ..old }.into())
        }
        "DeletePod" => index.delete(&ObjectKey::Pod(PodKey::new(name("Namespace"), name("Pod")))),
        other => panic!("unknown action {other}"),
    };
}

fn expected(step: &Value, index: &Index) -> Vec<(Flow, char)> {
    let order: Vec<End> = list(&step["pod_order"])
        .map(|it| {
            let (namespace, name) = text(it).split_once('/').unwrap();
            let key = PodKey::new(namespace, name);
            let ip = *index.pod(&key).unwrap().ips.first().unwrap();
            End::Pod(key, ip)
        })
        .collect();
    let mut flows = Vec::new();
    for (proto_port, rows) in step["expected"].as_object().unwrap() {
        let (protocol, port) = proto_port.split_once('/').unwrap();
        let proto = protocol.parse::<Protocol>().unwrap().number();
        let port = port.parse().unwrap();
        for (source, row) in order.iter().zip(list(rows)) {
            assert_eq!(text(row).len(), order.len());
            for (destination, letter) in order.iter().zip(text(row).chars()) {
                flows.push((Flow { source: source.clone(), destination: destination.clone(), proto, port }, letter));
            }
        }
    }
    flows
}
