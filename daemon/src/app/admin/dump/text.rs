//! Keys and values of the maps as one line of text each: numbers with the names of their fields,
//! enums by name, in the order of the fields.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use datapath_abi::{
    addr::{Addr, AddrEntry},
    conntrack::{
        CtEntry, CtKey, CtState, Ends, FLAG_ALIAS, FLAG_INITIATOR_HIGH, FLAG_MIDSTREAM, FLAG_REVOKED, FLAG_TRANSLATED,
        FLAG_VIA_STACK, FragmentEntry, FragmentKey,
    },
    endpoint::{Endpoint, RulesPtr},
    identity,
    maps::{self, Scalar},
    overlay::{BELIEVED, Origin},
    policy::{Decision, PeerEntry, PeerKey, PortKey, RulesetInfo, Verdict},
    reason::DropReason,
    service::{Backend, BackendKey, Frontend, FrontendKey},
    uplink::Denied,
};
use ipnetwork::IpNetwork;

use super::{
    Lines,
    names::{End, Names},
};
use crate::{
    app::admin::endpoints::{cidr, protocol},
    reconcile::Mirror,
    telemetry::{DatapathFigures, PacketFigures, metrics},
};

/// Entries of a map that the daemon writes. Addresses come in the order of their numbers, which
/// is not that of the mirror.
pub(super) fn of_mirror(name: &str, mirror: &Arc<Mirror>) -> Lines {
    fn own<K: Clone + Send + 'static, V: Clone + Send + 'static>(
        map: &std::collections::BTreeMap<K, V>,
        text: fn(K, V) -> (String, String),
    ) -> Lines {
        let entries: Vec<(K, V)> = map.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        Box::new(entries.into_iter().map(move |(key, value)| text(key, value)))
    }
    let Mirror { endpoints, staged, interfaces, addresses, cidrs, peers, regions, ports, rulesets, generation, .. } =
        &**mirror;
    match name {
        maps::STAGED => own(staged, |slot, [egress, ingress]| {
            (format!("slot {slot}"), format!("egress {}, ingress {}", rules_words(egress), rules_words(ingress)))
        }),
        maps::ENDPOINTS => own(endpoints, |slot, entry| (format!("slot {slot}"), endpoint(&entry))),
        maps::INTERFACES => own(interfaces, |ifindex, slot| (format!("ifindex {ifindex}"), format!("slot {slot}"))),
        maps::ADDRESSES => {
            let mut sorted: Vec<(Addr, AddrEntry)> = addresses.iter().map(|(addr, entry)| (*addr, *entry)).collect();
            sorted.sort_by_key(|(addr, _)| addr.octets());
            Box::new(sorted.into_iter().map(|(addr, entry)| (IpAddr::from(addr).to_string(), owner(entry))))
        }
        maps::CIDRS => {
            let mut sorted: Vec<((Addr, u8), AddrEntry)> = cidrs.iter().map(|(key, entry)| (*key, *entry)).collect();
            sorted.sort_by_key(|((addr, length), _)| (addr.octets(), *length));
            Box::new(sorted.into_iter().map(|((addr, length), entry)| (cidr(addr, length), owner(entry))))
        }
        maps::PEERS => own(peers, |PeerKey { ruleset, identity }, entry| {
            (format!("rule set {ruleset}, {}", peer(identity)), peer_entry(entry))
        }),
        maps::REGIONS => {
            let mut sorted: Vec<((u32, Addr, u8), PeerEntry)> =
                regions.iter().map(|(key, entry)| (*key, *entry)).collect();
            sorted.sort_by_key(|((ruleset, addr, length), _)| (*ruleset, addr.octets(), *length));
            Box::new(sorted.into_iter().map(|((ruleset, addr, length), entry)| {
                (format!("rule set {ruleset}, {}", cidr(addr, length)), peer_entry(entry))
            }))
        }
        maps::PORTS => own(ports, |PortKey { portset, port, proto, length }, entry| {
            (format!("port set {portset}, {} {port}/{length}", protocol(proto)), decision(entry))
        }),
        maps::RULESETS => own(rulesets, |number, RulesetInfo { digest }| {
            let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            (format!("rule set {number}"), format!("digest {hex}"))
        }),
        maps::GENERATION => Box::new(std::iter::once(("0".to_owned(), format!("generation {generation}")))),
        _ => Box::new(std::iter::empty()),
    }
}

/// Entries of COUNTERS, those that are zero as well.
pub(super) fn counters(figures: DatapathFigures) -> Lines {
    let DatapathFigures { mut counters, scalars: _ } = figures;
    counters.sort_by_key(|figures| (figures.hook, figures.reason));
    Box::new(counters.into_iter().map(|PacketFigures { hook, reason, packets, bytes }| {
        let hook = metrics::HOOKS.get(hook as usize).copied().unwrap_or("unknown");
        let known = u8::try_from(reason).ok().and_then(|number| DropReason::try_from(number).ok());
        let reason = known.map_or(metrics::PASSED, DropReason::name);
        (format!("{hook}, {reason}"), format!("packets {packets}, bytes {bytes}"))
    }))
}

