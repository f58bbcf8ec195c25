//! What rules say about the first packet of a connection: who, which port, which rule of
//! several, and what the event tells of it.

use datapath_abi::{
    conntrack::CtState,
    endpoint::RulesPtr,
    identity::{self, CLASS_ANY, CLASS_CLUSTER, CLASS_NODE, CLASS_WORLD},
    maps,
    policy::Direction,
    reason::DropReason,
};
use tests::{
    host::{A, B, C, FAMILIES, Family, Host, NODE, REMOTE, WORLD},
    lab::{At, Lab},
    packet::{ACK, ICMP, ICMPV6, SCTP, SCTP_INIT, SYN, TCP, UDP},
    rules::{NO_RULE, Rule, allow, deny},
};

const PORTS: [u16; 2] = [40_000, 80];

/// May A open a TCP connection to B's port?
fn admits(lab: &mut Lab, family: Family, port: u16) -> bool {
    static SOURCE: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(1024);
    let source = SOURCE.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let seen = lab.send(At::From(A), &A.tcp(&B, family, [source, port], SYN));
    if seen.returned() == tests::seen::SHOT {
        seen.drops(DropReason::DefaultDeny, Some(Direction::Ingress));
        false
    } else {
        seen.reaches(&B).opens();
        true
    }
}

#[test]
fn an_isolated_pod_sends_nothing_that_no_rule_admits() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        lab.isolate(&A, Direction::Egress, &[Rule::identity(C.identity, allow(1, 1))]);
        let rules = lab.endpoint(&A).rules;
        for packet in [
            A.tcp(&B, family, PORTS, SYN),
            A.tcp(&B, family, PORTS, ACK),
            A.udp(&B, family, PORTS),
            A.sctp(&B, family, PORTS, SCTP_INIT),
            A.ping(&B, family, 7),
        ] {
            lab.send(At::From(A), &packet).drops(DropReason::DefaultDeny, Some(Direction::Egress)).with(|event| {
                assert_eq!(event.identity, [A.identity, B.identity]);
                assert_eq!(event.slot, [A.slot, B.slot]);
                assert_eq!(event.rules[0], rules[0]);
                assert_eq!(event.cookie, [0, 0]);
            });
        }
        for outside in [WORLD, REMOTE, NODE] {
            lab.send(At::From(A), &A.tcp(&outside, family, PORTS, SYN))
                .drops(DropReason::DefaultDeny, Some(Direction::Egress))
                .with(|event| assert_eq!(event.identity, [A.identity, outside.identity]));
        }
        assert_eq!(lab.sizes(), (0, 0), "what is denied is not tracked");
        lab.send(At::From(A), &A.tcp(&C, family, PORTS, SYN)).reaches(&C).opens();
        // The other direction is not isolated.
        lab.send(At::From(B), &B.tcp(&A, family, PORTS, SYN)).reaches(&A).opens();
    }
}

#[test]
fn an_isolated_pod_receives_nothing_that_no_rule_admits() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        lab.isolate(&B, Direction::Ingress, &[Rule::identity(REMOTE.identity, allow(9, 1))]);
        let rules = lab.endpoint(&B).rules;
        for packet in [
            A.tcp(&B, family, PORTS, SYN),
            A.udp(&B, family, PORTS),
            A.sctp(&B, family, PORTS, SCTP_INIT),
            A.ping(&B, family, 7),
        ] {
            // From a pod of this node, the short way and through the stack.
            for at in [At::From(A), At::To(B, A)] {
                lab.send(at, &packet).drops(DropReason::DefaultDeny, Some(Direction::Ingress)).with(|event| {
                    assert_eq!(event.identity, [A.identity, B.identity]);
                    assert_eq!(event.rules[1], rules[1]);
                });
            }
        }
        lab.send(At::To(B, WORLD), &WORLD.tcp(&B, family, PORTS, SYN))
            .drops(DropReason::DefaultDeny, Some(Direction::Ingress))
            .with(|event| assert_eq!((event.identity, event.slot), ([identity::WORLD, B.identity], [0, B.slot])));
        lab.send(At::To(B, REMOTE), &REMOTE.tcp(&B, family, PORTS, SYN)).passes().opens().with(|event| {
            assert_eq!(event.cookie, [0, 9]);
        });
        assert_eq!(lab.sizes(), (0, 1));
    }
}

