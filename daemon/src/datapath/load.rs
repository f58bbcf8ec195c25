//! Loads the programs: new code every time, maps taken over from their pins where they exist.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfError, EbpfLoader, VerifierLogLevel,
    programs::{Program, ProgramError},
};
use datapath_abi::{ABI_VERSION, dns, maps};

/// The object file, aligned as its parser wants it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bulkhead-datapath.o"));

/// Names of the programs in the object file.
pub mod program {
    /// tc ingress of the host side of a pod's link.
    pub const FROM_POD: &str = "from_pod";
    /// tc egress of the same.
    pub const TO_POD: &str = "to_pod";
    /// tc ingress of the overlay's device.
    pub const FROM_OVERLAY: &str = "from_overlay";
    /// tc egress of the same.
    pub const TO_OVERLAY: &str = "to_overlay";
    /// XDP of an interface to the world.
    pub const FROM_UPLINK: &str = "from_uplink";
    /// Points endpoints at other rules.
    pub const SWING: &str = "swing";
    /// Ages conntrack.
    pub const SWEEP: &str = "sweep";
    /// Tells the time.
    pub const CLOCK: &str = "clock";
    /// Lets everything pass.
    pub const PROBE: &str = "probe";
    /// All of them.
    pub const ALL: [&str; 9] = [FROM_POD, TO_POD, FROM_OVERLAY, TO_OVERLAY, FROM_UPLINK, SWING, SWEEP, CLOCK, PROBE];
}

/// What can go wrong while loading.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The pin folder cannot be made, or is on no bpffs.
    #[error("folder {path} for pinned maps")]
    PinFolder {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The object file or a map was refused.
    #[error("loading the eBPF object")]
    Object(#[from] EbpfError),
    /// A program was refused.
    #[error("loading the eBPF program {name}: {source}")]
    Program {
        /// Which.
        name: &'static str,
        /// Why; holds the verifier's log.
        #[source]
        source: ProgramError,
    },
    /// The object has no such program: daemon and object do not belong together.
    #[error("no eBPF program {0} in the object file: daemon and object are of different builds")]
    Missing(&'static str),
    /// A configured capacity cannot be.
    #[error("map {map}: {entries} is no valid capacity: {why}")]
    Capacity {
        /// Which map.
        map: String,
        /// What was asked for.
        entries: u32,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A pinned map has another capacity than the configuration asks for.
    #[error(
        "map {map} holds {found} entries at most, the configuration asks for {wanted}: \
         set it back, or drain the node and remove {path}"
    )]
    Resized {
        /// Which map.
        map: &'static str,
        /// Capacity of the pinned one.
        found: u32,
        /// Configured capacity.
        wanted: u32,
        /// Where it is pinned.
        path: PathBuf,
    },
}

/// Capacities by map name; what is not named has the default of [`maps::ALL`]. And what else programs are loaded with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capacities {
    by_map: BTreeMap<String, u32>,
    /// See [`dns::ports`].
    dns_ports: u64,
}

impl Capacities {
    /// As little as the kernel takes: for programs that are only tried out.
    pub fn least() -> Self {
        let resizable = maps::ALL.iter().filter(|info| !is_fixed(info.name) && !is_by_slot(info.name));
        let least = |info: &maps::MapInfo| if info.kind == "ringbuf" { 4096 } else { 8 };
        let by_map = resizable.map(|info| (info.name.to_owned(), least(info))).collect();
        Self { by_map, dns_ports: 0 }
    }

    /// Capacity of one map.
    pub fn of(&self, map: &str) -> u32 {
        let map = if is_by_slot(map) { maps::ENDPOINTS } else { map };
        self.by_map.get(map).copied().unwrap_or_else(|| maps::default_capacity(map))
    }

    /// Sets one; refuses what the kernel would refuse, with a reason.
    pub fn set(&mut self, map: &str, entries: u32) -> Result<(), LoadError> {
        let refuse = |why| LoadError::Capacity { map: map.to_owned(), entries, why };
        let info = maps::ALL
            .iter()
            .find(|info| info.name == map)
            .ok_or_else(|| refuse("there is no such map; `bulkhead status` lists them"))?;
        if is_fixed(info.name) {
            return Err(refuse("its size is fixed by the programs"));
        }
        if is_by_slot(info.name) {
            return Err(refuse("it has as many places as ENDPOINTS: set that"));
        }
        if entries == 0 {
            return Err(refuse("it must hold something"));
        }
        if info.kind == "ringbuf" && (!entries.is_power_of_two() || entries < 4096) {
            return Err(refuse("a ring buffer's size is a power of two and at least 4096 bytes"));
        }
        self.by_map.insert(map.to_owned(), entries);
        Ok(())
    }

