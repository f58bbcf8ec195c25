//! Identity numbers that come back, by a clock that the test moves.

use std::time::Duration;

use super::{worlds::EDITS, *};

const GRACE: Duration = Duration::from_secs(600);

fn idle(node: &mut Node, now: u64) -> BTreeSet<u32> {
    node.planner.idle_identities(&node.mirror, Duration::from_secs(now), GRACE)
}

fn release(node: &mut Node, now: u64, grace: Duration) -> BTreeSet<u32> {
    let now = Duration::from_secs(now);
    let numbers = node.planner.idle_identities(&node.mirror, now, grace);
    node.planner.release_identities(&node.mirror, &numbers, now, grace)
}

#[test]
fn a_number_is_given_back_when_nobody_has_had_it_for_long_and_no_entry_names_it() {
    let mut node = Node::new(Capacity::default());
    node.apply(SHOP);
    node.apply("policy shop/db {app=db}\n ingress from {app=web} in {}\npod far/a app=web ip=10.9.0.1");
    node.step();
    let far = fixture::key("far/a");
    let number = node.planner.identity_number(&far).unwrap();
    assert!(idle(&mut node, 0).is_empty() && idle(&mut node, 10_000).is_empty(), "everybody is there");
    node.delete(&ObjectKey::Pod(far.clone()));
    node.step();
    assert!(idle(&mut node, 10_000).is_empty(), "nobody has looked before");
    assert!(idle(&mut node, 10_599).is_empty());
    assert!(idle(&mut node, 10_600).is_empty(), "an entry names it, until the leftovers go");
    node.collect();
    assert_eq!(idle(&mut node, 10_600), [number].into());
    // The same pod comes and goes again: from now on it counts anew.
    node.apply("pod far/a app=web ip=10.9.0.1");
    node.step();
    assert_eq!(node.planner.identity_number(&far), Some(number));
    node.delete(&ObjectKey::Pod(far.clone()));
    node.step();
    node.collect();
    let asked = [number].into();
    let late = Duration::from_secs(10_601);
    assert!(
        node.planner.release_identities(&node.mirror, &asked, late, GRACE).is_empty(),
        "it was idle when asked for"
    );
    assert_eq!(release(&mut node, 11_201, GRACE), [number].into());
    assert_eq!(node.planner.identities().key(number), None);
    // And another one for who comes now, though the first is free.
    node.apply("pod far/a app=web ip=10.9.0.1");
    node.step();
    assert!(node.planner.identity_number(&far) > Some(number));
    node.check();
}

#[test]
fn a_number_that_a_connection_has_is_not_given_back_and_what_is_written_down_tells_whose_turn_it_is() {
    let mut node = Node::new(Capacity::default());
    node.apply("namespace far\npod far/a app=web ip=10.9.0.1\npod far/b app=db ip=10.9.0.2");
    node.step();
    let [a, b] = ["far/a", "far/b"].map(|pod| node.planner.identity_number(&fixture::key(pod)).unwrap());
    for pod in ["far/a", "far/b"] {
        node.delete(&ObjectKey::Pod(fixture::key(pod)));
    }
    node.step();
    node.collect();
    assert!(idle(&mut node, 0).is_empty());
    assert_eq!(idle(&mut node, 600), [a, b].into());
    node.planner.identities_kept();
    // A connection has b's.
    let released = node.planner.release_identities(&node.mirror, &[a].into(), GRACE, GRACE);
    assert_eq!((released, node.planner.identities().key(b).is_some()), ([a].into(), true));
    assert!(node.planner.identities().unkept().contains(&a));
    let next = node.planner.identities().next();
    let known = node.planner.identities().iter().map(|(number, key)| (number, key.clone()));
    let restored = Identities::restore(known, 0).resume(next);
    assert_eq!(restored.next(), next);
    assert_eq!(Identities::restore([], 0).resume(next).next(), next, "not the first again, though all are free");
    assert_eq!(Identities::restore([], next + 7).resume(next).next(), next + 8, "nor one that the kernel holds");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Numbers come back as soon as they may, for others: rules say what they say all the same.
    #[test]
    fn numbers_that_come_back_mean_who_has_them_now(
        edits in prop::collection::vec((0..EDITS.len(), any::<bool>()), 1..40)
    ) {
        let mut node = Node::new(Capacity::default());
        node.planner = planner(Identities::of(16), &node.capacity);
        for (at, (path, ip)) in PODS.into_iter().enumerate() {
            node.planner.add_endpoint(local(at as u32 + 1, path, ip));
        }
        node.apply(SHOP);
        for (now, (at, delete)) in (0u64..).zip(edits) {
            if delete {
                text::parse(EDITS[at]).unwrap().iter().for_each(|object| node.delete(&object.key()));
            } else {
                node.apply(EDITS[at]);
            }
            node.step();
            node.check();
            node.collect();
            node.check();
            node.check_rule_sets();
            release(&mut node, now, Duration::ZERO);
            prop_assert!(node.planner.identities().iter().count() <= PODS.len() + 2);
        }
    }
}
