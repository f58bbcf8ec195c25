//! A packet is judged by one complete set of rules, the old or the new, never by some of each: packets at the highest
//! rate that one processor reaches, each of a new flow so that rules are asked about it, while another swings both ends'
//! rules between two kinds that contradict each other in everything. BULKHEAD_SWING_SECONDS says for how long.
//!
//! ```text
//! kind 0   ports below 32768 are allowed, others denied, but for every multiple of 1000, where it is the opposite
//! kind 1   the opposite of all that
//! ```
//!
//! Each kind says that four times, with cookies of its own: for a pod by identity, for another by class, by address
//! (ipBlock), and by class where a block of lower precedence says otherwise. Every set of a kind has entries that no
//! other set shares. The event tells which set was asked: verdict and cookie must be the ones of that set.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use daemon::datapath::load::{self, Capacities, program};
use datapath_abi::{
    control::SWINGS_AT,
    endpoint::{RulesPtr, Swing},
    event::{EventKind, FlowEvent},
    identity::{CLASS_CLUSTER, CLASS_WORLD},
    maps,
    policy::{Decision, Direction},
};
use tests::{
    bpffs::Bpffs,
    effort::times,
    host::{A, B, FAMILIES, Family, Host, REMOTE, ROUTER, WORLD},
    lab::{At, Lab},
    packet::Packet,
    prog::{Context, Programs},
    rules::{Rule, Rulesets, allow, deny},
    seen::SHOT,
    trial::trial,
};
use zerocopy::IntoBytes as _;

/// How many sets of each kind there are in each direction.
const SETS: usize = 8;
/// How long it lasts unless told.
const SECONDS: u32 = 4;
/// UDP.
const UDP: u8 = 17;

/// What a set of a kind says about a port; `base` is the entry's.
fn opinion(kind: usize, base: u32, port: u16) -> Decision {
    let below = port < 0x8000;
    let special = port != 0 && port.is_multiple_of(1000);
    let allowed = (below != special) == (kind == 0);
    let cookie = base + 1000 * kind as u32 + 2 * u32::from(special) + u32::from(below);
    if allowed { allow(cookie, 5) } else { deny(cookie, 5) }
}

/// An entry that says [`opinion`].
fn entry(mut rule: Rule, kind: usize, base: u32) -> Rule {
    for half in [0, 0x8000] {
        rule = rule.port(UDP, half, 1, opinion(kind, base, half + 1));
    }
    (1000..=u16::MAX).step_by(1000).fold(rule, |rule, port| rule.port(UDP, port, 16, opinion(kind, base, port)))
}

/// Bases of cookies: by identity, by class, by address.
const BY_IDENTITY: u32 = 10_000;
const BY_CLUSTER: u32 = 20_000;
const BY_WORLD: u32 = 30_000;
const BY_BLOCK: u32 = 40_000;

/// One set of rules. It says nothing of ports but UDP's.
fn rules(kind: usize, peer: &Host) -> Vec<Rule> {
    let never = deny(1, 1);
    let mut rules = vec![
        entry(Rule::identity(peer.identity, never), kind, BY_IDENTITY),
        entry(Rule::identity(CLASS_CLUSTER, never), kind, BY_CLUSTER),
        entry(Rule::identity(CLASS_WORLD, never), kind, BY_WORLD),
    ];
    for block in ["203.0.113.0/24", "2001:db8::/64"] {
        let mut block = entry(Rule::region(block, never), kind, BY_BLOCK);
        block.ports.iter_mut().for_each(|(.., decision)| decision.precedence = 9);
        rules.push(block);
    }
    for block in ["198.51.100.0/24", "2001:db8:2::/64"] {
        // Loses against the class.
        rules.push(Rule::region(block, deny(2, 2)));
    }
    rules
}

