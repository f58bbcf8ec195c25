//! ipBlocks at their worst: a thousand that overlap, with exceptions, of both families. What comes out is bounded by
//! what is written, and takes no longer than that; what does not fit is refused by name.

use std::time::{Duration, Instant};

use datapath_abi::policy::Direction;
use policy::compile::compile;
use policy::fixture::{block, key, pod, policy, rule};
use policy::identity::Config;
use policy::index::Index;
use policy::lower::{CookieTable, Limits, LowerError, RuleSet, What, lower_within};
use policy::model::{NetworkPolicy, Object};
use policy::world::World;

/// How many blocks.
const BLOCKS: usize = 1_000;
/// What each takes at most, in a debug build on a busy machine. Quadratic growth would take minutes.
const LONG: Duration = Duration::from_secs(30);
/// Of the maps' default capacities.
const LIMITS: Limits = Limits { peers: 131_072, regions: 65_536, ports: 65_536, port_sets: 65_536 };

fn lowered(policies: impl IntoIterator<Item = NetworkPolicy>, limits: &Limits) -> Result<RuleSet, LowerError> {
    let mut index = Index::new(Config::default());
    index.apply(Object::from(pod("a/db")));
    policies.into_iter().for_each(|policy| drop(index.apply(policy.into())));
    let table = compile(&index, &key("a/db"), Direction::Ingress);
    let began = Instant::now();
    let result = lower_within(&table, World::new(&index).universe(), &mut CookieTable::default(), limits);
    assert!(began.elapsed() < LONG, "{:?} for {} rules", began.elapsed(), table.rules.len());
    result
}

/// Blocks that hold each other, a few prefix lengths over and over, with holes in each that others fill.
fn nested(number: usize) -> (String, Vec<String>) {
    if number.is_multiple_of(2) {
        let length = 8 + number / 2 % 8;
        let holes = (0..4).map(|hole| format!("10.0.{}.{}/32", number % 250, hole * 60 + number / 250));
        (format!("10.0.0.0/{length}"), holes.collect())
    } else {
        let length = 16 + number / 2 % 40;
        let holes = (0..4).map(|hole| format!("fd00:0:0:0:{:x}::{hole:x}/128", number));
        (format!("fd00::/{length}"), holes.collect())
    }
}

fn of(number: usize, name: &str, port: Option<usize>) -> NetworkPolicy {
    let (cidr, holes) = nested(number);
    let holes: Vec<&str> = holes.iter().map(String::as_str).collect();
    let rule = rule().peer(block(&cidr, &holes));
    let rule = port.map_or(rule.clone(), |port| rule.port(&format!("TCP/{port}")));
    policy(name, "{}").ingress([rule]).build()
}

#[test]
fn a_thousand_overlapping_blocks_of_one_rule_are_no_more_entries_than_prefixes() {
    let all = (0..BLOCKS).fold(rule(), |rule, number| {
        let (cidr, holes) = nested(number);
        rule.peer(block(&cidr, &holes.iter().map(String::as_str).collect::<Vec<_>>()))
    });
    let rules = lowered([policy("a/p", "{}").ingress([all]).build()], &LIMITS).unwrap();
    assert!(!rules.regions.is_empty() && rules.regions.len() <= 5 * BLOCKS, "{}", rules.regions.len());
}

#[test]
fn a_thousand_policies_with_a_block_each_are_no_more_entries_than_prefixes() {
    for ports in [None, Some(443)] {
        let policies = (0..BLOCKS).map(|number| of(number, &format!("a/p{number}"), ports));
        let rules = lowered(policies, &LIMITS).unwrap();
        assert!(!rules.regions.is_empty() && rules.regions.len() <= 5 * BLOCKS, "{ports:?}: {}", rules.regions.len());
    }
}

#[test]
fn one_block_with_tens_of_thousands_of_holes_that_a_thousand_others_fill_says_it_once() {
    let holes: Vec<String> = (0..30_000).map(|hole| format!("10.0.{}.{}/32", hole / 256, hole % 256)).collect();
    let holes: Vec<&str> = holes.iter().map(String::as_str).collect();
    let full = (1..BLOCKS)
        .map(|number| policy(&format!("a/p{number}"), "{}").ingress([rule().peer(block("10.0.0.0/8", &[]))]));
    let with_holes = policy("a/p0", "{}").ingress([rule().peer(block("10.0.0.0/8", &holes))]);
    let rules = lowered(full.chain([with_holes]).map(|policy| policy.build()), &LIMITS).unwrap();
    // Inside of the holes another rule is named; nothing else differs.
    assert!(rules.regions.len() <= 30_001, "{}", rules.regions.len());
}

#[test]
fn each_thing_that_does_not_fit_is_refused_by_name() {
    // Too many prefixes: the policy that has most of them.
    let wide = lowered(
        (0..50).map(|number| of(number, if number == 7 { "a/worst" } else { "a/other" }, None)),
        &Limits { regions: 3, ..LIMITS },
    );
    let error = wide.unwrap_err();
    assert_eq!((error.what, error.limit, error.needed), (What::Regions, 3, 4));
    assert!(error.to_string().ends_with(": use fewer or wider ipBlocks and exceptions"), "{error}");
    // A thousand blocks that hold each other, with a port each: a port set for each prefix, of up to a thousand ports.
    let policies = (0..BLOCKS).map(|number| of(number, &format!("a/p{number}"), Some(1 + 2 * number)));
    let error = lowered(policies, &Limits { port_sets: 4_096, ..LIMITS }).unwrap_err();
    assert_eq!((error.what, error.limit, error.needed), (What::PortSets, 4_096, 4_097));
    assert!(error.to_string().contains("port prefixes for all peers, more than the 4096"), "{error}");
    assert!(error.to_string().ends_with(": use fewer port ranges, or the same for more peers"), "{error}");
}
