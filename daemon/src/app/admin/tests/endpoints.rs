//! `ListEndpoints` and `GetEndpoint`.

use datapath_abi::{endpoint::RulesPtr, policy::Direction};
use proto::bulkhead::admin::v1::{EndpointState, LoweredEntry, get_endpoint_request::Which, lowered_entry::Peer};

use super::*;

async fn list(node: &Node, namespace: &str) -> Vec<pb::Endpoint> {
    let request = pb::ListEndpointsRequest { namespace: namespace.to_owned() };
    node.service().list_endpoints(Request::new(request)).await.unwrap().into_inner().endpoints
}

async fn get(node: &Node, which: Which) -> Result<Response<pb::GetEndpointResponse>, Status> {
    node.service().get_endpoint(Request::new(pb::GetEndpointRequest { which: Some(which) })).await
}

async fn found(node: &Node, which: Which) -> Vec<String> {
    let answer = get(node, which).await.unwrap().into_inner();
    answer.endpoints.into_iter().map(|detail| name(&detail.endpoint.unwrap())).collect()
}

fn name(endpoint: &pb::Endpoint) -> String {
    format!("{}/{}", endpoint.namespace, endpoint.pod)
}

/// `egress 0 -; ingress 1 NetworkPolicy shop/db`: rule set and policies.
fn directions(endpoint: &pb::Endpoint) -> String {
    let words = endpoint.directions.iter().map(|side| {
        let direction = pb::Direction::try_from(side.direction).unwrap().as_str_name();
        let policies: Vec<String> = side.policies.iter().map(|policy| path(Some(policy))).collect();
        let isolated = if side.isolated { "isolated" } else { "open" };
        format!("{direction} {isolated} {} [{}]", side.rule_set, policies.join(", "))
    });
    words.collect::<Vec<_>>().join("; ")
}

#[tokio::test]
async fn a_list_is_sorted_and_complete() {
    let node = shop();
    lock(&node.extras).insert(endpoint_key(2), extra(Stage::Attached));
    let endpoints = list(&node, "").await;
    let names: Vec<String> = endpoints.iter().map(name).collect();
    assert_eq!(names, ["dev/stranger", "shop/db-0", "shop/web-0"]);
    let db = &endpoints[1];
    let state = node.state();
    let rule_set = RulesPtr(state.mirror.endpoints[&2].rules[Direction::Ingress as usize]).ruleset();
    assert_ne!(rule_set, 0);
    assert_eq!(
        directions(db),
        format!("DIRECTION_EGRESS open 0 []; DIRECTION_INGRESS isolated {rule_set} [NetworkPolicy shop/db-clients]")
    );
    let pb::Endpoint { directions, labels, workload, .. } = db.clone();
    let expected = pb::Endpoint {
        namespace: "shop".to_owned(),
        pod: "db-0".to_owned(),
        container_id: "c0ffee2aa9c41d7".to_owned(),
        ifname: "eth0".to_owned(),
        host_ifname: "bh0001".to_owned(),
        ifindex: 22,
        ips: vec!["10.88.0.3".to_owned(), "fd88::3".to_owned()],
        mac: "0a:58:0a:58:00:03".to_owned(),
        identity: state.planner.identity_number(&key("shop/db-0")).unwrap(),
        labels: labels.clone(),
        service_account: "db".to_owned(),
        workload: workload.clone(),
        slot: 2,
        directions: directions.clone(),
        state: EndpointState::Ready as i32,
        state_reason: String::new(),
        has_object: true,
        netns: "/run/netns/a".to_owned(),
        created_unix_seconds: 1_767_323_045,
    };
    assert_eq!(*db, expected);
    assert_eq!(labels, [pb::Label { key: "app".to_owned(), value: "db".to_owned() }]);
    assert_eq!(workload, Some(pb::Workload { kind: "Deployment".to_owned(), name: "db".to_owned() }));
    assert!(directions[1].generation > 0);
    let stranger = &endpoints[0];
    assert!(!stranger.has_object && stranger.labels.is_empty() && stranger.state == EndpointState::Ready as i32);
}

