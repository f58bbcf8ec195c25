//! Properties over random worlds: the compiler against the oracle, the index against itself.

mod arbitrary;

use std::collections::BTreeMap;

use arbitrary::{cluster_policy, flows, network_policy, object, objects, pod};
use datapath_abi::policy::Direction;
use policy::compile::{Compiler, RuleTable, compile, compile_staged};
use policy::explain::{Standing, Walk, explain};
use policy::identity::{Config, IdentityKey};
use policy::index::Index;
use policy::lower::{CookieTable, PodAddress, RuleSet, Universe, lower};
use policy::model::{Action, Object, ObjectKey, PodKey, PolicyKind};
use policy::oracle::{Oracle, Ruling};
use policy::world::{End, Flow, FlowVerdict, Side, World};
use proptest::prelude::*;

const DIRECTIONS: [Direction; 2] = [Direction::Egress, Direction::Ingress];

fn index(objects: &[Object]) -> Index {
    let mut index = Index::new(Config::default());
    for object in objects {
        index.apply(object.clone());
    }
    index
}

/// Rule sets of every pod, so that thousands of flows do not compile anew.
struct Compiled<'a> {
    world: World<'a>,
    sets: BTreeMap<(PodKey, Direction), (RuleTable, RuleSet, CookieTable)>,
}

impl<'a> Compiled<'a> {
    fn new(index: &'a Index) -> Self {
        let world = World::new(index);
        let mut sets = BTreeMap::new();
        let mut compiler = Compiler::new(index);
        for pod in index.pods() {
            for direction in DIRECTIONS {
                let table = compile(index, &pod.key, direction);
                let shared = compiler.compile(&pod.key, direction);
                assert_eq!(shared, (table.digest(), table.clone().into()), "{} has somebody else's table", pod.key);
                let staged = compiler.compile_staged(&pod.key, direction).map(|(_, table)| RuleTable::clone(&table));
                assert_eq!(staged, compile_staged(index, &pod.key, direction), "{}, staged", pod.key);
                let mut cookies = CookieTable::default();
                let rules = lower(&table, world.universe(), &mut cookies).unwrap();
                sets.insert((pod.key.clone(), direction), (table, rules, cookies));
            }
        }
        Self { world, sets }
    }

    fn passes(&self, flow: &Flow) -> bool {
        self.side(Direction::Egress, &flow.source, &flow.destination, flow)
            && (matches!(flow.source, End::LocalNode(_))
                || self.side(Direction::Ingress, &flow.destination, &flow.source, flow))
    }

