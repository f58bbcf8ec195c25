//! Real pods, many at once.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use ::tests::{cluster::Cluster, effort::Measured};
use anyhow::{Context as _, ensure};
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, error::TryRecvError};

use crate::{
    api::{Api, Call},
    interrupt, say,
    world::{self, World},
};

/// How long one batch may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// How long it took until they were Ready.
#[derive(Debug, Default)]
pub(crate) struct Started {
    /// Each pod, from the request that made it to the watch event that says so.
    pub(crate) each: Measured,
    /// Each batch, from the first request to the last pod.
    pub(crate) batches: Measured,
}

/// Makes so many pods on each node, a batch at a time, and waits for each batch.
pub(crate) fn start(
    api: &Api,
    cluster: &Cluster,
    world: World,
    per_node: usize,
    batch: usize,
) -> anyhow::Result<Started> {
    let mut started = Started::default();
    let all: Vec<usize> = (0..per_node * cluster.nodes.len()).collect();
    let mut changes = api.watch("/api/v1/pods", &format!("{}={}", world::REAL.0, world::REAL.1))?;
    for (number, indices) in all.chunks(batch).enumerate() {
        let create = |index: &usize| {
            let node = &cluster.nodes[index % cluster.nodes.len()].name;
            let path = format!("/api/v1/namespaces/{}/pods", world.namespace_of(*index));
            Call::create(path, world.real(*index, node))
        };
        let calls = indices.iter().map(create).collect();
        let began = Instant::now();
        api.at_once(calls)?;
        let ready = wait(&mut changes, indices, began).with_context(|| format!("batch {}", number + 1))?;
        ready.values().for_each(|took| started.each.add(*took));
        let last = ready.values().max().copied().unwrap_or_default();
        started.batches.add(last);
        say(&format!(
            "{} pods of {}: the last {} were Ready after {last:.1?}",
            started.each.count(),
            all.len(),
            indices.len()
        ));
    }
    Ok(started)
}

fn wait(
    changes: &mut UnboundedReceiver<Value>,
    indices: &[usize],
    began: Instant,
) -> anyhow::Result<BTreeMap<String, Duration>> {
    let wanted: Vec<String> = indices.iter().map(|index| world::real_name(*index)).collect();
    let mut ready = BTreeMap::new();
    while ready.len() < wanted.len() {
        match changes.try_recv() {
            Ok(pod) => {
                let name = pod["metadata"]["name"].as_str().unwrap_or_default();
                if is_ready(&pod) && wanted.iter().any(|it| it == name) {
                    ready.entry(name.to_owned()).or_insert_with(|| began.elapsed());
                }
            }
            Err(TryRecvError::Empty) => interrupt::sleep(Duration::from_millis(2))?,
            Err(TryRecvError::Disconnected) => anyhow::bail!("the watch of pods has ended"),
        }
        let missing = || wanted.iter().filter(|it| !ready.contains_key(*it)).cloned().collect::<Vec<_>>().join(", ");
        ensure!(began.elapsed() < PATIENCE, "not Ready after {PATIENCE:?}: {}", missing());
    }
    Ok(ready)
}

/// Whether its condition `Ready` holds.
pub(crate) fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    conditions.iter().any(|it| it["type"] == "Ready" && it["status"] == "True")
}
