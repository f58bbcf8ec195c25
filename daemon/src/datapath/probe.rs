//! What the running kernel can do, found out by trying.

use aya::programs::{LinkOrder, SchedClassifier, TcAttachType, tc::TcAttachOptions};

use super::load::{self, Capacities, LoadError};

/// How programs are attached to interfaces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AttachMode {
    /// Links of their own, replaced atomically (kernel 6.6, commit e420bed02507).
    Tcx,
    /// The qdisc clsact and a filter (kernel 4.5).
    Clsact,
}

impl AttachMode {
    /// As in status and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

/// Whether programs can be attached by tcx: tried on the loopback interface with the program that does
/// nothing to packets, which is taken away again.
pub fn has_tcx() -> Result<bool, LoadError> {
    let mut ebpf = load::load_some(None, &Capacities::least(), &[load::program::PROBE])?;
    let name = load::program::PROBE;
    let program: &mut SchedClassifier = ebpf
        .program_mut(name)
        .ok_or(LoadError::Missing(name))?
        .try_into()
        .map_err(|source| LoadError::Program { name, source })?;
    let options = TcAttachOptions::TcxOrder(LinkOrder::default());
    match program.attach_with_options("lo", TcAttachType::Egress, options) {
        Ok(link) => {
            program.detach(link).map_err(|source| LoadError::Program { name, source })?;
            Ok(true)
        }
        Err(_) => Ok(false),
    }
}
