//! REGIONS: who may talk, by address.
//!
//! Every block, every exception and every address that needs an answer of its own is a prefix.
//! Prefixes nest, so walking them in order with a stack of those around the present one tells
//! which blocks hold it. A prefix that would say what the one around it says is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use datapath_abi::addr::{Addr, V4_PREFIX_BITS};
use ipnetwork::IpNetwork;

use super::error::{Budget, LowerError, What};
use super::peers::{Split, named_in_blocks, nodes};
use super::ports::{Flatten, Peer, Voice};
use super::universe::Universe;
use crate::compile::{RuleTable, TablePeers};
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
    /// Blocks that hold it: number, rule.
    blocks: BTreeSet<(usize, usize)>,
    /// What longest prefix match finds there, itself included.
    peer: Peer,
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
    for (network, cut) in cuts(table, split) {
        while stack.last().is_some_and(|frame| !surrounds(frame.network, network)) {
            stack.pop();
        }
        let same_family = |frame: &&Frame| frame.network.is_ipv4() == network.is_ipv4();
        let mut blocks = stack.last().filter(same_family).map(|frame| frame.blocks.clone()).unwrap_or_default();
        blocks.retain(|block| !cut.except.contains(block));
        blocks.extend(cut.begin);
        let rules: BTreeSet<usize> = blocks.iter().map(|(_, rule)| *rule).collect();
        let mut voices: Vec<Voice> = rules.into_iter().map(Voice::plain).chain(cut.voices).collect();
        voices.sort_unstable();
        voices.dedup();
        let holes = cut.except.iter().map(|(_, rule)| *rule);
        let involved: BTreeSet<usize> = voices.iter().map(|voice| voice.rule).chain(holes).collect();
        let peer = flatten.peer(voices)?;
        let silent = Peer::default();
        if peer != *stack.last().map_or(&silent, |frame| &frame.peer) {
            budget.take(involved)?;
            entries.insert(region_key(network), peer.clone());
        }
        stack.push(Frame { network, blocks, peer });
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
