//! What the admin service asks the rest of the agent for, beside what the engine knows.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use datapath_abi::maps;
use tracing::warn;

use super::{
    admin::{self, EndpointExtra, Facts},
    attachments::Attachments,
};
use crate::{
    config::{self, Config},
    datapath::{connections::Connections, load, probe::AttachMode},
    ipam::Owner,
    net::{Node, pair::PodDevice, uplink},
};

pub(super) fn facts(config: &Config, mode: AttachMode, device: PodDevice, mtu: u32, started: Instant) -> Facts {
    Facts {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: env!("BULKHEAD_COMMIT").to_owned(),
        node: config.node_name.clone(),
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        attach_mode: mode.name().to_owned(),
        abi_version: datapath_abi::ABI_VERSION,
        device: device.name().to_owned(),
        pin_path: load::pin_dir(&config.pin_dir),
        mtu,
        routing: config.overlay.map_or_else(
            || "native".to_owned(),
            |config::Overlay { protocol, port }| format!("overlay, {} at UDP port {port}", protocol.title()),
        ),
        source: config.source.clone(),
        started,
        capacities: maps::ALL.iter().map(|info| (info.name.to_owned(), config.capacities.of(info.name))).collect(),
    }
}

pub(super) fn read_connections(connections: Connections) -> Arc<admin::Connections> {
    Arc::new(move |table, limit| connections.read(table, limit).map_err(|error| error.to_string()))
}

pub(super) fn pool_usage(attachments: Arc<Attachments>) -> Arc<admin::PoolUsage> {
    let count = |count: u128| u64::try_from(count).unwrap_or(u64::MAX);
    Arc::new(move || {
        attachments.usage().into_iter().map(|usage| (usage.pool, count(usage.used), count(usage.free))).collect()
    })
}

pub(super) fn put_back(attachments: Arc<Attachments>) -> Arc<admin::PutBack> {
    Arc::new(move || attachments.put_back_figures())
}

pub(super) fn endpoint_extras(attachments: Arc<Attachments>) -> Arc<admin::Extras> {
    Arc::new(move |key| {
        let (record, stage) = attachments.staged(&Owner::new(key.container_id.clone(), key.ifname.clone()))?;
        Some(EndpointExtra {
            netns: record.netns,
            host_ifname: record.host_ifname,
            created: std::time::UNIX_EPOCH + Duration::from_millis(record.created_unix_ms),
            stage,
        })
    })
}

/// Looked up each time: a default route may come late, and change.
pub(super) fn way_out(node: Node) -> Arc<admin::UplinkName> {
    Arc::new(move || {
        let node = node.clone();
        Box::pin(async move {
            let found = uplink::find(&node).await.inspect_err(|error| warn!(%error, "The uplink is not known"));
            found.ok().flatten().map(|uplink| uplink.name)
        })
    })
}
