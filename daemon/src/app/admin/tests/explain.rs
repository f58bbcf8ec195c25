//! `Explain`: verdicts, reasons, and who is meant.

use proto::bulkhead::admin::v1::party::Who;

use super::*;

fn party(text: &str) -> pb::Party {
    let parts: Vec<&str> = text.split('/').collect();
    let who = match parts[..] {
        [namespace, kind, name] => Who::Workload(pb::WorkloadName {
            namespace: namespace.to_owned(),
            kind: kind.to_owned(),
            name: name.to_owned(),
        }),
        [_, _] => Who::Pod(pod(text)),
        _ => Who::Ip(text.to_owned()),
    };
    pb::Party { who: Some(who) }
}

async fn ask(
    node: &Node,
    source: &str,
    destination: &str,
    protocol: &str,
    port: u32,
) -> Result<Response<pb::ExplainResponse>, Status> {
    let request = pb::ExplainRequest {
        source: Some(party(source)),
        destination: Some(party(destination)),
        protocol: protocol.to_owned(),
        port,
    };
    node.service().explain(Request::new(request)).await
}

async fn explain(node: &Node, source: &str, destination: &str, protocol: &str, port: u32) -> pb::ExplainResponse {
    ask(node, source, destination, protocol, port).await.unwrap().into_inner()
}

fn verdict(number: i32) -> &'static str {
    pb::Verdict::try_from(number).unwrap().as_str_name().trim_start_matches("VERDICT_")
}

/// The answer as lines.
fn text(answer: &pb::ExplainResponse) -> Vec<String> {
    let mut lines = vec![format!("{}: {}", verdict(answer.verdict), answer.reason)];
    for side in &answer.directions {
        let here = if side.enforced_here { "here" } else { "elsewhere" };
        lines.push(format!("{} {here}, decided by {}", verdict(side.verdict), rule(side.deciding.as_ref())));
        for it in &side.considered {
            let mark = match (it.decides, it.matched) {
                (true, _) => "=>",
                (false, true) => "matches too",
                (false, false) => "no match",
            };
            lines.push(format!("  {mark} {}: {}", rule(it.rule.as_ref()), it.why));
        }
    }
    lines.extend(answer.notes.iter().map(|note| format!("note: {note}")));
    lines
}

#[tokio::test]
async fn an_allowed_connection_names_both_rules() {
    let node = shop();
    let answer = explain(&node, "shop/web-0", "shop/db-0", "", 5432).await;
    assert_eq!(
        text(&answer),
        [
            "ALLOW: egress of shop/web-0: allowed by shop/web-out egress[0]; ingress of shop/db-0: allowed by \
             shop/db-clients ingress[0]",
            "ALLOW here, decided by shop/web-out egress[0]",
            "  => shop/web-out egress[0]: peer matches pods with app=db; port 5432 is tcp 5432",
            "  matches too shop/web-out egress[1]: peer matches all pods in every namespace; every port matches",
            "ALLOW here, decided by shop/db-clients ingress[0]",
            "  => shop/db-clients ingress[0]: peer matches pods with app=web; port 5432 is tcp named pg",
            "  no match shop/db-clients ingress[1]: peer: the address is not in 192.0.2.0/24",
            "note: traffic from the pod's own node is always allowed in",
        ]
    );
    assert_eq!((answer.protocol.as_str(), answer.port), ("tcp", 5432));
    let (source, destination) = (answer.source.unwrap(), answer.destination.unwrap());
    let number = |path: &str| node.state().planner.identity_number(&key(path)).unwrap();
    assert_eq!((source.ip.as_str(), source.identity, source.local), ("10.88.0.2", number("shop/web-0"), true));
    assert_eq!((destination.pod.as_str(), destination.identity), ("db-0", number("shop/db-0")));
    assert_eq!(source.workload.unwrap().name, "web");
    assert_eq!((source.reserved_name.as_str(), source.labels[0].value.as_str()), ("", "web"));
}

