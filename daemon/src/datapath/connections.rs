//! Reads tables that are in nobody's mirror for people who look: as much as is asked for, and never endlessly.
//!
//! The programs change those of connections all the time. A walk that comes to a key which is gone begins
//! anew (bpf(2), `BPF_MAP_GET_NEXT_KEY`), so it may come by the same entry twice, and by many
//! changes for ever: steps are counted. Looking does not make an entry of an LRU table younger
//! (`htab_lru_map_lookup_elem_sys`, kernel/bpf/hashtab.c).

use std::{collections::HashMap as Seen, hash::Hash};

use aya::{
    Ebpf,
    maps::{HashMap, LpmTrie, MapData, MapError},
};
use datapath_abi::{
    addr::Addr,
    conntrack::{CtEntry, CtKey, FragmentEntry, FragmentKey},
    maps,
    overlay::Origin,
    uplink::Denied,
};
use ipnetwork::IpNetwork;

use super::{
    load::Capacities,
    maps::{TableError, failed, take},
    ranges,
};

/// Steps of a walk, as a multiple of what the table can hold.
const STEPS: usize = 2;

/// The tables.
#[expect(missing_debug_implementations, reason = "aya's maps have none")]
pub struct Connections {
    conntrack: HashMap<MapData, CtKey, CtEntry>,
    pending: HashMap<MapData, CtKey, CtEntry>,
    fragments: HashMap<MapData, FragmentKey, FragmentEntry>,
    origins: Ranges<Origin>,
    numbers: HashMap<MapData, u32, u32>,
    carried: HashMap<MapData, Addr, u32>,
    denied: Ranges<Denied>,
    capacities: Capacities,
}

type Ranges<V> = LpmTrie<MapData, [u8; 16], V>;

/// One of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Table {
    /// CONNTRACK: connections with packets in both directions.
    Conntrack,
    /// PENDING: connections without an answer yet.
    Pending,
    /// FRAGMENTS: packets of which the first fragment was let through.
    Fragments,
    /// ORIGINS: with an overlay, from which node packets from a range come.
    Origins,
    /// NUMBERS: with an overlay, identities whose numbers packets may carry.
    Numbers,
    /// CARRIED: with an overlay, what packets said of their senders.
    Carried,
    /// DENIED: whom the uplink refuses.
    Denied,
}

impl Table {
    /// Its name in datapath-abi.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Conntrack => maps::CONNTRACK,
            Self::Pending => maps::PENDING,
            Self::Fragments => maps::FRAGMENTS,
            Self::Origins => maps::ORIGINS,
            Self::Numbers => maps::NUMBERS,
            Self::Carried => maps::CARRIED,
            Self::Denied => maps::DENIED,
        }
    }
}

/// What was read of one.
#[derive(Clone, PartialEq, Debug)]
pub enum Dumped {
    /// Of a table of connections.
    Connections(Found<CtKey, CtEntry>),
    /// Of FRAGMENTS.
    Fragments(Found<FragmentKey, FragmentEntry>),
    /// Of ORIGINS.
    Origins(Found<IpNetwork, Origin>),
    /// Of NUMBERS; values say nothing.
    Numbers(Found<u32, u32>),
    /// Of CARRIED: an identity by address.
    Carried(Found<Addr, u32>),
    /// Of DENIED.
    Denied(Found<IpNetwork, Denied>),
}

/// What was found of a table.
#[derive(Clone, PartialEq, Debug)]
pub struct Found<K, V> {
    /// Each entry once, in no order.
    pub entries: Vec<(K, V)>,
    /// Why there may be more.
    pub cut: Option<Cut>,
}

/// Why a walk ended before the table did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// As many as were asked for.
    Limit,
    /// The table changed faster than it could be read.
    Restless,
}

impl Connections {
    /// Takes the maps out of an object that was loaded with these capacities.
    pub fn new(ebpf: &mut Ebpf, capacities: &Capacities) -> Result<Self, TableError> {
        Ok(Self {
            conntrack: take(ebpf, maps::CONNTRACK)?,
            pending: take(ebpf, maps::PENDING)?,
            fragments: take(ebpf, maps::FRAGMENTS)?,
            origins: take(ebpf, maps::ORIGINS)?,
            numbers: take(ebpf, maps::NUMBERS)?,
            carried: take(ebpf, maps::CARRIED)?,
            denied: take(ebpf, maps::DENIED)?,
            capacities: capacities.clone(),
        })
    }

