//! What the kernel has told of a packet, next to what it should have; and what the maps say when one looks
//! into them by hand, which tells wrong maps from wrong programs.

use std::{fmt, net::IpAddr};

use datapath_abi::{
    addr::Addr,
    endpoint::RulesPtr,
    event::{EventKind, FlowEvent, STAGED_ALLOWS, STAGED_NOT_ASKED},
    identity,
    policy::{Decision, Direction, PeerEntry, PeerKey, PortKey},
    reason::DropReason,
};
use datapath_ebpf::decide;
use policy::{
    compile::RuleRef,
    world::{End, Flow},
};

use crate::{
    node::{Did, Node},
    paper::{Rules, Said},
    scenario::Packet,
    track::Fate,
    truth::Truth,
};

/// What the kernel has told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Told {
    passed: bool,
    /// The connection that has begun: its rules.
    opened: Option<[Option<RuleRef>; 2]>,
    /// Why it was dropped, by whom, and by which rules.
    dropped: Option<(DropReason, Option<Direction>, [Option<RuleRef>; 2])>,
    /// What each end's rules would have said with the staged policies, if those had a say.
    pub(super) staged: [Option<Said>; 2],
}

impl Told {
    /// From the verdict and the events. An error: they contradict each other.
    pub(super) fn of(node: &Node, packet: &Packet, did: &Did) -> Result<Self, String> {
        let mut told = Self { passed: did.passed, opened: None, dropped: None, staged: [None, None] };
        let rules = |event: &FlowEvent| -> Result<[Option<RuleRef>; 2], String> {
            let mut rules = [None, None];
            for (rule, cookie) in rules.iter_mut().zip(event.cookie).filter(|(_, cookie)| *cookie != 0) {
                *rule = Some(node.rule(cookie).ok_or(format!("no rule has the number {cookie}"))?.clone());
            }
            Ok(rules)
        };
        let ends = [packet.source.ip(), packet.destination.ip()].map(Addr::from);
        for event in &did.events {
            match EventKind::try_from(event.kind) {
                Ok(EventKind::Opened) if event.addr == ends => {
                    told.opened = Some(rules(event)?);
                    told.staged = staged(node, event)?;
                }
                Ok(EventKind::Dropped) if event.addr == ends => {
                    told.staged = staged(node, event)?;
                    let reason = DropReason::try_from(event.reason).map_err(|it| format!("no reason is {it}"))?;
                    let direction = match event.direction {
                        0 => Some(Direction::Egress),
                        1 => Some(Direction::Ingress),
                        _ => None,
                    };
                    told.dropped = Some((reason, direction, rules(event)?));
                }
                Ok(EventKind::Closed | EventKind::Active) => {}
                _ => return Err(format!("an event of another packet: {event:?}")),
            }
        }
        if told.passed == told.dropped.is_some() || told.dropped.is_some() && told.opened.is_some() {
            return Err(format!("verdict {}, and the events {:?}", did.returned, did.events));
        }
        Ok(told)
    }

    /// Whether this is the fate, down to the rules.
    pub(super) fn agrees(&self, fate: &Fate) -> bool {
        match (fate, &self.opened, &self.dropped) {
            (Fate::Passes, None, None) => true,
            (Fate::Opens(rules), Some(opened), None) => rules == opened,
            (Fate::Refused(direction, Said::Refuses(why, by)), None, Some((reason, at, rules))) => {
                *at == Some(*direction)
                    && why.is_none_or(|why| why == *reason)
                    && (why.is_none() || rules[*direction as usize] == *by)
            }
            (Fate::Revoked(direction), None, Some((reason, at, _))) => {
                *reason == DropReason::PolicyChange && *at == Some(*direction)
            }
            (Fate::Fragment, None, Some((reason, at, _))) => *reason == DropReason::Fragment && at.is_none(),
            (Fate::Midstream, None, Some((reason, ..))) => *reason == DropReason::Midstream,
            _ => false,
        }
    }

    /// Whether this is the fate as far as somebody knows who does not know rules by name.
    pub(super) fn agrees_about_verdict(&self, fate: &Fate) -> bool {
        match fate {
            Fate::Opens(_) => self.opened.is_some(),
            other => self.agrees(&other.coarse()),
        }
    }
}

/// What an event tells of the staged policies.
fn staged(node: &Node, event: &FlowEvent) -> Result<[Option<Said>; 2], String> {
    let mut staged = [None, None];
    for (at, said) in staged.iter_mut().enumerate() {
        let rule = match event.staged_cookie[at] {
            0 => None,
            cookie => Some(node.rule(cookie).ok_or(format!("no rule has the number {cookie}"))?.clone()),
        };
        *said = match event.staged[at] {
            STAGED_NOT_ASKED => None,
            STAGED_ALLOWS => Some(Said::Passes(rule)),
            reason => {
                let reason = DropReason::try_from(reason).map_err(|it| format!("no reason is {it}"))?;
                Some(Said::Refuses(Some(reason), rule))
            }
        };
    }
    Ok(staged)
}

