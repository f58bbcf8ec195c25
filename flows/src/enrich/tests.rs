//! What becomes of each field of an event.

use std::num::NonZeroU32;

use datapath_abi::{addr::Addr, event::EndReason, identity};

use super::*;
use crate::fixture::{self, World, record, record_in, world};

fn names(ruling: &Ruling) -> Vec<&str> {
    match ruling {
        Ruling::Isolated(policies) => policies.iter().map(|policy| policy.name.as_str()).collect(),
        other => panic!("not isolated: {other:?}"),
    }
}

fn rule(ruling: &Ruling) -> (&str, u32) {
    match ruling {
        Ruling::Allowed(rule) | Ruling::Denied(rule) => {
            let info = rule.info.as_ref().expect("the world knows the rule");
            (&info.policy.name, info.index)
        }
        other => panic!("no rule: {other:?}"),
    }
}

#[test]
fn an_opened_connection_has_both_ends_and_both_rulings() {
    let record = record(&fixture::opened());
    assert_eq!((record.source.namespace(), record.source.pod_name()), ("shop", "web-0"));
    assert_eq!((record.destination.namespace(), record.destination.pod_name()), ("shop", "db-0"));
    assert_eq!((record.source.port, record.destination.port), (41_000, 5432));
    assert_eq!((record.source.slot, record.destination.slot), (1, 2));
    assert_eq!(record.source.ip, fixture::address(fixture::WEB));
    assert_eq!(record.source.service_account(), "web-sa");
    assert_eq!(record.egress, Ruling::Open);
    assert!(matches!(record.ingress, Ruling::Allowed(_)));
    assert_eq!(rule(&record.ingress), ("db-clients", 1));
    assert_eq!(record.time_unix_ns, fixture::START_UNIX_NS);
    assert_eq!(record.opened_unix_ns, Some(fixture::START_UNIX_NS));
    assert_eq!(record.forward, Traffic { packets: 1, bytes: 60, tcp_flags: 2 });
    assert_eq!((record.drop_reason, record.end_reason, record.denied_in), (None, None, None));
}

#[test]
fn both_directions_of_one_connection_keep_their_own_rule() {
    let event = FlowEvent {
        rules: [fixture::WEB_EGRESS_RULES.0, fixture::DB_INGRESS_RULES.0],
        cookie: [fixture::WEB_EGRESS_COOKIE, fixture::DB_INGRESS_COOKIE],
        ..fixture::opened()
    };
    let record = record(&event);
    assert_eq!(rule(&record.egress), ("web-out", 0));
    assert_eq!(rule(&record.ingress), ("db-clients", 1));
    assert_eq!(record.direction(), Some(Direction::Egress));
}

#[test]
fn staged_policies_speak_for_each_direction() {
    let good = fixture::opened();
    let said = |staged: [u8; 2], staged_cookie: [u32; 2]| record(&FlowEvent { staged, staged_cookie, ..good });
    let without = said([STAGED_NOT_ASKED; 2], [0; 2]);
    assert_eq!((&without.staged_egress, &without.staged_ingress), (&None, &None));
    let both =
        said([STAGED_ALLOWS, DropReason::DenyRule as u8], [fixture::WEB_EGRESS_COOKIE, fixture::DB_INGRESS_COOKIE]);
    let (Some(egress), Some(ingress)) = (&both.staged_egress, &both.staged_ingress) else { panic!("{both:?}") };
    assert!(matches!(egress, Ruling::Allowed(_)) && matches!(ingress, Ruling::Denied(_)), "{egress:?} {ingress:?}");
    assert_eq!((rule(egress), rule(ingress)), (("web-out", 0), ("db-clients", 1)));
    assert_eq!((both.egress, both.ingress), (without.egress, without.ingress), "what is in force");
    let other = said([STAGED_ALLOWS, DropReason::DefaultDeny as u8], [0; 2]);
    assert_eq!(other.staged_egress, Some(Ruling::Open));
    assert!(matches!(other.staged_ingress, Some(Ruling::Isolated(_))), "{:?}", other.staged_ingress);
}