/// The base of the entry that decides about a peer.
fn decides(pod: &Host, peer: &Host) -> u32 {
    match (pod.name, peer.name) {
        ("A", "B") | ("B", "A") => BY_IDENTITY,
        (_, "REMOTE") => BY_CLUSTER,
        (_, "WORLD") => BY_BLOCK,
        _ => BY_WORLD,
    }
}

/// A word without its generation, and the kind it stands for.
type Sets = Vec<(u32, u8, usize)>;

/// Writes the sets of one direction: kinds take turns.
fn write(programs: &mut Programs, numbers: &mut Rulesets, peer: &Host) -> Sets {
    (0..2 * SETS)
        .map(|number| {
            let kind = number % 2;
            let (ruleset, flags) = numbers.write(programs, &rules(kind, peer));
            (ruleset, flags | RulesPtr::ISOLATED, kind)
        })
        .collect()
}

fn kind_of(sets: &Sets, word: u64) -> anyhow::Result<usize> {
    let word = RulesPtr(word);
    let set = sets.iter().find(|(ruleset, flags, _)| (*ruleset, *flags) == (word.ruleset(), word.flags()));
    let (.., kind) = *set.with_context(|| format!("{word:?} is no set there is"))?;
    ensure!(word.generation() as usize % 2 == kind, "{word:?} has the generation of another set");
    Ok(kind)
}

/// Generations of both ends of a swing, whose parity is the kind.
fn swing(round: usize, egress: &Sets, ingress: &Sets) -> Vec<Swing> {
    let word = |sets: &Sets, round: usize| {
        let (ruleset, flags, kind) = sets[round % sets.len()];
        RulesPtr::new(100 + (2 * round + kind) as u32, flags, ruleset).0
    };
    // The receiver's rules are of the other kind, so that all four meet.
    let orders = [(A, [word(egress, round), 0]), (B, [0, word(ingress, round / 2)])];
    orders.map(|(pod, rules)| Swing { rules, slot: pod.slot, identity: pod.identity }).to_vec()
}

/// A packet of a flow that there never was, and where it is met.
fn packet(number: u32) -> (At, Host, Host, Packet) {
    let (from, to) = match number % 5 {
        0 | 1 => (A, B),
        2 => (REMOTE, B),
        3 => (WORLD, B),
        _ => (A, if number.is_multiple_of(2) { WORLD } else { ROUTER }),
    };
    let family: Family = FAMILIES[(number / 5 % 2) as usize];
    // The sender's port comes again when PENDING has long forgotten it; the other is any.
    let mixed = (number.wrapping_mul(0x9e37_79b1) >> 16) as u16;
    let port = if number.is_multiple_of(7) { mixed / 1000 * 1000 } else { mixed };
    let at = if from.is_local() { At::From(from) } else { At::To(to, from) };
    (at, from, to, from.udp(&to, family, [number as u16, port.max(1)]))
}

/// Fails unless verdict, cookies and words are all of whole sets.
fn is_whole(
    event: &FlowEvent,
    verdict: i32,
    [from, to]: [&Host; 2],
    [egress, ingress]: [&Sets; 2],
) -> anyhow::Result<bool> {
    let port = event.port[1];
    let mut passes = true;
    if from.is_local() {
        let wanted = opinion(kind_of(egress, event.rules[0])?, decides(from, to), port);
        ensure!(event.cookie[0] == wanted.cookie, "egress: wanted {wanted:?}");
        passes = wanted.verdict == 1;
        ensure!(passes || event.direction == Direction::Egress as u8, "egress: wanted {wanted:?}");
    }
    if to.is_local() && passes {
        let wanted = opinion(kind_of(ingress, event.rules[1])?, decides(to, from), port);
        ensure!(event.cookie[1] == wanted.cookie, "ingress: wanted {wanted:?}");
        passes = wanted.verdict == 1;
        ensure!(passes || event.direction == Direction::Ingress as u8, "ingress: wanted {wanted:?}");
    }
    let kind = if passes { EventKind::Opened } else { EventKind::Dropped };
    ensure!(event.kind == kind as u8 && (verdict == SHOT) != passes, "verdict {verdict}, wanted {kind:?}");
    Ok(passes)
}

