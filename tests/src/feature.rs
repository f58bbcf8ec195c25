//! What not every kernel has: whether this one does, and that a test which needs it is not left out where it has to run.

use std::{
    env,
    io::{self, Write as _},
    sync::OnceLock,
};

use rustix::net::{AddressFamily, SocketType, ipproto};

use crate::netns::Netns;

/// Says what a kernel of tests/kernels.toml has, words between spaces. Not set on any other.
const HAS: &str = "BULKHEAD_KERNEL_HAS";

/// Something that a kernel has or has not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Feature {
    /// Devices of Geneve.
    Geneve,
    /// Pairs of netkit devices (Linux 6.7).
    Netkit,
    /// Sockets of SCTP.
    Sctp,
}

impl Feature {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Geneve, Self::Netkit, Self::Sctp];

    /// As in tests/kernels.toml.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Geneve => "geneve",
            Self::Netkit => "netkit",
            Self::Sctp => "sctp",
        }
    }

    /// Whether this kernel has it, found out by trying, and by other means than the daemon's.
    fn found(self) -> bool {
        match self {
            Self::Geneve => Netns::new("link add name tried type geneve external\n").is_ok(),
            Self::Netkit => Netns::new("link add name tried type netkit\n").is_ok(),
            Self::Sctp => rustix::net::socket(AddressFamily::INET, SocketType::STREAM, Some(ipproto::SCTP)).is_ok(),
        }
    }

    /// Whether this kernel has it.
    ///
    /// # Panics
    /// On a kernel of tests/kernels.toml of which something else is said there: left out where it could run, a test is worth
    /// nothing.
    pub fn is_there(self) -> bool {
        static FOUND: [OnceLock<bool>; Feature::ALL.len()] = [const { OnceLock::new() }; Feature::ALL.len()];
        let found = *FOUND[self as usize].get_or_init(|| self.found());
        if let Ok(list) = env::var(HAS) {
            let listed = list.split(' ').any(|word| word == self.name());
            assert_eq!(found, listed, "{}: tests/kernels.toml says that this kernel has {list:?}", self.name());
        }
        found
    }

    /// As [`Self::is_there`]. If not, says so past the capture of test output: a test that was left out must not look like one
    /// that has passed.
    pub fn is_there_or_told(self) -> bool {
        let found = self.is_there();
        if !found {
            let _ = writeln!(io::stderr(), "skipped: this kernel has no {}", self.name());
        }
        found
    }
}
