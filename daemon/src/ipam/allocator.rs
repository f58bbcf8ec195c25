//! Next-fit over the pools: after the address handed out last comes the next free one, so that an
//! address that was freed rests as long as the pool allows.
//!
//! Costs memory by addresses taken, not by the size of the pools.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::IpAddr,
};

use ipnetwork::IpNetwork;

use super::{Owner, PodAddress, Pools, pool::Range};

/// Why there is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllocateError {
    /// All of a family are taken.
    #[error("no free {family} address: all {capacity} of {} are taken", list(.pools))]
    Exhausted {
        /// "IPv4" or "IPv6".
        family: &'static str,
        /// The ranges of the family.
        pools: Vec<IpNetwork>,
        /// How many addresses they have for pods.
        capacity: u128,
    },
    /// The owner has addresses already: an ADD that was not undone, or a second one.
    #[error("{owner} was added before and has {}", list(.addresses))]
    HasAddresses {
        /// Who asked.
        owner: Owner,
        /// What it has.
        addresses: Vec<IpAddr>,
    },
    /// The requested address belongs to no pool.
    #[error("requested address {address} is outside of the pools {}", list(.pools))]
    Outside {
        /// What was asked for.
        address: IpAddr,
        /// All ranges.
        pools: Vec<IpNetwork>,
    },
    /// The requested address is for no pod.
    #[error("requested address {address} is {why} of pool {pool}: no pod can have it")]
    Reserved {
        /// What was asked for.
        address: IpAddr,
        /// What it is for.
        why: &'static str,
        /// The range.
        pool: IpNetwork,
    },
    /// The requested address is another's.
    #[error("requested address {address} is taken by {by}")]
    Taken {
        /// What was asked for.
        address: IpAddr,
        /// Whose it is.
        by: Owner,
    },
    /// Two requested addresses of one family.
    #[error("two {family} addresses are requested, {first} and {second}: a pod gets one of each family")]
    TwoOfFamily {
        /// "IPv4" or "IPv6".
        family: &'static str,
        /// The one.
        first: IpAddr,
        /// The other.
        second: IpAddr,
    },
}

fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

/// An address that could not be claimed for the owner that is said to have it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{owner} is recorded with {address}: {reason}")]
pub struct Conflict {
    /// Who is said to have it.
    pub owner: Owner,
    /// What.
    pub address: IpAddr,
    /// Why that cannot be.
    pub reason: Box<AllocateError>,
}

/// What became of an address that was to be freed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Freed {
    /// It is free now.
    Done,
    /// It was free, or is in no pool.
    WasFree,
    /// It is another's by now, and stays so.
    Others(Owner),
}

/// How full one range is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Usage {
    /// The range.
    pub pool: IpNetwork,
    /// Addresses taken.
    pub used: u128,
    /// Addresses free.
    pub free: u128,
    /// Addresses for pods at all.
    pub capacity: u128,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Family {
    V4,
    V6,
}

impl Family {
    const ALL: [Self; 2] = [Self::V4, Self::V6];

    fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// Who has which address.
#[derive(Clone, Debug)]
pub struct Allocator {
    pools: Pools,
    taken: BTreeMap<IpAddr, Owner>,
    held: BTreeMap<Owner, Vec<IpAddr>>,
    /// Handed out last, by family.
    cursors: [Option<IpAddr>; 2],
}

impl Allocator {
    /// All of the pools free.
    pub fn new(pools: Pools) -> Self {
        Self { pools, taken: BTreeMap::new(), held: BTreeMap::new(), cursors: [None; 2] }
    }

    /// The pools.
    pub fn pools(&self) -> &Pools {
        &self.pools
    }

    /// Gives an owner one address of each family there is a pool for: the requested one, else the
    /// next. All or nothing.
    pub fn allocate(&mut self, owner: &Owner, requested: &[IpAddr]) -> Result<Vec<PodAddress>, AllocateError> {
        if let Some(addresses) = self.held.get(owner) {
            return Err(AllocateError::HasAddresses { owner: owner.clone(), addresses: addresses.clone() });
        }
        let mut wanted = [None; 2];
        for &address in requested {
            let family = Family::of(address);
            if let Some(first) = wanted[family as usize].replace(address)
                && first != address
            {
                return Err(AllocateError::TwoOfFamily { family: family.name(), first, second: address });
            }
            self.claimable(address)?;
        }
        let mut chosen = Vec::new();
        for family in Family::ALL {
            if let Some(address) = wanted[family as usize] {
                chosen.push(address);
            } else if !self.ranges(family).is_empty() {
                chosen.push(self.next(family)?);
            }
        }
        let mut allocations = Vec::new();
        for &address in &chosen {
            if wanted[Family::of(address) as usize].is_none() {
                self.cursors[Family::of(address) as usize] = Some(address);
            }
            self.taken.insert(address, owner.clone());
            let range = self.pools.range_of(address).expect("chosen from a range");
            allocations.push(PodAddress { address, gateway: range.gateway() });
        }
        self.held.insert(owner.clone(), chosen);
        Ok(allocations)
    }