    /// Up to `limit` entries of a table.
    pub fn read(&self, table: Table, limit: usize) -> Result<Dumped, TableError> {
        let name = table.name();
        let steps = (self.capacities.of(name) as usize).saturating_mul(STEPS);
        Ok(match table {
            Table::Conntrack => Dumped::Connections(of_map(&self.conntrack, name, limit, steps)?),
            Table::Pending => Dumped::Connections(of_map(&self.pending, name, limit, steps)?),
            Table::Fragments => Dumped::Fragments(of_map(&self.fragments, name, limit, steps)?),
            Table::Origins => Dumped::Origins(of_trie(&self.origins, name, limit, steps)?),
            Table::Numbers => Dumped::Numbers(of_map(&self.numbers, name, limit, steps)?),
            Table::Carried => Dumped::Carried(of_map(&self.carried, name, limit, steps)?),
            Table::Denied => Dumped::Denied(of_trie(&self.denied, name, limit, steps)?),
        })
    }
}

fn of_map<K: aya::Pod + Eq + Hash, V: aya::Pod>(
    map: &HashMap<MapData, K, V>,
    name: &'static str,
    limit: usize,
    steps: usize,
) -> Result<Found<K, V>, TableError> {
    let keys = map.keys().map(|key| key.map_err(failed(name, "list")));
    walk(keys, |key| if_there(map.get(key, 0), name), limit, steps)
}

fn of_trie<V: aya::Pod>(
    map: &Ranges<V>,
    name: &'static str,
    limit: usize,
    steps: usize,
) -> Result<Found<IpNetwork, V>, TableError> {
    let keys = map.keys().map(|key| key.map(|key| ranges::range(&key)).map_err(failed(name, "list")));
    walk(keys, |range| if_there(map.get(&ranges::key(*range), 0), name), limit, steps)
}

/// One that ended between two questions is none any more.
fn if_there<V>(entry: Result<V, MapError>, name: &'static str) -> Result<Option<V>, TableError> {
    match entry {
        Ok(entry) => Ok(Some(entry)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(failed(name, "read")(error)),
    }
}

/// Goes along the keys, for `steps` at most.
fn walk<K: Eq + Hash, V, E>(
    keys: impl Iterator<Item = Result<K, E>>,
    entry: impl Fn(&K) -> Result<Option<V>, E>,
    limit: usize,
    steps: usize,
) -> Result<Found<K, V>, E> {
    let mut seen: Seen<K, V> = Seen::new();
    let mut cut = None;
    for (step, key) in keys.enumerate() {
        let key = key?;
        if step == steps {
            cut = Some(Cut::Restless);
            break;
        }
        if seen.contains_key(&key) {
            continue;
        }
        if seen.len() == limit {
            cut = Some(Cut::Limit);
            break;
        }
        if let Some(entry) = entry(&key)? {
            seen.insert(key, entry);
        }
    }
    Ok(Found { entries: seen.into_iter().collect(), cut })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn key(port: u16) -> Result<CtKey, Infallible> {
        Ok(CtKey { port: [port, 80], ..CtKey::default() })
    }

    fn there(key: &CtKey) -> Result<Option<CtEntry>, Infallible> {
        Ok((key.port[0] != 13).then(CtEntry::default))
    }

    fn ports(found: &Found<CtKey, CtEntry>) -> Vec<u16> {
        let mut ports: Vec<u16> = found.entries.iter().map(|(key, _)| key.port[0]).collect();
        ports.sort_unstable();
        ports
    }

    #[test]
    fn every_connection_is_found_once_and_gone_ones_are_left_out() {
        let keys = [1, 2, 13, 1, 2, 3].map(key);
        let found = walk(keys.into_iter(), there, 10, 10).unwrap();
        assert_eq!((ports(&found), found.cut), (vec![1, 2, 3], None));
    }

    #[test]
    fn as_many_as_fit_are_no_reason_for_a_note() {
        let found = walk([1, 2, 1].map(key).into_iter(), there, 2, 10).unwrap();
        assert_eq!((ports(&found), found.cut), (vec![1, 2], None));
        let found = walk([1, 2, 3].map(key).into_iter(), there, 2, 10).unwrap();
        assert_eq!((ports(&found), found.cut), (vec![1, 2], Some(Cut::Limit)));
    }

    #[test]
    fn a_walk_that_always_begins_anew_ends() {
        let found = walk([1, 2].map(key).into_iter().cycle(), there, 10, 7).unwrap();
        assert_eq!((ports(&found), found.cut), (vec![1, 2], Some(Cut::Restless)));
    }
}
