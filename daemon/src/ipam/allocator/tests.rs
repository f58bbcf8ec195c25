//! Tables for the errors and the order; properties against a plain model for the rest.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn allocator(ranges: &[&str]) -> Allocator {
    Allocator::new(Pools::new(&ranges.iter().map(|range| range.parse().unwrap()).collect::<Vec<_>>()).unwrap())
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn owner(n: usize) -> Owner {
    Owner::new(format!("c{n}"), "eth0")
}

fn texts(result: Result<Vec<PodAddress>, AllocateError>) -> Result<Vec<String>, String> {
    result
        .map(|all| all.iter().map(|one| format!("{} via {}", one.address, one.gateway)).collect())
        .map_err(|error| error.to_string())
}

#[test]
fn one_address_of_each_family_in_order() {
    let mut ipam = allocator(&["10.0.0.0/29", "fd00::/64"]);
    let ok = |a: &str, b: &str| Ok(vec![format!("{a} via 10.0.0.1"), format!("{b} via fd00::1")]);
    assert_eq!(texts(ipam.allocate(&owner(1), &[])), ok("10.0.0.2", "fd00::2"));
    assert_eq!(texts(ipam.allocate(&owner(2), &[])), ok("10.0.0.3", "fd00::3"));
}

#[test]
fn a_freed_address_rests_until_the_pool_has_been_around() {
    let mut ipam = allocator(&["10.0.0.0/29"]);
    let mut order = Vec::new();
    for n in 0..7 {
        order.push(ipam.allocate(&owner(n), &[]).unwrap()[0].address.to_string());
        assert_eq!(ipam.free_all(&owner(n)).len(), 1);
    }
    let expected = ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.2", "10.0.0.3"];
    assert_eq!(order, expected);
}

#[test]
fn ranges_are_used_one_after_another_with_their_own_gateways() {
    let mut ipam = allocator(&["10.0.0.0/30", "10.1.0.0/30", "10.2.0.0/30"]);
    let mut next = |n| texts(ipam.allocate(&owner(n), &[]));
    assert_eq!(next(1), Ok(vec!["10.0.0.2 via 10.0.0.1".into()]));
    assert_eq!(next(2), Ok(vec!["10.1.0.2 via 10.1.0.1".into()]));
    assert_eq!(next(3), Ok(vec!["10.2.0.2 via 10.2.0.1".into()]));
    assert_eq!(next(4), Err("no free IPv4 address: all 3 of 10.0.0.0/30, 10.1.0.0/30, 10.2.0.0/30 are taken".into()));
    ipam.free_all(&owner(2));
    assert_eq!(texts(ipam.allocate(&owner(4), &[])), Ok(vec!["10.1.0.2 via 10.1.0.1".into()]));
}

#[test]
fn exhaustion_of_one_family_takes_nothing_of_the_other() {
    let mut ipam = allocator(&["10.0.0.0/30", "fd00::/64"]);
    ipam.allocate(&owner(1), &[]).unwrap();
    let error = ipam.allocate(&owner(2), &[]).unwrap_err();
    assert_eq!(error.to_string(), "no free IPv4 address: all 1 of 10.0.0.0/30 are taken");
    assert_eq!(ipam.addresses(&owner(2)), &[] as &[IpAddr]);
    assert_eq!(ipam.usage()[1].used, 1);
    ipam.free_all(&owner(1));
    // And the IPv6 address that was looked at is the one that comes.
    assert_eq!(ipam.allocate(&owner(2), &[]).unwrap()[1].address, ip("fd00::3"));
}

#[test]
fn a_requested_address_is_given_or_refused_with_its_reason() {
    let mut ipam = allocator(&["10.0.0.0/24", "fd00::/64"]);
    let given = texts(ipam.allocate(&owner(1), &[ip("10.0.0.77")]));
    assert_eq!(given, Ok(vec!["10.0.0.77 via 10.0.0.1".into(), "fd00::2 via fd00::1".into()]));
    for (requested, refusal) in [
        (&["10.0.0.77"][..], "requested address 10.0.0.77 is taken by c1/eth0"),
        (
            &["10.0.0.0"],
            "requested address 10.0.0.0 is the network's own address of pool 10.0.0.0/24: no pod can have it",
        ),
        (&["10.0.0.1"], "requested address 10.0.0.1 is the gateway of pool 10.0.0.0/24: no pod can have it"),
        (
            &["10.0.0.255"],
            "requested address 10.0.0.255 is the broadcast address of pool 10.0.0.0/24: no pod can have it",
        ),
        (&["fd00::1"], "requested address fd00::1 is the gateway of pool fd00::/64: no pod can have it"),
        (&["10.0.1.2"], "requested address 10.0.1.2 is outside of the pools 10.0.0.0/24, fd00::/64"),
        (
            &["10.0.0.9", "192.0.2.1"],
            "two IPv4 addresses are requested, 10.0.0.9 and 192.0.2.1: a pod gets one of each family",
        ),
    ] {
        let requested: Vec<IpAddr> = requested.iter().map(|text| ip(text)).collect();
        assert_eq!(texts(ipam.allocate(&owner(2), &requested)), Err(refusal.to_owned()));
        assert_eq!(ipam.addresses(&owner(2)), &[] as &[IpAddr], "{refusal}");
    }
    // The same one twice is one request.
    assert!(ipam.allocate(&owner(2), &[ip("10.0.0.9"), ip("10.0.0.9"), ip("fd00::9")]).is_ok());
}