#[test]
fn a_default_deny_names_every_isolating_policy() {
    let record = record(&fixture::denied());
    assert_eq!(names(&record.ingress), ["db-clients", "default-deny"]);
    assert_eq!(record.egress, Ruling::Open);
    assert_eq!(record.direction(), Some(Direction::Ingress));
    assert_eq!(record.opened_unix_ns, None);
}

#[test]
fn a_deny_rule_is_named() {
    let event =
        FlowEvent { reason: DropReason::DenyRule as u8, cookie: [0, fixture::DB_INGRESS_COOKIE], ..fixture::denied() };
    let record = record(&event);
    assert!(matches!(record.ingress, Ruling::Denied(_)));
    assert_eq!(rule(&record.ingress), ("db-clients", 1));
}

#[test]
fn a_policy_change_without_a_rule_names_the_isolating_policies() {
    let event = FlowEvent {
        reason: DropReason::PolicyChange as u8,
        direction: Direction::Egress as u8,
        rules: [fixture::WEB_EGRESS_RULES.0, 0],
        ..fixture::denied()
    };
    let record = record(&event);
    assert_eq!(names(&record.egress), ["web-out"]);
    assert_eq!(record.ingress, Ruling::NotAsked, "denied before the other end was asked");
}

#[test]
fn who_sends_in_anothers_name_is_called_by_its_own() {
    // eve sends with web's address.
    let [_, to] = fixture::denied().addr;
    let [web, _] = fixture::opened().addr;
    let forged = FlowEvent { addr: [web, to], direction: DIRECTION_NONE, ..fixture::denied() };
    let named = |reason: DropReason, slot: u32| {
        let event = FlowEvent { reason: reason as u8, slot: [slot, forged.slot[1]], ..forged };
        let record = record(&event);
        assert!(record.source.known_as.is_some() && record.destination.pod.is_some(), "{reason:?}");
        assert_eq!(record.source.ip, fixture::address(fixture::WEB));
        record.source.pod_name().to_owned()
    };
    for reason in [DropReason::InvalidSourceIp, DropReason::InvalidSourceMac] {
        assert_eq!(named(reason, forged.slot[0]), "eve-0", "{reason:?}");
        assert_eq!(named(reason, 77), "", "a slot that nobody is known to have had: {reason:?}");
        // Somebody else by now, whose labels are others.
        assert_eq!(named(reason, 2), "", "{reason:?}");
    }
    assert_eq!(named(DropReason::Martian, 0), "", "by the node's stack, from nobody knows whom");
    let own = FlowEvent { reason: DropReason::DefaultDeny as u8, ..fixture::denied() };
    assert_eq!(record(&own).source.pod_name(), "eve-0");
}

#[test]
fn what_no_rule_can_be_asked_about_names_rules_that_isolate_nobody() {
    // Under a ClusterNetworkPolicy alone: rules, and not isolated.
    let rules = RulesPtr::new(10, RulesPtr::HAS_CLASSES, fixture::DB_INGRESS_RULES.ruleset());
    let ruled = FlowEvent { rules: [0, rules.0], direction: DIRECTION_NONE, ..fixture::denied() };
    let dropped = record(&FlowEvent { reason: DropReason::Fragment as u8, ..ruled });
    assert_eq!(names(&dropped.ingress), ["db-clients", "default-deny"]);
    let other = record(&FlowEvent { reason: DropReason::InvalidSourceIp as u8, ..ruled });
    assert_eq!(other.ingress, Ruling::Open, "not for their sake");
    let staged = RulesPtr::new(10, RulesPtr::HAS_STAGED, 0);
    let event = FlowEvent { rules: [staged.0, rules.0], reason: DropReason::Fragment as u8, ..ruled };
    assert_eq!(record(&event).egress, Ruling::Open, "rules that only would be");
}

