//! Numbers that the cluster gives, beside this node's own: what the maps say stays right at every step.

use std::{sync::Arc, time::Duration};

use datapath_abi::identity::{FIRST_SHARED, is_shared};
use policy::IdentityKey;

use super::{worlds::EDITS, *};

const ZERO: Duration = Duration::ZERO;

fn cluster() -> Node {
    let mut node = Node::new(Capacity::default());
    node.planner = planner(Identities::restore_beside_shared([], 0), &node.capacity);
    for (at, (path, ip)) in PODS.into_iter().enumerate() {
        node.planner.add_endpoint(local(at as u32 + 1, path, ip));
    }
    node
}

fn number(node: &Node, pod: &str) -> u32 {
    node.planner.identity_number(&fixture::key(pod)).unwrap()
}

fn key(node: &Node, pod: &str) -> Arc<IdentityKey> {
    Arc::new(node.planner.index().identity_key(&fixture::key(pod)).unwrap())
}

const FAR: &str = "pod far/a app=web ip=10.9.0.1\npod far/b app=web ip=10.9.0.2\npod far/c app=db ip=10.9.0.3";

#[test]
fn a_number_of_the_clusters_takes_the_place_of_an_own_one_and_is_kept_when_the_cluster_loses_it() {
    let mut node = cluster();
    node.apply(SHOP);
    node.apply(&format!("policy shop/db {{app=db}}\n ingress from {{app=web}} in {{}}\n{FAR}"));
    node.step();
    node.check();
    let own = number(&node, "far/a");
    assert!(!is_shared(own));
    let wanting: Vec<_> = node.planner.unshared().into_iter().filter(|it| it.key.namespace == "far").collect();
    assert!(wanting.len() == 2 && wanting.iter().all(|it| !it.local), "{wanting:?}");
    assert!(node.planner.unshared().iter().any(|it| it.local));
    let meant = key(&node, "far/a");
    node.planner.give([(70_005, Some(meant.clone()))]);
    node.step();
    node.check();
    assert_eq!((number(&node, "far/a"), number(&node, "far/b")), (70_005, 70_005));
    assert!(node.planner.unshared().iter().all(|it| it.key != *meant));
    assert_eq!(node.planner.standing(&fixture::key("far/b")), ((*meant).clone(), Some(70_005)));
    // Somebody has made another for the same key: the lowest counts.
    node.planner.give([(70_003, Some(meant.clone())), (70_004, Some(meant.clone()))]);
    node.step();
    node.check();
    assert_eq!(number(&node, "far/a"), 70_003);
    assert_eq!(node.planner.unused(), [70_004, 70_005].into());
    node.planner.give([(70_003, None), (70_004, None), (70_005, None)]);
    node.step();
    node.check();
    assert_eq!(number(&node, "far/a"), 70_003, "nobody else means anything by it");
    assert!(node.planner.unshared().iter().any(|it| it.key == *meant), "it is to be made again");
    node.planner.give([(70_003, Some(meant.clone()))]);
    assert!(node.planner.unshared().iter().all(|it| it.key != *meant));
    // Numbers that are no cluster's are not taken.
    node.planner.give([(300, Some(meant.clone())), (FIRST_SHARED - 1, Some(meant.clone()))]);
    node.step();
    assert_eq!(number(&node, "far/a"), 70_003);
}

#[test]
fn rules_speak_of_a_number_before_anybody_has_it() {
    let mut node = cluster();
    node.apply(SHOP);
    node.apply("policy shop/db {app=db}\n ingress from {app=web} in {}\npod far/a app=web ip=10.9.0.1");
    node.step();
    let meant = key(&node, "far/a");
    node.delete(&ObjectKey::Pod(fixture::key("far/a")));
    node.step();
    node.collect();
    let names = |node: &Node, number: u32| node.mirror.peers.keys().any(|key| key.identity == number);
    node.planner.give([(70_001, Some(meant.clone()))]);
    node.step();
    assert!(names(&node, 70_001), "a packet may carry it before its sender is known");
    assert!(node.planner.idle_identities(&node.mirror, ZERO, ZERO).iter().all(|number| *number != 70_001));
    node.apply("pod far/a app=web ip=10.9.0.1");
    node.step();
    node.check();
    node.delete(&ObjectKey::Pod(fixture::key("far/a")));
    node.step();
    assert!(names(&node, 70_001));
    node.planner.give([(70_001, None)]);
    node.step();
    node.collect();
    assert!(!names(&node, 70_001));
    assert!(node.planner.idle_identities(&node.mirror, ZERO, ZERO).contains(&70_001));
}