/// Entries of SCALARS.
pub(super) fn scalars(figures: DatapathFigures) -> Lines {
    let DatapathFigures { counters: _, mut scalars } = figures;
    scalars.sort_by_key(|(scalar, _)| *scalar);
    Box::new(scalars.into_iter().map(|(scalar, value)| {
        let name = Scalar::ALL.iter().find(|(known, _)| *known == scalar).map_or("unknown", |(_, name)| *name);
        (name.to_owned(), value.to_string())
    }))
}

/// An entry of FRAGMENTS.
pub(super) fn fragment(key: &FragmentKey, entry: &FragmentEntry) -> (String, String) {
    let FragmentKey { addr, id, proto: _, pad: _ } = *key;
    let FragmentEntry { port, proto, pad: _ } = *entry;
    let [source, destination] = addr.map(IpAddr::from);
    // As it stands in the header: two bytes of IPv4, four of IPv6.
    let id = if addr[0].is_v4() { id } else { u32::from_be(id) };
    let ends = format!("{} to {}", SocketAddr::new(source, port[0]), SocketAddr::new(destination, port[1]));
    (format!("{source} to {destination}, id {id:#x}"), format!("{} {ends}", protocol(proto)))
}

/// An entry of ORIGINS.
pub(super) fn origin(range: &IpNetwork, origin: &Origin) -> (String, String) {
    let Origin { node, ifindex, flags: _ } = *origin;
    let only = if origin.only_there() { ", only" } else { "" };
    (range.to_string(), format!("node {}, by ifindex {ifindex}{only}", IpAddr::from(node)))
}

/// An entry of NUMBERS.
pub(super) fn number(number: u32) -> (String, String) {
    match number {
        BELIEVED => ("any".to_owned(), "packets carry numbers, and are believed".to_owned()),
        number => (peer(number), "may be carried".to_owned()),
    }
}

/// An entry of CARRIED.
pub(super) fn carried(addr: &Addr, number: &u32) -> (String, String) {
    (IpAddr::from(*addr).to_string(), format!("last packet carried {}", peer(*number)))
}

/// An entry of DENIED.
pub(super) fn denied(range: &IpNetwork, denied: &Denied) -> (String, String) {
    (range.to_string(), if denied.verdict == Denied::REFUSED { "refused" } else { "spared" }.to_owned())
}

/// A map of Services.
pub(super) fn of_services(name: &str, found: &services::Found) -> Lines {
    let at = |addr: Addr, port: u16| SocketAddr::new(IpAddr::from(addr), port);
    let lines: Vec<(String, String)> = match name {
        maps::FRONTENDS => {
            let line = |(key, value): (&FrontendKey, &Frontend)| {
                let FrontendKey { addr, port, proto, pad: _ } = *key;
                let Frontend { set, count } = *value;
                (format!("{} {}", protocol(proto), at(addr, port)), format!("set {set}, {count} backends"))
            };
            found.frontends.iter().map(line).collect()
        }
        maps::BACKENDS => {
            let line = |(key, value): (&BackendKey, &Backend)| {
                (format!("set {} place {}", key.set, key.place), at(value.addr, value.port).to_string())
            };
            found.backends.iter().map(line).collect()
        }
        _ => found
            .gone
            .iter()
            .map(|key| (format!("set {} {}", key.set, at(key.addr, key.port)), String::new()))
            .collect(),
    };
    Box::new(lines.into_iter())
}

/// An entry of CONNTRACK or PENDING. Pairs are initiator, responder.
pub(super) fn connection(key: &CtKey, entry: &CtEntry, names: &Names, now_ns: u64) -> (String, String) {
    let CtKey { addr, port, proto, pad: _ } = *key;
    let ends = [0, 1].map(|end| SocketAddr::new(IpAddr::from(addr[end]), port[end]));
    let CtEntry {
        ends: Ends { rules, slot, ifindex, identity, cookie },
        last_seen,
        state,
        flags,
        tcp_flags,
        own: _,
        shared: _,
        created_ns,
        reported_ns,
        rtt_us,
        reported,
        denied: _,
        owner: _,
        sctp_tag: _,
        service,
    } = *entry;
    let there = SocketAddr::new(IpAddr::from(service.addr), service.port);
    let high = flags & FLAG_INITIATOR_HIGH != 0;
    if flags & FLAG_ALIAS != 0 {
        let [client, addressed] = if high { [ends[1], ends[0]] } else { ends };
        let value = format!("{client} to the Service {addressed} goes to {there} from port {}", service.from_port);
        return (format!("{} {}, {}", protocol(proto), ends[0], ends[1]), value);
    }
    let addressed = if flags & FLAG_TRANSLATED != 0 { format!(", by the Service {there}") } else { String::new() };
    let (packets, bytes) = (entry.packets(), entry.bytes());
    let initiator = usize::from(high);
    let name = |side: usize| {
        let ip = ends[initiator ^ side].ip();
        names.name(End { ip, slot: slot[side], ifindex: ifindex[side], identity: identity[side] })
    };
    let age_ms = now_ns.saturating_sub(created_ns) / 1_000_000;
    let state = CtState::try_from(state).map_or_else(|number| format!("state {number}"), |state| format!("{state:?}"));
    let value = format!(
        "{state}, {} to {}, age {}.{:03} s, packets {}, bytes {}, initiator {}, flags {}, tcp flags {:#04x}/{:#04x}, \
         identities {}, slots {}, ifindexes {}, cookies {}, egress {}, ingress {}, created {created_ns} ns, \
         reported {reported_ns} ns, last seen {last_seen} jiffies, rtt {rtt_us} us{}{addressed}",
        name(0),
        name(1),
        age_ms / 1000,
        age_ms % 1000,
        pair(packets),
        pair(bytes),
        ends[initiator],
        flag_names(flags),
        tcp_flags[0],
        tcp_flags[1],
        pair(identity),
        pair(slot),
        pair(ifindex),
        pair(cookie),
        rules_words(rules[0]),
        rules_words(rules[1]),
        if reported == 0 { "" } else { ", end reported" },
    );
    (format!("{} {}, {}", protocol(proto), ends[0], ends[1]), value)
}

