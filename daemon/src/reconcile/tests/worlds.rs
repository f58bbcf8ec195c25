//! Random lives of a node: objects come, change and go, plans are made, garbage is collected, daemons are replaced. The
//! maps say what the oracle says, after each plan and between two writes.

use super::*;

pub(super) const EDITS: &[&str] = &[
    "policy shop/db {app=db}\n ingress from {app=api} ports TCP/5432",
    "policy shop/db {app=db}\n ingress from {app=web} in {team=b} ports TCP/5432, UDP/53",
    "policy shop/all {}\n ingress none",
    "policy shop/all {}\n ingress from anyone ports TCP/80\n egress none",
    "policy shop/api {app=api}\n ingress from 10.0.0.0/24 except 10.0.0.5/32 ports TCP/http\n egress from anyone ports UDP/53",
    "policy dev/out {app=web}\n egress from {app=db} in {team=a} or 10.0.0.3/32 ports TCP/5432, TCP/http, SCTP/80",
    "policy dev/any {}\n ingress from {} in {} ports TCP/1-8080",
    "pod shop/web app=api",
    "pod shop/web app=web",
    "pod dev/web app=api",
    "pod shop/api app=api port=http:TCP:80",
    "namespace dev team=a",
    "namespace dev team=b",
    "pod dev/bare app=db",
    "cluster guard admin 10 {app=web} in {}\n egress pass to {app=db} in {}\n egress deny to 10.0.0.0/24\n \
     ingress deny from {app=api} in {} ports TCP/http",
    "cluster guard admin 10 {} in {team=a}\n egress deny to nodes {role=edge}\n ingress accept from {app=web} in {}",
    "cluster floor baseline 5 {} in {}\n ingress deny from {} in {team=b} ports TCP/80\n egress pass to {} in {}",
    "cluster try admin 1 {} in {} staged\n ingress pass from {app=api} in {}\n ingress deny from {} in {}",
    "cluster try baseline 1 {} in {}\n egress deny to {} in {} ports UDP/53",
    "policy shop/db {app=db} staged\n ingress none",
    "node one role=edge ip=10.0.0.4",
    "node one role=edge ip=10.0.0.5",
    "node one ip=10.0.0.5",
    "pod far/a app=web ip=10.9.0.1",
    "pod far/a app=web ip=10.9.0.2",
    "pod far/b app=api ip=10.9.0.1",
    "pod far/b app=db ip=10.0.0.5",
    "pod far/b app=api ip=10.9.0.1 port=http:TCP:8080",
    "policy shop/web {app=web}\n egress to {app=api} in {} ports TCP/http",
];