#[tokio::test]
async fn a_denied_connection_says_what_was_missing() {
    let node = shop();
    let answer = explain(&node, "dev/stranger", "shop/db-0", "tcp", 5433).await;
    assert_eq!(
        text(&answer),
        [
            "DENY: ingress of shop/db-0: isolated by shop/db-clients; nothing allowed it (2 rules considered)",
            "ALLOW here, decided by -",
            "DENY here, decided by -",
            "  no match shop/db-clients ingress[0]: peer: the namespace is dev, not shop; port: port pg is 5432 there, \
             and the protocol is not that of UDP/60-63",
            "  no match shop/db-clients ingress[1]: peer: the address is not in 192.0.2.0/24",
            "note: dev/stranger has no Pod object in the source, so it has no labels and no named ports",
            "note: traffic from the pod's own node is always allowed in",
        ]
    );
    let side = &answer.directions[1];
    assert_eq!((side.isolated, path(side.isolated_by.first())), (true, "NetworkPolicy shop/db-clients".to_owned()));
}

#[tokio::test]
async fn addresses_are_whoever_has_them() {
    let node = shop();
    for (source, words, expected) in [
        ("10.88.0.2", "pod web-0", "ALLOW"),
        ("192.0.2.1", "reserved world", "ALLOW"),
        ("192.0.2.7", "reserved world", "DENY"),
        ("10.0.0.1", "reserved host", "ALLOW"),
        ("10.88.0.99", "reserved unmanaged", "DENY"),
        ("10.99.0.3", "pod web-1", "ALLOW"),
        ("10.99.0.9", "reserved world", "DENY"),
        ("fd88::77", "reserved unmanaged", "DENY"),
    ] {
        let answer = explain(&node, source, "shop/db-0", "udp", 62).await;
        let party = answer.source.as_ref().unwrap();
        let who = match party.pod.as_str() {
            "" => format!("reserved {}", party.reserved_name),
            pod => format!("pod {pod}"),
        };
        assert_eq!((who.as_str(), verdict(answer.verdict)), (words, expected), "{source}: {}", answer.reason);
        assert_eq!(party.ip, source);
    }
    let from_node = explain(&node, "10.0.0.1", "shop/db-0", "tcp", 1).await;
    assert_eq!(from_node.reason, "ingress of shop/db-0: a pod's own node can always reach it");
    let unmanaged = explain(&node, "10.88.0.99", "shop/db-0", "tcp", 1).await;
    assert!(unmanaged.notes.contains(&"10.88.0.99 is in a range of pod addresses, but no pod has it".to_owned()));
    let outside = explain(&node, "192.0.2.1", "198.51.100.1", "tcp", 1).await;
    assert_eq!(text(&outside), ["ALLOW: neither end is a pod, so no policy applies"]);
}

#[tokio::test]
async fn protocols_without_ports_are_matched_by_rules_without_ports() {
    let node = shop();
    let answer = explain(&node, "192.0.2.1", "shop/db-0", "icmp", 0).await;
    assert_eq!((verdict(answer.verdict), answer.port), ("ALLOW", 0));
    let answer = explain(&node, "shop/web-0", "shop/db-0", "icmpv6", 0).await;
    assert_eq!((verdict(answer.verdict), answer.source.unwrap().ip.as_str()), ("DENY", "fd88::2"));
    let error = refused(ask(&node, "10.88.0.2", "shop/db-0", "icmpv6", 0).await);
    assert_eq!(
        error,
        "InvalidArgument: source and destination have no address family in common that icmpv6 runs over: source has \
         IPv4, destination IPv4 and IPv6"
    );
}

#[tokio::test]
async fn a_workload_stands_for_its_pods_if_they_are_alike() {
    let node = shop();
    let answer = explain(&node, "shop/Deployment/web", "shop/Pod/db-0", "tcp", 5432).await;
    // The one that is here.
    assert_eq!(answer.source.unwrap().pod, "web-0");
    let error = refused(ask(&node, "shop/Deployment/cache", "shop/db-0", "tcp", 1).await);
    assert_eq!(error, "NotFound: source: there are no pods of Deployment cache of namespace shop: name a pod instead");
    // One that is elsewhere has an earlier name: it says less.
    node.apply("pod shop/db--1 app=db sa=db port=pg:TCP:5432 ip=10.99.0.8");
    node.plan();
    let answer = explain(&node, "shop/web-0", "shop/Deployment/db", "tcp", 5432).await;
    assert_eq!(answer.destination.unwrap().pod, "db-0");
    node.apply("pod shop/web-2 app=web canary=yes ip=10.99.0.4");
    node.plan();
    let error = refused(ask(&node, "shop/db-0", "shop/Deployment/web", "tcp", 1).await);
    assert_eq!(
        error,
        "InvalidArgument: destination: the 3 pods of this workload do not all have the same labels and rules: ask for \
         one pod, such as shop/web-0, shop/web-2"
    );
}

