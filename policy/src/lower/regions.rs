//! REGIONS: who may talk, by address.
//!
//! Every block, every exception and every address that needs an answer of its own is a prefix.
//! Prefixes nest, so walking them in order with a stack of those around the present one tells
//! which blocks hold it. A prefix that would say what the one around it says is left out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};

use datapath_abi::addr::{Addr, V4_PREFIX_BITS};
use ipnetwork::IpNetwork;

use super::error::{Budget, LowerError, What};
use super::peers::{Split, named_in_blocks, nodes};
use super::ports::{Flatten, Peer, Voice};
use super::universe::Universe;
use crate::compile::{RuleTable, TablePeers, TablePorts};
use crate::model::network_contains;

/// The key of a network in REGIONS: first address, and length in the 128-bit form.
pub fn region_key(network: IpNetwork) -> (Addr, u8) {
    match network.ip() {
        IpAddr::V4(ip) => (Addr::from_v4(ip.octets()), network.prefix() + V4_PREFIX_BITS as u8),
        IpAddr::V6(ip) => (Addr::from_octets(ip.octets()), network.prefix()),
    }
}

/// What begins or ends at a prefix.
#[derive(Debug, Default)]
struct Cut {
    /// Blocks that are exactly this prefix: number of the block, rule it belongs to.
    begin: Vec<(usize, usize)>,
    /// Blocks of which this prefix is an exception: the same.
    except: Vec<(usize, usize)>,
    /// What is said to this one address.
    voices: Vec<Voice>,
}

/// A prefix around the present one.
struct Frame {
    network: IpNetwork,
    /// Blocks that begin here, and blocks that have a hole here: number, rule.
    begun: Vec<(usize, usize)>,
    ended: Vec<(usize, usize)>,
    /// What longest prefix match finds there, itself included.
    peer: Peer,
}

/// The blocks of one family that hold the present prefix.
struct Holding<'a> {
    /// By rule, what ports it means: rules that mean the same share a number.
    meanings: &'a [usize],
    blocks: BTreeSet<usize>,
    /// By meaning, the rules that these belong to, with how many of them.
    rules: BTreeMap<usize, BTreeMap<usize, usize>>,
}

impl Holding<'_> {
    fn begin(&mut self, &(block, rule): &(usize, usize)) {
        if self.blocks.insert(block) {
            *self.rules.entry(self.meanings[rule]).or_default().entry(rule).or_insert(0) += 1;
        }
    }

    fn end(&mut self, &(block, rule): &(usize, usize)) {
        let meaning = self.meanings[rule];
        let Some(rules) = self.rules.get_mut(&meaning).filter(|_| self.blocks.remove(&block)) else { return };
        if let Some(count) = rules.get_mut(&rule) {
            *count -= 1;
            if *count == 0 {
                rules.remove(&rule);
            }
        }
        if rules.is_empty() {
            self.rules.remove(&meaning);
        }
    }

    /// Of rules that mean the same ports only the first has anything to say.
    fn voices(&self) -> impl Iterator<Item = Voice> {
        self.rules.values().filter_map(|rules| rules.keys().next().copied().map(Voice::plain))
    }

    /// The places of the rules.
    fn places(&self) -> impl Iterator<Item = usize> {
        self.rules.values().flat_map(|rules| rules.keys().copied())
    }
}

/// Numbers for what ports the rules mean.
fn meanings(table: &RuleTable) -> Vec<usize> {
    let mut known: HashMap<&TablePorts, usize> = HashMap::new();
    let numbers = table.rules.iter().map(|rule| {
        let next = known.len();
        *known.entry(&rule.ports).or_insert(next)
    });
    numbers.collect()
}

/// The entries.
pub(super) fn regions(
    table: &RuleTable,
    universe: &Universe,
    mut split: Split,
    flatten: &mut Flatten<'_>,
    limit: usize,
) -> Result<BTreeMap<(Addr, u8), Peer>, LowerError> {
    named_in_blocks(table, universe, &mut split);
    nodes(table, universe, &mut split);
    let mut budget = Budget::new(What::Regions, limit, table);
    let mut entries = BTreeMap::new();
    let mut stack: Vec<Frame> = Vec::new();
    let meanings = meanings(table);
    // A block of one family holds no address of the other, though the kernel's form of IPv4 lies inside IPv6.
    let mut families =
        [(); 2].map(|()| Holding { meanings: &meanings, blocks: BTreeSet::new(), rules: BTreeMap::new() });
    for (network, cut) in cuts(table, split) {
        while let Some(frame) = stack.pop_if(|frame| !surrounds(frame.network, network)) {
            let holding = &mut families[usize::from(frame.network.is_ipv4())];
            frame.begun.iter().for_each(|block| holding.end(block));
            frame.ended.iter().for_each(|block| holding.begin(block));
        }
        let Cut { begin: begun, except, voices } = cut;
        let holding = &mut families[usize::from(network.is_ipv4())];
        let ended: Vec<_> = except.iter().copied().filter(|(block, _)| holding.blocks.contains(block)).collect();
        ended.iter().for_each(|block| holding.end(block));
        begun.iter().for_each(|block| holding.begin(block));
        let mut voices: Vec<Voice> = holding.voices().chain(voices).collect();
        voices.sort_unstable();
        voices.dedup();
        let spoken: Vec<usize> = voices.iter().map(|voice| voice.rule).collect();
        let peer = flatten.peer(voices)?;
        let silent = Peer::default();
        if peer != *stack.last().map_or(&silent, |frame| &frame.peer) {
            let holes = except.iter().map(|(_, rule)| *rule);
            budget.take(holding.places().chain(spoken).chain(holes))?;
            entries.insert(region_key(network), peer.clone());
        }
        stack.push(Frame { network, begun, ended, peer });
    }
    Ok(entries)
}

/// All prefixes in an order in which each comes after those around it.
fn cuts(table: &RuleTable, split: Split) -> Vec<(IpNetwork, Cut)> {
    let mut cuts: BTreeMap<IpNetwork, Cut> = BTreeMap::new();
    let mut number = 0;
    for (place, rule) in table.rules.iter().enumerate() {
        let TablePeers::These { blocks, .. } = &rule.peers else { continue };
        for block in blocks {
            cuts.entry(block.cidr()).or_default().begin.push((number, place));
            for hole in block.except() {
                cuts.entry(*hole).or_default().except.push((number, place));
            }
            number += 1;
        }
    }
    for (ip, voices) in split {
        cuts.entry(IpNetwork::from(ip)).or_default().voices.extend(voices);
    }
    // IPv4 lies inside IPv6 in the kernel's form of addresses, but not inside an IPv6 block.
    let v4 = IpNetwork::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let v4 = IpNetwork::new(v4.ip(), 0).unwrap_or(v4);
    if cuts.keys().any(|network| network.is_ipv6() && surrounds(*network, v4)) {
        cuts.entry(v4).or_default();
    }
    let mut cuts: Vec<_> = cuts.into_iter().collect();
    cuts.sort_by_key(|(network, _)| {
        let (addr, length) = region_key(*network);
        (addr.octets(), length)
    });
    cuts
}

/// Whether one prefix is around another in the kernel's form of addresses, where all of IPv4 is
/// `::ffff:0:0/96`.
fn surrounds(outer: IpNetwork, inner: IpNetwork) -> bool {
    match (outer, inner) {
        (IpNetwork::V6(outer), IpNetwork::V4(inner)) => {
            u32::from(outer.prefix()) <= V4_PREFIX_BITS && outer.contains(inner.ip().to_ipv6_mapped())
        }
        _ => network_contains(outer, inner),
    }
}
