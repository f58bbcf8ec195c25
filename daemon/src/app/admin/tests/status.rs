//! `Status`: facts, fills, and everything that is not as it should be.

use proto::bulkhead::admin::v1::Severity;

use super::*;
use crate::datapath::uplink::Way;

async fn status(node: &Node) -> pb::StatusResponse {
    node.service().status(Request::new(pb::StatusRequest {})).await.unwrap().into_inner()
}

/// `error source-errors`, in the order of the answer.
fn codes(status: &pb::StatusResponse) -> Vec<String> {
    let word =
        |severity| Severity::try_from(severity).unwrap().as_str_name().trim_start_matches("SEVERITY_").to_owned();
    status.conditions.iter().map(|it| format!("{} {}", word(it.severity), it.code)).collect()
}

fn message(status: &pb::StatusResponse, code: &str) -> String {
    let found = status.conditions.iter().find(|it| it.code == code);
    found.map_or_else(|| panic!("no condition {code}"), |it| it.message.clone())
}

#[tokio::test]
async fn a_healthy_node_tells_its_facts() {
    let node = shop();
    *lock(&node.parts.sweep) = Some(SweepReport { established: 112, pending: 3, removed: 9, reported: 9 });
    lock(&node.counts).scalars = BTreeMap::from([(Scalar::EventsWritten, 1204), (Scalar::Redecided, 7)]);
    node.state().last_change = Some(Instant::now());
    // Somebody has described the stranger: nothing is left to say.
    node.apply("pod dev/stranger");
    node.plan();
    let status = status(&node).await;
    assert_eq!(codes(&status), [""; 0]);
    assert_eq!(
        (status.build, status.node.as_str()),
        (
            Some(pb::Build {
                version: "1.2.3".to_owned(),
                commit: "0123456789ab".to_owned(),
                abi_version: datapath_abi::ABI_VERSION
            }),
            "node-a"
        )
    );
    assert_eq!(
        status.counts,
        Some(pb::Counts {
            endpoints: 3,
            endpoints_isolated: 2,
            identities: 3,
            namespaces: 2,
            pods: 5,
            policies: 2,
            rule_sets: 2,
        })
    );
    assert_eq!(status.conntrack, Some(pb::Conntrack { established: 112, pending: 3, redecided: 7, full: 0 }));
    assert_eq!(status.events, Some(pb::Events { written: 1204, lost: 0, records: 0, record_capacity: 64 }));
    let source = status.source.unwrap();
    assert_eq!(
        (source.spec.as_str(), source.synced, source.last_change_seconds),
        ("directory:/etc/bulkhead/objects", true, Some(0))
    );
    let pools: Vec<(&str, u64, u64)> = status.pools.iter().map(|it| (it.range.as_str(), it.used, it.free)).collect();
    assert_eq!(pools, [("10.88.0.0/24", 3, 250), ("fd88::/64", 1, u64::MAX)]);
}

#[tokio::test]
async fn maps_are_listed_as_they_are_known() {
    let node = shop();
    let fills = async |node: &Node| -> Vec<(String, u64, u64)> {
        status(node).await.maps.into_iter().map(|map| (map.name, map.entries, map.capacity)).collect()
    };
    let mirror = node.state().mirror.clone();
    let count = |name: &str| match name {
        maps::ENDPOINTS => mirror.endpoints.len(),
        maps::INTERFACES => mirror.interfaces.len(),
        maps::ADDRESSES => mirror.addresses.len(),
        maps::CIDRS => mirror.cidrs.len(),
        maps::PEERS => mirror.peers.len(),
        maps::REGIONS => mirror.regions.len(),
        maps::PORTS => mirror.ports.len(),
        maps::RULESETS => mirror.rulesets.len(),
        other => panic!("{other} is not written by the daemon"),
    };
    let written = [
        maps::ENDPOINTS,
        maps::INTERFACES,
        maps::ADDRESSES,
        maps::CIDRS,
        maps::PEERS,
        maps::REGIONS,
        maps::PORTS,
        maps::RULESETS,
    ];
    let capacity = |name: &str| u64::from(node.parts.facts.capacities[name]);
    let expected: Vec<(String, u64, u64)> =
        written.iter().map(|name| ((*name).to_owned(), count(name) as u64, capacity(name))).collect();
    assert!(expected.iter().all(|(_, entries, _)| *entries > 0));
    // There is no Service.
    let services = [maps::FRONTENDS, maps::BACKENDS, maps::GONE];
    let services = services.iter().map(|name| ((*name).to_owned(), 0, capacity(name)));
    let expected: Vec<(String, u64, u64)> = expected.into_iter().chain(services).collect();
    assert_eq!(fills(&node).await, expected);

    *lock(&node.parts.sweep) = Some(SweepReport { established: 5, pending: 2, removed: 0, reported: 0 });
    let with_connections = fills(&node).await;
    let connections = [
        (maps::CONNTRACK.to_owned(), 5, capacity(maps::CONNTRACK)),
        (maps::PENDING.to_owned(), 2, capacity(maps::PENDING)),
    ];
    assert_eq!(with_connections[..2], connections);
    assert_eq!(with_connections[2..], expected);
}

