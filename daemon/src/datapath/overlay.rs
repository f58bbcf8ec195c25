//! The overlay in the kernel: its programs at the device, and the map that says from which node addresses come.

use std::{collections::BTreeMap, path::Path};

use aya::maps::{LpmTrie, MapData, lpm_trie::Key};
use datapath_abi::{
    addr::{Addr, V4_PREFIX_BITS},
    maps,
    overlay::Origin,
};
use ipnetwork::IpNetwork;

use super::{
    attach::{AttachError, Attacher},
    load::{self, Capacities, LoadError, program},
    maps::{TableError, failed, take},
};

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// Programs could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Programs could not be attached.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The map could not be read or written.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// Programs and map.
#[expect(missing_debug_implementations, reason = "aya's maps have none")]
pub struct Overlay {
    attacher: Attacher,
    origins: LpmTrie<MapData, [u8; 16], Origin>,
    /// What the map holds.
    told: BTreeMap<IpNetwork, Origin>,
}

impl Overlay {
    /// Loads the programs; maps are pinned below `pins`.
    pub fn load(pins: &Path, capacities: &Capacities) -> Result<Self, OverlayError> {
        let mut ebpf = load::load_some(Some(pins), capacities, &[program::FROM_OVERLAY, program::TO_OVERLAY])?;
        let origins: LpmTrie<MapData, [u8; 16], Origin> = take(&mut ebpf, maps::ORIGINS)?;
        let mut told = BTreeMap::new();
        for entry in origins.iter() {
            let (key, origin) = entry.map_err(failed(maps::ORIGINS, "read"))?;
            told.insert(range(&key), origin);
        }
        Ok(Self { attacher: Attacher::for_overlay(ebpf, pins)?, origins, told })
    }

    /// Attaches the programs to the device, in place of those that are there.
    pub fn attach(&mut self, interface: &str, ifindex: u32) -> Result<(), OverlayError> {
        Ok(self.attacher.renew(interface, ifindex)?)
    }

    /// Says from where addresses come; of others nothing is known any more. What goes makes room first.
    pub fn tell(&mut self, wanted: &BTreeMap<IpNetwork, Origin>) -> Result<(), OverlayError> {
        let gone: Vec<IpNetwork> = self.told.keys().filter(|range| !wanted.contains_key(range)).copied().collect();
        for range in gone {
            self.origins.remove(&key(range)).map_err(failed(maps::ORIGINS, "remove"))?;
            self.told.remove(&range);
        }
        for (range, origin) in wanted {
            if self.told.get(range) != Some(origin) {
                self.origins.insert(&key(*range), origin, 0).map_err(failed(maps::ORIGINS, "insert"))?;
                self.told.insert(*range, *origin);
            }
        }
        Ok(())
    }
}

fn key(range: IpNetwork) -> Key<[u8; 16]> {
    let more = if range.is_ipv4() { V4_PREFIX_BITS } else { 0 };
    Key::new(u32::from(range.prefix()) + more, Addr::from(range.network()).octets())
}

fn range(key: &Key<[u8; 16]>) -> IpNetwork {
    let address = std::net::IpAddr::from(Addr::from_octets(key.data()));
    let less = if address.is_ipv4() { V4_PREFIX_BITS } else { 0 };
    let length = u8::try_from(key.prefix_len().saturating_sub(less)).unwrap_or(u8::MAX);
    IpNetwork::new(address, length).unwrap_or_else(|_| IpNetwork::from(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_found_again_by_its_key() {
        for text in ["10.244.1.0/24", "192.0.2.7/32", "fd00:1::/64", "fd31::12/128"] {
            let wanted: IpNetwork = text.parse().unwrap();
            assert_eq!(range(&key(wanted)), wanted);
        }
        assert_eq!(key("10.0.0.0/8".parse().unwrap()).prefix_len(), 104);
    }
}