/// Small tables. Sender and swinger have programs of their own on the same pinned maps.
fn capacities() -> anyhow::Result<Capacities> {
    let mut capacities = Capacities::default();
    for (map, entries) in [(maps::CONNTRACK, 1024), (maps::PENDING, 4096), (maps::EVENTS, 1 << 16)] {
        capacities.set(map, entries)?;
    }
    Ok(capacities)
}

#[test]
fn no_packet_is_judged_by_some_of_the_old_and_some_of_the_new_rules() {
    trial(|| {
        let pins = Bpffs::new()?;
        let mut lab = Lab::of(Programs::of(load::load(Some(pins.path()), &capacities()?)?)?);
        let mut numbers = Rulesets::default();
        let egress = write(&mut lab.programs, &mut numbers, &B);
        let ingress = write(&mut lab.programs, &mut numbers, &A);
        ensure!(lab.swing(&swing(0, &egress, &ingress)) == 2);
        let length = Duration::from_secs(times("BULKHEAD_SWING_SECONDS", SECONDS).into());
        let stop = AtomicBool::new(false);
        let (swings, seen) = thread::scope(|scope| {
            let swinger = scope.spawn(|| swing_until(&stop, &pins, &egress, &ingress));
            let seen = send_for(length, &mut lab, [&egress, &ingress]);
            stop.store(true, Ordering::Relaxed);
            (swinger.join().expect("the swinger does not panic"), seen)
        });
        let (swings, seen) = (swings?, seen?);
        println!("{seen:?}, {swings} swings in {length:?}");
        ensure!(swings > 1000 && seen.judged > 1000, "hardly anything was tried: {swings} swings, {seen:?}");
        ensure!(seen.passed > seen.judged / 10 && seen.passed < seen.judged / 10 * 9, "one-sided: {seen:?}");
        ensure!(seen.words > 100, "the sender has hardly seen a swing: {seen:?}");
        Ok(())
    });
}

/// As fast as possible.
fn swing_until(stop: &AtomicBool, pins: &Bpffs, egress: &Sets, ingress: &Sets) -> anyhow::Result<usize> {
    let programs = Programs::of(load::load_some(Some(pins.path()), &capacities()?, &[program::SWING])?)?;
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        let mut data = vec![0; SWINGS_AT];
        data.extend(swing(round, egress, ingress).as_bytes());
        let done = programs.run(program::SWING, &data, Context::default(), 1)?.verdict;
        ensure!(done == 2, "swing carried out {done} orders of two");
    }
    Ok(round)
}

/// What the sender has seen.
#[derive(Debug, Default)]
struct Outcome {
    /// Packets about which rules were asked.
    judged: u64,
    /// Those of them that went on.
    passed: u64,
    /// How often a packet was judged by another word than the one before it.
    words: u64,
}

fn send_for(length: Duration, lab: &mut Lab, sets: [&Sets; 2]) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut last = [0; 2];
    let began = Instant::now();
    for number in 0u32.. {
        if number.is_multiple_of(256) && began.elapsed() > length {
            break;
        }
        let (at, from, to, packet) = packet(number);
        let ran = lab.programs.run(at.program(), &packet.bytes(), at.context(), 1)?;
        let events = lab.programs.events();
        ensure!(events.len() == 1, "packet {number} is not of a new flow: {events:?}");
        let passes = is_whole(&events[0], ran.verdict, [&from, &to], sets)
            .with_context(|| format!("packet {number} {at:?}: {packet:?}\n{:?}", events[0]))?;
        outcome.judged += 1;
        outcome.passed += u64::from(passes);
        outcome.words += u64::from(events[0].rules != last);
        last = events[0].rules;
    }
    Ok(outcome)
}
