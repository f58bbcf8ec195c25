//! What a daemon takes: memory, processor time, and how long its ADDs took.

use std::{fs, path::PathBuf, time::Duration};

use ::tests::cluster::{Cluster, node::Node};
use anyhow::Context as _;

/// Ticks of a process's times in a second (sysconf(3), _SC_CLK_TCK, which is 100 wherever Linux runs today).
const TICK: Duration = Duration::from_millis(10);
/// What the daemon writes when a call of the runtime is over.
const ANSWERED: &str = "CNI call answered";

/// One daemon.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    /// Its node.
    pub(crate) node: String,
    index: usize,
}

/// What it has at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reading {
    /// Memory, bytes: VmRSS.
    pub(crate) rss: u64,
    /// The most it ever was: VmHWM.
    pub(crate) peak: u64,
    /// Processor time since it started, in user and kernel mode.
    pub(crate) cpu: Duration,
    /// Memory of its maps in the kernel.
    pub(crate) maps: u64,
}

impl Meter {
    /// Of each node.
    pub(crate) fn all(cluster: &Cluster) -> Vec<Self> {
        cluster.nodes.iter().enumerate().map(|(index, node)| Self { node: node.name.clone(), index }).collect()
    }

    fn of<'a>(&self, cluster: &'a Cluster) -> &'a Node {
        &cluster.nodes[self.index]
    }

    /// Reads its process's files.
    pub(crate) fn read(&self, cluster: &Cluster) -> anyhow::Result<Reading> {
        let node = self.of(cluster);
        let pid = node.daemon().with_context(|| format!("no daemon runs on {}", self.node))?;
        let file = |name: &str| {
            let path = node.room.outside(format!("/proc/{pid}/{name}"));
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
        };
        let status = file("status")?;
        Ok(Reading {
            rss: kilobytes(&status, "VmRSS")?,
            peak: kilobytes(&status, "VmHWM")?,
            cpu: cpu(&file("stat")?).context("times of the daemon")?,
            maps: maps(&node.room.outside(format!("/proc/{pid}/fdinfo"))),
        })
    }

    /// Gauges of its metrics, by name.
    pub(crate) fn gauges<const N: usize>(&self, cluster: &Cluster, names: [&str; N]) -> anyhow::Result<[f64; N]> {
        let url = "http://127.0.0.1:9965/metrics";
        let text = self.of(cluster).room.run("busybox", &["wget", "-q", "-O", "-", url])?;
        let mut found = [0.0; N];
        for (found, name) in found.iter_mut().zip(names) {
            *found = sample(&text, name).with_context(|| format!("no metric {name}"))?;
        }
        Ok(found)
    }

    /// How long each ADD took that succeeded since the daemon was told to say it, in the daemon.
    pub(crate) fn adds(&self, cluster: &Cluster) -> anyhow::Result<Vec<Duration>> {
        let pods = self.of(cluster).room.outside("/var/log/pods");
        let folders = fs::read_dir(&pods).with_context(|| format!("reading {}", pods.display()))?.flatten();
        let ours = folders.filter(|pod| pod.file_name().to_string_lossy().starts_with("kube-system_bulkhead-"));
        let logs = ours.flat_map(|pod| fs::read_dir(pod.path().join("agent")).into_iter().flatten().flatten());
        let mut times = Vec::new();
        for log in logs {
            let text = fs::read_to_string(log.path())?;
            times.extend(text.lines().filter_map(added));
        }
        Ok(times)
    }
}

/// The time that a line of the log tells of, if it does.
fn added(line: &str) -> Option<Duration> {
    if !line.contains(ANSWERED) || !line.contains("verb=\"ADD\"") && !line.contains("verb=ADD") {
        return None;
    }
    let field = |name: &str| line.split([' ', '"']).find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    (field("code")? == "0").then(|| field("took_us")?.parse().ok().map(Duration::from_micros))?
}

fn kilobytes(status: &str, name: &str) -> anyhow::Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(number.with_context(|| format!("no {name}"))? << 10)
}

/// utime and stime of proc_pid_stat(5), fields 14 and 15. The name before may have spaces in it.
fn cpu(stat: &str) -> Option<Duration> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks: u32 = fields.next()?.parse::<u32>().ok()? + fields.next()?.parse::<u32>().ok()?;
    Some(TICK * ticks)
}

/// Bytes that the kernel has for the maps of a process, each counted once. Zero where it does not tell.
fn maps(folder: &PathBuf) -> u64 {
    let texts =
        fs::read_dir(folder).into_iter().flatten().flatten().filter_map(|it| fs::read_to_string(it.path()).ok());
    let map = |text: String| {
        let field = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse::<u64>().ok())
        };
        Some((field("map_id")?, field("memlock")?))
    };
    let maps: std::collections::BTreeMap<u64, u64> = texts.filter_map(map).collect();
    maps.values().sum()
}

/// The sample without labels.
fn sample(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_log_are_understood() {
        let line = "2026-11-23T19:20:05Z stdout F 2026-11-23T19:20:05.1Z DEBUG cni{verb=\"ADD\" container_id=\"1\" \
                    ifname=\"eth0\"}: daemon::cni::service: CNI call answered code=0 took_us=7012";
        assert_eq!(added(line), Some(Duration::from_micros(7012)));
        assert_eq!(added(&line.replace("\"ADD\"", "\"DEL\"")), None);
        assert_eq!(added(&line.replace("code=0", "code=11")), None);
        assert_eq!(added("CNI call failed"), None);
    }

    #[test]
    fn files_of_a_process_are_understood() {
        let stat = "17 (a b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0";
        assert_eq!(cpu(stat), Some(Duration::from_secs(2)));
        assert_eq!(kilobytes("Name:\tx\nVmRSS:\t  2048 kB\n", "VmRSS").unwrap(), 2 << 20);
        assert!(kilobytes("Name:\tx\n", "VmRSS").is_err());
        assert_eq!(sample("# TYPE a gauge\na_b 2\na 3\n", "a"), Some(3.0));
    }
}
