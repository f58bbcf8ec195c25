//! ADDRESSES and CIDRS: who is behind an address. A plan looks at the addresses that something was said
//! about since the last one, and at those that have found no room; only the first, and the one after the maps
//! were read again, looks at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use datapath_abi::{
    addr::{Addr, AddrEntry},
    endpoint::NO_SLOT,
    identity,
};
use policy::{lower::region_key, model::PodKey};

use super::{Planner, draft::Draft};
use crate::reconcile::{change::Change, endpoint::LocalEndpoint, homes::Homes, mirror::Mirror};

/// Who claims which address, and what has to be looked at.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    /// Pods that are peers, by the addresses they have.
    homes: Homes<Addr>,
    /// The node's own.
    host: BTreeSet<Addr>,
    /// Addresses that something was said about.
    stale: BTreeSet<Addr>,
    /// Addresses of pods elsewhere that have found no room in ADDRESSES.
    strangers: BTreeSet<Addr>,
    /// The map has been compared with all of it, and has only been changed by plans since.
    compared: bool,
}

impl Addresses {
    /// A pod has other addresses, or another number.
    pub(super) fn settle(&mut self, pod: &PodKey, old: &[IpAddr], new: &[IpAddr]) {
        for addr in old.iter().map(|ip| Addr::from(*ip)) {
            self.homes.remove(addr, pod.clone());
            self.stale.insert(addr);
        }
        for addr in new.iter().map(|ip| Addr::from(*ip)) {
            self.homes.insert(addr, pod.clone());
            self.stale.insert(addr);
        }
    }

    /// The node has these addresses now.
    pub(super) fn set_host(&mut self, ips: &BTreeSet<IpAddr>) {
        let host: BTreeSet<Addr> = ips.iter().map(|ip| Addr::from(*ip)).collect();
        self.stale.extend(self.host.symmetric_difference(&host));
        self.host = host;
    }

    /// Something else has changed about these.
    pub(super) fn touch(&mut self, ips: impl Iterator<Item = IpAddr>) {
        self.stale.extend(ips.map(Addr::from));
    }

    /// The map may hold anything.
    pub(super) fn forget(&mut self) {
        self.compared = false;
    }

    /// How many have found no room.
    pub(super) fn strangers(&self) -> usize {
        self.strangers.len()
    }
}

impl Planner {
    /// Brings ADDRESSES and CIDRS up to date. Returns whose identity has changed, from what to what.
    pub(super) fn install_addresses(&mut self, mirror: &Mirror, draft: &mut Draft<'_>) -> Vec<(u32, u32)> {
        self.install_pools(mirror, draft);
        let mut open = std::mem::take(&mut self.addresses.stale);
        open.append(&mut self.addresses.strangers);
        let here: BTreeMap<Addr, &LocalEndpoint> =
            self.endpoints.values().flat_map(|it| it.ips().map(move |ip| (Addr::from(ip), it))).collect();
        if !self.addresses.compared {
            self.addresses.compared = true;
            open.extend(self.addresses.homes.addresses());
            open.extend(self.addresses.host.iter().chain(here.keys()));
            open.extend(mirror.addresses.keys());
        }
        // Who runs here comes first, and the node itself. Of pods elsewhere those that find no room are
        // strangers: no rule for their identity admits them.
        let is_near = |entry: &AddrEntry| entry.slot != NO_SLOT || entry.identity == identity::HOST;
        let wanted = open.into_iter().map(|addr| (addr, self.behind(addr, &here)));
        let (near, far): (Vec<_>, Vec<_>) = wanted.partition(|(_, entry)| entry.as_ref().is_some_and(is_near));
        let mut moved = Vec::new();
        let mut room = self.capacity.addresses.saturating_sub(mirror.addresses.len());
        for (addr, entry) in near.into_iter().chain(far) {
            let before = mirror.addresses.get(&addr);
            let Some(entry) = entry else {
                if let Some(before) = before {
                    draft.drop_address(addr);
                    moved.push((before.identity, self.nobody(addr)));
                }
                continue;
            };
            if before == Some(&entry) {
                continue;
            }
            if before.is_none() {
                if room == 0 && !is_near(&entry) {
                    self.addresses.strangers.insert(addr);
                    continue;
                }
                room = room.saturating_sub(1);
            }
            draft.put_address(addr, entry);
            moved.push((before.map_or_else(|| self.nobody(addr), |old| old.identity), entry.identity));
        }
        moved.retain(|(before, after)| before != after);
        moved.sort_unstable();
        moved.dedup();
        moved
    }

    /// Who is behind an address: who runs here is known best, so a local endpoint wins over any object.
    fn behind(&self, addr: Addr, here: &BTreeMap<Addr, &LocalEndpoint>) -> Option<AddrEntry> {
        if let Some(endpoint) = here.get(&addr) {
            return Some(AddrEntry { identity: self.identity_of(endpoint), slot: endpoint.slot });
        }
        if self.addresses.host.contains(&addr) {
            return Some(AddrEntry { identity: identity::HOST, slot: NO_SLOT });
        }
        let pod = self.addresses.homes.at(addr).last()?;
        Some(AddrEntry { identity: *self.numbered.get(pod)?, slot: NO_SLOT })
    }

    fn install_pools(&self, mirror: &Mirror, draft: &mut Draft<'_>) {
        let pools: BTreeSet<(Addr, u8)> = self.pools.iter().map(|pool| region_key(*pool)).collect();
        let unmanaged = AddrEntry { identity: identity::UNMANAGED, slot: NO_SLOT };
        for &(addr, length) in &pools {
            if mirror.cidrs.get(&(addr, length)) != Some(&unmanaged) {
                draft.put_cidr(Change::PutCidr(addr, length, unmanaged));
            }
        }
        for &(addr, length) in mirror.cidrs.keys() {
            if !pools.contains(&(addr, length)) {
                draft.drop_later(Change::DropCidr(addr, length));
            }
        }
    }

    /// The identity of an address that is in no table.
    fn nobody(&self, addr: Addr) -> u32 {
        let ip = IpAddr::from(addr);
        if self.pools.iter().any(|pool| pool.contains(ip)) { identity::UNMANAGED } else { identity::WORLD }
    }

    pub(super) fn identity_of(&self, endpoint: &LocalEndpoint) -> u32 {
        self.numbered.get(&endpoint.pod).copied().unwrap_or(identity::UNMANAGED)
    }
}