#[derive(Clone, Debug)]
enum Act {
    Edit(usize),
    Delete(usize),
    Plan,
    Collect,
    Restart,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0..EDITS.len()).prop_map(Act::Edit),
        2 => (0..EDITS.len()).prop_map(Act::Delete),
        4 => Just(Act::Plan),
        2 => Just(Act::Collect),
        1 => Just(Act::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn after_each_plan_the_maps_say_what_the_oracle_says(acts in prop::collection::vec(act(), 1..24)) {
        let mut node = Node::new(Capacity::default());
        node.apply(SHOP);
        for act in acts.into_iter().chain([Act::Plan, Act::Collect, Act::Restart, Act::Plan]) {
            match act {
                Act::Edit(at) => node.apply(EDITS[at]),
                Act::Delete(at) => {
                    for object in text::parse(EDITS[at]).unwrap() {
                        node.delete(&object.key());
                    }
                }
                Act::Plan => {
                    prop_assert_eq!(node.step().refusals, Vec::new());
                    node.check();
                    node.check_staged();
                    node.check_rule_sets();
                    prop_assert_eq!(node.step().changes, Vec::new(), "a second plan has nothing to do");
                }
                Act::Collect => {
                    node.step();
                    node.collect();
                    node.check();
                    node.check_staged();
                }
                Act::Restart => node.restart(),
            }
        }
        // Nothing is left over that a fresh node would not have.
        node.collect();
        let left = node.mirror.clone();
        node.planner.forget_installed();
        prop_assert_eq!(node.step().changes, Vec::new(), "a look at everything finds nothing that was missed");
        node.collect();
        prop_assert_eq!(&node.mirror, &left, "nor anything that should have gone");
        let mut fresh = Node::new(Capacity::default());
        for object in node.objects.values() {
            fresh.objects.insert(object.key(), object.clone());
            fresh.planner.apply(object.clone());
        }
        fresh.step();
        prop_assert_eq!(node.mirror.peers.len(), fresh.mirror.peers.len());
        prop_assert_eq!(node.mirror.ports.len(), fresh.mirror.ports.len());
        prop_assert_eq!(node.mirror.regions.len(), fresh.mirror.regions.len());
        prop_assert_eq!(node.mirror.rulesets.len(), fresh.mirror.rulesets.len());
    }

    /// A plan looks only at the addresses that something was said about. It must not miss one.
    #[test]
    fn a_look_at_every_address_finds_nothing_that_the_plans_before_have_missed(
        acts in prop::collection::vec((act(), any::<prop::sample::Index>(), 0..6u8), 1..24)
    ) {
        let mut node = Node::new(Capacity { addresses: 9, ..Capacity::default() });
        let mut away = BTreeMap::new();
        for (act, which, more) in acts {
            match act {
                Act::Edit(at) => node.apply(EDITS[at]),
                Act::Delete(at) => text::parse(EDITS[at]).unwrap().iter().for_each(|object| node.delete(&object.key())),
                Act::Plan | Act::Collect | Act::Restart => drop(node.step()),
            }
            let slot = which.index(PODS.len()) as u32 + 1;
            match more {
                0 => away.extend(node.planner.remove_endpoint(slot).map(|endpoint| (slot, endpoint))),
                1 => away.remove(&slot).into_iter().for_each(|endpoint| node.planner.add_endpoint(endpoint)),
                2 => node.planner.set_host_addresses([format!("10.9.0.{slot}").parse().unwrap()].into()),
                _ => {}
            }
        }
        node.step();
        // What has found no room finds what others have left with the next plan.
        node.step();
        let known = node.mirror.addresses.clone();
        node.planner.forget_installed();
        node.step();
        prop_assert_eq!(known, node.mirror.addresses);
    }

    /// Promise 2, as far as the order of writes can break it: after every single write each
    /// connection meets its old verdict or its new one.
    #[test]
    fn between_two_writes_everybody_is_under_the_old_rules_or_the_new(
        before in prop::collection::vec(0..7usize, 0..4), after in prop::collection::vec(0..7usize, 1..3)
    ) {
        let mut node = Node::new(Capacity::default());
        node.apply(SHOP);
        before.into_iter().for_each(|at| node.apply(EDITS[at]));
        node.step();
        after.into_iter().for_each(|at| node.apply(EDITS[at]));
        node.step_by_step(|mirror, source, destination, proto, port| {
            vec![kernel_allows(mirror, source, destination, proto, port)]
        })?;
    }

    /// The same for each end alone, when labels, port names, addresses and nodes change, one of them at a time.
    #[test]
    fn between_two_writes_each_end_is_under_its_old_rules_or_the_new(
        before in prop::collection::vec(0..EDITS.len(), 0..10), after in 0..EDITS.len(), restart in any::<bool>()
    ) {
        // Labels of a namespace change many identities, each at its own moment, under the same rules.
        prop_assume!(!EDITS[after].starts_with("namespace"));
        let mut node = Node::new(Capacity::default());
        node.apply(SHOP);
        before.into_iter().for_each(|at| node.apply(EDITS[at]));
        node.step();
        node.apply(EDITS[after]);
        if restart {
            node.restart();
        }
        node.step_by_step(|mirror, own, peer, proto, port| {
            let side = |direction| side_allows(mirror, own, peer, direction, proto, port);
            [Direction::Egress, Direction::Ingress].map(side).to_vec()
        })?;
    }
}
