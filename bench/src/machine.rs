//! What a measurement was made on: figures without it mean nothing.

use std::{collections::BTreeMap, fs};

use serde::Serialize;

/// Kernel, processor and what slows it down.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    /// `uname -r`.
    pub(crate) kernel: String,
    /// `uname -m`.
    pub(crate) architecture: String,
    /// "model name" of /proc/cpuinfo.
    pub(crate) cpu: String,
    /// Processors that are online.
    pub(crate) cpus: usize,
    /// Whether a hypervisor is there (flag of /proc/cpuinfo).
    pub(crate) virtual_machine: bool,
    /// net.core.bpf_jit_enable.
    pub(crate) bpf_jit: Option<u32>,
    /// /sys/devices/system/cpu/vulnerabilities, without those that do not affect the processor.
    pub(crate) mitigations: BTreeMap<String, String>,
}

impl Machine {
    /// Asks the kernel. What it does not tell stays empty.
    pub(crate) fn read() -> Self {
        let uname = rustix::system::uname();
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            cpuinfo
                .lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(key, _)| key.trim() == name)
                .map(|(_, value)| value.trim().to_owned())
        };
        Self {
            kernel: uname.release().to_string_lossy().into_owned(),
            architecture: uname.machine().to_string_lossy().into_owned(),
            cpu: field("model name").unwrap_or_default(),
            cpus: std::thread::available_parallelism().map_or(0, Into::into),
            virtual_machine: field("flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            bpf_jit: fs::read_to_string("/proc/sys/net/core/bpf_jit_enable")
                .ok()
                .and_then(|text| text.trim().parse().ok()),
            mitigations: mitigations(),
        }
    }
}

fn mitigations() -> BTreeMap<String, String> {
    let Ok(entries) = fs::read_dir("/sys/devices/system/cpu/vulnerabilities") else { return BTreeMap::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let text = fs::read_to_string(entry.path()).ok()?;
            let text = text.trim();
            (text != "Not affected").then(|| (entry.file_name().to_string_lossy().into_owned(), text.to_owned()))
        })
        .collect()
}
