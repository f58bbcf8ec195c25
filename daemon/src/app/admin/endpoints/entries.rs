//! An endpoint's rules as they lie in PEERS, REGIONS and PORTS, with words for the numbers.

use std::{cmp::Reverse, collections::HashMap, net::IpAddr};

use datapath_abi::{
    addr::{Addr, V4_PREFIX_BITS},
    endpoint::RulesPtr,
    identity::{CLASS_ANY, CLASS_CLUSTER, CLASS_NODE, CLASS_WORLD},
    policy::{Decision, Direction, PeerEntry, PortKey, Verdict},
};
use policy::{compile::RuleRef, lower::PortPrefix, model::Protocol};
use proto::bulkhead::admin::v1::{self as pb, lowered_entry::Peer};

use crate::{
    app::{admin::convert, engine::State},
    reconcile::{LocalEndpoint, Mirror},
};

/// Entries of one endpoint that are listed at most: more than this is no text for people.
const MAX_ENTRIES: usize = 20_000;

/// Whom an entry is about, in the order of the answer: single identities, classes, addresses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Who {
    Identity(u32),
    Region(Addr, u8),
}

/// What sorts an entry: direction, greatest precedence first, peer, protocol, ports.
type Place = (Direction, Reverse<u16>, u8, [u8; 16], u32, u8, u8, u16);

/// Every verdict of both directions, sorted as the API says.
pub(super) fn of(state: &State, endpoint: &LocalEndpoint) -> Vec<pb::LoweredEntry> {
    let Some(found) = state.mirror.endpoints.get(&endpoint.slot) else { return Vec::new() };
    let cookies: HashMap<u32, &RuleRef> = state.planner.cookies().iter().collect();
    let mut entries: Vec<(Place, pb::LoweredEntry)> = Vec::new();
    for direction in convert::DIRECTIONS {
        let rules = RulesPtr(found.rules[direction as usize]);
        let ruleset = rules.ruleset();
        if ruleset == 0 {
            continue;
        }
        // What is asked after a pass, too: its precedence is below that of the pass.
        let both = [ruleset, rules.after_pass().ruleset()];
        let entries_of = |ruleset| {
            let peers = state.mirror.peers_of(ruleset).map(|(who, entry)| (Who::Identity(who), entry));
            let regions = state.mirror.regions_of(ruleset);
            peers.chain(regions.map(|((addr, len), entry)| (Who::Region(addr, len), entry)))
        };
        for (who, entry) in both.into_iter().flat_map(entries_of) {
            for (ports, decision) in decisions(&state.mirror, entry) {
                if entries.len() == MAX_ENTRIES {
                    break;
                }
                let place = place(direction, who, ports, decision);
                entries.push((place, lowered(state, &cookies, direction, who, ports, decision)));
            }
        }
    }
    entries.sort_by_key(|(place, _)| *place);
    entries.into_iter().map(|(_, entry)| entry).collect()
}

/// What an entry decides: by port, then for everything else. A silent remainder is left out,
/// unless it is all there is: then it takes back what a wider entry would say.
fn decisions(mirror: &Mirror, entry: &PeerEntry) -> Vec<(Option<PortPrefix>, Decision)> {
    let PeerEntry { portset, lengths: _, otherwise } = *entry;
    let mut decisions: Vec<(Option<PortPrefix>, Decision)> = ports_of(mirror, portset)
        .map(|(key, decision)| {
            let PortKey { portset: _, port, proto, length } = *key;
            (Some(PortPrefix { proto, length, port }), *decision)
        })
        .collect();
    if decisions.is_empty() || otherwise != Decision::default() {
        decisions.push((None, otherwise));
    }
    decisions
}

/// Entries of PORTS that belong to a port set; 0 has none.
fn ports_of(mirror: &Mirror, portset: u32) -> impl Iterator<Item = (&PortKey, &Decision)> {
    let first = PortKey { portset, ..PortKey::default() };
    let last = PortKey { portset, port: u16::MAX, proto: u8::MAX, length: u8::MAX };
    mirror.ports.range(first..=last).filter(move |_| portset != 0)
}