#[test]
fn a_drop_that_needs_isolation_names_who_isolates() {
    for reason in DropReason::ALL {
        let event = FlowEvent { reason: *reason as u8, direction: DIRECTION_NONE, ..fixture::denied() };
        let record = record(&event);
        match reason {
            DropReason::Fragment
            | DropReason::ExtensionHeader
            | DropReason::ConntrackFull
            | DropReason::UnrelatedIcmpError
            | DropReason::Multicast
            | DropReason::Midstream
            | DropReason::PolicyChange => {
                assert_eq!(names(&record.ingress), ["db-clients", "default-deny"], "{reason:?}");
                assert_eq!(record.direction(), Some(Direction::Ingress), "{reason:?}");
            }
            _ => {
                assert_eq!(record.ingress, Ruling::NotAsked, "{reason:?}");
                assert_eq!(record.direction(), Some(Direction::Egress), "by the hook: {reason:?}");
            }
        }
    }
}

#[test]
fn traffic_of_the_own_node_is_exempt_and_far_ends_are_not_asked() {
    let event = FlowEvent {
        identity: [identity::HOST, 257],
        slot: [0, 2],
        rules: [0, fixture::DB_INGRESS_RULES.0],
        cookie: [0, 0],
        ..fixture::opened()
    };
    let record = record(&event);
    assert_eq!(record.egress, Ruling::NotAsked);
    assert_eq!(record.ingress, Ruling::Exempt);
    assert_eq!(record.direction(), Some(Direction::Ingress));
}

#[test]
fn rules_and_policies_that_are_forgotten_leave_their_number() {
    let empty = World::default();
    let opened = record_in(&fixture::opened(), &empty);
    assert_eq!(opened.ingress, Ruling::Allowed(RuleRef { cookie: fixture::DB_INGRESS_COOKIE, info: None }));
    assert_eq!(opened.source.namespace(), "");
    assert_eq!(names(&record_in(&fixture::denied(), &empty).ingress), Vec::<&str>::new());
}

#[test]
fn a_closed_connection_has_totals_end_and_rtt() {
    let record = record(&fixture::closed());
    assert_eq!(record.end_reason, Some(EndReason::Fin));
    assert_eq!((record.forward.bytes, record.reverse.bytes), (1200, 9000));
    assert_eq!(record.rtt_us, NonZeroU32::new(150));
    assert_eq!(record.time_unix_ns - record.opened_unix_ns.unwrap(), 2_000_000_000);
}

#[test]
fn icmp_has_type_and_code_and_no_ports() {
    let record = record(&fixture::ping());
    assert_eq!(record.icmp, Some(Icmp { kind: 8, code: 0 }));
    assert_eq!((record.source.port, record.destination.port), (0, 0));
}

#[test]
fn ipv6_stays_ipv6_and_the_world_has_no_pod() {
    let record = record(&fixture::from_outside());
    assert_eq!(record.source.ip, "2001:db8::1".parse::<IpAddr>().unwrap());
    assert_eq!(record.source.pod, None);
    assert_eq!(record.source.reserved(), Some("world"));
    assert_eq!(record.hook, Hook::ToPod);
}

#[test]
fn an_address_that_changed_hands_does_not_name_the_new_owner() {
    let mut world = world();
    let heir = PodInfo { namespace: "other".to_owned(), name: "heir".to_owned(), identity: 258, ..PodInfo::default() };
    world.pods.insert(fixture::address(fixture::WEB), Arc::new(heir));
    let record = record_in(&fixture::opened(), &world);
    assert_eq!(record.source.pod, None);
    assert_eq!((record.source.namespace(), record.source.pod_name()), ("shop", ""));
    assert_eq!(record.source.k8s_label("app"), Some("web"));
}

