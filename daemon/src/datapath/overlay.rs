//! The overlay in the kernel: its programs at the device, and the map that says from which node addresses come.

use std::{collections::BTreeMap, path::Path};

use aya::maps::{LpmTrie, MapData};
use datapath_abi::{maps, overlay::Origin};
use ipnetwork::IpNetwork;

use super::{
    attach::{AttachError, Attacher},
    load::{self, Capacities, LoadError, program},
    maps::{TableError, failed, take},
    ranges::{key, range},
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
