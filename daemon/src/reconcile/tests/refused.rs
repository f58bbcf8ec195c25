//! What does not fit.

use super::*;

#[test]
fn what_does_not_fit_is_refused_and_the_last_complete_rules_stay() {
    let mut node = Node::new(Capacity { ports: 4, ..Capacity::default() });
    node.apply(SHOP);
    node.apply("policy shop/db {app=db}\n ingress from {app=api} ports TCP/5432");
    assert_eq!(node.step().refusals, Vec::new());
    let good = node.rules(3);

    // 1-30000 alone takes more prefixes than there are entries.
    node.apply("policy shop/db {app=db}\n ingress from {app=api} ports TCP/1-30001");
    let refusals = node.step().refusals;
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    assert_eq!((refusals[0].pod.to_string(), refusals[0].remains), ("shop/db".to_owned(), Remains::LastComplete));
    assert_eq!(
        (refusals[0].reason.as_str(), refusals[0].fix.as_str()),
        (
            "NetworkPolicy shop/db takes 5 of 5 port prefixes for one peer, more than the 4 that one rule set may have",
            "use fewer or wider port ranges, or raise the capacity of PORTS (--map-capacity PORTS=N)"
        )
    );
    assert_eq!(node.rules(3), good);
    node.collect();
    let [api, web, db] = ["10.0.0.3", "10.0.0.2", "10.0.0.4"].map(|ip| ip.parse().unwrap());
    assert!(kernel_allows(&node.mirror, api, db, 6, 5432));
    assert!(!kernel_allows(&node.mirror, web, db, 6, 5432));

    // A pod that had no rules is denied everything.
    node.apply("policy shop/api {app=api}\n ingress from {app=db} ports TCP/1-30001");
    let refusals = node.step().refusals;
    assert!(refusals.iter().any(|it| it.pod.name == "api" && it.remains == Remains::Denied), "{refusals:?}");
    assert!(!kernel_allows(&node.mirror, db, api, 6, 80));

    // What fits again is in force again.
    node.apply("policy shop/api {app=api}\n ingress from {app=db} ports TCP/80");
    node.apply("policy shop/db {app=db}\n ingress from {app=api} ports TCP/5433");
    assert_eq!(node.step().refusals, Vec::new());
    node.check();
}

#[test]
fn a_full_map_is_named_with_what_is_free() {
    let mut node = Node::new(Capacity { peers: 2, ..Capacity::default() });
    node.apply(SHOP);
    node.apply("policy shop/db {app=db}\n ingress from {app=api} or {app=web}");
    assert_eq!(node.step().refusals, Vec::new());
    node.apply("policy shop/api {app=api}\n ingress from {app=db}");
    let refusals = node.step().refusals;
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    assert_eq!(refusals[0].reason, "needs 1 more entries of PEERS, 0 of 2 are free");
    // Space that comes free admits it.
    node.delete(&ObjectKey::Policy(policy::model::PolicyRef::network_policy("shop", "db")));
    node.step();
    node.collect();
    assert_eq!(node.step().refusals, Vec::new());
    node.check();
}
