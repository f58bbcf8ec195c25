//! What the running kernel can do, found out by trying.

use std::{fs, path::Path};

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

/// Where a kernel says that it is a real-time one (`kernel/ksysfs.c`, CONFIG_PREEMPT_RT).
pub const REALTIME: &str = "/sys/kernel/realtime";

/// Whether the kernel is a real-time one. `told`: [`REALTIME`]. There programs of one CPU may interrupt each other, which take the
/// CPU's memory for theirs alone (docs/adr/0018).
pub fn is_realtime(told: &Path) -> bool {
    fs::read_to_string(told).is_ok_and(|text| text.trim() != "0")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_time_kernel_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let told = folder.path().join("realtime");
        assert!(!is_realtime(&told), "others have no such file");
        fs::write(&told, "1\n").unwrap();
        assert!(is_realtime(&told));
        fs::write(&told, "0\n").unwrap();
        assert!(!is_realtime(&told));
    }
}
