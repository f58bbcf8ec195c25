//! Maps that refuse on purpose: what is otherwise a matter of luck.

use daemon::datapath::load::{self, Capacities};
use datapath_abi::maps;

use crate::{bpffs::Bpffs, prog::Programs};

/// Programs whose PENDING takes `entries` and not one more. An LRU table makes room instead, so
/// one of the plain kind is put in its place, which has the same keys and values.
pub fn strict_pending(entries: u32) -> anyhow::Result<Programs> {
    let mut capacities = Capacities::default();
    for (map, entries) in [(maps::CONNTRACK, entries), (maps::PENDING, entries), (maps::EVENTS, 1 << 16)] {
        capacities.set(map, entries)?;
    }
    let pins = Bpffs::new()?;
    let donor = load::load(None, &capacities)?;
    std::fs::create_dir_all(load::pin_dir(pins.path()).join("maps"))?;
    let plain = donor.map(maps::CONNTRACK).expect("the object has this map");
    plain.pin(load::map_pin(pins.path(), maps::PENDING))?;
    Programs::of(load::load(Some(pins.path()), &capacities)?)
}
