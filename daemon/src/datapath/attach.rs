//! Attaches the packet programs to the host side of a pod's veth, and replaces them there.
//!
//! With tcx each attachment is a link, pinned so that it outlives the daemon; an upgrade replaces
//! the program inside the link, and no packet passes in between. With clsact the filter belongs to
//! the interface, and is replaced under the same priority and handle.

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

/// Where each program sits, seen from the host side of the veth.
const PLACES: [(&str, TcAttachType); 2] =
    [(program::FROM_POD, TcAttachType::Ingress), (program::TO_POD, TcAttachType::Egress)];

/// Priority and handle of our clsact filters, so that a successor finds them.
const PRIORITY: u16 = 1;
const HANDLE: u16 = 1;

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
}

impl Attacher {
    /// From an object that was loaded with `from_pod` and `to_pod`; links are pinned below `pins`.
    pub fn new(ebpf: Ebpf, mode: AttachMode, pins: &Path) -> Result<Self, AttachError> {
        let links = pin_dir(pins).join("links");
        std::fs::create_dir_all(&links).map_err(|source| AttachError::Folder { path: links.clone(), source })?;
        Ok(Self { ebpf, mode, links })
    }

    /// How programs are attached.
    pub fn mode(&self) -> AttachMode {
        self.mode
    }

    /// Attaches both programs, or replaces the ones that are there.
    pub fn attach(&mut self, interface: &str, ifindex: u32) -> Result<(), AttachError> {
        for (name, place) in PLACES {
            match self.mode {
                AttachMode::Tcx => self.attach_tcx(interface, ifindex, name, place)?,
                AttachMode::Clsact => self.attach_clsact(interface, name, place)?,
            }
        }
        Ok(())
    }

    /// Forgets the pins of an interface; the attachments go with the interface.
    pub fn forget(&self, ifindex: u32) {
        for (name, _) in PLACES {
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

    /// Whether both programs are attached, as far as the pins tell.
    pub fn is_attached(&self, ifindex: u32) -> bool {
        self.mode == AttachMode::Clsact || PLACES.iter().all(|(name, _)| self.pin(ifindex, name).exists())
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
        match PinnedLink::from_pin(&path) {
            Ok(found) => {
                let link: Result<SchedClassifierLink, LinkError> = FdLink::from(found).try_into();
                let replaced = link
                    .map_err(|error| error.to_string())
                    .and_then(|link| program.attach_to_link(link).map_err(|error| error.to_string()));
                match replaced {
                    Ok(id) => {
                        // The pin is still there; this handle may go.
                        let link = program.take_link(id).map_err(attach_error)?;
                        let _: FdLink = link.try_into().map_err(|error: LinkError| pin_error(error.to_string()))?;
                        return Ok(());
                    }
                    // The link of an interface that had the same index, long gone.
                    Err(_) => {
                        std::fs::remove_file(&path).map_err(|error| pin_error(error.to_string()))?;
                    }
                }
            }
            Err(LinkError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(pin_error(error.to_string())),
        }
        let program = self.program(name)?;
        let options = TcAttachOptions::TcxOrder(LinkOrder::default());
        let id = program.attach_with_options(interface, place, options).map_err(attach_error)?;
        let link = program.take_link(id).map_err(attach_error)?;
        let link: FdLink = link.try_into().map_err(|error: LinkError| pin_error(error.to_string()))?;
        link.pin(&path).map_err(|error| pin_error(error.to_string()))?;
        Ok(())
    }

    fn attach_clsact(&mut self, interface: &str, name: &'static str, place: TcAttachType) -> Result<(), AttachError> {
        let attach_error = |source| AttachError::Attach { program: name, interface: interface.to_owned(), source };
        // "Exists already" is what a second run hears; anything else shows at the filter.
        let _ = tc::qdisc_add_clsact(interface);
        let program = self.program(name)?;
        let handle = TcHandle::new(0, HANDLE);
        let found = SchedClassifierLink::attached(interface, place, PRIORITY, handle, None);
        let id = match found.map(|link| program.attach_to_link(link)) {
            Ok(Ok(id)) => id,
            _ => {
                let options =
                    TcAttachOptions::Netlink(NlOptions { priority: PRIORITY, handle, ..NlOptions::default() });
                program.attach_with_options(interface, place, options).map_err(attach_error)?
            }
        };
        // The filter belongs to the interface, not to this process: dropping would remove it.
        std::mem::forget(program.take_link(id).map_err(attach_error)?);
        Ok(())
    }
}