#[tokio::test]
async fn a_namespace_narrows_the_list() {
    let node = shop();
    assert_eq!(list(&node, "dev").await.iter().map(name).collect::<Vec<_>>(), ["dev/stranger"]);
    assert!(list(&node, "nowhere").await.is_empty());
}

#[tokio::test]
async fn an_endpoint_is_found_in_four_ways() {
    let node = shop();
    // A second interface of the pod.
    node.add(4, "shop/db-0", 9);
    node.plan();
    assert_eq!(found(&node, Which::Pod(pod("shop/db-0"))).await, ["shop/db-0", "shop/db-0"]);
    assert_eq!(found(&node, Which::Ip("fd88::2".to_owned())).await, ["shop/web-0"]);
    assert_eq!(found(&node, Which::Ip("::ffff:10.88.0.4".to_owned())).await, ["dev/stranger"]);
    assert_eq!(found(&node, Which::ContainerId("c0ffee3".to_owned())).await, ["dev/stranger"]);
    assert_eq!(found(&node, Which::ContainerId("c0ffee".to_owned())).await.len(), 4);
    assert_eq!(found(&node, Which::Slot(1)).await, ["shop/web-0"]);
    let missing = [
        (Which::Pod(pod("shop/web-1")), "belongs to a pod shop/web-1"),
        (Which::Ip("10.88.0.200".to_owned()), "has the address 10.88.0.200"),
        (Which::ContainerId("c0ffef".to_owned()), "has a container id that begins with \"c0ffef\""),
        (Which::Slot(77), "is in slot 77"),
    ];
    for (which, words) in missing {
        let expected =
            format!("NotFound: no endpoint of this node {words}: `bulkhead endpoint list` shows those there are");
        assert_eq!(refused(get(&node, which).await), expected);
    }
}

/// One line for an entry.
fn line(entry: &LoweredEntry) -> String {
    let direction = if entry.direction == pb::Direction::Egress as i32 { "egress" } else { "ingress" };
    let peer = match entry.peer.as_ref().unwrap() {
        Peer::Identity(number) => format!("identity {number}"),
        Peer::Class(class) => format!("class {class}"),
        Peer::Cidr(cidr) => cidr.clone(),
    };
    let verdict = pb::Verdict::try_from(entry.verdict).unwrap().as_str_name();
    let text = &entry.peer_text;
    format!(
        "{direction} {peer} ({text}) [{}] {}-{} {verdict} {} {}",
        entry.protocol,
        entry.port_first,
        entry.port_last,
        entry.precedence,
        rule(entry.rule.as_ref())
    )
}

async fn entries(node: &Node, path: &str) -> Vec<String> {
    let answer = get(node, Which::Pod(pod(path))).await.unwrap().into_inner();
    answer.endpoints[0].entries.iter().map(line).collect()
}

#[tokio::test]
async fn entries_tell_who_may_what_and_which_rule_says_so() {
    let node = shop();
    let web = node.state().planner.identity_number(&key("shop/web-0")).unwrap();
    let db = node.state().planner.identity_number(&key("shop/db-0")).unwrap();
    assert_eq!(
        entries(&node, "shop/db-0").await,
        [
            format!(
                "ingress identity {web} (shop app=web) [tcp] 5432-5432 VERDICT_ALLOW 32768 shop/db-clients ingress[0]"
            ),
            format!("ingress identity {web} (shop app=web) [udp] 60-63 VERDICT_ALLOW 32768 shop/db-clients ingress[0]"),
            "ingress 192.0.2.0/24 () [] 0-0 VERDICT_ALLOW 32768 shop/db-clients ingress[1]".to_owned(),
            // The exception: what the block around it says is taken back.
            "ingress 192.0.2.7/32 () [] 0-0 VERDICT_DENY 0 -".to_owned(),
        ]
    );
    assert_eq!(
        entries(&node, "shop/web-0").await,
        [
            format!("egress identity {db} (shop app=db) [] 0-0 VERDICT_ALLOW 32768 shop/web-out egress[1]"),
            format!("egress identity {db} (shop app=db) [tcp] 5432-5432 VERDICT_ALLOW 32768 shop/web-out egress[0]"),
            "egress class cluster (any pod of the cluster) [] 0-0 VERDICT_ALLOW 32768 shop/web-out egress[1]"
                .to_owned(),
        ]
    );
    assert!(entries(&node, "dev/stranger").await.is_empty());
}

