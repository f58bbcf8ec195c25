//! Changes while connections live: rules, identities, pods that go. What is forbidden now stops
//! both ways at once; what stays allowed loses nothing.

use datapath_abi::{
    addr::Addr,
    conntrack::{CtState, FLAG_REVOKED},
    endpoint::{RulesPtr, Swing},
    event::EndReason,
    identity,
    maps::{self, Scalar},
    policy::Direction,
    reason::DropReason,
};
use tests::{
    host::{A, B, C, FAMILIES, Family, Host, NODE, REMOTE, WORLD},
    lab::{At, Lab, SPARE},
    packet::{ACK, SYN},
    rules::{Rule, allow, deny},
};

const PORTS: [u16; 2] = [40_000, 80];
const BACK: [u16; 2] = [80, 40_000];

fn establish(lab: &mut Lab, family: Family, from: &Host, to: &Host) {
    let place = |sender: &Host, receiver: &Host| {
        if sender.is_local() { At::From(*sender) } else { At::To(*receiver, *sender) }
    };
    let goes = |seen: tests::seen::Seen, sender: &Host, receiver: &Host| {
        if sender.is_local() && receiver.is_local() { seen.reaches(receiver) } else { seen.passes() }
    };
    goes(lab.send(place(from, to), &from.tcp(to, family, PORTS, SYN)), from, to).opens();
    goes(lab.send(place(to, from), &to.tcp(from, family, BACK, SYN | ACK)), to, from);
    goes(lab.send(place(from, to), &from.tcp(to, family, PORTS, ACK)), from, to);
    assert_eq!(lab.sizes(), (1, 0));
}

#[test]
fn a_change_of_the_responders_rules_cuts_both_directions() {
    for family in FAMILIES {
        for first in [&A, &B] {
            let mut lab = Lab::new();
            establish(&mut lab, family, &A, &B);
            lab.isolate(&B, Direction::Ingress, &[Rule::identity(C.identity, allow(8, 1))]);
            let rules = [lab.endpoint(&A).rules[0], lab.endpoint(&B).rules[1]];
            let there = A.tcp(&B, family, PORTS, ACK);
            let back = B.tcp(&A, family, BACK, ACK);
            // Whoever speaks first after the change: the connection ends, the packet is dropped.
            let (packet, reply) = if first == &A { (&there, 0) } else { (&back, 1) };
            lab.send(At::From(*first), packet)
                .closes(EndReason::PolicyChange)
                .with(|event| {
                    assert_eq!(event.identity, [A.identity, B.identity], "initiator first");
                    assert_eq!(event.packets, [2, 1]);
                    assert_eq!(event.rules, rules, "the rules that ended it");
                })
                .drops(DropReason::PolicyChange, Some(Direction::Ingress))
                .with(|event| {
                    assert_eq!(event.reply, reply);
                    assert_eq!(event.rules, rules);
                })
                .bumps(Scalar::Redecided);
            // From now on it is remembered: not asked again, no second end.
            for (at, packet, reply) in [(A, &there, 0), (B, &back, 1), (A, &there, 0)] {
                lab.send(At::From(at), packet).drops(DropReason::PolicyChange, Some(Direction::Ingress)).with(
                    |event| {
                        assert_eq!(event.reply, reply);
                        assert_eq!(event.rules, rules);
                    },
                );
            }
            let (_, entry) = lab.connection(maps::CONNTRACK);
            assert_ne!(entry.flags & FLAG_REVOKED, 0);
            assert_eq!(entry.reported, 1);
            assert_eq!(entry.packets(), [2, 1], "what is dropped is not counted");
        }
    }
}

#[test]
fn a_change_of_the_initiators_rules_cuts_both_directions() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        establish(&mut lab, family, &A, &B);
        lab.restrict(&A, Direction::Egress, &[Rule::identity(B.identity, deny(6, 1))]);
        lab.send(At::From(B), &B.tcp(&A, family, BACK, ACK))
            .closes(EndReason::PolicyChange)
            .with(|event| assert_eq!(event.cookie, [6, 0]))
            .drops(DropReason::PolicyChange, Some(Direction::Egress))
            .with(|event| {
                assert_eq!(event.cookie, [6, 0], "the rule that forbids it: the initiator's");
                assert_eq!(event.identity, [B.identity, A.identity], "source first");
            })
            .bumps(Scalar::Redecided);
        lab.send(At::From(A), &A.tcp(&B, family, PORTS, ACK)).drops(DropReason::PolicyChange, Some(Direction::Egress));
    }
}

