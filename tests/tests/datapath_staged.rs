//! Staged policies: an event tells what each direction would say with them, and nothing else is
//! another than without them.

use datapath_abi::{
    control::Sweep,
    endpoint::RulesPtr,
    event::{EndReason, FlowEvent, STAGED_ALLOWS, STAGED_NOT_ASKED},
    identity::CLASS_ANY,
    maps,
    policy::Direction::{Egress, Ingress},
    reason::DropReason,
};
use tests::{
    host::{A, B, C, EVERYBODY, FAMILIES, Family, Host, NODE, REMOTE, WORLD},
    lab::{At, Lab},
    packet::{ACK, Packet, SYN, TCP, UDP},
    rules::{NO_RULE, Rule, allow, deny, pass},
    seen::Seen,
};

const PORTS: [u16; 2] = [40_000, 80];
const ISOLATED: u8 = RulesPtr::ISOLATED;
const NOT_ASKED: (u8, u32) = (STAGED_NOT_ASKED, 0);
const DEFAULT_DENY: (u8, u32) = (DropReason::DefaultDeny as u8, 0);

fn allows(cookie: u32) -> (u8, u32) {
    (STAGED_ALLOWS, cookie)
}

fn denies(cookie: u32) -> (u8, u32) {
    (DropReason::DenyRule as u8, cookie)
}

/// What the event says of both directions: a verdict and its rule.
fn staged(event: &FlowEvent) -> [(u8, u32); 2] {
    [0, 1].map(|side| (event.staged[side], event.staged_cookie[side]))
}

trait WouldSay {
    fn would_say(self, wanted: [(u8, u32); 2]) -> Self;
}

impl WouldSay for Seen {
    #[track_caller]
    fn would_say(self, wanted: [(u8, u32); 2]) -> Self {
        self.with(|event| assert_eq!(staged(event), wanted, "{event:?}"))
    }
}

fn from_a(decision: datapath_abi::policy::Decision) -> Vec<Rule> {
    vec![Rule::identity(A.identity, decision)]
}

#[test]
fn what_would_hold_is_told_and_does_not_hold() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        let syn = |source| A.tcp(&B, family, [source, 80], SYN);
        // STAGED says something, the pointer does not lead there.
        lab.stage(&B, Ingress, ISOLATED, &[]);
        lab.open(&B, Ingress);
        lab.send(At::From(A), &syn(1)).reaches(&B).opens().would_say([NOT_ASKED; 2]);
        for (port, (flags, rules, wanted)) in (2u16..).zip([
            (ISOLATED, vec![], DEFAULT_DENY),
            (ISOLATED, from_a(allow(7, 1)), allows(7)),
            (ISOLATED, from_a(deny(8, 1)), denies(8)),
            (0, from_a(deny(9, 1)), denies(9)),
            (0, vec![Rule::identity(C.identity, deny(9, 1))], allows(0)),
            (0, vec![], allows(0)),
            (ISOLATED, vec![Rule::identity(A.identity, NO_RULE).port(TCP, 80, 16, allow(3, 1))], allows(3)),
            (ISOLATED, vec![Rule::identity(A.identity, NO_RULE).port(UDP, 80, 16, allow(3, 1))], DEFAULT_DENY),
            (ISOLATED, vec![Rule::identity(A.identity, NO_RULE).port(TCP, 81, 16, allow(3, 1))], DEFAULT_DENY),
            (ISOLATED, vec![Rule::region(net(family), allow(4, 1))], allows(4)),
        ]) {
            lab.stage(&B, Ingress, flags, &rules);
            lab.send(At::From(A), &syn(port)).reaches(&B).opens().would_say([NOT_ASKED, wanted]);
            // As the stack delivers it.
            lab.send(At::To(B, A), &syn(1000 + port)).passes().opens().would_say([NOT_ASKED, wanted]);
        }
        lab.stage_tiers(&B, Ingress, ISOLATED, &from_a(pass(1, 9)), &from_a(allow(2, 3)));
        lab.send(At::From(A), &syn(100)).reaches(&B).opens().would_say([NOT_ASKED, allows(2)]);
    }
}

