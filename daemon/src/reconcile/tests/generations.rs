//! Generations: when connections are asked about again.

use super::{worlds::EDITS, *};

#[test]
fn a_new_label_is_asked_about_again_where_it_matters_and_only_there() {
    let mut node = Node::new(Capacity::default());
    node.apply(SHOP);
    node.apply("policy shop/db {app=db}\n ingress from {app=api}");
    node.apply("policy dev/any {}\n ingress from {} in {}");
    node.step();
    let (db, dev) = (node.rules(3), node.rules(4));
    // shop/web was denied by shop/db and is allowed now: its connections are to be decided anew.
    node.apply("pod shop/web app=api");
    node.step();
    node.check();
    assert_ne!(node.rules(3), db);
    assert_eq!(node.rules(3)[1].ruleset(), db[1].ruleset(), "the rules are the same, only who matches has changed");
    assert_eq!(node.rules(4), dev, "dev/any allows both identities alike");
}

#[test]
fn generations_are_never_given_out_twice() {
    let mut node = Node::new(Capacity::default());
    node.apply(SHOP);
    let mut given = BTreeSet::new();
    for round in 0..20 {
        node.apply(EDITS[round % 3]);
        node.apply(EDITS[7 + round % 2]);
        let words = |mirror: &Mirror| -> BTreeSet<u32> {
            let all = mirror.endpoints.values().flat_map(|endpoint| endpoint.rules);
            all.map(|rules| RulesPtr(rules).generation()).filter(|generation| *generation != 0).collect()
        };
        let before = words(&node.mirror);
        node.step();
        for generation in words(&node.mirror).difference(&before) {
            assert!(given.insert(*generation), "{generation} was given out before");
            assert!(u64::from(*generation) < node.mirror.generation);
        }
        if round % 5 == 0 {
            node.restart();
        }
    }
    assert!(given.len() > 10, "{given:?}");
}
