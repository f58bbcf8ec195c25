//! The uplink in the kernel: its program at each interface by which the world reaches the node, and the map that says whose
//! packets it drops.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    maps::{LpmTrie, Map, MapData},
    programs::{
        ProgramError, Xdp, XdpMode,
        links::{FdLink, PinnedLink},
        xdp::XdpLink,
    },
};
use datapath_abi::{maps, uplink::Denied};
use ipnetwork::IpNetwork;
use rustix::io::Errno;

use super::{
    load::{self, Capacities, LoadError, program},
    maps::{TableError, failed, take},
    predecessor, ranges,
};
use crate::uplink::deny_list::Change;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum UplinkError {
    /// The program could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The map could not be read or written.
    #[error(transparent)]
    Table(#[from] TableError),
    /// Somebody else's program is there. It is left alone.
    #[error(
        "{0} has an XDP program that is not Bulkhead's: remove it (ip link set dev {0} xdp off), or leave {0} out of --uplink"
    )]
    Taken(String),
    /// The kernel refused.
    #[error("attaching {} to {interface}: {source}", program::FROM_UPLINK)]
    Attach {
        /// Where.
        interface: String,
        /// Why.
        #[source]
        source: ProgramError,
    },
    /// The link could not be pinned, or a pin not be read.
    #[error("pin {path}: {why}")]
    Pin {
        /// Where.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

/// Where in a packet's way the program runs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Way {
    /// In the driver, before the kernel has made a packet of what came in.
    Driver,
    /// Behind it, where the driver cannot.
    Generic,
}

impl Way {
    /// For people, and in the names of pins.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Driver => "driver",
            Self::Generic => "generic",
        }
    }

    const fn mode(self) -> XdpMode {
        match self {
            Self::Driver => XdpMode::Driver,
            Self::Generic => XdpMode::Skb,
        }
    }
}

/// Program and map.
#[expect(missing_debug_implementations, reason = "aya's maps have none")]
pub struct Gate {
    ebpf: Ebpf,
    denied: LpmTrie<MapData, [u8; 16], Denied>,
    /// What the map holds.
    told: BTreeMap<IpNetwork, Denied>,
    /// Where agents of all ABI versions have their pins.
    pins: PathBuf,
    /// Where this one has its links.
    links: PathBuf,
}

/// Folder of the links among the pins of a version: not that of pods' links, which is cleared of whoever is no pod.
const LINKS: &str = "uplinks";

impl Gate {
    /// Loads the program; maps are pinned below `pins`. What an agent of another ABI version has told is taken over, until somebody
    /// says otherwise.
    ///
    /// # Errors
    /// The kernel refuses program or map.
    pub fn load(pins: &Path, capacities: &Capacities) -> Result<Self, UplinkError> {
        let mut ebpf = load::load_some(Some(pins), capacities, &[program::FROM_UPLINK])?;
        let mut denied: LpmTrie<MapData, [u8; 16], Denied> = take(&mut ebpf, maps::DENIED)?;
        let mut told = read(&denied)?;
        for predecessor in predecessor::find(pins).map_err(|error| pin_error(pins, &error))? {
            let Some(theirs) = open(&predecessor.folder().join("maps").join(maps::DENIED)) else { continue };
            let spared_first = |(_, denied): &(IpNetwork, Denied)| denied.verdict == Denied::REFUSED;
            let mut theirs: Vec<(IpNetwork, Denied)> = read(&theirs)?.into_iter().collect();
            theirs.sort_by_key(spared_first);
            for (range, verdict) in theirs {
                if let Entry::Vacant(place) = told.entry(range) {
                    denied.insert(&ranges::key(range), verdict, 0).map_err(failed(maps::DENIED, "insert"))?;
                    place.insert(verdict);
                }
            }
        }
        let links = load::pin_dir(pins).join(LINKS);
        std::fs::create_dir_all(&links).map_err(|error| pin_error(&links, &error))?;
        Ok(Self { ebpf, denied, told, pins: pins.to_owned(), links })
    }

    /// What the map holds.
    pub fn told(&self) -> &BTreeMap<IpNetwork, Denied> {
        &self.told
    }

    /// How many ranges the map keeps out.
    pub fn refused(&self) -> usize {
        self.told.values().filter(|denied| denied.verdict == Denied::REFUSED).count()
    }