#[test]
fn a_change_cuts_connections_with_the_outside() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        establish(&mut lab, family, &A, &WORLD);
        lab.isolate(&A, Direction::Egress, &[]);
        lab.send(At::To(A, WORLD), &WORLD.tcp(&A, family, BACK, ACK))
            .closes(EndReason::PolicyChange)
            .drops(DropReason::PolicyChange, Some(Direction::Egress))
            .bumps(Scalar::Redecided);
        lab.send(At::From(A), &A.tcp(&WORLD, family, PORTS, ACK))
            .drops(DropReason::PolicyChange, Some(Direction::Egress));

        let mut lab = Lab::new();
        establish(&mut lab, family, &REMOTE, &B);
        lab.isolate(&B, Direction::Ingress, &[]);
        lab.send(At::From(B), &B.tcp(&REMOTE, family, BACK, ACK))
            .closes(EndReason::PolicyChange)
            .drops(DropReason::PolicyChange, Some(Direction::Ingress))
            .bumps(Scalar::Redecided);
        lab.send(At::To(B, REMOTE), &REMOTE.tcp(&B, family, PORTS, ACK))
            .drops(DropReason::PolicyChange, Some(Direction::Ingress));
    }
}

#[test]
fn a_change_also_cuts_what_has_no_answer_yet() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        lab.send(At::From(A), &A.udp(&B, family, PORTS)).reaches(&B).opens();
        lab.isolate(&B, Direction::Ingress, &[]);
        lab.send(At::From(B), &B.udp(&A, family, BACK))
            .closes(EndReason::PolicyChange)
            .drops(DropReason::PolicyChange, Some(Direction::Ingress))
            .bumps(Scalar::Redecided);
        lab.send(At::From(A), &A.udp(&B, family, PORTS)).drops(DropReason::PolicyChange, Some(Direction::Ingress));
    }
}

/// Allowed before and after: no packet is lost, whoever speaks first, however often it changes.
#[test]
fn what_stays_allowed_goes_on_through_every_change() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        establish(&mut lab, family, &A, &B);
        let there = A.tcp(&B, family, PORTS, ACK);
        let back = B.tcp(&A, family, BACK, ACK);
        for round in 0..20u32 {
            match round % 4 {
                0 => lab.isolate(&B, Direction::Ingress, &[Rule::identity(A.identity, allow(round, 1))]),
                1 => lab.isolate(&A, Direction::Egress, &[Rule::identity(B.identity, allow(round, 1))]),
                2 => lab.open(&B, Direction::Ingress),
                _ => lab.open(&A, Direction::Egress),
            }
            if round % 3 == 0 {
                lab.send(At::From(B), &back).reaches(&A).bumps(Scalar::Redecided);
                lab.send(At::From(A), &there).reaches(&B);
            } else {
                lab.send(At::From(A), &there).reaches(&B).bumps(Scalar::Redecided);
                lab.send(At::From(B), &back).reaches(&A);
            }
        }
        let (_, entry) = lab.connection(maps::CONNTRACK);
        assert_eq!(entry.packets(), [22, 21]);
        assert_eq!((entry.flags, entry.state), (0, CtState::Established as u8));
    }
}

/// Rules of the other directions have no say: A's ingress, B's egress.
#[test]
fn rules_that_do_not_concern_a_connection_do_not_touch_it() {
    let mut lab = Lab::new();
    establish(&mut lab, Family::V4, &A, &B);
    lab.isolate(&A, Direction::Ingress, &[]);
    lab.isolate(&B, Direction::Egress, &[]);
    lab.isolate(&C, Direction::Ingress, &[]);
    lab.send(At::From(A), &A.tcp(&B, Family::V4, PORTS, ACK)).reaches(&B);
    lab.send(At::From(B), &B.tcp(&A, Family::V4, BACK, ACK)).reaches(&A);
}

#[test]
fn what_is_allowed_again_goes_on_where_it_was() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        establish(&mut lab, family, &A, &B);
        let there = A.tcp(&B, family, PORTS, ACK);
        lab.isolate(&B, Direction::Ingress, &[]);
        lab.send(At::From(A), &there)
            .closes(EndReason::PolicyChange)
            .drops(DropReason::PolicyChange, Some(Direction::Ingress))
            .bumps(Scalar::Redecided);
        // Another change that still forbids it: asked again, no second end.
        lab.isolate(&B, Direction::Ingress, &[Rule::identity(C.identity, allow(1, 1))]);
        lab.send(At::From(A), &there)
            .drops(DropReason::PolicyChange, Some(Direction::Ingress))
            .bumps(Scalar::Redecided);
        lab.isolate(&B, Direction::Ingress, &[Rule::identity(A.identity, allow(2, 1))]);
        lab.send(At::From(A), &there).reaches(&B).bumps(Scalar::Redecided);
        lab.send(At::From(B), &B.tcp(&A, family, BACK, ACK)).reaches(&A);
        let (_, entry) = lab.connection(maps::CONNTRACK);
        assert_eq!((entry.flags & FLAG_REVOKED, entry.reported, entry.ends.cookie[1]), (0, 0, 2));
        assert_eq!(entry.packets(), [3, 2]);
    }
}