/// The pods' own net.
fn net(family: Family) -> &'static str {
    if family == Family::V4 { "10.244.0.0/24" } else { "fd00:244::/64" }
}

#[test]
fn each_direction_speaks_for_itself() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        let egress = [Rule::identity(B.identity, allow(5, 1)), Rule::region(far(family), allow(6, 1))];
        lab.stage(&A, Egress, ISOLATED, &egress);
        lab.stage(&B, Ingress, ISOLATED, &from_a(deny(7, 1)));
        let both = [allows(5), denies(7)];
        lab.send(At::From(A), &A.tcp(&B, family, PORTS, SYN)).reaches(&B).opens().would_say(both);
        // Of two pods, each is asked for its own.
        lab.send(At::From(C), &C.tcp(&B, family, PORTS, SYN)).reaches(&B).opens().would_say([NOT_ASKED, DEFAULT_DENY]);
        lab.send(At::From(A), &A.tcp(&C, family, PORTS, SYN)).reaches(&C).opens().would_say([DEFAULT_DENY, NOT_ASKED]);
        lab.send(At::From(B), &B.tcp(&A, family, PORTS, SYN)).reaches(&A).opens().would_say([NOT_ASKED; 2]);
        // The other end is not on this node.
        lab.send(At::From(A), &A.tcp(&WORLD, family, PORTS, SYN)).passes().opens().would_say([allows(6), NOT_ASKED]);
        lab.send(At::To(B, REMOTE), &REMOTE.tcp(&B, family, PORTS, SYN))
            .passes()
            .opens()
            .would_say([NOT_ASKED, DEFAULT_DENY]);
        // What is in force denies, and each direction still says the same.
        lab.isolate(&A, Egress, &[]);
        lab.stage(&A, Egress, ISOLATED, &egress);
        lab.send(At::From(A), &A.tcp(&B, family, [1, 80], SYN))
            .drops(DropReason::DefaultDeny, Some(Egress))
            .would_say(both);
        lab.open(&A, Egress);
        lab.stage(&A, Egress, ISOLATED, &egress);
        lab.restrict(&B, Ingress, &from_a(deny(1, 1)));
        lab.stage(&B, Ingress, ISOLATED, &from_a(allow(8, 1)));
        lab.send(At::From(A), &A.tcp(&B, family, [2, 80], SYN))
            .drops(DropReason::DenyRule, Some(Ingress))
            .would_say([allows(5), allows(8)]);
    }
}

/// Around [`WORLD`].
fn far(family: Family) -> &'static str {
    if family == Family::V4 { "203.0.113.0/24" } else { "2001:db8::/64" }
}

#[test]
fn the_node_itself_is_under_no_staged_rules() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        lab.stage(&B, Ingress, ISOLATED, &[]);
        lab.send(At::To(B, NODE), &NODE.tcp(&B, family, PORTS, SYN)).passes().opens().would_say([NOT_ASKED; 2]);
    }
}

#[test]
fn a_connection_that_is_cut_tells_it_of_its_own_directions() {
    for family in FAMILIES {
        // Whichever is the smaller address, and whoever sends the packet that is dropped.
        for (a, b) in [(A, B), (B, A)] {
            let mut lab = Lab::new();
            lab.send(At::From(a), &a.tcp(&b, family, PORTS, SYN)).reaches(&b).opens();
            lab.send(At::From(b), &b.tcp(&a, family, [80, 40_000], SYN | ACK)).reaches(&a);
            lab.send(At::From(a), &a.tcp(&b, family, PORTS, ACK)).reaches(&b);
            lab.isolate(&b, Ingress, &[]);
            let to_b = Rule::identity(b.identity, NO_RULE).port(TCP, 80, 16, allow(3, 1));
            lab.stage(&a, Egress, ISOLATED, &[to_b]);
            lab.stage(&b, Ingress, ISOLATED, &[Rule::identity(a.identity, NO_RULE).port(TCP, 80, 16, deny(4, 1))]);
            // Nobody asks these.
            lab.stage(&a, Ingress, ISOLATED, &[]);
            lab.stage(&b, Egress, ISOLATED, &[]);
            lab.send(At::From(a), &a.tcp(&b, family, PORTS, ACK)).whatever();
            for (from, to, port) in [(a, b, PORTS), (b, a, [80, 40_000])] {
                lab.send(At::From(from), &from.tcp(&to, family, port, ACK))
                    .drops(DropReason::PolicyChange, Some(Ingress))
                    .would_say([allows(3), denies(4)])
                    .with(|event| assert_eq!(event.reply, u8::from(from == b)));
            }
        }
    }
}

