//! Drains the kernel's ring buffer into the flow pipeline, by the clock: no event wakes anybody.

use std::{sync::Arc, time::Duration};

use aya::maps::{MapData, RingBuf};
use datapath_abi::maps::Scalar;
use flows::{enrich::WallClock, pipeline::Pipeline};
use std::sync::Mutex;
use tracing::{error, warn};

use super::knowledge::{Knowledge, monotonic_ns};
use crate::datapath::maps::Counts;

/// Pause between looks. A ring of 4 MiB holds 27,000 events: 2.7 million a second fit.
const PAUSE: Duration = Duration::from_millis(10);
/// Most events in one go, so that readers of the ring get their turn.
const BATCH: usize = 4096;

/// Reads events until `stop` says so.
pub async fn drain(
    mut events: RingBuf<MapData>,
    counts: Arc<Mutex<Counts>>,
    pipeline: Arc<Pipeline>,
    knowledge: Arc<Knowledge>,
    mut stop: tokio::sync::watch::Receiver<bool>,
) {
    let mut clock = tokio::time::interval(PAUSE);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut lost_before = lost_by_cpu(&counts);
    let mut ticks = 0u64;
    loop {
        tokio::select! {
            _ = clock.tick() => {}
            () = super::run::stopped(&mut stop) => {
                read(&mut events, &pipeline, &knowledge);
                return;
            }
        }
        while read(&mut events, &pipeline, &knowledge) == BATCH {
            tokio::task::yield_now().await;
        }
        ticks += 1;
        // Twenty times a second is soon enough to tell of a loss.
        if ticks.is_multiple_of(5) {
            let lost = lost_by_cpu(&counts);
            tell_losses(&pipeline, &lost_before, &lost);
            lost_before = lost;
        }
    }
}

/// Takes up to [`BATCH`] events out of the ring. Returns how many.
fn read(events: &mut RingBuf<MapData>, pipeline: &Pipeline, knowledge: &Knowledge) -> usize {
    let clock = WallClock::new(monotonic_ns(), unix_ns());
    let mut batch = pipeline.batch(clock, knowledge);
    let mut taken = 0;
    while taken < BATCH {
        let Some(event) = events.next() else { break };
        if let Err(error) = batch.push_bytes(&event) {
            warn!(%error, "Event refused");
        }
        taken += 1;
    }
    taken
}

fn lost_by_cpu(counts: &Mutex<Counts>) -> Vec<u64> {
    let counts = counts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    counts.scalar_by_cpu(Scalar::EventsLost).unwrap_or_else(|error| {
        error!(%error, "Lost events could not be counted");
        Vec::new()
    })
}

fn tell_losses(pipeline: &Pipeline, before: &[u64], now: &[u64]) {
    for (cpu, (now, before)) in now.iter().zip(before).enumerate() {
        let lost = now.saturating_sub(*before);
        if lost > 0 {
            warn!(cpu, lost, "Ring buffer overrun");
            pipeline.kernel_lost(lost, Some(cpu as u32), unix_ns());
        }
    }
}

/// Now, nanoseconds since 1970.
pub fn unix_ns() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    since.as_nanos() as u64
}
