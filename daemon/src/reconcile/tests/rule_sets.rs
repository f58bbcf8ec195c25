//! Rule sets in force: what a plan writes of them, and what of them goes when.

use super::{worlds::EDITS, *};

#[test]
fn an_identity_that_comes_adds_its_entries_and_one_that_goes_leaves_the_rest_alone() {
    let mut node = Node::new(Capacity::default());
    node.apply(SHOP);
    node.apply("policy shop/db {app=db}\n ingress from {tier=web} in {} ports TCP/5432");
    let pods: String = (0..40).map(|n| format!("pod far/p{n} tier=web n={n} ip=10.9.0.{n}\n")).collect();
    node.apply(&pods);
    node.step();
    let (set, kept) = (node.rules(3)[1].ruleset(), node.mirror.peers.len());
    node.apply("pod far/new tier=web n=new ip=10.9.1.1");
    let changes = node.step().changes;
    let puts: Vec<&Change> = changes.iter().filter(|change| matches!(change, Change::PutPeer(..))).collect();
    assert!(matches!(puts[..], [Change::PutPeer(key, _)] if key.ruleset == set), "{changes:?}");
    assert!(!changes.iter().any(|it| matches!(it, Change::PutPort(..) | Change::PutRuleset(..))), "{changes:?}");
    assert_eq!(node.rules(3)[1].ruleset(), set);
    node.delete(&ObjectKey::Pod(PodKey::new("far", "new")));
    node.step();
    let changes = node.planner.garbage(&node.mirror);
    assert!(matches!(changes[..], [Change::DropPeer(key)] if key.ruleset == set), "{changes:?}");
    changes.iter().for_each(|change| node.mirror.apply(change));
    assert_eq!(node.mirror.peers.len(), kept);
}

/// What a name means is an entry of somebody who is there: it changes with all the others or not at all.
#[test]
fn an_entry_of_somebody_who_stays_is_never_overwritten() {
    let mut node = Node::new(Capacity::default());
    node.apply(SHOP);
    node.apply("policy shop/db {app=db}\n egress to {app=api} ports TCP/http");
    node.step();
    let before = node.rules(3)[0].ruleset();
    node.apply("pod shop/api app=api port=http:TCP:80");
    node.step();
    node.check();
    assert_ne!(node.rules(3)[0].ruleset(), before);
}

#[test]
fn what_a_packet_under_way_may_need_stays_however_fast_plans_follow_each_other() {
    let mut node = Node::new(Capacity::default());
    node.apply(SHOP);
    node.apply(EDITS[0]);
    node.step();
    let (first, early) = (node.rules(3)[1].ruleset(), node.planner.round());
    node.apply(EDITS[1]);
    node.step();
    assert_ne!(node.rules(3)[1].ruleset(), first);
    // Those that were under way at the first plan are through, not those at the second.
    assert_eq!(node.planner.garbage_until(&node.mirror, early), Vec::new());
    assert!(node.planner.has_garbage(&node.mirror));
    let round = node.planner.round();
    let changes = node.planner.garbage_until(&node.mirror, round);
    assert!(changes.contains(&Change::DropRuleset(first)), "{changes:?}");
    changes.iter().for_each(|change| node.mirror.apply(change));
    assert!(!node.planner.has_garbage(&node.mirror));
}

#[test]
fn a_restart_writes_nothing() {
    let mut node = Node::new(Capacity::default());
    node.apply(SHOP);
    EDITS.iter().for_each(|edit| node.apply(edit));
    node.step();
    node.collect();
    node.restart();
    assert_eq!(node.step().changes, Vec::new());
}

/// Found by the differential run: rules that went out of use and came back had not heard who came meanwhile.
#[test]
fn rules_that_are_wanted_again_know_who_came_meanwhile() {
    let mut node = Node::new(Capacity::default());
    node.apply(SHOP);
    node.apply("cluster guard admin 1 {} in {team=a}\n egress deny to {app=new} in {}");
    node.step();
    // Both in one plan, in which the rules of before are still in force.
    node.apply("cluster floor baseline 2 {} in {}\n egress accept to nodes {}");
    node.apply("pod dev/bare app=new");
    node.step();
    node.delete(&ObjectKey::Policy(policy::model::PolicyRef::cluster("floor")));
    node.step();
    node.check();
}

/// Found by the differential run: a region that was not there passed for one that says what is wanted, as long as no
/// port set was like the wanted one's.
#[test]
fn a_region_that_comes_is_not_written_into_rules_in_force() {
    let mut node = Node::new(Capacity::default());
    node.apply(SHOP);
    // Of the first there is a region already.
    node.apply("cluster l admin 0 {} in {}\n egress pass to 0.0.0.0/1 ports SCTP/8080");
    node.apply("cluster n admin 2 {} in {}\n egress deny to nodes {} ports UDP/*");
    node.step();
    let before = node.rules(1)[0];
    node.apply("node one ip=10.0.0.9");
    node.step();
    assert_ne!(node.rules(1)[0].ruleset(), before.ruleset());
    node.check_rule_sets();
}