    fn side(&self, direction: Direction, subject: &End, peer: &End, flow: &Flow) -> bool {
        let End::Pod(key, _) = subject else { return true };
        let (table, rules, cookies) = &self.sets[&(key.clone(), direction)];
        self.world.look_up(table, rules, cookies, peer, flow).passes()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn entries_say_what_the_api_text_says(objects in objects()) {
        let index = index(&objects);
        let oracle = Oracle::new(objects.iter().cloned());
        let compiled = Compiled::new(&index);
        for flow in flows(&objects) {
            // Those the map is not asked about.
            let itself = matches!((&flow.source, &flow.destination), (End::Pod(a, _), End::Pod(b, _)) if a == b);
            if !itself {
                prop_assert_eq!(compiled.passes(&flow), oracle.allows(&flow), "{:?}", flow);
            }
        }
    }

    #[test]
    fn a_whole_flow_is_the_oracles(objects in objects(), pick in any::<proptest::sample::Index>()) {
        let index = index(&objects);
        let oracle = Oracle::new(objects.iter().cloned());
        let world = World::new(&index);
        let all: Vec<Flow> = flows(&objects).collect();
        for flow in all.iter().skip(pick.index(97)).step_by(97) {
            let FlowVerdict { egress, ingress } = world.verdict(flow).unwrap();
            prop_assert_eq!(egress.passes() && ingress.passes(), oracle.allows(flow), "{:?}", flow);
            for (direction, side) in [(Direction::Egress, &egress), (Direction::Ingress, &ingress)] {
                if matches!(side, Side::Exempt(_)) {
                    continue;
                }
                // Not the verdict alone: the tier that decided, too.
                let of = |kind: PolicyKind| side.rule().is_some_and(|rule| rule.policy.kind == kind);
                let said = match (oracle.ruling(direction, flow), side) {
                    (Ruling::Default, Side::Open) => true,
                    (Ruling::NetworkPolicy(false), Side::Isolated(_)) => true,
                    (Ruling::NetworkPolicy(true), Side::Allowed(_)) => of(PolicyKind::NetworkPolicy),
                    (Ruling::Admin(allows) | Ruling::Baseline(allows), _) => {
                        of(PolicyKind::ClusterNetworkPolicy) && side.passes() == allows
                    }
                    _ => false,
                };
                prop_assert!(said, "{:?}: {} but {:?}", flow, side, oracle.ruling(direction, flow));
            }
        }
    }

    #[test]
    fn reasons_never_contradict_the_verdict(objects in objects(), pick in any::<proptest::sample::Index>()) {
        let index = index(&objects);
        let world = World::new(&index);
        let all: Vec<Flow> = flows(&objects).collect();
        for flow in all.iter().skip(pick.index(61)).step_by(61) {
            let explanation = explain(&world, flow).unwrap();
            prop_assert_eq!(explanation.verdict(), world.verdict(flow).unwrap());
            for side in [&explanation.egress, &explanation.ingress] {
                for walk in std::iter::once(&side.walk).chain(&side.staged) {
                    let reason = contradiction(walk);
                    prop_assert_eq!(reason, None, "{}", explanation);
                }
            }
        }
    }

    #[test]
    fn what_is_staged_changes_nothing_that_is_enforced(objects in objects()) {
        let enforced = |object: &Object| match object {
            Object::NetworkPolicy(policy) => !policy.staged,
            Object::ClusterNetworkPolicy(policy) => !policy.staged,
            _ => true,
        };
        let without: Vec<Object> = objects.iter().filter(|object| enforced(object)).cloned().collect();
        let (with, without) = (index(&objects), index(&without));
        for pod in with.pods() {
            for direction in DIRECTIONS {
                let table = compile(&with, &pod.key, direction);
                prop_assert_eq!(table.digest(), compile(&without, &pod.key, direction).digest());
                // And who has no staged policy has nothing to evaluate.
                prop_assert_eq!(compile_staged(&without, &pod.key, direction), None);
            }
        }
    }

    #[test]
    fn what_would_be_is_what_the_api_text_says_of_all(objects in objects(), pick in any::<proptest::sample::Index>()) {
        let index = index(&objects);
        let (oracle, enforced) = (Oracle::with_staged(objects.iter().cloned()), Oracle::new(objects.iter().cloned()));
        let world = World::new(&index);
        let all: Vec<Flow> = flows(&objects).collect();
        for flow in all.iter().skip(pick.index(89)).step_by(89) {
            for direction in DIRECTIONS {
                if world.exemption(direction, flow).is_some() {
                    continue;
                }
                let would = oracle.ruling(direction, flow).allows();
                match world.staged(direction, flow).unwrap() {
                    Some(side) => prop_assert_eq!(side.passes(), would, "{:?}", flow),
                    None => prop_assert_eq!(enforced.ruling(direction, flow).allows(), would, "{:?}", flow),
                }
            }
        }
    }

    #[test]
    fn order_of_arrival_does_not_matter(objects in objects().prop_flat_map(|it| (Just(it.clone()), Just(it).prop_shuffle()))) {
        let (one_way, other_way) = objects;
        prop_assert_eq!(index(&one_way), index(&other_way));
    }

    #[test]
    fn what_is_left_after_many_events_is_what_a_fresh_index_holds(events in prop::collection::vec((object(), 0..4), 0..40)) {
        let mut index = Index::new(Config::default());
        let mut left: BTreeMap<ObjectKey, Object> = BTreeMap::new();
        for (object, what) in events {
            if what == 0 {
                index.delete(&object.key());
                left.remove(&object.key());
            } else {
                left.insert(object.key(), object.clone());
                index.apply(object);
            }
        }
        let left: Vec<Object> = left.into_values().collect();
        prop_assert_eq!(index, self::index(&left));
    }

    #[test]
    fn every_change_is_among_what_is_touched(objects in objects(), events in prop::collection::vec((object(), 0..4), 1..12)) {
        let mut index = index(&objects);
        let mut before = state(&index);
        for (object, what) in events {
            let key = object.key();
            let touched = if what == 0 { index.delete(&key) } else { index.apply(object) };
            let after = state(&index);
            for pod in before.keys().chain(after.keys()) {
                let (old, new) = (before.get(pod), after.get(pod));
                let rules = |it: Option<&State>| it.map(|it| it.tables.clone());
                let place = |it: Option<&State>| it.map(|it| (it.identity.clone(), it.address.clone()));
                prop_assert!(rules(old) == rules(new) || touched.rules.contains(pod), "rules of {}: {:?}", pod, key);
                prop_assert!(place(old) == place(new) || touched.identities.contains(pod), "identity of {}: {:?}", pod, key);
            }
            before = after;
        }
    }

    #[test]
    fn the_same_object_again_touches_nothing(objects in objects()) {
        let mut index = index(&objects);
        for object in objects {
            prop_assert!(index.apply(object).is_empty());
        }
    }

    #[test]
    fn an_identity_that_does_not_concern_a_table_changes_no_entry(
        policies in prop::collection::vec(network_policy(), 0..4), cluster in prop::collection::vec(cluster_policy(), 0..3),
        pods in prop::collection::vec(pod(), 1..5), late in pod(),
    ) {
        let policies = policies.into_iter().map(Object::from).chain(cluster.into_iter().map(Object::from));
        let objects: Vec<Object> = policies.chain(pods.into_iter().map(Object::from)).collect();
        let index = index(&objects);
        let world = World::new(&index);
        let key = index.identity_of(&late);
        for pod in index.pods() {
            for direction in DIRECTIONS {
                let table = compile(&index, &pod.key, direction);
                let mut more: Universe = world.universe().clone();
                let number = 256 + u32::try_from(more.len()).unwrap();
                more.insert(number, key.clone()).unwrap();
                more.put_pod(number, late.key.clone(), PodAddress::from(&late));
                let mut cookies = CookieTable::default();
                let old = lower(&table, world.universe(), &mut cookies).unwrap();
                let new = lower(&table, &more, &mut cookies).unwrap();
                prop_assert!(table.concerns(&key) || old == new, "{}\n{}", table, key);
                let concerned = more.iter().filter(|(_, it)| table.concerns(it.key())).map(|(number, _)| number);
                prop_assert_eq!(table.concerned(&more), concerned.collect());
            }
        }
    }

    #[test]
    fn tables_are_equal_when_their_digests_are(objects in objects()) {
        let index = index(&objects);
        let mut by_digest: BTreeMap<[u8; 16], RuleTable> = BTreeMap::new();
        for pod in index.pods() {
            for direction in DIRECTIONS {
                let table = compile(&index, &pod.key, direction);
                let known = by_digest.entry(table.digest()).or_insert_with(|| table.clone());
                prop_assert_eq!(&*known, &table);
                prop_assert_eq!(table.digest(), table.clone().digest());
            }
        }
    }
}

/// What the reasons for a verdict say against it, if they do.
fn contradiction(walk: &Walk) -> Option<String> {
    let asked = walk.considered.iter().filter(|rule| walk.is_asked(rule.standing));
    let tier = |standing| asked.clone().filter(move |rule| rule.standing == standing && rule.matches());
    let first = |standing| tier(standing).next();
    let rules = [Standing::Admin, Standing::Baseline].map(first);
    let deciding: Vec<_> = walk.considered.iter().filter(|rule| rule.decides).collect();
    let expected = match rules {
        [Some(admin), _] if admin.action != Action::Pass => Some(&admin.rule),
        _ if !walk.isolated_by.is_empty() => {
            let any = tier(Standing::NetworkPolicy).find(|rule| rule.decides);
            any.or_else(|| first(Standing::NetworkPolicy)).map(|rule| &rule.rule)
        }
        [_, baseline] => baseline.map(|rule| &rule.rule),
    };
    if walk.considered.iter().filter(|rule| rule.passes_on).any(|rule| {
        rule.action != Action::Pass || !rule.matches() || !rules.iter().flatten().any(|it| it.rule == rule.rule)
    }) {
        return Some("the wrong rule passes on".to_owned());
    }
    if deciding.iter().any(|rule| !rule.matches()) || deciding.len() > 1 {
        return Some("a rule decides that does not match, or not alone".to_owned());
    }
    let said = match &walk.outcome {
        Side::Exempt(_) => walk.considered.is_empty(),
        Side::Open => expected.is_none() && walk.isolated_by.is_empty() && deciding.is_empty(),
        Side::Isolated(policies) => *policies == walk.isolated_by && expected.is_none() && deciding.is_empty(),
        Side::Allowed(rule) | Side::Denied(rule) => expected == Some(rule) && deciding.len() == 1,
    };
    (!said).then(|| format!("the rules say {expected:?}"))
}

#[derive(Clone)]
struct State {
    tables: [RuleTable; 2],
    identity: Option<IdentityKey>,
    address: Option<PodAddress>,
}

fn state(index: &Index) -> BTreeMap<PodKey, State> {
    let state = |key: &PodKey| State {
        tables: DIRECTIONS.map(|direction| compile(index, key, direction)),
        identity: index.identity_key(key),
        address: index.pod(key).filter(|pod| pod.is_peer()).map(PodAddress::from),
    };
    index.pods().map(|pod| (pod.key.clone(), state(&pod.key))).collect()
}