#[tokio::test]
async fn what_says_nothing_comes_last() {
    let node = shop();
    node.apply("policy shop/db-clients {app=db}\n  ingress from 10.0.0.0/8 except 10.0.0.1/32 or 192.0.2.0/24");
    node.plan();
    let lines = entries(&node, "shop/db-0").await;
    let starts = ["ingress 10.0.0.0/8 ", "ingress 192.0.2.0/24 ", "ingress 10.0.0.1/32 "];
    assert!(lines.len() == 3 && lines.iter().zip(starts).all(|(line, start)| line.starts_with(start)), "{lines:?}");
}

#[tokio::test]
async fn states_have_their_reasons() {
    let node = shop();
    let state_of = async |node: &Node| {
        let db = &list(node, "shop").await[0];
        (EndpointState::try_from(db.state).unwrap(), db.state_reason.clone())
    };
    let words = |text: &str| text.to_owned();
    assert_eq!(state_of(&node).await, (EndpointState::Ready, String::new()));
    for (stage, expected) in [
        (Stage::Creating, (EndpointState::Creating, words("ADD is under way"))),
        (Stage::Deleting, (EndpointState::Deleting, words("DEL is under way"))),
        (Stage::Lost, (EndpointState::Lost, words("its interface is gone and nobody has called DEL"))),
        (Stage::Attached, (EndpointState::Ready, String::new())),
    ] {
        lock(&node.extras).insert(endpoint_key(2), extra(stage));
        assert_eq!(state_of(&node).await, expected);
    }
    node.state().trouble = Some("map PEERS: insert: E2BIG".to_owned());
    let trouble = words("the kernel refused a write: map PEERS: insert: E2BIG");
    assert_eq!(state_of(&node).await, (EndpointState::Stale, trouble));
    node.state().synced = false;
    let unread = words("the source has not been read yet: the rules of the previous daemon hold");
    assert_eq!(state_of(&node).await, (EndpointState::Stale, unread));
}

#[tokio::test]
async fn before_the_first_plan_an_endpoint_is_being_created_and_denied() {
    let node = Node::empty(Capacity::default());
    node.add(1, "shop/web-0", 2);
    let endpoints = list(&node, "").await;
    let web = &endpoints[0];
    assert_eq!(
        (web.state, web.state_reason.as_str()),
        (EndpointState::Creating as i32, "waits for the source to be read")
    );
    assert_eq!(directions(web), "DIRECTION_EGRESS isolated 0 []; DIRECTION_INGRESS isolated 0 []");
    assert_eq!(web.ips, ["10.88.0.2", "fd88::2"]);
    assert!(entries(&node, "shop/web-0").await.is_empty());
}

#[tokio::test]
async fn rules_that_do_not_fit_make_an_endpoint_stale() {
    let node = Node::new(Capacity { regions: 2, ..Capacity::default() }, SHOP);
    node.apply("policy shop/db-clients {app=db}\n  ingress from 192.0.2.0/24 or 198.51.100.0/24 or 203.0.113.0/24");
    node.plan();
    let db = &list(&node, "shop").await[0];
    assert_eq!(db.state, EndpointState::Stale as i32);
    assert!(db.state_reason.starts_with("ingress: ") && db.state_reason.contains("address prefixes"), "{db:?}");
    assert!(db.state_reason.ends_with("; its last complete rules stay in force"), "{}", db.state_reason);
    // What is in force is still listed.
    assert_eq!(entries(&node, "shop/db-0").await.len(), 4);
}