#[tokio::test]
async fn everything_wrong_is_told_worst_first() {
    let mut node = Node::new(Capacity { regions: 2, ..Capacity::default() }, SHOP);
    node.apply("policy shop/db-clients {app=db}\n  ingress from 192.0.2.0/24 or 198.51.100.0/24 or 203.0.113.0/24");
    node.plan();
    node.parts.facts.capacities.insert(maps::ENDPOINTS.to_owned(), 4);
    node.parts.facts.capacities.insert(maps::PEERS.to_owned(), 100_000);
    node.files(&[("a.yaml", "kind: [")]);
    lock(&node.counts).scalars =
        BTreeMap::from([(Scalar::EventsLost, 17), (Scalar::ConntrackFull, 1), (Scalar::PendingFull, 2)]);
    *lock(&node.pools) = vec![
        ("10.88.0.0/24".parse().unwrap(), 254, 0),
        ("10.89.0.0/24".parse().unwrap(), 231, 23),
        ("10.90.0.0/24".parse().unwrap(), 228, 26),
    ];
    lock(&node.extras).insert(endpoint_key(1), extra(Stage::Lost));
    node.state().trouble = Some("map PEERS: insert: E2BIG".to_owned());
    let told = status(&node).await;
    assert_eq!(
        codes(&told),
        [
            "ERROR engine-trouble",
            "ERROR pool-exhausted",
            "ERROR rules-refused",
            "ERROR source-errors",
            "WARNING conntrack-full",
            "WARNING endpoint-lost",
            "WARNING events-lost",
            "WARNING map-nearly-full",
            "WARNING pending-full",
            "WARNING pool-nearly-exhausted",
            "INFO endpoint-without-object",
        ]
    );
    for (code, words) in [
        ("engine-trouble", "E2BIG"),
        ("pool-exhausted", "all 254 addresses of 10.88.0.0/24 are in use"),
        ("pool-nearly-exhausted", "23 addresses of 10.89.0.0/24 are left, 231 are in use"),
        ("rules-refused", "shop/db-0"),
        ("source-errors", "1 thing in the source is refused"),
        ("events-lost", "17 flow events"),
        // Slot 0 does not count: 3 of 3.
        ("map-nearly-full", "map ENDPOINTS holds 3 of 3 entries"),
        ("endpoint-lost", "shop/web-0"),
        ("endpoint-without-object", "dev/stranger"),
    ] {
        assert!(message(&told, code).contains(words), "{code}: {}", message(&told, code));
    }
    assert_eq!(told.conntrack.unwrap().full, 3);
    let refusal = &told.refusals[0];
    assert_eq!(
        (told.refusals.len(), path(refusal.object.as_ref()), refusal.direction, refusal.meanwhile.as_str()),
        (1, "Pod shop/db-0".to_owned(), pb::Direction::Ingress as i32, "its last complete rules stay in force")
    );
    assert!(refusal.reason.starts_with("the rules of shop/db-clients: ") && !refusal.fix.is_empty(), "{refusal:?}");
}

