//! PEERS: who may talk, by identity or class.

use std::collections::{BTreeMap, BTreeSet};

use datapath_abi::identity::{CLASS_ANY, CLASS_CLUSTER};

use super::error::{Budget, LowerError, What};
use super::ports::{Flatten, Peer, Resolved, Voice};
use super::universe::{Identity, PodAddress, Universe};
use crate::compile::{PodMatch, RuleTable, TablePeers, TablePorts};
use crate::model::IpBlock;

/// Voices by address: named egress ports that the pods of one identity resolve differently.
pub(super) type Split = BTreeMap<std::net::IpAddr, Vec<Voice>>;

/// The entries, and what has to be said by address instead.
pub(super) fn peers(
    table: &RuleTable,
    universe: &Universe,
    flatten: &mut Flatten<'_>,
    limit: usize,
) -> Result<(BTreeMap<u32, Peer>, Split), LowerError> {
    let mut entries = BTreeMap::new();
    let everyone = places(table, |peers| matches!(peers, TablePeers::Anyone));
    let every_pod = places(table, speaks_to_every_pod);
    let any = flatten.peer(plain(&everyone))?;
    let cluster = flatten.peer(plain(&every_pod))?;
    let mut budget = Budget::new(What::Peers, limit, table);
    let mut split = Split::new();
    for (number, selected) in listeners(table, universe, &every_pod) {
        let Some(identity) = universe.get(number) else { continue };
        let rules: BTreeSet<usize> = every_pod.iter().copied().chain(selected).collect();
        let peer = flatten.peer(voices(table, identity, &rules, &mut split))?;
        if peer != cluster {
            budget.take(rules)?;
            entries.insert(number, peer);
        }
    }
    if cluster != any {
        entries.insert(CLASS_CLUSTER, cluster);
    }
    if !any.is_empty() {
        entries.insert(CLASS_ANY, any);
    }
    Ok((entries, split))
}

/// The entries of single identities, one by one. Only for tables in which nothing is said by address that
/// depends on who is there.
#[derive(Debug)]
pub(super) struct OneByOne<'a> {
    table: &'a RuleTable,
    every_pod: BTreeSet<usize>,
    cluster: Peer,
}

impl<'a> OneByOne<'a> {
    pub(super) fn new(table: &'a RuleTable, flatten: &mut Flatten<'_>) -> Result<Self, LowerError> {
        let every_pod = places(table, speaks_to_every_pod);
        let cluster = flatten.peer(plain(&every_pod))?;
        Ok(Self { table, every_pod, cluster })
    }

    /// The entry of an identity, or that it needs none. What its pods understand differently goes to `split`.
    pub(super) fn entry(
        &self,
        identity: &Identity,
        flatten: &mut Flatten<'_>,
        split: &mut Split,
    ) -> Result<Option<Peer>, LowerError> {
        let mut rules = places(self.table, |peers| match peers {
            TablePeers::Anyone => false,
            TablePeers::These { pods, .. } => pods.iter().any(|pods| pods.matches(identity.key())),
        });
        rules.extend(&self.every_pod);
        let peer = flatten.peer(voices(self.table, identity, &rules, split))?;
        Ok(Some(peer).filter(|peer| *peer != self.cluster))
    }
}

/// How many of the entries are of single identities.
pub(super) fn identities(entries: &BTreeMap<u32, Peer>) -> usize {
    // Classes are few.
    entries.len() - entries.range(CLASS_ANY..).count()
}

/// The places of the rules that speak to somebody.
fn places(table: &RuleTable, speaks: impl Fn(&TablePeers) -> bool) -> BTreeSet<usize> {
    let rules = table.rules.iter().enumerate().filter(|(_, rule)| speaks(&rule.peers));
    rules.map(|(place, _)| place).collect()
}

fn plain(places: &BTreeSet<usize>) -> Vec<Voice> {
    places.iter().copied().map(Voice::plain).collect()
}