/// The cluster has given a number to somebody else while this node still has it in its maps or connections.
#[test]
fn a_number_that_stands_for_somebody_else_here_waits_until_nobody_has_it() {
    let mut node = cluster();
    node.apply(SHOP);
    node.apply(&format!("policy shop/db {{app=db}}\n ingress from {{app=web}} in {{}}\n{FAR}"));
    node.step();
    let (web, db) = (key(&node, "far/a"), key(&node, "far/c"));
    node.planner.give([(70_001, Some(web.clone()))]);
    node.step();
    assert!(node.planner.is_in_step());
    node.planner.give([(70_001, Some(db.clone()))]);
    node.step();
    node.check();
    assert!(!node.planner.is_in_step());
    assert!(!is_shared(number(&node, "far/a")) && !is_shared(number(&node, "far/c")));
    let wanting = node.planner.unshared();
    assert!(wanting.iter().any(|it| it.key == *web) && wanting.iter().all(|it| it.key != *db), "{wanting:?}");
    node.collect();
    let idle = node.planner.idle_identities(&node.mirror, ZERO, ZERO);
    assert!(idle.contains(&70_001), "{idle:?}");
    // No connection has it any more.
    assert_eq!(node.planner.release_identities(&node.mirror, &[70_001].into(), ZERO, ZERO), [70_001].into());
    node.step();
    node.check();
    assert_eq!(number(&node, "far/c"), 70_001);
    assert!(node.planner.is_in_step());
}

#[test]
fn after_a_restart_numbers_are_as_they_were_and_own_ones_of_an_earlier_version_move() {
    let mut node = cluster();
    node.apply(SHOP);
    node.apply(FAR);
    node.step();
    let (web, own) = (key(&node, "far/a"), number(&node, "far/c"));
    node.planner.give([(70_001, Some(web.clone()))]);
    node.step();
    let known: Vec<(u32, IdentityKey)> =
        node.planner.identities().iter().map(|(number, key)| (number, key.clone())).collect();
    let highest = node.mirror.highest_identity_to(FIRST_SHARED - 1);
    let mut identities = Identities::restore_beside_shared(known.clone(), highest);
    assert_eq!(identities.number(&web), Ok(70_001), "without being told again");
    assert_eq!(identities.number(&key(&node, "far/c")), Ok(own));
    let new = IdentityKey { namespace: "new".to_owned(), ..(*web).clone() };
    let next = identities.number(&new).unwrap();
    assert!(!is_shared(next) && known.iter().all(|(number, _)| *number != next), "{next}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Objects change, numbers come, go and stand for others, idle ones are given back: at each step the maps say what
    /// the objects mean, and in the end everybody has the lowest number that the cluster has for him.
    #[test]
    fn whatever_the_cluster_gives_the_maps_are_right(
        edits in prop::collection::vec(
            (0..EDITS.len(), 0..6_u32, any::<prop::sample::Index>(), any::<bool>()), 1..24,
        ),
    ) {
        let mut node = cluster();
        node.apply(SHOP);
        node.apply(FAR);
        for (edit, at, pod, there) in edits {
            node.apply(EDITS[edit]);
            node.step();
            node.check();
            let keys: Vec<Arc<IdentityKey>> =
                node.planner.index().pods().filter_map(|pod| node.planner.index().identity_key(&pod.key)).map(Arc::new).collect();
            let key = there.then(|| keys[pod.index(keys.len())].clone());
            node.planner.give([(70_000 + at, key)]);
            node.step();
            node.check();
            node.collect();
            let idle = node.planner.idle_identities(&node.mirror, ZERO, ZERO);
            node.planner.release_identities(&node.mirror, &idle, ZERO, ZERO);
        }
        for _ in 0..8 {
            node.step();
            node.collect();
            let idle = node.planner.idle_identities(&node.mirror, ZERO, ZERO);
            node.planner.release_identities(&node.mirror, &idle, ZERO, ZERO);
        }
        node.check();
        prop_assert!(node.planner.is_in_step());
        let planner = &node.planner;
        for pod in planner.index().pods() {
            let Some(key) = planner.index().identity_key(&pod.key) else { continue };
            if let Some(given) = planner.identities().given().numbers(&key).next() {
                prop_assert_eq!(planner.identity_number(&pod.key), Some(given));
            }
        }
    }
}