#[test]
fn a_requested_address_does_not_move_the_cursor() {
    let mut ipam = allocator(&["10.0.0.0/24"]);
    ipam.allocate(&owner(1), &[ip("10.0.0.200")]).unwrap();
    assert_eq!(ipam.allocate(&owner(2), &[]).unwrap()[0].address, ip("10.0.0.2"));
}

#[test]
fn a_second_add_of_the_same_attachment_is_refused() {
    let mut ipam = allocator(&["10.0.0.0/24"]);
    ipam.allocate(&owner(1), &[]).unwrap();
    assert_eq!(texts(ipam.allocate(&owner(1), &[])), Err("c1/eth0 was added before and has 10.0.0.2".into()));
    assert!(ipam.allocate(&Owner::new("c1", "net1"), &[]).is_ok());
}

#[test]
fn a_late_free_of_an_old_owner_does_not_touch_the_new_one() {
    let mut ipam = allocator(&["10.0.0.0/30"]);
    let address = ipam.allocate(&owner(1), &[]).unwrap()[0].address;
    assert_eq!(ipam.free(&owner(1), address), Freed::Done);
    assert_eq!(ipam.allocate(&owner(2), &[]).unwrap()[0].address, address);
    assert_eq!(ipam.free(&owner(1), address), Freed::Others(owner(2)));
    assert_eq!(ipam.free_all(&owner(1)), &[] as &[IpAddr]);
    assert_eq!(ipam.owner(address), Some(&owner(2)));
    assert_eq!(ipam.free(&owner(2), address), Freed::Done);
    assert_eq!(ipam.free(&owner(2), address), Freed::WasFree);
}

#[test]
fn a_restart_goes_on_where_it_was() {
    let mut before = allocator(&["10.0.0.0/24", "fd00::/64"]);
    for n in 1..4 {
        before.allocate(&owner(n), &[]).unwrap();
    }
    before.free_all(&owner(3));
    let mut after = allocator(&["10.0.0.0/24", "fd00::/64"]);
    for (owner, addresses) in before.owners() {
        addresses.iter().for_each(|&address| after.claim(owner, address).unwrap());
    }
    after.set_cursors(&before.cursors());
    assert_eq!(after.allocate(&owner(4), &[]).unwrap()[0].address, ip("10.0.0.5"));
    // Cursors of pools that are configured no more do nothing.
    let mut other = allocator(&["10.9.0.0/24"]);
    other.set_cursors(&before.cursors());
    assert_eq!(other.allocate(&owner(1), &[]).unwrap()[0].address, ip("10.9.0.2"));
}

#[test]
fn a_record_that_contradicts_the_pools_or_another_is_told() {
    let mut ipam = allocator(&["10.0.0.0/24"]);
    ipam.claim(&owner(1), ip("10.0.0.5")).unwrap();
    ipam.claim(&owner(1), ip("10.0.0.5")).unwrap();
    let told = |result: Result<(), Conflict>| result.unwrap_err().to_string();
    assert_eq!(
        told(ipam.claim(&owner(2), ip("10.0.0.5"))),
        "c2/eth0 is recorded with 10.0.0.5: requested address 10.0.0.5 is taken by c1/eth0"
    );
    assert!(told(ipam.claim(&owner(2), ip("10.9.0.5"))).contains("outside"));
    assert!(told(ipam.claim(&owner(2), ip("10.0.0.1"))).contains("gateway"));
}

#[test]
fn a_full_class_b_is_no_slower_than_it_must_be() {
    let mut ipam = allocator(&["10.0.0.0/16"]);
    for n in 0..65_533 {
        ipam.allocate(&owner(n), &[]).unwrap();
    }
    assert!(matches!(ipam.allocate(&owner(70_000), &[]), Err(AllocateError::Exhausted { capacity: 65_533, .. })));
    ipam.free_all(&owner(7));
    assert_eq!(ipam.allocate(&owner(70_000), &[]).unwrap()[0].address, ip("10.0.0.9"));
}

