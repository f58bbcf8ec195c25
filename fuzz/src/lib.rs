//! Targets for a coverage-guided fuzzer: each takes hostile bytes to where the product takes them,
//! and says what must hold of the result. A target panics on a defect and on nothing else.
//!
//! ```text
//!  packet     an Ethernet frame      datapath-ebpf::parse, key and checksum
//!  conntrack  packets of one flow    datapath-ebpf::ct
//!  netconf    environment and stdin  cni-plugin
//!  objects    a file                 objects, as YAML and as JSON
//!  grpc       a request              flows (Hubble API), daemon (admin API, CNI socket)
//!  state      files and flags        daemon: records, tombstones, pools, capacities
//!  export     a spool, settings      export
//!  history    a log, a row           history
//!  dns        packets with messages  dns, and records of lookups
//! ```
//!
//! `cargo xtask fuzz` runs them in libFuzzer (see `main.rs` and docs/adr/0013); `tests/` runs them on
//! their seeds and on everything that the fuzzer has found so far.
#![forbid(unsafe_code)]

pub mod conntrack;
pub mod dns;
pub mod export;
pub mod grpc;
pub mod history;
pub mod netconf;
pub mod objects;
pub mod packet;
pub mod state;

use std::{fs, io, path::Path};

/// One target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// As on the command line; its folder in `finds/` is called so.
    pub name: &'static str,
    /// Longest input worth trying, in bytes: more only makes the fuzzer slow.
    pub longest: usize,
    /// Panics on a defect.
    pub run: fn(&[u8]),
    /// Where the fuzzer starts from.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// What inputs are made of, one a line: for text that chance would not write.
    pub words: &'static str,
}

/// All targets.
pub const TARGETS: [Target; 9] = [
    Target { name: "packet", longest: 640, run: packet::frame, seeds: packet::seeds, words: "" },
    Target { name: "conntrack", longest: 96, run: conntrack::packets, seeds: conntrack::seeds, words: "" },
    Target {
        name: "netconf",
        longest: 2048,
        run: cni_plugin::fuzz::command,
        seeds: netconf::seeds,
        words: netconf::WORDS,
    },
    Target { name: "objects", longest: 4096, run: objects::text, seeds: objects::seeds, words: objects::WORDS },
    Target { name: "grpc", longest: 1024, run: grpc::request, seeds: grpc::seeds, words: grpc::WORDS },
    Target { name: "export", longest: 2048, run: export::read, seeds: export::seeds, words: export::WORDS },
    Target { name: "history", longest: 8192, run: history::read, seeds: history::seeds, words: "" },
    Target { name: "dns", longest: 1500, run: dns::packets, seeds: dns::seeds, words: "" },
    Target { name: "state", longest: 2048, run: state::text, seeds: state::seeds, words: state::WORDS },
];

/// The target of this name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}

impl Target {
    /// Writes into `folder` what libFuzzer starts from: `seeds/*`, `dictionary` if there are words, its `options`.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn prepare(&self, folder: &Path) -> io::Result<()> {
        let seeds = folder.join("seeds");
        fs::create_dir_all(&seeds)?;
        for (number, seed) in (self.seeds)().iter().enumerate() {
            fs::write(seeds.join(format!("{number:03}")), seed)?;
        }
        let quoted = |word: &str| format!("\"{}\"\n", word.replace('\\', "\\\\").replace('"', "\\\""));
        if !self.words.is_empty() {
            fs::write(folder.join("dictionary"), self.words.lines().map(quoted).collect::<String>())?;
        }
        fs::write(folder.join("options"), format!("-max_len={}\n", self.longest))
    }
}