    /// Has programs tell of DNS messages to these ports of servers; 0 is none. By default they tell of none.
    pub fn listen_to_dns(&mut self, ports: [u16; dns::PORTS]) {
        self.dns_ports = dns::ports(ports);
    }

    /// Whether there is such a port.
    pub fn listens_to_dns(&self) -> bool {
        self.dns_ports != 0
    }
}

/// Whether a map has a place for each slot, as ENDPOINTS has.
fn is_by_slot(map: &str) -> bool {
    matches!(map, maps::STAGED | maps::WAITING)
}

/// Whether the programs themselves fix a map's size.
fn is_fixed(map: &str) -> bool {
    matches!(map, maps::COUNTERS | maps::SCALARS | maps::GENERATION | maps::BUDGET)
}

/// Where this version's pins are, below `base`.
pub fn pin_dir(base: &Path) -> PathBuf {
    base.join(format!("v{ABI_VERSION}"))
}

/// Where a map is pinned.
pub fn map_pin(base: &Path, map: &str) -> PathBuf {
    pin_dir(base).join("maps").join(map)
}

/// Loads the programs. Maps are pinned below `pins`, or belong to this process alone if `None`.
pub fn load(pins: Option<&Path>, capacities: &Capacities) -> Result<Ebpf, LoadError> {
    load_object(OBJECT, pins, capacities, &program::ALL)
}

/// As [`load`], only some of the programs: several parts of the daemon have one of their own,
/// on the same pinned maps.
pub fn load_some(pins: Option<&Path>, capacities: &Capacities, programs: &[&'static str]) -> Result<Ebpf, LoadError> {
    load_object(OBJECT, pins, capacities, programs)
}

/// As [`load`], from another object: for tests and measurements.
pub fn load_object(
    object: &[u8],
    pins: Option<&Path>,
    capacities: &Capacities,
    programs: &[&'static str],
) -> Result<Ebpf, LoadError> {
    let mut loader = EbpfLoader::new();
    loader.verifier_log_level(VerifierLogLevel::STATS);
    let pinned: Vec<(&str, PathBuf)> = match pins {
        Some(base) => {
            let dir = pin_dir(base).join("maps");
            std::fs::create_dir_all(&dir).map_err(|source| LoadError::PinFolder { path: dir.clone(), source })?;
            maps::ALL.iter().map(|info| (info.name, dir.join(info.name))).collect()
        }
        None => Vec::new(),
    };
    for (name, path) in &pinned {
        loader.map_pin_path(name, path.as_path());
    }
    for info in maps::ALL {
        if !is_fixed(info.name) {
            loader.map_max_entries(info.name, capacities.of(info.name));
        }
    }
    loader.override_global("DNS_PORTS", &capacities.dns_ports, true);
    let mut ebpf = loader.load(object)?;
    for (map, path) in pinned {
        if let Some(info) = maps::ALL.iter().find(|info| info.name == map) {
            check_capacity(info.name, &path, capacities)?;
        }
    }
    for &name in programs {
        let program = ebpf.program_mut(name).ok_or(LoadError::Missing(name))?;
        let refused = |source| LoadError::Program { name, source };
        load_program(program).map_err(refused)?;
    }
    Ok(ebpf)
}

/// Loads a program of any type that the object has.
pub fn load_program(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::Xdp(xdp) => xdp.load(),
        other => <&mut aya::programs::SchedClassifier>::try_from(other)?.load(),
    }
}

/// A map that was found pinned keeps its capacity; that must be the configured one, as limits
/// are checked against the configuration.
fn check_capacity(map: &'static str, path: &Path, capacities: &Capacities) -> Result<(), LoadError> {
    let Ok(found) = aya::maps::MapInfo::from_pin(path) else { return Ok(()) };
    let (found, wanted) = (found.max_entries(), capacities.of(map));
    // The kernel rounds some sizes up, to a multiple of CPUs or pages.
    if found == wanted || found / 2 < wanted && wanted <= found {
        return Ok(());
    }
    Err(LoadError::Resized { map, found, wanted, path: path.to_owned() })
}