fn place(direction: Direction, who: Who, ports: Option<PortPrefix>, decision: Decision) -> Place {
    let (kind, addr, number) = match who {
        Who::Identity(number) if number < CLASS_ANY => (0, [0; 16], number),
        Who::Identity(class) => (1, [0; 16], class),
        Who::Region(addr, length) => (2, addr.octets(), u32::from(length)),
    };
    let (proto, length, port) = ports.map_or((0, 0, 0), |it| (it.proto, it.length, it.port));
    (direction, Reverse(decision.precedence), kind, addr, number, proto, length, port)
}

fn lowered(
    state: &State,
    cookies: &HashMap<u32, &RuleRef>,
    direction: Direction,
    who: Who,
    ports: Option<PortPrefix>,
    decision: Decision,
) -> pb::LoweredEntry {
    let Decision { cookie, precedence, verdict, pad: _ } = decision;
    let (peer, peer_text) = match who {
        Who::Identity(number) => match class(number) {
            Some((name, text)) => (Peer::Class(name.to_owned()), text.to_owned()),
            None => (Peer::Identity(number), identity_words(state, number)),
        },
        Who::Region(addr, length) => (Peer::Cidr(cidr(addr, length)), String::new()),
    };
    let verdict = match Verdict::try_from(verdict) {
        Ok(Verdict::Allow) => pb::Verdict::Allow,
        Ok(Verdict::Deny | Verdict::None) => pb::Verdict::Deny,
        Ok(Verdict::Pass) => pb::Verdict::Pass,
        Err(_) => pb::Verdict::Unspecified,
    };
    pb::LoweredEntry {
        direction: convert::direction(direction),
        peer: Some(peer),
        peer_text,
        protocol: ports.map(|ports| protocol(ports.proto)).unwrap_or_default(),
        port_first: ports.map_or(0, |ports| if ports.length == 0 { 0 } else { ports.port.into() }),
        port_last: ports.map_or(0, |ports| if ports.length == 0 { 0 } else { ports.last().into() }),
        verdict: verdict as i32,
        precedence: precedence.into(),
        rule: cookies.get(&cookie).map(|rule| convert::rule(rule, cookie)),
    }
}

/// Name and words of a wildcard class.
fn class(number: u32) -> Option<(&'static str, &'static str)> {
    match number {
        CLASS_ANY => Some(("any", "anybody")),
        CLASS_CLUSTER => Some(("cluster", "any pod of the cluster")),
        CLASS_WORLD => Some(("world", "anybody outside the cluster")),
        CLASS_NODE => Some(("node", "any node of the cluster")),
        _ => None,
    }
}

/// An identity for people: `shop app=web`.
fn identity_words(state: &State, number: u32) -> String {
    let known = state.planner.universe().get(number).map(|identity| identity.key());
    match known.or_else(|| state.planner.identities().key(number)) {
        Some(key) if key.labels.is_empty() => key.namespace.clone(),
        Some(key) => format!("{} {}", key.namespace, key.labels),
        None => convert::reserved_name(number).to_owned(),
    }
}

/// A protocol as the API names it.
pub(in crate::app::admin) fn protocol(number: u8) -> String {
    Protocol::from_number(number).map_or_else(|| number.to_string(), |known| known.as_str().to_ascii_lowercase())
}

/// A region in CIDR form, of the family it is of.
pub(in crate::app::admin) fn cidr(addr: Addr, length: u8) -> String {
    match IpAddr::from(addr) {
        IpAddr::V4(ip) if u32::from(length) >= V4_PREFIX_BITS => format!("{ip}/{}", u32::from(length) - V4_PREFIX_BITS),
        _ => format!("{}/{length}", IpAddr::from(addr.octets())),
    }
}