    /// Notes that an owner has an address, as a record or the kernel says. Noted already is fine.
    pub fn claim(&mut self, owner: &Owner, address: IpAddr) -> Result<(), Conflict> {
        let conflict = |reason| Conflict { owner: owner.clone(), address, reason: Box::new(reason) };
        if self.taken.get(&address) == Some(owner) {
            return Ok(());
        }
        self.claimable(address).map_err(conflict)?;
        self.taken.insert(address, owner.clone());
        self.held.entry(owner.clone()).or_default().push(address);
        Ok(())
    }

    /// Frees one address, if it is this owner's. May be repeated, and may come late.
    pub fn free(&mut self, owner: &Owner, address: IpAddr) -> Freed {
        match self.taken.entry(address) {
            Entry::Vacant(_) => Freed::WasFree,
            Entry::Occupied(entry) if entry.get() != owner => Freed::Others(entry.get().clone()),
            Entry::Occupied(entry) => {
                entry.remove();
                if let Entry::Occupied(mut held) = self.held.entry(owner.clone()) {
                    held.get_mut().retain(|&other| other != address);
                    if held.get().is_empty() {
                        held.remove();
                    }
                }
                Freed::Done
            }
        }
    }

    /// Frees all of an owner's addresses; says which. May be repeated.
    pub fn free_all(&mut self, owner: &Owner) -> Vec<IpAddr> {
        let addresses = self.held.remove(owner).unwrap_or_default();
        for address in &addresses {
            self.taken.remove(address);
        }
        addresses
    }

    /// Whose an address is.
    pub fn owner(&self, address: IpAddr) -> Option<&Owner> {
        self.taken.get(&address)
    }

    /// What an owner has.
    pub fn addresses(&self, owner: &Owner) -> &[IpAddr] {
        self.held.get(owner).map_or(&[], Vec::as_slice)
    }

    /// All owners and what they have.
    pub fn owners(&self) -> impl Iterator<Item = (&Owner, &[IpAddr])> {
        self.held.iter().map(|(owner, addresses)| (owner, addresses.as_slice()))
    }

    /// How full the ranges are.
    pub fn usage(&self) -> Vec<Usage> {
        let of = |range: &Range| {
            // Reserved addresses are never taken, so everything taken within the range counts.
            let used = self.taken.range(range.at(0)..=range.at(range.last())).count() as u128;
            let capacity = range.capacity();
            Usage { pool: range.network(), used, free: capacity - used, capacity }
        };
        self.pools.ranges().map(of).collect()
    }

    /// The addresses handed out last, for [`Self::set_cursors`] of a later allocator.
    pub fn cursors(&self) -> Vec<IpAddr> {
        self.cursors.iter().flatten().copied().collect()
    }

    /// Goes on after these addresses. Those in no pool, after a change of configuration, do nothing.
    pub fn set_cursors(&mut self, cursors: &[IpAddr]) {
        for &cursor in cursors {
            if self.pools.range_of(cursor).is_some() {
                self.cursors[Family::of(cursor) as usize] = Some(cursor);
            }
        }
    }

    fn ranges(&self, family: Family) -> &[Range] {
        match family {
            Family::V4 => &self.pools.v4,
            Family::V6 => &self.pools.v6,
        }
    }

    fn claimable(&self, address: IpAddr) -> Result<(), AllocateError> {
        let Some(range) = self.pools.range_of(address) else {
            let pools = self.pools.ranges().map(Range::network).collect();
            return Err(AllocateError::Outside { address, pools });
        };
        let offset = range.offset(address).expect("the range is the address's");
        if let Some(why) = range.reserved(offset) {
            return Err(AllocateError::Reserved { address, why, pool: range.network() });
        }
        match self.taken.get(&address) {
            Some(by) => Err(AllocateError::Taken { address, by: by.clone() }),
            None => Ok(()),
        }
    }

    /// The first free address after the cursor, through all ranges of the family and around.
    fn next(&self, family: Family) -> Result<IpAddr, AllocateError> {
        let ranges = self.ranges(family);
        let cursor = self.cursors[family as usize];
        let place = cursor.and_then(|cursor| {
            ranges.iter().enumerate().find_map(|(i, range)| range.offset(cursor).map(|offset| (i, offset + 1)))
        });
        let (start, from) = place.unwrap_or((0, Range::FIRST));
        let behind = self.first_free(&ranges[start], from.max(Range::FIRST), ranges[start].last());
        let others = || {
            let (before, after) = (&ranges[..start], &ranges[start + 1..]);
            after.iter().chain(before).find_map(|range| self.first_free(range, Range::FIRST, range.last()))
        };
        let before = || self.first_free(&ranges[start], Range::FIRST, from.min(ranges[start].last()));
        behind.or_else(others).or_else(before).ok_or_else(|| AllocateError::Exhausted {
            family: family.name(),
            pools: ranges.iter().map(Range::network).collect(),
            capacity: ranges.iter().map(Range::capacity).sum(),
        })
    }

    /// The first free offset in a part of a range: walks along the addresses taken, not the range.
    fn first_free(&self, range: &Range, from: u128, to: u128) -> Option<IpAddr> {
        if from > to {
            return None;
        }
        let mut candidate = from;
        for (&address, _) in self.taken.range(range.at(from)..=range.at(to)) {
            if range.offset(address) != Some(candidate) {
                break;
            }
            candidate += 1;
        }
        (candidate <= to).then(|| range.at(candidate))
    }
}

#[cfg(test)]
mod tests;
