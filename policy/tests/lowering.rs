//! What `lower` promises beyond NetworkPolicy: rules of different standing that deny, the fewest
//! entries, limits with names, and the shortcut for single identities.

mod arbitrary;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use arbitrary::{PROBES, cluster_policy, identity_key, network_policy, objects, peer, pod};
use datapath_abi::identity::{CLASS_ANY, REMOTE_NODE, UNKNOWN, UNMANAGED, WORLD};
use datapath_abi::policy::{Decision, Direction, Verdict};
use policy::compile::{PodMatch, RuleTable, TableNamespaces, TablePeers, TablePorts, TableRule, compile};
use policy::fixture::{block, index, key, namespace, pod as fixture_pod, pods, pods_in, policy, rule};
use policy::identity::IdentityKey;
use policy::index::Index;
use policy::lower::{
    CookieTable, Limits, LowerError, PodAddress, PortPrefix, RuleSet, Universe, What, delta, lower, lower_within,
    prefixes,
};
use policy::map_model::MapModel;
use policy::model::{Action, NamespaceScope, Object, Peer, PodKey, PortRange, Precedence, Protocol};
use policy::selector::Selector;
use policy::world::World;
use proptest::prelude::*;

const DIRECTIONS: [Direction; 2] = [Direction::Egress, Direction::Ingress];

/// Whoever can be looked up: identity number, address, and the pod if it is one.
fn peers(world: &World<'_>) -> Vec<(u32, IpAddr, Option<PodKey>)> {
    let mut peers = Vec::new();
    for (number, identity) in world.universe().iter() {
        for (key, pod) in identity.pods() {
            peers.extend(pod.ips.iter().map(|ip| (number, *ip, Some(key.clone()))));
        }
    }
    for identity in [UNKNOWN, UNMANAGED, WORLD, REMOTE_NODE] {
        peers.extend(
            ["10.0.0.3", "10.0.0.9", "192.0.2.1", "fd00::3", "2001:db8::1"]
                .map(|ip| (identity, ip.parse().unwrap(), None)),
        );
    }
    peers
}

/// Where a matching rule is found.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Found {
    Peers,
    Regions,
    EitherByName,
}

/// Whether a rule matches, read off the table.
fn matches(
    rule: &TableRule,
    world: &World<'_>,
    peer: &(u32, IpAddr, Option<PodKey>),
    probe: (u8, u16),
) -> Option<Found> {
    let (number, ip, key) = peer;
    let identity = world.universe().get(*number);
    let (by_identity, by_address) = match &rule.peers {
        TablePeers::Anyone => (true, false),
        TablePeers::These { pods, blocks, nodes } => (
            identity.is_some_and(|identity| pods.iter().any(|pods| pods.matches(identity.key()))),
            blocks.iter().any(|block| block.contains(*ip))
                || nodes.iter().any(|nodes| world.universe().node_addresses(nodes).any(|it| it == *ip)),
        ),
    };
    let (by_number, by_name) = match &rule.ports {
        TablePorts::All => (true, false),
        TablePorts::These { ranges, named } => {
            let this = |protocol: &Protocol| protocol.number() == probe.0;
            let pod = key.as_ref().and_then(|key| world.index().pod(key));
            (
                ranges.iter().any(|(protocol, range)| this(protocol) && range.contains(probe.1)),
                pod.is_some_and(|pod| {
                    named.iter().any(|(protocol, name)| {
                        this(protocol) && pod.named_port(*protocol, name).any(|port| port == probe.1)
                    })
                }),
            )
        }
    };
    match (by_identity, by_address, by_number, by_name) {
        (true, _, true, _) => Some(Found::Peers),
        (_, true, true, _) => Some(Found::Regions),
        (true, _, _, true) | (_, true, _, true) => Some(Found::EitherByName),
        _ => None,
    }
}