    /// Carries one change out.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn write(&mut self, change: Change) -> Result<(), UplinkError> {
        match change {
            Change::Put(range, denied) => {
                self.denied.insert(&ranges::key(range), denied, 0).map_err(failed(maps::DENIED, "insert"))?;
                self.told.insert(range, denied);
            }
            Change::Remove(range) => {
                self.denied.remove(&ranges::key(range)).map_err(failed(maps::DENIED, "remove"))?;
                self.told.remove(&range);
            }
        }
        Ok(())
    }

    /// Attaches the program to an interface, in place of an earlier version of it; in the driver if that can. One of another ABI
    /// version is replaced where it is, so that no packet passes unseen.
    ///
    /// # Errors
    /// Somebody else's program is there, or the kernel refuses both ways.
    pub fn attach(&mut self, interface: &str, ifindex: u32) -> Result<Way, UplinkError> {
        for way in [Way::Driver, Way::Generic] {
            for links in &self.all_links()? {
                if self.renew(&links.join(pin_name(ifindex, way)), &self.links.join(pin_name(ifindex, way)))? {
                    return Ok(way);
                }
            }
        }
        let attach_error = |source| UplinkError::Attach { interface: interface.to_owned(), source };
        let mut refused = None;
        for way in [Way::Driver, Way::Generic] {
            match self.program()?.attach_to_if_index(ifindex, way.mode()) {
                Ok(id) => {
                    let link = self.program()?.take_link(id).map_err(attach_error)?;
                    // By netlink, which aya falls back to, it would not outlive a daemon that ends.
                    let path = self.links.join(pin_name(ifindex, way));
                    let link: FdLink = link.try_into().map_err(|error| pin_error(&path, &error))?;
                    link.pin(&path).map_err(|error| pin_error(&path, &error))?;
                    return Ok(way);
                }
                Err(error) if is_taken(&error) => return Err(UplinkError::Taken(interface.to_owned())),
                Err(error) => refused = Some(error),
            }
        }
        Err(attach_error(refused.unwrap_or(ProgramError::UnexpectedProgramType)))
    }

    /// Takes the program off all interfaces but these.
    ///
    /// # Errors
    /// A pin cannot be removed.
    pub fn detach_all_but(pins: &Path, kept: &BTreeSet<u32>) -> Result<(), UplinkError> {
        let links = load::pin_dir(pins).join(LINKS);
        let Ok(entries) = std::fs::read_dir(&links) else { return Ok(()) };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some((ifindex, rest)) = name.to_str().and_then(|name| name.split_once('-')) else { continue };
            if rest.starts_with(program::FROM_UPLINK) && !ifindex.parse().is_ok_and(|ifindex| kept.contains(&ifindex)) {
                std::fs::remove_file(entry.path()).map_err(|error| pin_error(&entry.path(), &error))?;
            }
        }
        Ok(())
    }

    /// Folders of links: our own, and those of agents of other ABI versions.
    fn all_links(&self) -> Result<Vec<PathBuf>, UplinkError> {
        let others = predecessor::find(&self.pins).map_err(|error| pin_error(&self.pins, &error))?;
        Ok(std::iter::once(self.links.clone()).chain(others.iter().map(|it| it.folder().join(LINKS))).collect())
    }

    /// Replaces the program inside the link that is pinned at `path`, and has it pinned at `own`. False: there is none, or it is
    /// about an interface that has gone.
    fn renew(&mut self, path: &Path, own: &Path) -> Result<bool, UplinkError> {
        let Ok(pinned) = PinnedLink::from_pin(path) else { return Ok(false) };
        let link = XdpLink::try_from(FdLink::from(pinned)).map_err(|error| pin_error(path, &error))?;
        let Ok(id) = self.program()?.attach_to_link(link) else {
            std::fs::remove_file(path).map_err(|error| pin_error(path, &error))?;
            return Ok(false);
        };
        // It lives by its pin.
        let link = self.program()?.take_link(id).map_err(|error| pin_error(path, &error))?;
        if path != own {
            let link: FdLink = link.try_into().map_err(|error| pin_error(path, &error))?;
            link.pin(own).map_err(|error| pin_error(own, &error))?;
            std::fs::remove_file(path).map_err(|error| pin_error(path, &error))?;
        }
        Ok(true)
    }

    fn program(&mut self) -> Result<&mut Xdp, UplinkError> {
        let name = program::FROM_UPLINK;
        let program = self.ebpf.program_mut(name).ok_or(LoadError::Missing(name))?;
        Ok(program.try_into().map_err(|source| LoadError::Program { name, source })?)
    }
}

fn read(denied: &LpmTrie<MapData, [u8; 16], Denied>) -> Result<BTreeMap<IpNetwork, Denied>, UplinkError> {
    let entries = denied.iter().map(|entry| entry.map(|(key, value)| (ranges::range(&key), value)));
    Ok(entries.collect::<Result<_, _>>().map_err(failed(maps::DENIED, "read"))?)
}

/// A map of another ABI version. `None`: it has none, or one of another layout.
fn open(pin: &Path) -> Option<LpmTrie<MapData, [u8; 16], Denied>> {
    LpmTrie::try_from(Map::from_map_data(MapData::from_pin(pin).ok()?).ok()?).ok()
}

fn pin_name(ifindex: u32, way: Way) -> String {
    format!("{ifindex}-{}-{}", program::FROM_UPLINK, way.name())
}

/// The kernel replaces no program by a link (`dev_xdp_attach`, net/core/dev.c).
fn is_taken(error: &ProgramError) -> bool {
    let ProgramError::SyscallError(error) = error else { return false };
    [Errno::BUSY, Errno::EXIST].iter().any(|errno| error.io_error.raw_os_error() == Some(errno.raw_os_error()))
}

fn pin_error(path: &Path, why: &(impl ToString + ?Sized)) -> UplinkError {
    UplinkError::Pin { path: path.to_owned(), why: why.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_is_there_already_is_in_the_way() {
        let of = |errno: Errno| {
            ProgramError::SyscallError(aya::sys::SyscallError {
                call: "bpf_link_create",
                io_error: std::io::Error::from_raw_os_error(errno.raw_os_error()),
            })
        };
        assert!(is_taken(&of(Errno::BUSY)) && is_taken(&of(Errno::EXIST)));
        assert!(!is_taken(&of(Errno::OPNOTSUPP)) && !is_taken(&ProgramError::NotLoaded));
    }
}
