//! Who is behind an address.

use super::*;

#[test]
fn a_pod_that_is_gone_leaves_no_entry_behind() {
    let mut node = Node::new(Capacity::default());
    node.apply(SHOP);
    node.apply("policy shop/db {app=db}\n ingress from {app=api}");
    node.step();
    assert_eq!(node.planner.remove_endpoint(2).map(|endpoint| endpoint.pod), Some(PodKey::new("shop", "api")));
    node.delete(&ObjectKey::Pod(PodKey::new("shop", "api")));
    node.step();
    node.collect();
    assert!(!node.mirror.endpoints.contains_key(&2) && !node.mirror.interfaces.contains_key(&102));
    assert!(!node.mirror.addresses.contains_key(&Addr::from("10.0.0.3".parse::<IpAddr>().unwrap())));
    assert!(node.mirror.peers.is_empty(), "{:?}", node.mirror.peers);
}

/// An object that is late: its pod had the address before.
#[test]
fn an_address_is_who_has_it_here_whatever_an_object_says() {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let stale = "pod dev/gone app=web ip=10.0.0.6 port=http:TCP:8080";
    let rules = "policy shop/db {app=db}\n egress to {app=web} in {} ports TCP/http";
    for object_first in [true, false] {
        let mut node = Node::new(Capacity::default());
        node.apply("pod shop/db app=db\nnamespace shop\nnamespace dev");
        node.apply(rules);
        let bare = node.planner.endpoint(5).cloned().unwrap();
        if object_first {
            node.planner.remove_endpoint(5);
            node.apply(stale);
            node.step();
            assert!(kernel_allows(&node.mirror, ip("10.0.0.4"), ip("10.0.0.6"), 6, 8080), "while nobody else has it");
            node.planner.add_endpoint(bare);
        } else {
            node.step();
            node.apply(stale);
        }
        node.step();
        let gone = fixture::key("dev/gone");
        assert!(node.planner.index().pod(&gone).unwrap().ips.is_empty());
        let entry = node.mirror.addresses[&Addr::from(ip("10.0.0.6"))];
        assert_eq!(Some(entry.identity), node.planner.identity_number(&fixture::key("dev/bare")));
        let allowed = kernel_allows(&node.mirror, ip("10.0.0.4"), ip("10.0.0.6"), 6, 8080);
        assert!(!allowed, "dev/bare is let in by the name of another's port");
        node.planner.remove_endpoint(5);
        assert_eq!(node.planner.index().pod(&gone).unwrap().ips, [ip("10.0.0.6")].into());
    }
}

#[test]
fn addresses_that_find_no_room_are_counted_and_everything_else_goes_on() {
    // Five pods run here.
    let mut node = Node::new(Capacity { addresses: 7, ..Capacity::default() });
    let far: String = (0..4).map(|n| format!("pod far/p{n} app=web ip=10.9.0.{n}\n")).collect();
    node.apply(&far);
    node.apply("namespace far\npod shop/db app=db\npolicy shop/db {app=db}\n ingress from {app=web} in {}");
    node.step();
    assert_eq!((node.mirror.addresses.len(), node.planner.strangers()), (7, 2));
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let db = ip("10.0.0.4");
    let allowed = |node: &Node, n: u8| kernel_allows(&node.mirror, ip(&format!("10.9.0.{n}")), db, 6, 80);
    assert_eq!([0, 1, 2, 3].map(|n| allowed(&node, n)), [true, true, false, false]);
    // What goes makes room, one plan later: entries are written before others are removed.
    node.delete(&ObjectKey::Pod(PodKey::new("far", "p0")));
    node.step();
    node.step();
    assert_eq!((node.mirror.addresses.len(), node.planner.strangers()), (7, 1));
    assert_eq!([0, 1, 2, 3].map(|n| allowed(&node, n)), [false, true, true, false]);
}
