//! What is done from time to time, whoever asks or not: sweeps, tombstones, dead sandboxes, the node's own addresses.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use proto::bulkhead::cni::v1 as wire;
use tokio::sync::watch;
use tracing::{debug, error, info, warn};

use super::{
    attachments::{Attachments, lock},
    engine::Engine,
    run::stopped,
};
use crate::datapath::sweep::Sweeper;

/// Pause between two sweeps of conntrack.
const SWEEP: Duration = Duration::from_secs(1);
/// Pause between two looks for tombstones.
const TOMBSTONES: Duration = Duration::from_secs(2);

pub(super) async fn follow_addresses(
    mut own: watch::Receiver<BTreeSet<IpAddr>>,
    engine: Engine,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let addresses = own.borrow_and_update().clone();
        if engine.host_addresses(addresses).is_err() {
            return;
        }
        tokio::select! {
            changed = own.changed() => if changed.is_err() {
                error!("The node's addresses are no longer watched");
                return;
            },
            () = stopped(&mut stop) => return,
        }
    }
}

pub(super) async fn sweep(
    sweeper: Sweeper,
    report: Arc<Mutex<Option<datapath_abi::control::SweepReport>>>,
    active_interval: Duration,
    engine: Engine,
    mut stop: watch::Receiver<bool>,
) {
    let sweeper = Arc::new(Mutex::new(sweeper));
    let mut clock = tokio::time::interval(SWEEP);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = clock.tick() => {}
            () = stopped(&mut stop) => return,
        }
        let (sweeper, report) = (sweeper.clone(), report.clone());
        let round = engine.lost_backends();
        // Milliseconds in the kernel when the tables are full: not on a thread that serves others.
        let swept = tokio::task::spawn_blocking(move || match lock(&sweeper).sweep(active_interval) {
            Ok(found) => {
                if found.is_some() {
                    *lock(&report) = found;
                }
                found.is_some()
            }
            Err(error) => {
                error!(%error, "Conntrack could not be swept");
                false
            }
        });
        if swept.await.unwrap_or(false) && round > 0 && engine.swept(round).is_err() {
            return;
        }
    }
}

/// Serves what nobody waits for: DELs that found no daemon, sandboxes that died without a DEL.
pub(super) async fn look_after(attachments: Arc<Attachments>, gc_interval: Duration, mut stop: watch::Receiver<bool>) {
    let mut tombstones = tokio::time::interval(TOMBSTONES);
    let mut dead = tokio::time::interval(gc_interval);
    dead.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tombstones.tick() => {
                serve_tombstones(&attachments).await;
                if let Err(error) = attachments.keep_cursors() {
                    debug!(%error, "Addresses handed out last were not written down");
                }
            }
            _ = dead.tick() => attachments.collect_dead().await,
            () = stopped(&mut stop) => return,
        }
    }
}

async fn serve_tombstones(attachments: &Attachments) {
    let found = match attachments.state().tombstones::<wire::Tombstone>() {
        Ok((found, corrupt)) => {
            for corrupt in corrupt {
                error!(%corrupt, "Tombstone could not be read");
            }
            found
        }
        Err(error) => return error!(%error, "Tombstones could not be listed"),
    };
    for tombstone in found {
        let wire::Tombstone { request, deleted_at_unix_ms } = &tombstone.message;
        let owner = match crate::cni::convert::owner(request.as_ref().and_then(|request| request.id.clone())) {
            Ok(owner) => owner,
            Err(bad) => {
                error!(error = %bad, "Tombstone without a valid name removed");
                let _ = attachments.state().remove_tombstone(&tombstone);
                continue;
            }
        };
        // An attachment that was added later is another one.
        let newer = attachments.record(&owner).is_some_and(|record| record.created_unix_ms > *deleted_at_unix_ms);
        if !newer {
            if let Err(error) = attachments.del(&owner).await {
                warn!(%error, "DEL of a tombstone");
                continue;
            }
            info!(%owner, "Served a DEL that had found no daemon");
        }
        if let Err(error) = attachments.state().remove_tombstone(&tombstone) {
            warn!(%error, "Tombstone could not be removed");
        }
    }
}