fn pair<T: std::fmt::Display>(pair: [T; 2]) -> String {
    format!("{}/{}", pair[0], pair[1])
}

fn flag_names(flags: u8) -> String {
    let names = [
        (FLAG_INITIATOR_HIGH, "INITIATOR_HIGH"),
        (FLAG_VIA_STACK, "VIA_STACK"),
        (FLAG_REVOKED, "REVOKED"),
        (FLAG_MIDSTREAM, "MIDSTREAM"),
        (FLAG_TRANSLATED, "TRANSLATED"),
        (FLAG_ALIAS, "ALIAS"),
    ];
    set(&names, flags)
}

/// The names of the bits that are set.
fn set(names: &[(u8, &str)], bits: u8) -> String {
    let set: Vec<&str> = names.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name).collect();
    if set.is_empty() { "none".to_owned() } else { set.join("|") }
}

fn endpoint(entry: &Endpoint) -> String {
    let Endpoint { rules, addr6, addr4, ifindex, identity, mac, pad: _ } = *entry;
    let addresses = [addr4, addr6].into_iter().filter(|addr| *addr != Addr::ZERO);
    let addresses: String = addresses.map(|addr| format!(", {}", IpAddr::from(addr))).collect();
    let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
    let [egress, ingress] = rules.map(rules_words);
    format!("ifindex {ifindex}, identity {identity}, mac {mac}{addresses}, egress {egress}, ingress {ingress}")
}

/// A pointer to rules: `generation 5 rule set 3 ISOLATED|HAS_PEERS`.
fn rules_words(word: u64) -> String {
    let rules = RulesPtr(word);
    let names = [
        (RulesPtr::ISOLATED, "ISOLATED"),
        (RulesPtr::HAS_PEERS, "HAS_PEERS"),
        (RulesPtr::HAS_CLASSES, "HAS_CLASSES"),
        (RulesPtr::HAS_REGIONS, "HAS_REGIONS"),
        (RulesPtr::HAS_STAGED, "HAS_STAGED"),
    ];
    let generation = rules.generation();
    match (rules.flags(), rules.ruleset(), generation) {
        (0, 0, 0) => "open".to_owned(),
        (0, 0, _) => format!("open generation {generation}"),
        (flags, ruleset, _) => format!("generation {generation} rule set {ruleset} {}", set(&names, flags)),
    }
}

fn owner(entry: AddrEntry) -> String {
    let AddrEntry { identity, slot } = entry;
    format!("identity {identity}, slot {slot}")
}

fn peer(number: u32) -> String {
    match number {
        identity::CLASS_ANY => "class any".to_owned(),
        identity::CLASS_CLUSTER => "class cluster".to_owned(),
        identity::CLASS_WORLD => "class world".to_owned(),
        identity::CLASS_NODE => "class node".to_owned(),
        number => format!("identity {number}"),
    }
}

fn peer_entry(entry: PeerEntry) -> String {
    let PeerEntry { portset, lengths, otherwise } = entry;
    let lengths: Vec<String> = (0..=16u32).filter(|bit| lengths & 1 << bit != 0).map(|bit| bit.to_string()).collect();
    let lengths = if lengths.is_empty() { "none".to_owned() } else { lengths.join("|") };
    format!("port set {portset}, lengths {lengths}, otherwise {}", decision(otherwise))
}

fn decision(decision: Decision) -> String {
    let Decision { cookie, precedence, verdict, pad: _ } = decision;
    match Verdict::try_from(verdict) {
        Ok(Verdict::None) => "nothing".to_owned(),
        Ok(Verdict::Allow) => format!("allow, precedence {precedence}, cookie {cookie}"),
        Ok(Verdict::Deny) => format!("deny, precedence {precedence}, cookie {cookie}"),
        Ok(Verdict::Pass) => format!("pass, precedence {precedence}, cookie {cookie}"),
        Err(other) => format!("verdict {other}, precedence {precedence}, cookie {cookie}"),
    }
}
