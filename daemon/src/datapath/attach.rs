//! Attaches the packet programs to the host side of a pod's link, veth or netkit, and replaces them there.
//!
//! With clsact a filter belongs to the interface, and is replaced under the same priority and handle. With
//! tcx each attachment is a link, pinned so that it outlives the daemon, and the program is replaced inside
//! the link. Either way no packet passes in between. Which of them is for new interfaces (ADR 0015); one that
//! has programs keeps the way they were attached, for two at once would count every packet twice.

use std::{
    io,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType,
        links::{FdLink, LinkError, PinnedLink},
        tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle},
    },
};

use super::{
    load::{LoadError, pin_dir, program},
    probe::AttachMode,
};

/// A program and where it sits.
type Place = (&'static str, TcAttachType);

/// Where each program sits, seen from the host side of the link.
const PLACES: [Place; 2] = [(program::FROM_POD, TcAttachType::Ingress), (program::TO_POD, TcAttachType::Egress)];
/// Where each program sits at the overlay's device.
const OVERLAY_PLACES: [Place; 2] =
    [(program::FROM_OVERLAY, TcAttachType::Ingress), (program::TO_OVERLAY, TcAttachType::Egress)];

/// Priority and handle of our clsact filters, so that a successor finds them.
pub const PRIORITY: u16 = 1;
/// See [`PRIORITY`].
pub const HANDLE: u16 = 1;

/// What can go wrong while attaching.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The kernel refused.
    #[error("attaching {program} to {interface}: {source}")]
    Attach {
        /// Which program.
        program: &'static str,
        /// Where.
        interface: String,
        /// Why.
        #[source]
        source: ProgramError,
    },
    /// The link could not be pinned or a pin not be read.
    #[error("pin {path}: {why}")]
    Pin {
        /// Where.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The folder of the pins.
    #[error("folder {path}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The object lacks a program.
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// Holds the loaded packet programs.
#[derive(Debug)]
pub struct Attacher {
    ebpf: Ebpf,
    mode: AttachMode,
    links: PathBuf,
    places: [Place; 2],
}

impl Attacher {
    /// From an object that was loaded with `from_pod` and `to_pod`; links are pinned below `pins`.
    pub fn new(ebpf: Ebpf, mode: AttachMode, pins: &Path) -> Result<Self, AttachError> {
        let links = pin_dir(pins).join("links");
        std::fs::create_dir_all(&links).map_err(|source| AttachError::Folder { path: links.clone(), source })?;
        Ok(Self { ebpf, mode, links, places: PLACES })
    }

    /// From an object that was loaded with `from_overlay` and `to_overlay`. By clsact wherever there is tcx, too: one
    /// device is no matter of milliseconds, and nothing has to be pinned.
    pub fn for_overlay(ebpf: Ebpf, pins: &Path) -> Result<Self, AttachError> {
        Ok(Self { places: OVERLAY_PLACES, ..Self::new(ebpf, AttachMode::Clsact, pins)? })
    }

    /// How programs are attached.
    pub fn mode(&self) -> AttachMode {
        self.mode
    }

    /// Attaches both programs to an interface that has none.
    pub fn attach(&mut self, interface: &str, ifindex: u32) -> Result<(), AttachError> {
        // What is pinned under this index is of an interface that had it before, long gone.
        self.forget(ifindex);
        self.attach_some(interface, ifindex, &self.places.clone())
    }

    /// Replaces both programs by ours, and attaches them where there is none.
    pub fn renew(&mut self, interface: &str, ifindex: u32) -> Result<(), AttachError> {
        let mut missing = Vec::new();
        for (name, place) in self.places {
            if !self.renew_tcx(ifindex, name)? && !self.renew_clsact(interface, name, place)? {
                missing.push((name, place));
            }
        }
        self.attach_some(interface, ifindex, &missing)
    }

    fn attach_some(&mut self, interface: &str, ifindex: u32, places: &[Place]) -> Result<(), AttachError> {
        if self.mode == AttachMode::Clsact && !places.is_empty() {
            // "Exists already" is fine; whatever else is wrong shows at the filter.
            let _ = tc::qdisc_add_clsact(interface);
        }
        for &(name, place) in places {
            match self.mode {
                AttachMode::Tcx => self.attach_tcx(interface, ifindex, name, place)?,
                AttachMode::Clsact => self.attach_clsact(interface, name, place)?,
            }
        }
        Ok(())
    }

    /// Forgets the pins of an interface; the attachments go with the interface.
    pub fn forget(&self, ifindex: u32) {
        for (name, _) in self.places {
            let _ = std::fs::remove_file(self.pin(ifindex, name));
        }
    }

    /// Removes the pins of interfaces that are not in `alive`.
    pub fn forget_all_but(&self, alive: &std::collections::BTreeSet<u32>) {
        let Ok(entries) = std::fs::read_dir(&self.links) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let ifindex = name.to_string_lossy().split('-').next().and_then(|number| number.parse::<u32>().ok());
            if ifindex.is_none_or(|ifindex| !alive.contains(&ifindex)) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    /// Whether `from_pod` and `to_pod` are attached by tcx. A pin outlives what it is about, when a link is detached by
    /// force: the kernel is asked.
    pub fn by_tcx(&self, interface: &str, ifindex: u32) -> [bool; 2] {
        PLACES.map(|(name, place)| {
            // Where nothing of ours was ever attached so, there may be no tcx to ask.
            self.pin(ifindex, name).exists()
                && SchedClassifier::query_tcx(interface, place)
                    .is_ok_and(|(_, programs)| programs.iter().any(|program| program.name_as_str() == Some(name)))
        })
    }

    fn pin(&self, ifindex: u32, program: &str) -> PathBuf {
        self.links.join(format!("{ifindex}-{program}"))
    }

    fn program(&mut self, name: &'static str) -> Result<&mut SchedClassifier, AttachError> {
        let program = self.ebpf.program_mut(name).ok_or(LoadError::Missing(name))?;
        Ok(program.try_into().map_err(|source| LoadError::Program { name, source })?)
    }

    fn attach_tcx(
        &mut self,
        interface: &str,
        ifindex: u32,
        name: &'static str,
        place: TcAttachType,
    ) -> Result<(), AttachError> {
        let path = self.pin(ifindex, name);
        let attach_error = |source| AttachError::Attach { program: name, interface: interface.to_owned(), source };
        let pin_error = |why: String| AttachError::Pin { path: path.clone(), why };
        let program = self.program(name)?;
        let options = TcAttachOptions::TcxOrder(LinkOrder::default());
        let id = program.attach_with_options(interface, place, options).map_err(attach_error)?;
        let link = program.take_link(id).map_err(attach_error)?;
        let link: FdLink = link.try_into().map_err(|error: LinkError| pin_error(error.to_string()))?;
        link.pin(&path).map_err(|error| pin_error(error.to_string()))?;
        Ok(())
    }

    /// Replaces the program inside a pinned link. False: there is none.
    fn renew_tcx(&mut self, ifindex: u32, name: &'static str) -> Result<bool, AttachError> {
        let path = self.pin(ifindex, name);
        let pin_error = |why: String| AttachError::Pin { path: path.clone(), why };
        let found = match PinnedLink::from_pin(&path) {
            Ok(found) => found,
            Err(LinkError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {
                return Ok(false);
            }
            Err(error) => return Err(pin_error(error.to_string())),
        };
        let program = self.program(name)?;
        let link: Result<SchedClassifierLink, LinkError> = FdLink::from(found).try_into();
        let replaced = link
            .map_err(|error| error.to_string())
            .and_then(|link| program.attach_to_link(link).map_err(|error| error.to_string()));
        let Ok(id) = replaced else {
            // The link of an interface that had the same index, long gone.
            std::fs::remove_file(&path).map_err(|error| pin_error(error.to_string()))?;
            return Ok(false);
        };
        // The pin is still there; this handle may go.
        let link = program.take_link(id).map_err(|error| pin_error(error.to_string()))?;
        let _: FdLink = link.try_into().map_err(|error: LinkError| pin_error(error.to_string()))?;
        Ok(true)
    }

    fn attach_clsact(&mut self, interface: &str, name: &'static str, place: TcAttachType) -> Result<(), AttachError> {
        let attach_error = |source| AttachError::Attach { program: name, interface: interface.to_owned(), source };
        let program = self.program(name)?;
        let handle = TcHandle::new(0, HANDLE);
        let options = TcAttachOptions::Netlink(NlOptions { priority: PRIORITY, handle, ..NlOptions::default() });
        let id = program.attach_with_options(interface, place, options).map_err(attach_error)?;
        // The filter belongs to the interface, not to this process: dropping would remove it.
        std::mem::forget(program.take_link(id).map_err(attach_error)?);
        Ok(())
    }

    /// Replaces the program of our filter. False: there is none, or the interface has gone.
    fn renew_clsact(&mut self, interface: &str, name: &'static str, place: TcAttachType) -> Result<bool, AttachError> {
        let program = self.program(name)?;
        let handle = TcHandle::new(0, HANDLE);
        let Ok(link) = SchedClassifierLink::attached(interface, place, PRIORITY, handle, None) else {
            return Ok(false);
        };
        // Without the flag that makes a filter, so that this fails where there is none.
        let Ok(id) = program.attach_to_link(link) else { return Ok(false) };
        let attach_error = |source| AttachError::Attach { program: name, interface: interface.to_owned(), source };
        std::mem::forget(program.take_link(id).map_err(attach_error)?);
        Ok(true)
    }
}