#[test]
fn both_ends_are_asked() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        lab.isolate(&A, Direction::Egress, &[Rule::identity(B.identity, allow(11, 1))]);
        lab.isolate(&B, Direction::Ingress, &[]);
        lab.send(At::From(A), &A.tcp(&B, family, PORTS, SYN))
            .drops(DropReason::DefaultDeny, Some(Direction::Ingress))
            .with(|event| assert_eq!(event.cookie, [11, 0], "what allowed it to leave is told"));
        lab.isolate(&B, Direction::Ingress, &[Rule::identity(A.identity, allow(12, 1))]);
        lab.send(At::From(A), &A.tcp(&B, family, PORTS, SYN)).reaches(&B).opens().with(|event| {
            assert_eq!(event.cookie, [11, 12]);
        });
        lab.isolate(&A, Direction::Egress, &[]);
        lab.send(At::From(A), &A.tcp(&B, family, [40_001, 80], SYN))
            .drops(DropReason::DefaultDeny, Some(Direction::Egress));
    }
}

#[test]
fn a_deny_rule_names_itself() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        lab.restrict(&B, Direction::Ingress, &[Rule::identity(A.identity, deny(77, 5))]);
        lab.send(At::From(A), &A.tcp(&B, family, PORTS, SYN))
            .drops(DropReason::DenyRule, Some(Direction::Ingress))
            .with(|event| assert_eq!(event.cookie, [0, 77]));
        // B is not isolated: nobody else is concerned.
        lab.send(At::From(C), &C.tcp(&B, family, PORTS, SYN)).reaches(&B).opens();
        lab.restrict(&A, Direction::Egress, &[Rule::identity(B.identity, deny(78, 5))]);
        lab.send(At::From(A), &A.tcp(&B, family, PORTS, SYN))
            .drops(DropReason::DenyRule, Some(Direction::Egress))
            .with(|event| assert_eq!(event.cookie, [78, 0]));
    }
}

#[test]
fn ports_are_found_by_their_longest_prefix() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        // 8080 to 8087, 443, and 0x8000 to 0xffff but for 0xc000.
        let rule = Rule::identity(A.identity, NO_RULE)
            .port(TCP, 8080, 13, allow(1, 1))
            .port(TCP, 443, 16, allow(2, 1))
            .port(TCP, 0x8000, 1, allow(3, 1))
            .port(TCP, 0xc000, 16, NO_RULE);
        lab.isolate(&B, Direction::Ingress, &[rule]);
        for (port, admitted) in [
            (8079, false),
            (8080, true),
            (8083, true),
            (8087, true),
            (8088, false),
            (442, false),
            (443, true),
            (444, false),
            (0x7fff, false),
            (0x8000, true),
            (0xbfff, true),
            (0xc000, false),
            (0xc001, true),
            (0xffff, true),
            (0, false),
        ] {
            assert_eq!(admits(&mut lab, family, port), admitted, "port {port}");
        }
        // Another protocol has other ports.
        lab.send(At::From(A), &A.udp(&B, family, [40_000, 443]))
            .drops(DropReason::DefaultDeny, Some(Direction::Ingress));
    }
}