/// What staged policies would say, in words.
pub(super) fn staged_words(said: &Option<Said>) -> String {
    match said {
        None => "no staged policy has a say".to_owned(),
        Some(Said::Passes(rule)) => format!("would pass{}", named(&[rule.clone(), None])),
        Some(Said::Refuses(reason, rule)) => {
            let reason = reason.map_or("by policy", DropReason::name);
            format!("would be dropped, {reason}{}", named(&[rule.clone(), None]))
        }
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.opened, &self.dropped) {
            (_, Some((reason, Some(direction), rules))) => {
                write!(f, "dropped, {} ({direction:?}){}", reason.name(), named(rules))
            }
            (_, Some((reason, None, rules))) => write!(f, "dropped, {}{}", reason.name(), named(rules)),
            (Some(rules), None) => write!(f, "opens a connection{}", named(rules)),
            (None, None) => f.write_str("passes"),
        }
    }
}

/// A fate in words.
pub(super) fn words(fate: &Fate) -> String {
    match fate {
        Fate::Passes => "passes".to_owned(),
        Fate::Opens(rules) => format!("opens a connection{}", named(rules)),
        Fate::Refused(direction, Said::Refuses(Some(reason), rule)) => {
            format!("dropped, {} ({direction:?}){}", reason.name(), named(&[rule.clone(), None]))
        }
        Fate::Refused(direction, _) => format!("dropped by policy ({direction:?})"),
        Fate::Revoked(direction) => format!("dropped, {} ({direction:?})", DropReason::PolicyChange.name()),
        Fate::Midstream => format!("dropped, {}", DropReason::Midstream.name()),
        Fate::Fragment => format!("dropped, {}", DropReason::Fragment.name()),
    }
}

fn named(rules: &[Option<RuleRef>; 2]) -> String {
    let names: Vec<String> = rules.iter().flatten().map(ToString::to_string).collect();
    if names.is_empty() { String::new() } else { format!(", by {}", names.join(" and ")) }
}

/// The maps as the daemon believes they are, asked as the programs ask them, but here.
#[derive(Debug)]
pub(super) struct Maps<'a> {
    node: &'a Node,
    truth: &'a Truth,
}

impl<'a> Maps<'a> {
    pub(super) fn new(node: &'a Node, truth: &'a Truth) -> Self {
        Self { node, truth }
    }

    fn identity(&self, ip: IpAddr) -> u32 {
        self.node.mirror().addresses.get(&Addr::from(ip)).map_or(identity::WORLD, |entry| entry.identity)
    }
}

impl Rules for Maps<'_> {
    fn side(&self, direction: Direction, flow: &Flow) -> Said {
        let (subject, peer) = flow.seen_from(direction);
        if direction == Direction::Ingress && matches!(peer, End::LocalNode(_)) {
            return Said::Passes(None);
        }
        if self.truth.local(subject.ip()).is_none() {
            return Said::Passes(None);
        }
        let Some(endpoint) = self.node.endpoint(subject.ip()) else { return Said::Refuses(None, None) };
        let ptr = RulesPtr(endpoint.rules[direction as usize]);
        let tables = Tables { node: self.node, peer: peer.ip() };
        let decision = decide::ask(&tables, ptr, self.identity(peer.ip()), flow.proto, flow.port);
        let rule = self.node.rule(decision.cookie).cloned();
        match decide::verdict(ptr, decision) {
            Ok(()) => Said::Passes(rule),
            Err(reason) => Said::Refuses(Some(reason), rule),
        }
    }
}

struct Tables<'a> {
    node: &'a Node,
    peer: IpAddr,
}

impl decide::Rules for Tables<'_> {
    fn peer(&self, ruleset: u32, identity: u32) -> Option<PeerEntry> {
        self.node.mirror().peers.get(&PeerKey { ruleset, identity }).copied()
    }

    fn region(&self, ruleset: u32) -> Option<PeerEntry> {
        let bits = |addr: Addr| u128::from_be_bytes(addr.octets());
        let wanted = bits(Addr::from(self.peer));
        let holds = |first: Addr, length: u8| length == 0 || (bits(first) ^ wanted) >> (128 - u32::from(length)) == 0;
        let inside = self.node.mirror().regions_of(ruleset).filter(|((first, length), _)| holds(*first, *length));
        inside.max_by_key(|((_, length), _)| *length).map(|(_, entry)| *entry)
    }

    fn port(&self, key: PortKey) -> Option<Decision> {
        self.node.mirror().ports.get(&key).copied()
    }
}
