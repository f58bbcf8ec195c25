//! The daemon's maps in the kernel: read once, then written change by change.

use std::collections::BTreeSet;

use aya::{
    Ebpf,
    maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, lpm_trie::Key},
    programs::{SchedClassifier, TestRun, TestRunOptions},
};
use datapath_abi::{
    addr::{Addr, AddrEntry},
    control::{MAX_SWINGS, SWINGS_AT},
    endpoint::{Endpoint, Swing},
    event::HOOKS,
    maps::{self, Counter, Scalar},
    policy::{Decision, PeerEntry, PeerKey, PortKey, REGION_RULESET_BITS, RegionKey, RulesetInfo},
    reason::REASONS,
};
use zerocopy::IntoBytes;

use super::{
    load::{LoadError, program},
    services::ServiceTables,
};
use crate::reconcile::{Change, Mirror};

/// What can go wrong with a map.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The object has no such map.
    #[error("no map {0} in the object file: daemon and object are of different builds")]
    Missing(&'static str),
    /// A map is of another type than expected.
    #[error("map {map}")]
    Type {
        /// Which.
        map: &'static str,
        /// Why.
        #[source]
        source: MapError,
    },
    /// A read or write failed.
    #[error("map {map}: {what}: {source}")]
    Access {
        /// Which.
        map: &'static str,
        /// What was tried.
        what: &'static str,
        /// Why.
        #[source]
        source: MapError,
    },
    /// The program `swing` did not carry out every order.
    #[error("swing: {done} of {wanted} endpoints carried out")]
    Swing {
        /// How many it did.
        done: u32,
        /// How many it was given.
        wanted: usize,
    },
    /// A program could not be run.
    #[error("running {0}")]
    Run(&'static str, #[source] aya::programs::ProgramError),
    /// The programs could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
}

type Table<K, V> = HashMap<MapData, K, V>;

/// The maps the daemon writes, and the program that swings pointers.
#[expect(missing_debug_implementations, reason = "aya's arrays have none")]
pub struct Tables {
    ebpf: Ebpf,
    endpoints: Array<MapData, Endpoint>,
    staged: Array<MapData, [u64; 2]>,
    interfaces: Table<u32, u32>,
    addresses: Table<Addr, AddrEntry>,
    cidrs: LpmTrie<MapData, [u8; 16], AddrEntry>,
    peers: Table<PeerKey, PeerEntry>,
    regions: LpmTrie<MapData, RegionKey, PeerEntry>,
    ports: Table<PortKey, Decision>,
    rulesets: Table<u32, RulesetInfo>,
    generation: Array<MapData, u64>,
    numbers: Table<u32, u32>,
    services: ServiceTables,
}

impl Tables {
    /// Takes the maps out of an object that was loaded with the program `swing`.
    pub fn new(mut ebpf: Ebpf) -> Result<Self, TableError> {
        Ok(Self {
            endpoints: take(&mut ebpf, maps::ENDPOINTS)?,
            staged: take(&mut ebpf, maps::STAGED)?,
            interfaces: take(&mut ebpf, maps::INTERFACES)?,
            addresses: take(&mut ebpf, maps::ADDRESSES)?,
            cidrs: take(&mut ebpf, maps::CIDRS)?,
            peers: take(&mut ebpf, maps::PEERS)?,
            regions: take(&mut ebpf, maps::REGIONS)?,
            ports: take(&mut ebpf, maps::PORTS)?,
            rulesets: take(&mut ebpf, maps::RULESETS)?,
            generation: take(&mut ebpf, maps::GENERATION)?,
            numbers: take(&mut ebpf, maps::NUMBERS)?,
            services: ServiceTables::new(&mut ebpf)?,
            ebpf,
        })
    }

    /// Those of Services.
    pub fn services(&mut self) -> &mut ServiceTables {
        &mut self.services
    }

    /// Reads everything but the maps of Services.
    pub fn read(&self) -> Result<Mirror, TableError> {
        let mut mirror = Mirror::default();
        for slot in 1..self.endpoints.len() {
            let endpoint = self.endpoints.get(&slot, 0).map_err(failed(maps::ENDPOINTS, "read"))?;
            if endpoint.ifindex != 0 {
                mirror.endpoints.insert(slot, endpoint);
            }
        }
        for slot in 1..self.staged.len() {
            let rules = self.staged.get(&slot, 0).map_err(failed(maps::STAGED, "read"))?;
            if rules != [0; 2] {
                mirror.staged.insert(slot, rules);
            }
        }
        for entry in self.interfaces.iter() {
            let (ifindex, slot) = entry.map_err(failed(maps::INTERFACES, "read"))?;
            mirror.interfaces.insert(ifindex, slot);
        }
        for entry in self.addresses.iter() {
            let (addr, value) = entry.map_err(failed(maps::ADDRESSES, "read"))?;
            mirror.addresses.insert(addr, value);
        }
        for entry in self.cidrs.iter() {
            let (key, value) = entry.map_err(failed(maps::CIDRS, "read"))?;
            mirror.cidrs.insert((Addr::from_octets(key.data()), key.prefix_len() as u8), value);
        }
        for entry in self.peers.iter() {
            let (key, value) = entry.map_err(failed(maps::PEERS, "read"))?;
            mirror.apply(&Change::PutPeer(key, value));
        }
        for entry in self.regions.iter() {
            let (key, value) = entry.map_err(failed(maps::REGIONS, "read"))?;
            let RegionKey { ruleset, addr } = key.data();
            let length = key.prefix_len().saturating_sub(REGION_RULESET_BITS) as u8;
            mirror.apply(&Change::PutRegion(u32::from_be_bytes(ruleset), Addr::from_octets(addr), length, value));
        }
        for entry in self.ports.iter() {
            let (key, value) = entry.map_err(failed(maps::PORTS, "read"))?;
            mirror.apply(&Change::PutPort(key, value));
        }
        for entry in self.rulesets.iter() {
            let (key, value) = entry.map_err(failed(maps::RULESETS, "read"))?;
            mirror.rulesets.insert(key, value);
        }
        mirror.generation = self.generation.get(&0, 0).map_err(failed(maps::GENERATION, "read"))?;
        Ok(mirror)
    }

    /// Numbers of identities that packets may carry, as the programs know them.
    pub fn numbers(&self) -> Result<BTreeSet<u32>, TableError> {
        self.numbers.keys().map(|number| number.map_err(failed(maps::NUMBERS, "read"))).collect()
    }

    /// Packets may carry a number.
    pub fn add_number(&mut self, number: u32) -> Result<(), TableError> {
        self.numbers.insert(number, 1, 0).map_err(failed(maps::NUMBERS, "insert"))
    }

    /// Packets may carry a number no more.
    pub fn drop_number(&mut self, number: u32) -> Result<(), TableError> {
        gone(self.numbers.remove(&number), maps::NUMBERS)
    }

    /// Carries out one change.
    pub fn apply(&mut self, change: &Change) -> Result<(), TableError> {
        match change {
            Change::PutPort(key, value) => self.ports.insert(key, value, 0).map_err(failed(maps::PORTS, "insert")),
            Change::PutPeer(key, value) => self.peers.insert(key, value, 0).map_err(failed(maps::PEERS, "insert")),
            Change::PutRegion(ruleset, addr, length, value) => self
                .regions
                .insert(&region(*ruleset, *addr, *length), value, 0)
                .map_err(failed(maps::REGIONS, "insert")),
            Change::PutRuleset(key, value) => {
                self.rulesets.insert(key, value, 0).map_err(failed(maps::RULESETS, "insert"))
            }
            Change::PutAddress(addr, value) => {
                self.addresses.insert(addr, value, 0).map_err(failed(maps::ADDRESSES, "insert"))
            }
            Change::PutCidr(addr, length, value) => {
                self.cidrs.insert(&cidr(*addr, *length), value, 0).map_err(failed(maps::CIDRS, "insert"))
            }
            Change::PutEndpoint(slot, value) => {
                self.endpoints.set(*slot, value, 0).map_err(failed(maps::ENDPOINTS, "set"))
            }
            Change::PutStaged(slot, rules) => self.staged.set(*slot, rules, 0).map_err(failed(maps::STAGED, "set")),
            Change::PutInterface(ifindex, slot) => {
                self.interfaces.insert(ifindex, slot, 0).map_err(failed(maps::INTERFACES, "insert"))
            }
            Change::PutGeneration(next) => self.generation.set(0, next, 0).map_err(failed(maps::GENERATION, "set")),
            Change::Swing(orders) => self.swing(orders),
            Change::DropInterface(ifindex) => gone(self.interfaces.remove(ifindex), maps::INTERFACES),
            Change::ClearEndpoint(slot) => {
                self.endpoints.set(*slot, Endpoint::default(), 0).map_err(failed(maps::ENDPOINTS, "clear"))
            }
            Change::DropAddress(addr) => gone(self.addresses.remove(addr), maps::ADDRESSES),
            Change::DropCidr(addr, length) => gone(self.cidrs.remove(&cidr(*addr, *length)), maps::CIDRS),
            Change::DropPeer(key) => gone(self.peers.remove(key), maps::PEERS),
            Change::DropRegion(ruleset, addr, length) => {
                gone(self.regions.remove(&region(*ruleset, *addr, *length)), maps::REGIONS)
            }
            Change::DropPort(key) => gone(self.ports.remove(key), maps::PORTS),
            Change::DropRuleset(key) => gone(self.rulesets.remove(key), maps::RULESETS),
        }
    }

    /// Has the program `swing` carry out orders: each pointer changes in one store.
    fn swing(&self, orders: &[Swing]) -> Result<(), TableError> {
        for batch in orders.chunks(MAX_SWINGS) {
            let mut data = vec![0; SWINGS_AT];
            data.extend(batch.as_bytes());
            let done = run(&self.ebpf, program::SWING, &data, None)?;
            if done as usize != batch.len() {
                return Err(TableError::Swing { done, wanted: batch.len() });
            }
        }
        Ok(())
    }
}

/// Runs one of the control programs once on `data`; `out` receives the data as it left it.
pub(super) fn run(ebpf: &Ebpf, name: &'static str, data: &[u8], out: Option<&mut [u8]>) -> Result<u32, TableError> {
    let program: &SchedClassifier = ebpf
        .program(name)
        .ok_or(LoadError::Missing(name))?
        .try_into()
        .map_err(|source| LoadError::Program { name, source })?;
    let mut options = TestRunOptions::new();
    options.data_in = Some(data);
    options.data_out = out;
    let result = program.test_run(options).map_err(|source| TableError::Run(name, source))?;
    Ok(result.return_value)
}

/// Counters that the programs keep, summed over CPUs.
#[expect(missing_debug_implementations, reason = "aya's arrays have none")]
pub struct Counts {
    counters: PerCpuArray<MapData, Counter>,
    scalars: PerCpuArray<MapData, u64>,
}

impl Counts {
    /// Takes the maps out of a loaded object.
    pub fn new(ebpf: &mut Ebpf) -> Result<Self, TableError> {
        Ok(Self { counters: take(ebpf, maps::COUNTERS)?, scalars: take(ebpf, maps::SCALARS)? })
    }

    /// By hook and reason number (0: passed).
    pub fn by_reason(&self) -> Result<Vec<(u32, u32, Counter)>, TableError> {
        let mut all = Vec::new();
        for hook in 0..HOOKS {
            for reason in 0..REASONS {
                let values =
                    self.counters.get(&(hook * REASONS + reason), 0).map_err(failed(maps::COUNTERS, "read"))?;
                let total = values.iter().fold(Counter::default(), |sum, value| Counter {
                    packets: sum.packets.wrapping_add(value.packets),
                    bytes: sum.bytes.wrapping_add(value.bytes),
                });
                all.push((hook, reason, total));
            }
        }
        Ok(all)
    }

    /// One scalar, by CPU.
    pub fn scalar_by_cpu(&self, scalar: Scalar) -> Result<Vec<u64>, TableError> {
        let values = self.scalars.get(&(scalar as u32), 0).map_err(failed(maps::SCALARS, "read"))?;
        Ok(values.iter().copied().collect())
    }

    /// One scalar, summed.
    pub fn scalar(&self, scalar: Scalar) -> Result<u64, TableError> {
        Ok(self.scalar_by_cpu(scalar)?.iter().fold(0, |sum, value| sum.wrapping_add(*value)))
    }
}

/// Takes a map out of an object, as the type it should be of.
pub(super) fn take<M>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, TableError>
where
    M: TryFrom<Map, Error = MapError>,
{
    let map = ebpf.take_map(name).ok_or(TableError::Missing(name))?;
    M::try_from(map).map_err(|source| TableError::Type { map: name, source })
}

pub(super) fn failed(map: &'static str, what: &'static str) -> impl Fn(MapError) -> TableError {
    move |source| TableError::Access { map, what, source }
}

/// A removal of what is not there has done its work.
pub(super) fn gone(result: Result<(), MapError>, map: &'static str) -> Result<(), TableError> {
    match result {
        Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(TableError::Access { map, what: "remove", source }),
    }
}

fn cidr(addr: Addr, length: u8) -> Key<[u8; 16]> {
    Key::new(u32::from(length), addr.octets())
}

fn region(ruleset: u32, addr: Addr, length: u8) -> Key<RegionKey> {
    Key::new(REGION_RULESET_BITS + u32::from(length), RegionKey::new(ruleset, addr))
}

/// Takes the ring buffer of DNS messages out of a loaded object.
pub fn take_dns(ebpf: &mut Ebpf) -> Result<aya::maps::RingBuf<MapData>, TableError> {
    take(ebpf, maps::DNS)
}

/// Takes the ring buffer of flow events out of a loaded object.
pub fn take_events(ebpf: &mut Ebpf) -> Result<aya::maps::RingBuf<MapData>, TableError> {
    take(ebpf, maps::EVENTS)
}