#[tokio::test]
async fn a_pod_that_has_not_started_is_explained_ahead() {
    let node = shop();
    node.apply("pod shop/db-1 app=db port=pg:TCP:5433");
    node.plan();
    let answer = explain(&node, "shop/web-0", "shop/db-1", "tcp", 5433).await;
    assert_eq!(verdict(answer.verdict), "ALLOW");
    let party = answer.destination.unwrap();
    assert_eq!((party.ip.as_str(), party.local, party.identity >= 256), ("", false, true));
    let note = "shop/db-1 has no address yet: one of 10.88.0.0/24 is assumed, which matters to rules with ipBlock";
    assert!(answer.notes.contains(&note.to_owned()), "{:?}", answer.notes);
    let elsewhere = explain(&node, "shop/web-1", "shop/db-1", "tcp", 5433).await;
    assert!(elsewhere.notes.iter().any(|note| note.starts_with("neither end is an endpoint of this node")));
}

#[tokio::test]
async fn rules_that_are_not_in_force_do_not_decide() {
    let node = Node::new(Capacity { regions: 2, ..Capacity::default() }, SHOP);
    node.apply("policy shop/db-clients {app=db}\n  ingress from 192.0.2.0/24 or 198.51.100.0/24 or 203.0.113.0/24");
    node.plan();
    // As written only the blocks may come in; in force is still that web may.
    let answer = explain(&node, "shop/web-0", "shop/db-0", "tcp", 5432).await;
    let side = &answer.directions[1];
    assert_eq!(
        (verdict(answer.verdict), rule(side.deciding.as_ref()).as_str()),
        ("ALLOW", "shop/db-clients ingress[0]")
    );
    assert!(side.reason.starts_with("allowed by shop/db-clients ingress[0]: its rules as written are not in force ("));
    assert!(side.reason.ends_with("; meanwhile its last complete rules stay in force"), "{}", side.reason);
    let answer = explain(&node, "203.0.113.5", "shop/db-0", "tcp", 5432).await;
    assert_eq!((verdict(answer.verdict), answer.directions[0].deciding.clone()), ("DENY", None));
    assert!(answer.directions[0].considered.iter().all(|it| !it.decides) && answer.directions[0].considered[0].matched);
    node.state().trouble = Some("map PEERS: insert".to_owned());
    let notes = explain(&node, "203.0.113.5", "shop/db-0", "tcp", 1).await.notes;
    assert!(notes.iter().any(|note| note.contains("the kernel refused a write: map PEERS: insert")), "{notes:?}");
}

#[tokio::test]
async fn a_verdict_is_what_the_maps_say() {
    let node = shop();
    let pods = ["shop/web-0", "shop/db-0", "dev/stranger"];
    for source in pods {
        for destination in pods {
            for (protocol, number, port) in [("tcp", 6, 5432), ("udp", 17, 61), ("udp", 17, 64), ("sctp", 132, 1)] {
                let told = verdict(explain(&node, source, destination, protocol, port).await.verdict);
                let state = node.state();
                let passes = [(source, destination, 0), (destination, source, 1)].iter().all(|(own, peer, at)| {
                    let slot_of = |path: &str| state.planner.endpoints().find(|it| it.pod == key(path)).unwrap();
                    let rules = state.mirror.endpoints[&slot_of(own).slot].rules[*at];
                    let rules = datapath_abi::endpoint::RulesPtr(rules);
                    let Some(set) = state.planner.rule_set(rules.ruleset()) else { return rules.flags() == 0 };
                    let (identity, ip) = (state.planner.identity_number(&key(peer)), slot_of(peer).ips().next());
                    let model = policy::map_model::MapModel::new(set);
                    model.passes(identity.unwrap(), ip.unwrap(), number, port as u16)
                });
                let passes = passes || source == destination;
                assert_eq!(told == "ALLOW", passes, "{source} {destination} {protocol} {port}");
            }
        }
    }
}