#[test]
fn a_cut_tcp_connection_may_be_opened_anew_when_rules_allow() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        establish(&mut lab, family, &A, &B);
        lab.isolate(&B, Direction::Ingress, &[]);
        lab.send(At::From(A), &A.tcp(&B, family, PORTS, ACK)).whatever();
        // The rules are the same: the new connection is decided, and refused, as a new one.
        lab.send(At::From(A), &A.tcp(&B, family, PORTS, SYN)).drops(DropReason::DefaultDeny, Some(Direction::Ingress));
        // What is left of the old one is no connection that B opens.
        assert_eq!(lab.sizes(), (1, 0));
        lab.send(At::From(B), &B.tcp(&A, family, BACK, ACK)).drops(DropReason::PolicyChange, Some(Direction::Ingress));
        lab.open(&B, Direction::Ingress);
        lab.send(At::From(A), &A.tcp(&B, family, PORTS, SYN)).reaches(&B).opens();
    }
    // And so may one the other way, which other rules decide.
    let mut lab = Lab::new();
    establish(&mut lab, Family::V4, &A, &B);
    lab.isolate(&B, Direction::Ingress, &[]);
    lab.send(At::From(A), &A.tcp(&B, Family::V4, PORTS, ACK)).whatever();
    lab.send(At::From(B), &B.tcp(&A, Family::V4, BACK, SYN)).reaches(&A).opens();
}

#[test]
fn the_node_is_not_cut_off_by_any_change() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        establish(&mut lab, family, &NODE, &B);
        lab.isolate(&B, Direction::Ingress, &[]);
        lab.isolate(&B, Direction::Egress, &[]);
        lab.send(At::From(B), &B.tcp(&NODE, family, BACK, ACK)).passes().bumps(Scalar::Redecided);
        lab.send(At::To(B, NODE), &NODE.tcp(&B, family, PORTS, ACK)).passes();
        assert_eq!(lab.connection(maps::CONNTRACK).1.ends.identity[0], identity::HOST);
    }
}

/// A label change gives a pod another identity, and every pod whose rules may see the
/// difference another generation.
#[test]
fn a_change_of_identity_counts_for_living_connections() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        lab.isolate(&B, Direction::Ingress, &[Rule::identity(A.identity, allow(1, 1))]);
        establish(&mut lab, family, &A, &B);
        let relabelled = 1999;
        lab.address(&A, family, relabelled, A.slot);
        let rules = lab.endpoint(&A).rules.map(|word| RulesPtr::new(RulesPtr(word).generation() + 100, 0, 0).0);
        assert_eq!(lab.swing(&[Swing { rules, slot: A.slot, identity: relabelled }]), 1);
        lab.send(At::From(A), &A.tcp(&B, family, PORTS, ACK))
            .closes(EndReason::PolicyChange)
            .with(|event| assert_eq!(event.identity[0], relabelled))
            .drops(DropReason::PolicyChange, Some(Direction::Ingress))
            .bumps(Scalar::Redecided);
        lab.send(At::From(A), &A.tcp(&B, family, [40_001, 80], SYN))
            .drops(DropReason::DefaultDeny, Some(Direction::Ingress))
            .with(|event| assert_eq!(event.identity[0], relabelled));
    }
}

/// The peer is another now by address; the pod's own rules got a new generation.
#[test]
fn redeciding_looks_the_peer_up_again() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        let rules = [Rule::identity(REMOTE.identity, allow(1, 1))];
        lab.isolate(&A, Direction::Egress, &rules);
        establish(&mut lab, family, &A, &REMOTE);
        lab.address(&REMOTE, family, 2010, 0);
        lab.isolate(&A, Direction::Egress, &rules);
        lab.send(At::From(A), &A.tcp(&REMOTE, family, PORTS, ACK))
            .closes(EndReason::PolicyChange)
            .drops(DropReason::PolicyChange, Some(Direction::Egress))
            .with(|event| assert_eq!(event.identity[1], 2010))
            .bumps(Scalar::Redecided);
    }
}