#[test]
fn a_whole_protocol_and_all_the_rest() {
    for family in FAMILIES {
        let icmp = if family == Family::V4 { ICMP } else { ICMPV6 };
        let mut lab = Lab::new();
        let rule = Rule::identity(A.identity, deny(9, 1))
            .port(UDP, 0, 0, allow(1, 1))
            .port(icmp, 0, 0, allow(2, 1))
            .port(SCTP, 0, 0, allow(3, 1));
        lab.isolate(&B, Direction::Ingress, &[rule]);
        for (packet, cookie) in [
            (A.udp(&B, family, [1, 65_535]), 1),
            (A.ping(&B, family, 7), 2),
            (A.sctp(&B, family, [1, 2], SCTP_INIT), 3),
        ] {
            lab.send(At::From(A), &packet).reaches(&B).opens().with(|event| assert_eq!(event.cookie[1], cookie));
        }
        lab.send(At::From(A), &A.tcp(&B, family, PORTS, SYN))
            .drops(DropReason::DenyRule, Some(Direction::Ingress))
            .with(|event| assert_eq!(event.cookie[1], 9));
    }
}

#[test]
fn the_most_specific_peer_is_the_whole_answer() {
    let deny_one = Rule::identity(A.identity, deny(1, 1));
    let cluster = Rule::identity(CLASS_CLUSTER, allow(2, 9));
    let any = Rule::identity(CLASS_ANY, allow(3, 99));
    let cases: [(Vec<Rule>, Result<u32, DropReason>); 6] = [
        (vec![deny_one.clone(), cluster.clone(), any.clone()], Err(DropReason::DenyRule)),
        (vec![cluster.clone(), any.clone()], Ok(2)),
        (vec![any.clone()], Ok(3)),
        (vec![deny_one.clone(), any.clone()], Err(DropReason::DenyRule)),
        (
            vec![Rule::identity(CLASS_WORLD, allow(4, 1)), Rule::identity(CLASS_NODE, allow(5, 1))],
            Err(DropReason::DefaultDeny),
        ),
        // An entry for the identity that says nothing of this port still is the whole answer.
        (vec![Rule::identity(A.identity, NO_RULE).port(TCP, 81, 16, allow(6, 1)), any], Err(DropReason::DefaultDeny)),
    ];
    for (rules, wanted) in cases {
        for family in FAMILIES {
            let mut lab = Lab::new();
            lab.isolate(&B, Direction::Ingress, &rules);
            let seen = lab.send(At::From(A), &A.tcp(&B, family, PORTS, SYN));
            match wanted {
                Ok(cookie) => seen.reaches(&B).opens().with(|event| assert_eq!(event.cookie[1], cookie)),
                Err(reason) => seen.drops(reason, Some(Direction::Ingress)),
            };
        }
    }
}

#[test]
fn each_class_holds_its_members() {
    let other_node = Host { identity: identity::REMOTE_NODE, ..REMOTE };
    let api_server = Host { identity: identity::KUBE_APISERVER, ..REMOTE };
    let unmanaged = Host { identity: identity::UNMANAGED, ..REMOTE };
    let unknown = Host { identity: identity::UNKNOWN, ..REMOTE };
    let members = [
        (REMOTE, CLASS_CLUSTER),
        (WORLD, CLASS_WORLD),
        (other_node, CLASS_NODE),
        (api_server, CLASS_NODE),
        (unmanaged, CLASS_ANY),
        (unknown, CLASS_ANY),
    ];
    for family in FAMILIES {
        for (host, class) in members {
            for other in [CLASS_CLUSTER, CLASS_WORLD, CLASS_NODE, CLASS_ANY] {
                let mut lab = Lab::new();
                if host.v4 != WORLD.v4 {
                    lab.address(&host, family, host.identity, 0);
                }
                lab.isolate(&B, Direction::Ingress, &[Rule::identity(other, allow(1, 1))]);
                let seen = lab.send(At::To(B, host), &host.tcp(&B, family, PORTS, SYN));
                if other == class || other == CLASS_ANY {
                    seen.passes().opens();
                } else {
                    seen.drops(DropReason::DefaultDeny, Some(Direction::Ingress));
                }
            }
        }
    }
}