/// An unknown connection's packet that is refused as an answer tells of that reading.
#[test]
fn midstream() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        lab.isolate(&B, Ingress, &[]);
        lab.stage(&B, Ingress, ISOLATED, &[Rule::identity(A.identity, NO_RULE).port(TCP, 80, 16, allow(3, 1))]);
        lab.stage(&B, Egress, ISOLATED, &[]);
        lab.send(At::From(B), &B.tcp(&A, family, [80, 40_000], ACK))
            .drops(DropReason::Midstream, None)
            .would_say([NOT_ASKED, allows(3)]);
    }
}

/// What no rule can be asked about would be dropped for that reason.
#[test]
fn what_rules_cannot_be_asked_about() {
    let fragment = |to: &Host| A.tcp(to, Family::V4, PORTS, SYN).fragment(8, false);
    let mut lab = Lab::new();
    lab.isolate(&A, Egress, &[]);
    lab.stage(&A, Egress, ISOLATED, &[Rule::identity(CLASS_ANY, allow(3, 1))]);
    let said = (DropReason::Fragment as u8, 0);
    lab.send(At::From(A), &fragment(&B)).drops(DropReason::Fragment, None).would_say([said, NOT_ASKED]);
    lab.stage(&A, Egress, 0, &[]);
    lab.send(At::From(A), &fragment(&B)).drops(DropReason::Fragment, None).would_say([allows(0), NOT_ASKED]);
    // A forged source has nothing to do with rules.
    lab.send(At::From(A), &A.tcp(&B, Family::V4, PORTS, SYN).from_addr(WORLD.v4.into()))
        .drops(DropReason::InvalidSourceIp, None)
        .would_say([NOT_ASKED; 2]);
}

/// Ends and long lives are about what was in force.
#[test]
fn a_connection_is_reported_without() {
    let mut lab = Lab::new();
    lab.stage(&B, Ingress, ISOLATED, &[]);
    lab.send(At::From(A), &A.udp(&B, Family::V4, PORTS)).reaches(&B).opens().would_say([NOT_ASKED, DEFAULT_DENY]);
    let (report, seen) = lab.sweep(Sweep { active_interval_ns: 0, hz: 1_000_000, share: 0 });
    assert_eq!(report.reported, 1);
    seen.lives().would_say([NOT_ASKED; 2]);
    lab.remove(&B);
    let (report, seen) = lab.sweep(Sweep { active_interval_ns: u64::MAX, hz: 1_000_000, share: 0 });
    assert_eq!(report.removed, 1);
    seen.closes(EndReason::EndpointGone).would_say([NOT_ASKED; 2]);
}

/// Packets of every kind, in an order in which some belong to the connections of others.
fn all_sorts(family: Family) -> Vec<(At, Packet)> {
    let mut sent = Vec::new();
    for from in EVERYBODY {
        for to in EVERYBODY {
            let at = match (from.is_local(), to.is_local()) {
                _ if from == to => continue,
                (true, _) => At::From(from),
                (false, true) => At::To(to, from),
                (false, false) => continue,
            };
            let back = match (to.is_local(), from.is_local()) {
                (true, _) => At::From(to),
                (false, _) => At::To(from, to),
            };
            let reply = [PORTS[1], PORTS[0]];
            sent.extend([
                (at, from.tcp(&to, family, PORTS, SYN)),
                (back, to.tcp(&from, family, reply, SYN | ACK)),
                (at, from.tcp(&to, family, PORTS, ACK)),
                (at, from.tcp(&to, family, [1, 2], ACK)),
                (at, from.udp(&to, family, PORTS)),
                (back, to.udp(&from, family, reply)),
                (at, from.ping(&to, family, 7)),
                (back, to.pong(&from, family, 7)),
                (at, from.udp(&to, family, PORTS).fragment(0, true)),
                (at, from.udp(&to, family, PORTS).fragment(8, false)),
                (at, from.icmp(&to, family, if family == Family::V4 { 3 } else { 1 }, 1)),
                (at, from.icmp(&to, family, if family == Family::V4 { 11 } else { 137 }, 0)),
            ]);
            if family == Family::V6 {
                sent.push((at, from.udp(&to, family, PORTS).extension(139, &[0; 7])));
            }
        }
        let group = Host { v4: "224.0.0.1".parse().unwrap(), v6: "ff02::1".parse().unwrap(), ..WORLD };
        if from.is_local() {
            sent.push((At::From(from), from.udp(&group, family, PORTS)));
        }
    }
    sent
}