#[derive(Clone, Debug)]
enum Op {
    Allocate(usize, Option<u32>),
    Free(usize, u32),
    FreeAll(usize),
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..12_usize, prop::option::weighted(0.3, 0..40_u32)).prop_map(|(who, what)| Op::Allocate(who, what)),
        2 => (0..12_usize, 0..40_u32).prop_map(|(who, what)| Op::Free(who, what)),
        3 => (0..12_usize).prop_map(Op::FreeAll),
        1 => Just(Op::Restart),
    ]
}

/// Addresses in and around the pools of the property test.
fn around(n: u32) -> IpAddr {
    match n {
        0..10 => IpAddr::from([10, 0, 0, u8::try_from(n).unwrap()]),
        10..20 => IpAddr::from([10, 0, 1, u8::try_from(n - 10).unwrap()]),
        _ => format!("fd00::{:x}", n - 20).parse().unwrap(),
    }
}

fn valid(address: IpAddr) -> bool {
    let good: BTreeSet<IpAddr> = (2..=6)
        .map(|n| IpAddr::from([10, 0, 0, n]))
        .chain([IpAddr::from([10, 0, 1, 2])])
        .chain((2..=7).map(|n| format!("fd00::{n}").parse().unwrap()))
        .collect();
    good.contains(&address)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Six addresses of each family, twelve owners: collisions and exhaustion happen all the time.
    #[test]
    fn never_twice_and_free_again(ops in prop::collection::vec(op(), 1..80)) {
        const POOLS: &[&str] = &["10.0.0.0/29", "10.0.1.0/30", "fd00::/125"];
        let mut ipam = allocator(POOLS);
        let mut model: BTreeMap<IpAddr, usize> = BTreeMap::new();
        let holds = |model: &BTreeMap<IpAddr, usize>, who: usize| model.values().any(|&other| other == who);
        for op in ops {
            match op {
                Op::Allocate(who, what) => {
                    let requested: Vec<IpAddr> = what.map(around).into_iter().collect();
                    let free = |v4: bool| {
                        let used = model.keys().filter(|address| address.is_ipv4() == v4).count();
                        6 - used
                    };
                    let impossible = holds(&model, who)
                        || requested.iter().any(|address| !valid(*address) || model.contains_key(address))
                        || (free(true) == 0 && !requested.iter().any(IpAddr::is_ipv4))
                        || (free(false) == 0 && !requested.iter().any(IpAddr::is_ipv6));
                    match ipam.allocate(&owner(who), &requested) {
                        Err(_) => prop_assert!(impossible),
                        Ok(given) => {
                            prop_assert!(!impossible);
                            prop_assert_eq!(given.len(), 2);
                            for one in given {
                                prop_assert!(valid(one.address));
                                prop_assert_eq!(model.insert(one.address, who), None, "handed out twice");
                            }
                            prop_assert!(requested.iter().all(|address| model[address] == who));
                        }
                    }
                }
                Op::Free(who, what) => {
                    let address = around(what);
                    let expected = match model.get(&address) {
                        None => Freed::WasFree,
                        Some(&other) if other != who => Freed::Others(owner(other)),
                        Some(_) => { model.remove(&address); Freed::Done }
                    };
                    prop_assert_eq!(ipam.free(&owner(who), address), expected);
                }
                Op::FreeAll(who) => {
                    let freed: BTreeSet<IpAddr> = ipam.free_all(&owner(who)).into_iter().collect();
                    let expected: BTreeSet<IpAddr> =
                        model.iter().filter(|(_, other)| **other == who).map(|(address, _)| *address).collect();
                    prop_assert_eq!(freed, expected);
                    model.retain(|_, other| *other != who);
                }
                Op::Restart => {
                    let mut after = allocator(POOLS);
                    for (address, who) in &model {
                        prop_assert_eq!(after.claim(&owner(*who), *address), Ok(()));
                    }
                    after.set_cursors(&ipam.cursors());
                    prop_assert_eq!(&after.taken, &ipam.taken);
                    prop_assert_eq!(after.cursors, ipam.cursors);
                    ipam = after;
                }
            }
            let used: u128 = ipam.usage().iter().map(|usage| usage.used).sum();
            prop_assert_eq!(used, model.len() as u128);
            for usage in ipam.usage() {
                prop_assert_eq!(usage.used + usage.free, usage.capacity);
            }
        }
    }

    /// As long as others are free, an address does not come again within one round of the pool.
    #[test]
    fn the_same_address_comes_last(keep in prop::collection::btree_set(2..=6_u8, 0..4)) {
        let mut ipam = allocator(&["10.0.0.0/29"]);
        for &n in &keep {
            ipam.claim(&owner(usize::from(n)), IpAddr::from([10, 0, 0, n])).unwrap();
        }
        let free = 5 - keep.len();
        let mut seen = BTreeSet::new();
        for n in 0..free {
            let address = ipam.allocate(&owner(100 + n), &[]).unwrap()[0].address;
            ipam.free_all(&owner(100 + n));
            prop_assert!(seen.insert(address), "{address} came again after {n} others of {free}");
        }
    }
}