#[test]
fn of_peer_and_region_the_higher_precedence_counts() {
    for family in FAMILIES {
        let here = if family == Family::V4 { "10.244.0.0/16" } else { "fd00:244::/32" };
        let cases = [
            (deny(1, 1), allow(2, 2), Ok(2)),
            (allow(1, 2), deny(2, 1), Ok(1)),
            (allow(1, 1), deny(2, 2), Err(DropReason::DenyRule)),
            // Of equals the one by identity.
            (allow(1, 3), deny(2, 3), Ok(1)),
            (NO_RULE, allow(2, 1), Ok(2)),
            (allow(1, 1), NO_RULE, Ok(1)),
            (NO_RULE, NO_RULE, Err(DropReason::DefaultDeny)),
        ];
        for (by_identity, by_region, wanted) in cases {
            let mut lab = Lab::new();
            let rules = [Rule::identity(A.identity, by_identity), Rule::region(here, by_region)];
            lab.isolate(&B, Direction::Ingress, &rules);
            let seen = lab.send(At::From(A), &A.tcp(&B, family, PORTS, SYN));
            match wanted {
                Ok(cookie) => seen.reaches(&B).opens().with(|event| assert_eq!(event.cookie[1], cookie)),
                Err(reason) => seen.drops(reason, Some(Direction::Ingress)),
            };
        }
    }
}

#[test]
fn the_longest_region_is_the_whole_answer() {
    for family in FAMILIES {
        let (all, except, inner) = match family {
            Family::V4 => ("0.0.0.0/0", "10.244.0.0/24", "10.244.0.12/32"),
            Family::V6 => ("::/0", "fd00:244::/64", "fd00:244::c/128"),
        };
        let mut lab = Lab::new();
        let rules = [
            Rule::region(all, NO_RULE).port(TCP, 80, 16, allow(1, 1)),
            Rule::region(except, NO_RULE),
            Rule::region(inner, allow(3, 1)),
        ];
        lab.isolate(&A, Direction::Egress, &rules);
        lab.send(At::From(A), &A.tcp(&WORLD, family, PORTS, SYN)).passes().opens();
        lab.send(At::From(A), &A.tcp(&WORLD, family, [1, 81], SYN))
            .drops(DropReason::DefaultDeny, Some(Direction::Egress));
        lab.send(At::From(A), &A.tcp(&C, family, PORTS, SYN)).drops(DropReason::DefaultDeny, Some(Direction::Egress));
        lab.send(At::From(A), &A.tcp(&B, family, [1, 81], SYN)).reaches(&B).opens().with(|event| {
            assert_eq!(event.cookie, [3, 0]);
        });
        // The regions of one rule set are none of another's, and families don't mix: ::/0 holds
        // the mapped IPv4 addresses as well, which a compiler must not write.
        lab.isolate(&B, Direction::Egress, &[]);
        lab.send(At::From(B), &B.tcp(&WORLD, family, PORTS, SYN))
            .drops(DropReason::DefaultDeny, Some(Direction::Egress));
    }
}

#[test]
fn an_address_in_no_table_may_have_an_identity_by_its_prefix() {
    for family in FAMILIES {
        let (prefix, inner) = match family {
            Family::V4 => ("203.0.113.0/24", "203.0.113.7/32"),
            Family::V6 => ("2001:db8::/32", "2001:db8::7/128"),
        };
        let mut lab = Lab::new();
        lab.isolate(&B, Direction::Ingress, &[Rule::identity(identity::KUBE_APISERVER, allow(1, 1))]);
        let packet = WORLD.tcp(&B, family, PORTS, SYN);
        lab.send(At::To(B, WORLD), &packet).drops(DropReason::DefaultDeny, Some(Direction::Ingress));
        lab.cidr(prefix, identity::KUBE_APISERVER);
        lab.send(At::To(B, WORLD), &packet).passes().opens().with(|event| {
            assert_eq!(event.identity[0], identity::KUBE_APISERVER);
        });
        lab.cidr(inner, identity::REMOTE_NODE);
        lab.send(At::To(B, WORLD), &WORLD.tcp(&B, family, [40_001, 80], SYN))
            .drops(DropReason::DefaultDeny, Some(Direction::Ingress))
            .with(|event| assert_eq!(event.identity[0], identity::REMOTE_NODE));
    }
}