/// Everything that can be seen of a packet's fate but what is staged, and times.
fn fate(lab: &mut Lab, at: At, packet: &Packet) -> String {
    let seen = lab.send(at, packet);
    let events: Vec<FlowEvent> = seen
        .events()
        .map(|event| FlowEvent {
            time_ns: 0,
            created_ns: 0,
            rtt_us: 0,
            rules: event.rules.map(|rules| u64::from(RulesPtr(rules).flags() & !RulesPtr::HAS_STAGED)),
            staged: [0; 2],
            staged_cookie: [0; 2],
            ..*event
        })
        .collect();
    let fate = format!("{} {:?} {:?}", seen.returned(), seen.bytes(), seen.change());
    seen.whatever();
    let fragments = lab
        .programs
        .hash::<datapath_abi::conntrack::FragmentKey, datapath_abi::conntrack::FragmentEntry>(maps::FRAGMENTS)
        .keys()
        .count();
    format!("{fate} {:?} {fragments} {events:?}", lab.sizes())
}

/// Bit for bit.
#[test]
fn what_is_in_force_is_what_it_would_be_without_them() {
    let in_force: [&dyn Fn(&mut Lab); 3] = [
        &|_| {},
        &|lab| {
            lab.isolate(&B, Ingress, &from_a(allow(1, 1)));
            lab.restrict(&A, Egress, &[Rule::identity(C.identity, deny(2, 1))]);
        },
        &|lab| {
            for pod in [A, B, C] {
                lab.tiers(&pod, Egress, ISOLATED, &[Rule::identity(CLASS_ANY, pass(3, 9))], &[]);
            }
        },
    ];
    let would_hold: [&[Rule]; 3] =
        [&[], &[Rule::identity(CLASS_ANY, allow(5, 9))], &[Rule::identity(CLASS_ANY, deny(6, 9))]];
    for family in FAMILIES {
        let sorts = all_sorts(family);
        for enforce in in_force {
            let play = |staged: Option<&[Rule]>| -> Vec<String> {
                let mut lab = Lab::new();
                enforce(&mut lab);
                if let Some(rules) = staged {
                    for pod in [A, B, C] {
                        for direction in [Egress, Ingress] {
                            lab.stage(&pod, direction, ISOLATED, rules);
                        }
                    }
                }
                sorts.iter().map(|(at, packet)| fate(&mut lab, *at, packet)).collect()
            };
            let without = play(None);
            for rules in would_hold {
                for (((at, packet), without), with) in sorts.iter().zip(&without).zip(play(Some(rules))) {
                    assert_eq!(&with, without, "{at:?} {packet:?} with {rules:?} staged");
                }
            }
        }
    }
}

/// The map has a place for every endpoint, whatever their number.
#[test]
fn there_is_a_place_for_every_endpoint() {
    let mut capacities = daemon::datapath::load::Capacities::default();
    capacities.set(maps::ENDPOINTS, 77).expect("a valid capacity");
    let mut lab = Lab::with(&capacities);
    assert_eq!(lab.programs.array::<[u64; 2]>(maps::STAGED).len(), 77);
    let error = capacities.set(maps::STAGED, 5).expect_err("it has no size of its own");
    assert!(error.to_string().contains("ENDPOINTS"), "{error}");
}