#[test]
fn labels_are_those_the_verdict_was_reached_with() {
    let mut world = world();
    let mut pod = PodInfo::clone(&world.pods[&fixture::address(fixture::WEB)]);
    Arc::make_mut(&mut pod.labels).insert("minor".to_owned(), "1".to_owned());
    world.pods.insert(pod_address(), Arc::new(pod.clone()));
    let event = fixture::opened();
    assert_eq!(record_in(&event, &world).source.k8s_label("minor"), Some("1"), "all labels while the identity holds");

    pod.identity = 300;
    Arc::make_mut(&mut pod.labels).insert("app".to_owned(), "relabelled".to_owned());
    world.pods.insert(pod_address(), Arc::new(pod));
    let record = record_in(&event, &world);
    assert_eq!(record.source.pod_name(), "web-0");
    assert_eq!(record.source.k8s_label("app"), Some("web"));

    fn pod_address() -> IpAddr {
        fixture::address(fixture::WEB)
    }
}

#[test]
fn an_event_of_the_kernel_is_no_lookup() {
    let event = FlowEvent { kind: EventKind::Dns as u8, ..fixture::opened() };
    let refused = enrich(&event, 1, &fixture::node(), fixture::clock(), &world());
    assert_eq!(refused.unwrap_err(), Malformed::Kind(5));
}

#[test]
fn dns_names_and_services_are_joined() {
    let mut world = world();
    let outside: IpAddr = "2001:db8::1".parse().unwrap();
    world.dns_names.insert(outside, ["www.example.com".to_owned()].into());
    world.dns_names.insert(fixture::address(fixture::WEB), ["never shown, it is a pod".to_owned()].into());
    let service = ServiceInfo { namespace: "shop".to_owned(), name: "db".to_owned() };
    world.services.insert((fixture::address(fixture::DB), 5432), Arc::new(service.clone()));
    assert_eq!(*record_in(&fixture::from_outside(), &world).source.dns_names.unwrap(), ["www.example.com".to_owned()]);
    let record = record_in(&fixture::opened(), &world);
    assert_eq!(record.destination.service.as_deref(), Some(&service));
    assert_eq!((record.source.service, record.source.dns_names), (None, None));
}

#[test]
fn numbers_outside_the_contract_are_refused_by_name() {
    let good = fixture::denied();
    for (event, error) in [
        (FlowEvent { kind: 0, ..good }, Malformed::Kind(0)),
        (FlowEvent { kind: 9, ..good }, Malformed::Kind(9)),
        (FlowEvent { reason: 0, ..good }, Malformed::Reason(0)),
        (FlowEvent { reason: 200, ..good }, Malformed::Reason(200)),
        (FlowEvent { direction: 2, ..good }, Malformed::Direction(2)),
        (FlowEvent { hook: 3, ..good }, Malformed::Hook(3)),
        (FlowEvent { staged: [0, 200], ..good }, Malformed::Reason(200)),
        (FlowEvent { end: 0, ..fixture::closed() }, Malformed::End(0)),
        (FlowEvent { end: 77, ..fixture::closed() }, Malformed::End(77)),
    ] {
        assert_eq!(enrich(&event, 1, &fixture::node(), fixture::clock(), &world()), Err(error), "{event:?}");
    }
}

#[test]
fn the_clock_works_on_both_sides_of_its_reading() {
    let clock = WallClock::new(100, 1_000_000);
    assert_eq!(clock.unix_ns(150), 1_000_050);
    assert_eq!(clock.unix_ns(50), 999_950);
    assert_eq!(WallClock::new(1_000, 400).unix_ns(500), 0, "before 1970 is 1970");
    assert_eq!(WallClock::new(1_000, 400).unix_ns(1_500), 900);
}

#[test]
fn mapped_addresses_become_ipv4() {
    assert_eq!(IpAddr::from(Addr::from_v4([10, 0, 0, 1])), "10.0.0.1".parse::<IpAddr>().unwrap());
    assert_eq!(IpAddr::from(Addr::ZERO), "::".parse::<IpAddr>().unwrap());
}
