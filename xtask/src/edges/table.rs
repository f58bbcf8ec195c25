//! The table: each crate, which of ours it may import, and what of others.

/// One crate of the workspace.
#[derive(Debug)]
pub(super) struct Crate {
    /// Its name, which is its folder's.
    pub(super) name: &'static str,
    /// The crates of ours that it may import.
    pub(super) ours: &'static [&'static str],
    /// What its tests may import of ours besides: to compare two halves, never to get at something.
    pub(super) for_tests: &'static [&'static str],
    /// What it may import of others.
    pub(super) outside: Outside,
    /// What must not be compiled into it, by whatever way it gets there.
    pub(super) never: &'static [Never],
}

/// What a crate may import of others.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outside {
    /// Whatever the workspace's table of versions has.
    Any,
    /// Only these.
    Only(&'static [&'static str]),
}

/// What is not to be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Never {
    /// This crate.
    Crate(&'static str),
    /// This crate and all whose names begin with it and a dash.
    Family(&'static str),
}

impl Never {
    /// Whether this crate is meant.
    pub(super) fn matches(self, name: &str) -> bool {
        match self {
            Self::Crate(never) => name == never,
            Self::Family(never) => {
                name.strip_prefix(never).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
            }
        }
    }
}

use Never::{Crate as One, Family};

/// Talks to the kernel.
const KERNEL: [Never; 3] = [Family("aya"), One("rtnetlink"), Family("netlink")];
/// Everything that makes a result depend on more than its arguments: a runtime, a clock, chance, a log.
const IMPURE: [Never; 9] = [
    One("tokio"),
    Family("kube"),
    One("k8s-openapi"),
    Family("aya"),
    One("rtnetlink"),
    Family("rand"),
    One("chrono"),
    One("time"),
    Family("tracing"),
];

pub(super) const CRATES: &[Crate] = &[
    Crate {
        name: "datapath-abi",
        ours: &[],
        for_tests: &[],
        outside: Outside::Only(&["zerocopy", "aya"]),
        never: &KERNEL,
    },
    Crate {
        name: "datapath-ebpf",
        ours: &["datapath-abi"],
        for_tests: &[],
        outside: Outside::Only(&["aya-ebpf"]),
        never: &[One("aya"), One("rtnetlink")],
    },
    Crate {
        name: "policy",
        ours: &["datapath-abi"],
        for_tests: &[],
        outside: Outside::Only(&["ipnetwork", "sha2", "thiserror"]),
        never: &IMPURE,
    },
    Crate {
        name: "objects",
        ours: &["policy"],
        for_tests: &[],
        outside: Outside::Any,
        never: &[One("tokio"), Family("kube"), Family("aya"), One("rtnetlink")],
    },
    Crate {
        name: "services",
        ours: &["datapath-abi", "policy"],
        for_tests: &[],
        outside: Outside::Only(&[]),
        never: &IMPURE,
    },
    Crate {
        name: "proto",
        ours: &[],
        for_tests: &[],
        outside: Outside::Only(&["prost", "prost-types", "tonic", "tonic-prost"]),
        never: &KERNEL,
    },
    Crate {
        name: "dns",
        ours: &["datapath-abi"],
        for_tests: &[],
        outside: Outside::Only(&["domain", "thiserror"]),
        never: &IMPURE,
    },
    Crate {
        name: "flows",
        ours: &["datapath-abi", "dns", "policy", "proto"],
        for_tests: &[],
        outside: Outside::Any,
        never: &[Family("aya"), One("rtnetlink"), Family("kube")],
    },
    Crate {
        name: "export",
        ours: &["datapath-abi", "dns", "flows", "objects", "proto"],
        for_tests: &[],
        outside: Outside::Any,
        never: &[Family("aya"), One("rtnetlink"), Family("kube")],
    },
    Crate {
        name: "history",
        ours: &["datapath-abi", "dns", "flows", "proto"],
        for_tests: &[],
        outside: Outside::Any,
        never: &[Family("aya"), One("rtnetlink"), Family("kube"), Family("arrow")],
    },
    Crate {
        name: "cni-plugin",
        ours: &["proto"],
        for_tests: &[],
        outside: Outside::Any,
        never: &[Family("kube"), Family("aya"), One("rtnetlink")],
    },
    Crate {
        name: "cli",
        ours: &["datapath-abi", "policy", "objects", "flows", "history", "proto"],
        for_tests: &[],
        outside: Outside::Any,
        never: &[Family("aya"), One("rtnetlink")],
    },
    Crate {
        name: "daemon",
        ours: &["datapath-abi", "policy", "objects", "services", "dns", "flows", "export", "history", "proto"],
        for_tests: &["datapath-ebpf"],
        outside: Outside::Any,
        never: &[],
    },
    Crate {
        name: "image",
        ours: &[],
        for_tests: &[],
        outside: Outside::Only(&["anyhow", "flate2", "serde_json", "sha2", "tar"]),
        never: &KERNEL,
    },
    Crate {
        name: "tests",
        ours: &[
            "datapath-abi",
            "datapath-ebpf",
            "policy",
            "objects",
            "flows",
            "export",
            "proto",
            "cni-plugin",
            "daemon",
            "cli",
            "image",
        ],
        for_tests: &[],
        outside: Outside::Any,
        never: &[],
    },
    Crate {
        name: "threeway",
        ours: &["datapath-abi", "datapath-ebpf", "policy", "daemon", "tests"],
        for_tests: &[],
        outside: Outside::Only(&["anyhow", "clap", "ipnetwork"]),
        never: &[],
    },
    Crate {
        name: "bench",
        ours: &[
            "datapath-abi",
            "datapath-ebpf",
            "policy",
            "objects",
            "flows",
            "proto",
            "cni-plugin",
            "daemon",
            "cli",
            "tests",
        ],
        for_tests: &[],
        outside: Outside::Any,
        never: &[],
    },
    Crate {
        name: "fuzz",
        ours: &[
            "datapath-abi",
            "datapath-ebpf",
            "policy",
            "objects",
            "dns",
            "flows",
            "history",
            "export",
            "proto",
            "cni-plugin",
            "daemon",
        ],
        for_tests: &[],
        outside: Outside::Any,
        never: &[],
    },
    Crate {
        name: "xtask",
        ours: &["image"],
        for_tests: &[],
        outside: Outside::Only(&["anyhow", "cargo_metadata", "clap", "rustix", "tonic-prost-build"]),
        never: &KERNEL,
    },
];