/// The table with other standings. Even ones allow, odd ones deny.
fn restaged(table: &RuleTable, standings: &[u16]) -> RuleTable {
    let mut table = table.clone();
    for (rule, standing) in table.rules.iter_mut().zip(standings.iter().cycle()) {
        rule.precedence = Precedence(*standing);
        rule.action = if standing % 2 == 0 { Action::Allow } else { Action::Deny };
    }
    table.rules.reverse();
    table.rules.sort_by(TableRule::rank);
    let order = |rule: &TableRule| (std::cmp::Reverse(rule.precedence), rule.rule.clone());
    assert!(table.rules.is_sorted_by_key(order), "greater precedence first, then by name and place");
    table
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_greatest_precedence_decides_and_then_the_first_rule(
        objects in objects(), standings in prop::collection::vec(1u16..6, 1..5),
    ) {
        let index = index(objects);
        let world = World::new(&index);
        let peers = peers(&world);
        for subject in index.pods() {
            for direction in DIRECTIONS {
                let table = restaged(&compile(&index, &subject.key, direction), &standings);
                let mut cookies = CookieTable::default();
                let rules = lower(&table, world.universe(), &mut cookies).unwrap();
                let model = MapModel::new(&rules);
                for peer in &peers {
                    // An identity is looked up by the addresses that have it.
                    let owner = world.end(peer.1);
                    if peer.2.is_none() && matches!(owner, policy::world::End::Pod(..)) {
                        continue;
                    }
                    for probe in PROBES {
                        let found: Vec<(usize, Found)> = table.rules.iter().enumerate()
                            .filter_map(|(place, rule)| Some((place, matches(rule, &world, peer, *probe)?))).collect();
                        let decision = model.decide(peer.0, peer.1, probe.0, probe.1);
                        let Some((first, _)) = found.first() else {
                            prop_assert_eq!(decision, Decision::default());
                            continue;
                        };
                        let first = &table.rules[*first];
                        let verdict = match first.action { Action::Allow | Action::Pass => Verdict::Allow, Action::Deny => Verdict::Deny };
                        prop_assert_eq!((decision.precedence, decision.verdict), (first.precedence.0, verdict as u8));
                        let decided = cookies.rule(decision.cookie).unwrap();
                        let equals = found.iter().filter(|(place, _)| table.rules[*place].precedence == first.precedence);
                        // Of rules of one standing those found by identity come first.
                        let expected = equals.min_by_key(|(place, how)| (*how, *place)).unwrap();
                        let by_name = found.iter().any(|(_, how)| *how == Found::EitherByName);
                        if by_name {
                            prop_assert!(found.iter().any(|(place, _)| table.rules[*place].rule == *decided));
                        } else {
                            prop_assert_eq!(&table.rules[expected.0].rule, decided);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn ranges_are_the_fewest_prefixes(from in any::<u16>(), to in any::<u16>()) {
        let range = PortRange::new(from.min(to), from.max(to)).unwrap();
        let list: Vec<PortPrefix> = prefixes(Protocol::Tcp, range).collect();
        let mut next = u32::from(range.from());
        for prefix in &list {
            prop_assert_eq!(u32::from(prefix.port), next, "no gap and no overlap");
            prop_assert_eq!(*prefix, PortPrefix::around(prefix.proto, prefix.port, prefix.length), "aligned");
            next = u32::from(prefix.last()) + 1;
        }
        prop_assert_eq!(next, u32::from(range.to()) + 1);
        for pair in list.windows(2) {
            let siblings = pair[0].length == pair[1].length && pair[0].length > 0
                && PortPrefix::around(6, pair[0].port, pair[0].length - 1).port == PortPrefix::around(6, pair[1].port, pair[0].length - 1).port;
            prop_assert!(!siblings, "{:?} could be one", pair);
        }
        prop_assert!(list.len() <= 30);
    }

    #[test]
    fn regions_are_bounded_by_what_is_written(objects in objects()) {
        let index = index(objects);
        let world = World::new(&index);
        let named: usize = world.universe().iter().flat_map(|(_, it)| it.pods().values()).map(|pod| pod.ips.len()).sum();
        for pod in index.pods() {
            for direction in DIRECTIONS {
                let table = compile(&index, &pod.key, direction);
                let written: usize = table.rules.iter().map(|rule| match &rule.peers {
                    TablePeers::Anyone => 0,
                    TablePeers::These { blocks, nodes, .. } => {
                        let nodes = nodes.iter().flat_map(|nodes| world.universe().node_addresses(nodes)).count();
                        nodes + blocks.iter().map(|block| 1 + block.except().len()).sum::<usize>()
                    }
                }).sum();
                let rules = lower(&table, world.universe(), &mut CookieTable::default()).unwrap();
                let stages = [(&rules.peers, &rules.regions)].into_iter().chain(rules.second.iter().map(|it| (&it.peers, &it.regions)));
                for (peers, regions) in stages {
                    prop_assert!(regions.len() <= written + named + 1);
                    let classes = peers.range(CLASS_ANY..).count();
                    prop_assert!(peers.len() <= world.universe().len() + classes);
                }
            }
        }
    }

    #[test]
    fn what_differs_for_who_changed_is_what_differs(
        policies in prop::collection::vec(network_policy(), 0..4), cluster in prop::collection::vec(cluster_policy(), 0..3),
        before in prop::collection::vec(pod(), 0..6), after in prop::collection::vec(pod(), 0..6),
    ) {
        let index = index(policies.into_iter().map(Object::from).chain(cluster.into_iter().map(Object::from)));
        let (old, new) = (universe(&index, &before), universe(&index, &after));
        let changed: BTreeSet<u32> = old.iter().chain(new.iter()).map(|(number, _)| number)
            .filter(|number| old.get(*number) != new.get(*number)).collect();
        for subject in ["a/pod1", "b/pod1", "c/pod1"] {
            for direction in DIRECTIONS {
                let table = compile(&index, &key(subject), direction);
                let mut cookies = CookieTable::default();
                let limits = Limits::default();
                let (whole, wanted) = (lower(&table, &old, &mut cookies).unwrap(), lower(&table, &new, &mut cookies).unwrap());
                let found = delta(&whole, &table, &new, changed.iter().copied(), &mut cookies, &limits).unwrap();
                let Some(found) = found else {
                    prop_assert!(table.has_names(), "nothing depends on addresses in {}", table);
                    continue;
                };
                prop_assert!(found.identities().all(|number| changed.contains(&number)));
                let mut changed = whole.clone();
                let back = changed.change(found.clone());
                prop_assert_eq!(&changed, &wanted, "{}", table);
                prop_assert_eq!(found.is_empty(), whole == wanted);
                // And there and back again is nowhere.
                prop_assert_eq!(changed.change(back), found);
                prop_assert_eq!(changed, whole);
            }
        }
    }

    #[test]
    fn a_universe_finds_whom_a_selector_matches(
        events in prop::collection::vec((256u32..264, prop::option::weighted(0.7, identity_key())), 0..30),
        peers in prop::collection::vec(peer(), 1..5),
    ) {
        let mut universe = Universe::default();
        let mut left: BTreeMap<u32, IdentityKey> = BTreeMap::new();
        for (number, key) in events {
            match key {
                Some(key) => {
                    universe.insert(number, key.clone()).unwrap();
                    left.insert(number, key);
                }
                None => prop_assert_eq!(universe.remove(number).is_some(), left.remove(&number).is_some()),
            }
            for peer in &peers {
                let Peer::Pods { namespaces, pods } = peer else { continue };
                let namespaces = match namespaces {
                    NamespaceScope::Own => TableNamespaces::Named("a".to_owned()),
                    NamespaceScope::Matching(selector) => TableNamespaces::Matching(selector.clone()),
                };
                let pods = PodMatch { namespaces, pods: pods.clone() };
                let all: BTreeSet<u32> = left.iter().filter(|(_, key)| pods.matches(key)).map(|(number, _)| *number).collect();
                prop_assert_eq!(universe.matching(&pods), all, "{}", pods);
            }
        }
        let mut fresh = Universe::default();
        for (number, key) in left {
            fresh.insert(number, key).unwrap();
        }
        prop_assert_eq!(universe, fresh);
    }
}

/// Numbers by place, so that a number may come to stand for another identity.
fn universe(index: &Index, pods: &[policy::model::Pod]) -> Universe {
    let mut universe = Universe::default();
    for (number, pod) in (256..).zip(pods) {
        universe.insert(number, index.identity_of(pod)).unwrap();
        universe.put_pod(number, pod.key.clone(), PodAddress::from(pod));
    }
    universe
}

fn too_large(objects: Vec<Object>, limits: &Limits) -> LowerError {
    let index = index(objects);
    let world = World::new(&index);
    let table = compile(&index, &key("a/db"), Direction::Ingress);
    lower_within(&table, world.universe(), &mut CookieTable::default(), limits).unwrap_err()
}

#[test]
fn too_many_identities_name_the_policy_that_selects_most() {
    let mut objects: Vec<Object> = (0..20u8)
        .map(|host| {
            fixture_pod(&format!("a/pod{host}")).label("host", &host.to_string()).ip(&format!("10.0.0.{host}")).into()
        })
        .collect();
    objects.push(fixture_pod("a/db").ip("10.0.1.1").into());
    objects.push(policy("a/few", "{}").ingress([rule().peer(pods("{host in (0,1)}"))]).into());
    // The rule that takes most is not its last; that two rules take the same entry counts once.
    let most = [rule().peer(pods("{host}")), rule().peer(pods("{host in (10,11)}"))];
    objects.push(policy("a/most", "{}").ingress(most).into());
    let error = too_large(objects, &Limits { peers: 10, ..Limits::default() });
    assert_eq!(error.what, What::Peers);
    assert_eq!(
        error.to_string(),
        "NetworkPolicy a/most takes 11 of 11 entries for identities, more than the 10 that one rule set may have: \
         select fewer pods, or all of them with an empty namespaceSelector"
    );
}

#[test]
fn too_many_regions_name_the_policy_with_the_exceptions() {
    let holes: Vec<String> = (0..50).map(|net| format!("10.{}.0.0/16", 2 * net)).collect();
    let holes: Vec<&str> = holes.iter().map(String::as_str).collect();
    let objects = vec![
        fixture_pod("a/db").ip("10.0.1.1").into(),
        policy("a/few", "{}").ingress([rule().peer(block("9.0.0.0/8", &[])).peer(block("8.0.0.0/8", &[]))]).into(),
        policy("a/holes", "{}").ingress([rule().peer(block("10.0.0.0/8", &holes))]).into(),
    ];
    let error = too_large(objects, &Limits { regions: 20, ..Limits::default() });
    assert_eq!((error.what, error.policy.name.as_str(), error.limit), (What::Regions, "holes", 20));
    assert!(error.to_string().ends_with("use fewer or wider ipBlocks and exceptions"), "{error}");
}

#[test]
fn too_many_ports_name_the_policy_with_the_ranges() {
    let mut many = rule();
    for port in 0..40 {
        many = many.port(&format!("TCP/{}", 2 * port + 1));
    }
    let objects = vec![
        fixture_pod("a/db").ip("10.0.1.1").into(),
        policy("a/one", "{}").ingress([rule().port("UDP/53")]).into(),
        policy("a/ports", "{}").ingress([many]).into(),
    ];
    let error = too_large(objects, &Limits { ports: 16, ..Limits::default() });
    assert_eq!((error.what, error.policy.name.as_str(), error.limit), (What::Ports, "ports", 16));
    assert!(error.to_string().ends_with("use fewer or wider port ranges"), "{error}");
}

#[test]
fn what_just_fits_is_lowered_and_one_more_is_not() {
    let objects = |pods: u8| -> Index {
        let pods =
            (0..pods).map(|host| Object::from(fixture_pod(&format!("b/pod{host}")).label("host", &host.to_string())));
        let rest = [
            fixture_pod("a/db").into(),
            policy("a/p", "{}").ingress([rule().peer(pods_in("{team=red}", "{}"))]).into(),
            namespace("b", [("team", "red")]),
        ];
        index(pods.chain(rest))
    };
    let limits = Limits { peers: 5, ..Limits::default() };
    let lowered = |index: &Index| -> Result<RuleSet, LowerError> {
        let table = compile(index, &key("a/db"), Direction::Ingress);
        lower_within(&table, World::new(index).universe(), &mut CookieTable::default(), &limits)
    };
    let five = objects(5);
    let fits = lowered(&five).unwrap();
    assert_eq!(fits.peers.len(), 5);
    let six = objects(6);
    let error = lowered(&six).unwrap_err();
    assert_eq!(error.needed, 6);
    // The shortcut leaves it to the error that says who takes how much.
    let world = World::new(&six);
    let table = compile(&six, &key("a/db"), Direction::Ingress);
    let numbers = world.universe().iter().map(|(number, _)| number);
    let again = delta(&fits, &table, world.universe(), numbers, &mut CookieTable::default(), &limits);
    assert_eq!(again, Ok(None));
}

#[test]
fn cookies_name_rules_both_ways_and_none_is_zero() {
    let index = index([policy("a/p", "{}").ingress([rule().port("TCP/1"), rule().port("TCP/2")])]);
    let table = compile(&index, &key("a/db"), Direction::Ingress);
    let mut cookies = CookieTable::default();
    let rules = lower(&table, &Universe::default(), &mut cookies).unwrap();
    let numbers: BTreeSet<u32> =
        rules.peers[&CLASS_ANY].ports.entries.values().map(|decision| decision.cookie).collect();
    assert_eq!(numbers, BTreeSet::from([1, 2]));
    assert_eq!(cookies.rule(0), None);
    assert_eq!(cookies.rule(2), Some(&table.rules[1].rule));
    assert_eq!(cookies.rule(3), None);
    lower(&table, &Universe::default(), &mut cookies).unwrap();
    assert_eq!(cookies.rule(3), None, "a rule keeps its number");
}

#[test]
fn a_number_that_comes_to_stand_for_another_leaves_nothing_behind() {
    let index = index([fixture_pod("a/web").ip("10.0.0.1"), fixture_pod("b/web").ip("10.0.0.2")]);
    let mut universe = Universe::default();
    for name in ["a/web", "b/web"] {
        universe.insert(256, index.identity_key(&key(name)).unwrap()).unwrap();
        let address = PodAddress::from(index.pod(&key(name)).unwrap());
        assert!(universe.put_pod(256, key(name), address.clone()));
        assert!(!universe.put_pod(256, key(name), address), "that is not new");
    }
    let of =
        |name: &str| PodMatch { namespaces: TableNamespaces::Named(name.to_owned()), pods: Selector::everything() };
    assert_eq!(universe.matching(&of("a")), BTreeSet::new());
    assert_eq!(universe.matching(&of("b")), BTreeSet::from([256]));
    assert_eq!(universe.get(256).unwrap().pods().keys().collect::<Vec<_>>(), [&key("b/web")]);
    assert!(universe.remove_pod(256, &key("b/web")));
    assert!(!universe.remove_pod(256, &key("b/web")));
    assert!(universe.remove(256).is_some());
    assert_eq!(universe, Universe::default());
}

#[test]
fn reserved_numbers_are_no_identities_of_pods() {
    let index = index([fixture_pod("a/web")]);
    let key = index.identity_key(&key("a/web")).unwrap();
    let mut universe = Universe::default();
    for number in [0, 255, 1 << 24, CLASS_ANY] {
        let error = universe.insert(number, key.clone()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("{number} is not an identity number of pods: those go from 256 to 16777215")
        );
    }
    universe.insert(256, key.clone()).unwrap();
    universe.insert((1 << 24) - 1, key).unwrap();
    assert_eq!(universe.len(), 2);
}

#[test]
fn a_tier_with_more_rules_than_places_is_refused_by_name() {
    use policy::model::{ClusterNetworkPolicy, ClusterRule, Peers, Subject, Tier};
    let limit = Precedence::TIER_RULES;
    let guard = |name: &str, tier: Tier, rules: usize| -> Object {
        let rule = ClusterRule {
            name: None,
            action: Action::Deny,
            rule: policy::model::Rule { peers: Peers::These(vec![pods_in("{}", "{}")]), ports: vec![].into() },
        };
        let subject = Subject { namespaces: Selector::everything(), pods: Selector::everything() };
        let (ingress, egress) = (vec![rule; rules], Vec::new());
        let (name, staged) = (name.to_owned(), false);
        ClusterNetworkPolicy { name, tier, priority: 1, subject, ingress, egress, staged }.into()
    };
    for tier in Tier::ALL {
        let lowered = |rules: usize| {
            let index = index([fixture_pod("a/db").into(), guard("few", tier, 1), guard("many", tier, rules)]);
            let table = compile(&index, &key("a/db"), Direction::Ingress);
            lower(&table, World::new(&index).universe(), &mut CookieTable::default())
        };
        assert!(lowered(limit - 1).is_ok());
        let error = lowered(limit).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "ClusterNetworkPolicy many takes {limit} of {} rules of one tier, more than the {limit} that one rule \
                 set may have: let fewer ClusterNetworkPolicies of one tier select the same pods",
                limit + 1
            )
        );
    }
}
