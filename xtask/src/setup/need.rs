//! What is needed, for what, and how to see that it is there. Each line is what `setup` says to
//! the user, so it names a reason and not only a package.

use std::{fmt, path::Path};

use super::Purpose;
use crate::run;

/// Oldest rustc that compiles us: `rust-version` in Cargo.toml.
pub(super) const RUSTC_FLOOR: (u32, u32) = (1, 89);

/// One package.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Need {
    /// Debian's and Ubuntu's name for it.
    pub(super) package: &'static str,
    /// How to see that it, or something in its place, is there.
    pub(super) probe: Probe,
    /// What we do with it.
    why: &'static str,
    /// For which purposes.
    purposes: &'static [Purpose],
}

/// How to see that something is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Probe {
    /// A program, in PATH or where an administrator's programs are.
    Program(&'static str),
    /// A file.
    File(&'static str),
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Program(name) => write!(f, "the program {name}"),
            Self::File(path) => write!(f, "the file {path}"),
        }
    }
}

use Purpose::{Bench, Build, Cluster, Demo, Fuzz, Test, Vm};

/// The kernels of tests/kernels.toml are for this architecture.
const VM: &[Purpose] = if cfg!(target_arch = "x86_64") { &[Vm, Test] } else { &[] };

/// Where Debian and Ubuntu keep it.
const RSYSLOG_TLS: &str = if cfg!(target_arch = "aarch64") {
    "/usr/lib/aarch64-linux-gnu/rsyslog/lmnsd_ossl.so"
} else {
    "/usr/lib/x86_64-linux-gnu/rsyslog/lmnsd_ossl.so"
};

const NEEDS: &[Need] = &[
    Need {
        package: "build-essential",
        probe: Probe::Program("cc"),
        why: "links what Rust compiles",
        purposes: &[Build, Demo, Test, Fuzz, Bench, Vm, Cluster],
    },
    Need { package: "g++", probe: Probe::Program("c++"), why: "compiles libFuzzer", purposes: &[Test, Fuzz] },
    Need {
        package: "python3-venv",
        probe: Probe::File("/usr/share/doc/python3-venv"),
        why: "holds the programs that read files of the flow history in a test",
        purposes: &[Test],
    },
    Need {
        package: "protobuf-compiler",
        probe: Probe::Program("protoc"),
        why: "checks that the code generated from proto/ is up to date",
        purposes: &[Test],
    },
    Need {
        package: "iproute2",
        probe: Probe::Program("ip"),
        why: "makes throwaway network namespaces to test in",
        purposes: &[Demo, Test, Bench, Vm, Cluster],
    },
    Need {
        package: "nftables",
        probe: Probe::Program("nft"),
        why: "shows the tables that the daemon makes, drops packets for tests, and is what kube-proxy calls",
        purposes: &[Test, Vm, Cluster],
    },
    Need {
        package: "containerd",
        probe: Probe::Program("containerd"),
        why: "a real container runtime that calls the CNI plugin",
        purposes: &[Demo, Test, Bench],
    },
    Need {
        package: "runc",
        probe: Probe::Program("runc"),
        why: "starts the containers for containerd",
        purposes: &[Demo, Test, Bench, Cluster],
    },
    Need {
        package: "busybox-static",
        probe: Probe::Program("busybox"),
        why: "all the software there is in the test containers' image",
        purposes: &[Demo, Test, Bench, Cluster],
    },
    Need {
        package: "containernetworking-plugins",
        probe: Probe::File("/usr/lib/cni/ptp"),
        why: "containerd calls its loopback plugin; benchmarks compare with the others",
        purposes: &[Test, Bench, Cluster],
    },
    Need {
        package: "iptables",
        probe: Probe::Program("iptables"),
        why: "kube-proxy and hostPorts of the test cluster",
        purposes: &[Test, Cluster],
    },
    Need {
        package: "qemu-system-x86",
        probe: Probe::Program("qemu-system-x86_64"),
        why: "boots other kernels to test on",
        purposes: VM,
    },
    Need {
        package: "rsyslog-openssl",
        probe: Probe::File(RSYSLOG_TLS),
        why: "rsyslog and its TLS: a real receiver of flow records",
        purposes: &[Test],
    },
    Need { package: "xz-utils", probe: Probe::Program("xz"), why: "unpacks their modules", purposes: VM },
    Need { package: "iperf3", probe: Probe::Program("iperf3"), why: "measures throughput", purposes: &[Bench] },
];

/// Everything that `purpose` needs.
pub(super) fn all(purpose: Purpose) -> impl Iterator<Item = &'static Need> {
    NEEDS.iter().filter(move |need| need.purposes.contains(&purpose))
}

impl Need {
    /// Whether it is there.
    pub(super) fn is_there(&self) -> bool {
        match self.probe {
            Probe::Program(name) => run::find(name).is_some(),
            Probe::File(path) => Path::new(path).exists(),
        }
    }

    /// Says whether it is there.
    pub(super) fn report(&self) -> bool {
        let there = self.is_there();
        println!("  {:<8} {:<28} {}", if there { "there" } else { "missing" }, self.package, self.why);
        there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compiler_that_is_asked_for_is_the_one_that_the_workspace_asks_for() {
        let manifest = std::fs::read_to_string(crate::repo::root().join("Cargo.toml")).unwrap();
        let (major, minor) = RUSTC_FLOOR;
        assert!(manifest.contains(&format!("rust-version = \"{major}.{minor}\"")), "Cargo.toml says otherwise");
    }

    #[test]
    fn only_benchmarks_need_the_programs_we_compare_with() {
        let packages = |purpose| all(purpose).map(|need| need.package).collect::<Vec<_>>();
        assert!(packages(Bench).contains(&"iperf3"));
        for purpose in [Build, Demo, Test, Fuzz, Vm] {
            assert!(!packages(purpose).contains(&"iperf3"), "{purpose:?}");
        }
        assert_eq!(packages(Build), ["build-essential"]);
    }
}
