//! Rule sets of two tiers: what a rule passes on is decided by the second rule set, whichever of
//! identity, address and port has found it.

use datapath_abi::{
    endpoint::RulesPtr,
    identity::{CLASS_ANY, CLASS_CLUSTER},
    policy::Direction,
    reason::DropReason,
};
use tests::{
    host::{A, B, C, FAMILIES, Family, Host, REMOTE, WORLD},
    lab::{At, Lab},
    packet::{ACK, SYN, TCP},
    rules::{NO_RULE, Rule, allow, deny, pass},
};

/// Allowed, or why not; and by which rule.
type Answer = (Result<(), DropReason>, u32);

/// What B's ingress rules say to a connection of A.
fn answer(lab: &mut Lab, from: &Host, family: Family, port: u16) -> Answer {
    static SOURCE: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(1024);
    let source = SOURCE.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let at = if from.is_local() { At::From(*from) } else { At::To(B, *from) };
    let mut cookie = 0;
    let seen = lab.send(at, &from.tcp(&B, family, [source, port], SYN));
    if seen.returned() != tests::seen::SHOT {
        let seen = if from.is_local() { seen.reaches(&B) } else { seen.passes() };
        seen.opens().with(|event| cookie = event.cookie[1]);
        return (Ok(()), cookie);
    }
    let event = *seen.events().next().expect("a drop has its event");
    let reason = DropReason::try_from(event.reason).expect("a drop has a reason");
    seen.drops(reason, Some(Direction::Ingress));
    (Err(reason), event.cookie[1])
}

const ISOLATED: u8 = RulesPtr::ISOLATED;

/// First tier, second tier, flags, what a connection of A to port 80 meets.
type Row = (&'static str, Vec<Rule>, Vec<Rule>, u8, Answer);

fn rows(family: Family) -> Vec<Row> {
    let a = |decision| Rule::identity(A.identity, decision);
    let here = if family == Family::V4 { "10.244.0.0/16" } else { "fd00:244::/32" };
    let exactly = if family == Family::V4 { "10.244.0.11/32" } else { "fd00:244::b/128" };
    let at = |prefix, decision| Rule::region(prefix, decision);
    let port = |decision: _| a(NO_RULE).port(TCP, 80, 16, decision);
    vec![
        ("what passes is allowed by the second", vec![a(pass(1, 9))], vec![a(allow(2, 3))], ISOLATED, (Ok(()), 2)),
        ("what passes is denied by the second", vec![a(pass(1, 9))], vec![a(deny(2, 3))], 0, deny_rule(2)),
        (
            "the second isolates",
            vec![a(pass(1, 9))],
            vec![Rule::identity(C.identity, allow(2, 3))],
            ISOLATED,
            default_deny(),
        ),
        ("the second is empty", vec![a(pass(1, 9))], vec![], ISOLATED, default_deny()),
        ("the second is empty, and nothing isolates", vec![a(pass(1, 9))], vec![], 0, (Ok(()), 0)),
        ("nothing passes in the second", vec![a(pass(1, 9))], vec![a(pass(2, 3))], ISOLATED, default_deny()),
        ("nor where nothing isolates", vec![a(pass(1, 9))], vec![a(pass(2, 3))], 0, (Ok(()), 0)),
        ("the second is not asked unasked", vec![a(allow(1, 9))], vec![a(deny(2, 3))], ISOLATED, (Ok(()), 1)),
        ("nor after a denial", vec![a(deny(1, 9))], vec![a(allow(2, 3))], 0, deny_rule(1)),
        (
            "nor after no answer",
            vec![],
            vec![a(allow(2, 3)), Rule::identity(CLASS_ANY, allow(3, 3))],
            ISOLATED,
            default_deny(),
        ),
        // By identity and by address.
        (
            "a pass above a denial by address of the same tier",
            vec![a(pass(1, 9)), at(here, deny(2, 8))],
            vec![a(allow(3, 3))],
            0,
            (Ok(()), 3),
        ),
        ("a pass below it", vec![a(pass(1, 8)), at(here, deny(2, 9))], vec![a(allow(3, 3))], 0, deny_rule(2)),
        (
            "a pass by address above a denial by identity",
            vec![a(deny(1, 8)), at(here, pass(2, 9))],
            vec![a(allow(3, 3))],
            ISOLATED,
            (Ok(()), 3),
        ),
        (
            "a denial by address that comes after the tier",
            vec![a(pass(1, 9)), at(here, deny(2, 4))],
            vec![a(allow(3, 3)), at(here, deny(2, 4))],
            0,
            deny_rule(2),
        ),
        ("the second by address alone", vec![a(pass(1, 9))], vec![at(exactly, allow(2, 3))], ISOLATED, (Ok(()), 2)),
        (
            "a longer prefix that does not pass",
            vec![at(here, pass(1, 9)), at(exactly, deny(2, 9))],
            vec![a(allow(3, 3))],
            0,
            deny_rule(2),
        ),
        // By class.
        (
            "a class passes, and the second knows the identity",
            vec![Rule::identity(CLASS_CLUSTER, pass(1, 9))],
            vec![a(allow(2, 3))],
            ISOLATED,
            (Ok(()), 2),
        ),
        (
            "an identity passes, and the second knows the class",
            vec![a(pass(1, 9))],
            vec![Rule::identity(CLASS_ANY, allow(2, 3))],
            ISOLATED,
            (Ok(()), 2),
        ),
        // By port.
        (
            "a port passes",
            vec![port(pass(1, 9)).port(TCP, 0, 0, deny(4, 9))],
            vec![port(allow(2, 3))],
            ISOLATED,
            (Ok(()), 2),
        ),
        ("a protocol passes", vec![a(deny(4, 9)).port(TCP, 0, 0, pass(1, 9))], vec![port(deny(2, 3))], 0, deny_rule(2)),
        (
            "another port of it",
            vec![a(pass(1, 9))],
            vec![a(allow(3, 3)).port(TCP, 64, 10, deny(2, 3))],
            0,
            deny_rule(2),
        ),
    ]
}

fn deny_rule(cookie: u32) -> Answer {
    (Err(DropReason::DenyRule), cookie)
}

fn default_deny() -> Answer {
    (Err(DropReason::DefaultDeny), 0)
}

#[test]
fn what_passes_is_for_the_second_rule_set_to_decide() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        for (what, first, after_pass, flags, wanted) in rows(family) {
            lab.tiers(&B, Direction::Ingress, flags, &first, &after_pass);
            assert_eq!(answer(&mut lab, &A, family, 80), wanted, "{what}, {family:?}");
        }
    }
}