#[test]
fn an_entry_that_is_added_to_a_rule_set_counts_at_once() {
    let mut lab = Lab::new();
    lab.isolate(&B, Direction::Ingress, &[Rule::identity(C.identity, allow(1, 1))]);
    let packet = A.tcp(&B, Family::V4, PORTS, SYN);
    lab.send(At::From(A), &packet).drops(DropReason::DefaultDeny, Some(Direction::Ingress));
    lab.widen(&B, Direction::Ingress, &Rule::identity(A.identity, allow(2, 1)));
    lab.send(At::From(A), &packet).reaches(&B).opens();
}

/// Traffic of the own node always enters; only a process of the node counts as that.
#[test]
fn the_nodes_address_on_a_packet_from_outside_is_no_privilege() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        lab.isolate(&B, Direction::Ingress, &[]);
        let packet = NODE.tcp(&B, family, PORTS, SYN);
        for via in [WORLD, A] {
            lab.send(At::To(B, via), &packet)
                .drops(DropReason::DefaultDeny, Some(Direction::Ingress))
                .with(|event| assert_eq!(event.identity[0], identity::WORLD));
        }
        lab.send(At::To(B, NODE), &packet).passes().opens();
        // Nor on a packet that looks like one of the node's connection, in any of its states.
        for step in 0..3 {
            lab.send(At::To(B, WORLD), &NODE.tcp(&B, family, PORTS, ACK))
                .drops(DropReason::DefaultDeny, Some(Direction::Ingress));
            match step {
                0 => lab.send(At::From(B), &B.tcp(&NODE, family, [80, 40_000], SYN | ACK)).passes(),
                1 => lab.send(At::To(B, NODE), &NODE.tcp(&B, family, PORTS, ACK)).passes(),
                _ => lab.send(At::To(B, NODE), &NODE.tcp(&B, family, PORTS, ACK)).passes(),
            };
        }
        let (_, entry) = lab.connection(maps::CONNTRACK);
        assert_eq!((entry.state, entry.packets()), (CtState::Established as u8, [3, 1]));
    }
}

/// A node port: the node's stack sends the packet on to somewhere, and its answer back.
#[test]
fn what_a_pod_asks_its_node_may_be_answered_from_behind_it() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        lab.isolate(&A, Direction::Ingress, &[]);
        lab.send(At::From(A), &A.tcp(&NODE, family, PORTS, SYN)).passes().opens();
        for _ in 0..3 {
            lab.send(At::To(A, WORLD), &NODE.tcp(&A, family, [80, 40_000], SYN | ACK)).passes();
            lab.send(At::From(A), &A.tcp(&NODE, family, PORTS, ACK)).passes();
        }
        assert_eq!(lab.sizes(), (1, 0));
    }
}

#[test]
fn what_a_pod_sends_to_its_node_follows_policy() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        lab.isolate(&A, Direction::Egress, &[Rule::identity(CLASS_NODE, allow(4, 1))]);
        lab.send(At::From(A), &A.tcp(&NODE, family, PORTS, SYN)).passes().opens().with(|event| {
            assert_eq!(event.cookie, [4, 0]);
        });
        lab.isolate(&A, Direction::Egress, &[]);
        lab.send(At::From(A), &A.tcp(&NODE, family, [40_001, 80], SYN))
            .drops(DropReason::DefaultDeny, Some(Direction::Egress));
    }
}

/// Fails closed: a pointer to a rule set whose entries are not there admits nothing.
#[test]
fn a_rule_set_without_entries_denies() {
    let mut lab = Lab::new();
    let flags = RulesPtr::ISOLATED | RulesPtr::HAS_PEERS | RulesPtr::HAS_CLASSES | RulesPtr::HAS_REGIONS;
    lab.point(&B, Direction::Ingress, flags, 4711);
    lab.send(At::From(A), &A.tcp(&B, Family::V4, PORTS, SYN)).drops(DropReason::DefaultDeny, Some(Direction::Ingress));
}