#[tokio::test]
async fn what_cannot_be_known_yet_is_said() {
    let node = Node::empty(Capacity::default());
    node.add(1, "shop/web-0", 2);
    lock(&node.counts).broken = true;
    let told = status(&node).await;
    assert_eq!(codes(&told), ["WARNING counters-unreadable", "WARNING source-not-synced"]);
    let source = told.source.unwrap();
    assert_eq!((source.synced, source.last_change_seconds), (false, None));
}

#[tokio::test]
async fn errors_of_the_source_name_place_object_field_and_fix() {
    let node = shop();
    let policy = |cidr: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p, namespace: shop}}\nspec:\n  \
             podSelector: {{}}\n  ingress:\n  - from:\n    - ipBlock: {{cidr: {cidr}}}\n"
        )
    };
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: shop}\n";
    node.files(&[
        ("b.yaml", &policy("10.0.0.0/8")),
        ("b.yaml", &policy("10.0.0.0/33")),
        ("a.yaml", pod),
        ("c.yaml", pod),
        ("d.yaml", "kind: ["),
    ]);
    let errors = status(&node).await.source.unwrap().errors;
    let lines: Vec<String> = errors
        .iter()
        .map(|error| {
            let pb::Origin { file, document, line } = error.origin.clone().unwrap();
            let good = if error.last_good_in_force { "last good" } else { "-" };
            format!("{file} {document} {line} {} [{}] {good}", path(error.object.as_ref()), error.field)
        })
        .collect();
    assert_eq!(
        lines,
        [
            "b.yaml 1 8 NetworkPolicy shop/p [spec.ingress[0].from[0].ipBlock.cidr] last good",
            "c.yaml 1 1 Pod shop/a [] -",
            "d.yaml 1 1 - [] -",
        ]
    );
    assert!(errors.iter().all(|error| !error.message.is_empty() && !error.fix.is_empty()), "{errors:?}");
    assert!(errors[1].message.starts_with("is also defined in a.yaml, document 1"), "{}", errors[1].message);
}

#[tokio::test]
async fn a_thousand_errors_are_counted_and_not_all_listed() {
    let node = shop();
    let documents = "kind: [\n---\n".repeat(1000);
    node.files(&[("a.yaml", &documents)]);
    let count = node.source.borrow().errors.len();
    let told = status(&node).await;
    assert!(count >= 1000 && told.source.unwrap().errors.len() <= 500, "{count}");
}

#[tokio::test]
async fn what_keeps_packets_from_other_nodes_is_told() {
    let node = shop();
    node.apply("pod dev/stranger");
    node.plan();
    let obstacles = ["node n2 has no InternalIP", "b", "c", "d", "e"].map(str::to_owned);
    node.obstacles.send_replace(obstacles.to_vec());
    let told = status(&node).await;
    assert_eq!(codes(&told), ["ERROR nodes-unreached"]);
    assert_eq!(
        message(&told, "nodes-unreached"),
        "packets do not get to pods of other nodes as they should: node n2 has no InternalIP; b; c; 2 more"
    );
    assert_eq!(told.datapath.unwrap().routing, "native");
    node.obstacles.send_replace(Vec::new());
    assert_eq!(codes(&status(&node).await), [""; 0]);
}

#[tokio::test]
async fn what_is_kept_out_at_the_uplink_is_told_and_what_is_not_is_a_condition() {
    let node = shop();
    node.apply("pod dev/stranger");
    node.plan();
    assert_eq!(status(&node).await.datapath.unwrap().gate, None);
    let attached = [("eth1".to_owned(), Way::Generic), ("eth0".to_owned(), Way::Driver)].into();
    node.gate.send_replace(GateState {
        attached,
        denied: 3,
        troubles: vec!["deny list, line 2: \"x\" is wrong".to_owned()],
        looked: true,
    });
    let told = status(&node).await;
    assert_eq!(codes(&told), ["ERROR uplink-trouble"]);
    assert_eq!(
        message(&told, "uplink-trouble"),
        "not everybody is kept out of this node as was asked for: deny list, line 2: \"x\" is wrong"
    );
    let gate = told.datapath.unwrap().gate.unwrap();
    let ways: Vec<(&str, &str)> = gate.interfaces.iter().map(|at| (at.name.as_str(), at.way.as_str())).collect();
    assert_eq!((ways, gate.denied_ranges), (vec![("eth0", "driver"), ("eth1", "generic")], 3));
}