#[test]
fn a_connection_dies_with_its_pod() {
    for family in FAMILIES {
        // The responder goes; nobody takes its place.
        let mut lab = Lab::new();
        establish(&mut lab, family, &A, &B);
        lab.remove(&B);
        lab.send(At::From(A), &A.tcp(&B, family, PORTS, ACK))
            .passes()
            .closes(EndReason::EndpointGone)
            .with(|event| assert_eq!(event.packets, [2, 1]))
            .opens()
            .with(|event| assert_eq!(event.identity[1], identity::WORLD));

        // Another pod takes its slot and its address on another interface, and is isolated.
        let mut lab = Lab::new();
        establish(&mut lab, family, &A, &B);
        let heir = Host { name: "HEIR", ifindex: SPARE, identity: 1500, mac: [2, 0, 0, 0, 0, 99], ..B };
        lab.remove(&B);
        lab.add(&heir);
        lab.isolate(&heir, Direction::Ingress, &[]);
        lab.send(At::From(A), &A.tcp(&B, family, PORTS, ACK))
            .closes(EndReason::EndpointGone)
            .drops(DropReason::DefaultDeny, Some(Direction::Ingress))
            .with(|event| assert_eq!(event.identity[1], heir.identity));
        assert_eq!(lab.sizes(), (0, 0));

        // It may answer nobody in the other's name.
        let mut lab = Lab::new();
        establish(&mut lab, family, &A, &B);
        lab.remove(&B);
        lab.add(&heir);
        lab.isolate(&heir, Direction::Egress, &[]);
        lab.send(At::From(heir), &heir.tcp(&A, family, BACK, ACK))
            .closes(EndReason::EndpointGone)
            .drops(DropReason::DefaultDeny, Some(Direction::Egress));
    }
}

#[test]
fn an_heir_of_an_address_in_another_slot_inherits_no_connection() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        establish(&mut lab, family, &A, &B);
        let heir = Host { name: "HEIR", slot: 7, ifindex: SPARE, identity: 1500, mac: [2, 0, 0, 0, 0, 99], ..B };
        lab.remove(&B);
        lab.add(&heir);
        lab.isolate(&heir, Direction::Ingress, &[]);
        lab.send(At::From(A), &A.tcp(&B, family, PORTS, ACK))
            .closes(EndReason::EndpointGone)
            .drops(DropReason::DefaultDeny, Some(Direction::Ingress));
    }
}

#[test]
fn swing_carries_out_as_many_orders_as_it_is_given() {
    let mut lab = Lab::new();
    let word = |generation| RulesPtr::new(generation, RulesPtr::ISOLATED, 5).0;
    let order = |slot, generation| Swing {
        rules: [word(generation), word(generation + 1)],
        slot,
        identity: slot.wrapping_add(1000),
    };
    let most: Vec<Swing> =
        (0..datapath_abi::control::MAX_SWINGS as u32).map(|i| order(1 + i % 3, 1000 + 2 * i)).collect();
    assert_eq!(lab.swing(&most), most.len() as i32);
    // The last order for each.
    for (pod, i) in [(A, 39), (B, 37), (C, 38)] {
        assert_eq!(lab.endpoint(&pod).rules, [word(1000 + 2 * i), word(1001 + 2 * i)]);
    }
    // Nobody's slot and slots that are not there are left alone.
    assert_eq!(lab.swing(&[order(0, 1)]), 0);
    assert_eq!(lab.swing(&[order(16, 1), order(u32::MAX, 1), order(2, 9000)]), 1);
    assert_eq!(lab.endpoint(&B).rules, [word(9000), word(9001)]);
    assert_eq!(lab.endpoint(&Host { slot: 0, ..A }), Default::default());
}

/// The kernel takes the data of a run for a frame: no number may make it look like one that it
/// refuses.
#[test]
fn swing_takes_every_generation_and_identity() {
    let mut lab = Lab::new();
    for number in [0x0008u32, 0xdd86, 0x0608, 0x0081, 0x0800_0800, 0x86dd_86dd, 0x0008_0000, 0xdd86_0000, u32::MAX] {
        let rules = [RulesPtr::new(number, 0, number).0, RulesPtr::new(number, 0, number).0];
        assert_eq!(lab.swing(&[Swing { rules, slot: 1, identity: number }]), 1);
        let endpoint = lab.endpoint(&A);
        assert_eq!((endpoint.rules, endpoint.identity), (rules, number));
        // The rest of it is as it was.
        assert_eq!(
            (endpoint.addr4, endpoint.ifindex, endpoint.mac),
            (Addr::from(A.addr(Family::V4)), A.ifindex, A.mac)
        );
    }
}