#[test]
fn each_peer_and_port_goes_its_own_way() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        let first = [
            Rule::identity(A.identity, NO_RULE).port(TCP, 80, 16, pass(1, 9)).port(TCP, 81, 16, allow(2, 9)),
            Rule::identity(CLASS_ANY, pass(3, 9)),
        ];
        let after_pass = [
            Rule::identity(A.identity, allow(4, 3)),
            Rule::identity(REMOTE.identity, allow(5, 3)),
            Rule::identity(CLASS_ANY, deny(6, 3)),
        ];
        lab.tiers(&B, Direction::Ingress, ISOLATED, &first, &after_pass);
        assert_eq!(answer(&mut lab, &A, family, 80), (Ok(()), 4));
        assert_eq!(answer(&mut lab, &A, family, 81), (Ok(()), 2));
        assert_eq!(
            answer(&mut lab, &A, family, 82),
            default_deny(),
            "no rule of the first tier, so none of the second"
        );
        assert_eq!(answer(&mut lab, &REMOTE, family, 82), (Ok(()), 5));
        assert_eq!(answer(&mut lab, &WORLD, family, 82), deny_rule(6));
        assert_eq!(answer(&mut lab, &C, family, 82), deny_rule(6));
    }
}

#[test]
fn both_ends_may_have_tiers() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        let to_b = [Rule::identity(B.identity, pass(1, 9))];
        lab.tiers(&A, Direction::Egress, ISOLATED, &to_b, &[Rule::identity(B.identity, allow(2, 3))]);
        let from_a = [Rule::identity(A.identity, pass(3, 9))];
        lab.tiers(&B, Direction::Ingress, ISOLATED, &from_a, &[Rule::identity(A.identity, allow(4, 3))]);
        lab.send(At::From(A), &A.tcp(&B, family, [1, 80], SYN)).reaches(&B).opens().with(|event| {
            assert_eq!(event.cookie, [2, 4]);
        });
        lab.tiers(&A, Direction::Egress, ISOLATED, &to_b, &[]);
        lab.send(At::From(A), &A.tcp(&B, family, [2, 80], SYN)).drops(DropReason::DefaultDeny, Some(Direction::Egress));
    }
}

/// A second rule set that changes cuts what it no longer allows.
#[test]
fn a_connection_lives_by_the_second_rule_set() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        let from_a = [Rule::identity(A.identity, pass(1, 9))];
        lab.tiers(&B, Direction::Ingress, ISOLATED, &from_a, &[Rule::identity(A.identity, allow(2, 3))]);
        lab.send(At::From(A), &A.tcp(&B, family, [1, 80], SYN)).reaches(&B).opens();
        lab.send(At::From(B), &B.tcp(&A, family, [80, 1], SYN | ACK)).reaches(&A);
        lab.send(At::From(A), &A.tcp(&B, family, [1, 80], ACK)).reaches(&B);
        lab.tiers(&B, Direction::Ingress, ISOLATED, &from_a, &[]);
        lab.send(At::From(A), &A.tcp(&B, family, [1, 80], ACK)).whatever();
        lab.send(At::From(B), &B.tcp(&A, family, [80, 1], ACK))
            .drops(DropReason::PolicyChange, Some(Direction::Ingress));
    }
}