fn speaks_to_every_pod(peers: &TablePeers) -> bool {
    match peers {
        TablePeers::Anyone => true,
        TablePeers::These { pods, .. } => pods.iter().any(PodMatch::is_every_pod),
    }
}

/// The identities that may need an entry of their own, with the rules that select them: those
/// that are selected, or that have a say in what a port name means.
fn listeners(table: &RuleTable, universe: &Universe, every_pod: &BTreeSet<usize>) -> BTreeMap<u32, Vec<usize>> {
    let mut listeners: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    if every_pod.iter().any(|place| table.rules[*place].ports.has_names()) {
        listeners.extend(universe.iter().map(|(number, _)| (number, Vec::new())));
    }
    for (place, rule) in table.rules.iter().enumerate() {
        let TablePeers::These { pods, .. } = &rule.peers else { continue };
        for pods in pods.iter().filter(|pods| !pods.is_every_pod()) {
            for number in universe.matching(pods) {
                listeners.entry(number).or_default().push(place);
            }
        }
    }
    listeners
}

/// What these rules say to an identity. Where its pods understand a rule's port names
/// differently, what each of them understands goes to `split`.
fn voices(table: &RuleTable, identity: &Identity, rules: &BTreeSet<usize>, split: &mut Split) -> Vec<Voice> {
    let mut voices = Vec::with_capacity(rules.len());
    for place in rules {
        let ports = &table.rules[*place].ports;
        let mut voice = Voice::plain(*place);
        if ports.has_names() {
            let mut answers = identity.pods().values().map(|pod| resolve(ports, pod));
            let first = answers.next().unwrap_or_default();
            if answers.all(|answer| answer == first) {
                voice.named = first;
            } else {
                for pod in identity.pods().values() {
                    speak_by_address(split, *place, ports, pod, |_| true);
                }
            }
        }
        voices.push(voice);
    }
    voices
}

/// Named egress ports of rules with blocks, for the pods whose addresses lie in the blocks.
pub(super) fn named_in_blocks(table: &RuleTable, universe: &Universe, split: &mut Split) {
    for (place, rule) in table.rules.iter().enumerate() {
        let TablePeers::These { blocks, .. } = &rule.peers else { continue };
        if blocks.is_empty() || !rule.ports.has_names() {
            continue;
        }
        for pod in universe.iter().flat_map(|(_, identity)| identity.pods().values()) {
            let inside = |ip| blocks.iter().any(|block: &IpBlock| block.contains(ip));
            speak_by_address(split, place, &rule.ports, pod, inside);
        }
    }
}

/// What is said to nodes, by the addresses they have.
pub(super) fn nodes(table: &RuleTable, universe: &Universe, split: &mut Split) {
    for (place, rule) in table.rules.iter().enumerate() {
        let TablePeers::These { nodes, .. } = &rule.peers else { continue };
        for ip in nodes.iter().flat_map(|selector| universe.node_addresses(selector)) {
            split.entry(ip).or_default().push(Voice::plain(place));
        }
    }
}

fn speak_by_address(
    split: &mut Split,
    rule: usize,
    ports: &TablePorts,
    pod: &PodAddress,
    to: impl Fn(std::net::IpAddr) -> bool,
) {
    let named = resolve(ports, pod);
    if named.is_empty() {
        return;
    }
    for ip in pod.ips.iter().filter(|ip| to(**ip)) {
        let voices = split.entry(*ip).or_default();
        voices.push(Voice { rule, named: named.clone() });
    }
}

/// What a rule's port names stand for on a pod.
fn resolve(ports: &TablePorts, pod: &PodAddress) -> Resolved {
    let TablePorts::These { ranges: _, named } = ports else { return Resolved::new() };
    let numbers =
        named.iter().flat_map(|(protocol, name)| pod.named_port(*protocol, name).map(move |port| (*protocol, port)));
    numbers.collect()
}
