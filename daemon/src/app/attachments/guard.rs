//! Puts programs back that somebody else removes from pods' interfaces: finds out which are missing, attaches them again, and
//! counts how often. Says nothing of why they went.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::StreamExt as _;
use tokio::sync::watch;
use tracing::{error, warn};

use super::{AttachmentError, Attachments, lock};
use crate::{
    app::run::stopped,
    datapath::{attach, load::program},
    net::{NetError, Node, filter},
    state::{EndpointRecord, Phase},
};

/// Pause before a subscription that has ended is tried again.
const RESUBSCRIBE: Duration = Duration::from_millis(100);

/// How often programs were put back, since the agent has started.
#[derive(Debug, Default)]
pub(super) struct PutBack {
    done: AtomicU64,
    failed: AtomicU64,
}

/// The same, read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PutBackFigures {
    /// Interfaces that have them again.
    pub done: u64,
    /// Attempts that failed.
    pub failed: u64,
}

impl Attachments {
    /// How often programs were put back.
    pub fn put_back_figures(&self) -> PutBackFigures {
        let PutBack { done, failed } = &self.put_back;
        PutBackFigures { done: done.load(Ordering::Relaxed), failed: failed.load(Ordering::Relaxed) }
    }

    /// Which programs an interface does not have.
    pub(super) async fn missing_programs(&self, ifindex: u32) -> Result<Vec<&'static str>, NetError> {
        let by_tcx = match self.presence.name(ifindex) {
            Ok(name) => lock(&self.attacher).by_tcx(&name, ifindex),
            Err(_) => [false; 2],
        };
        if by_tcx == [true; 2] {
            return Ok(Vec::new());
        }
        let filters = filter::present(&self.node, ifindex, attach::PRIORITY, attach::HANDLE).await?;
        let there = by_tcx.into_iter().zip(filters).map(|(link, filter)| link || filter);
        let missing = [program::FROM_POD, program::TO_POD].into_iter().zip(there).filter(|(_, there)| !there);
        Ok(missing.map(|(name, _)| name).collect())
    }

    /// Puts programs back that somebody has taken off a pod's interface: off these, or with none named
    /// off any.
    pub async fn put_back_programs(&self, interfaces: &BTreeSet<u32>) {
        let concerned = |record: &EndpointRecord| interfaces.is_empty() || interfaces.contains(&record.host_ifindex);
        for record in self.records().iter().filter(|record| record.phase == Phase::Ready && concerned(record)) {
            let turn = self.turn(&record.owner);
            let guard = turn.lock().await;
            // Gone meanwhile, or about to.
            if self.record(&record.owner).as_ref() == Some(record)
                && let Err(error) = self.put_back(record).await
            {
                self.put_back.failed.fetch_add(1, Ordering::Relaxed);
                error!(owner = %record.owner, %error, "Programs of a pod's interface could not be put back");
            }
            drop(guard);
            if self.record(&record.owner).is_none() {
                self.leave(&record.owner, &turn);
            }
        }
    }

    /// Gives every pod's interface the programs of this agent in place of those it has. False: one has not got them.
    pub async fn renew_programs(&self) -> bool {
        let mut done = true;
        for record in self.records().iter().filter(|record| record.phase == Phase::Ready) {
            let turn = self.turn(&record.owner);
            let guard = turn.lock().await;
            if self.record(&record.owner).as_ref() == Some(record)
                && let Ok(name) = self.presence.name(record.host_ifindex)
                && let Err(error) = lock(&self.attacher).renew(&name, record.host_ifindex)
            {
                done = false;
                error!(owner = %record.owner, %error, "A pod's interface keeps the programs of another ABI version");
            }
            drop(guard);
            if self.record(&record.owner).is_none() {
                self.leave(&record.owner, &turn);
            }
        }
        done
    }

    async fn put_back(&self, record: &EndpointRecord) -> Result<(), AttachmentError> {
        let missing = self.missing_programs(record.host_ifindex).await?;
        let Ok(name) = self.presence.name(record.host_ifindex) else { return Ok(()) };
        if !missing.is_empty() {
            lock(&self.attacher).renew(&name, record.host_ifindex)?;
            self.put_back.done.fetch_add(1, Ordering::Relaxed);
            warn!(
                namespace = %record.pod.namespace, pod = %record.pod.name, ifindex = record.host_ifindex, ?missing,
                "Somebody had taken programs off a pod's interface: put back"
            );
        }
        Ok(())
    }
}

/// Puts programs back where somebody removes them. Hears of it at once; looks at all interfaces when it may
/// have missed something.
pub async fn guard_programs(node: Node, attachments: Arc<Attachments>, mut stop: watch::Receiver<bool>) {
    loop {
        let subscribed = tokio::select! {
            subscribed = filter::removals(&node) => subscribed,
            () = stopped(&mut stop) => return,
        };
        match subscribed {
            Ok(mut removals) => {
                attachments.put_back_programs(&BTreeSet::new()).await;
                loop {
                    let removed = tokio::select! {
                        removed = removals.next() => removed,
                        () = stopped(&mut stop) => return,
                    };
                    let Some(removed) = removed else { break };
                    attachments.put_back_programs(&removed).await;
                }
                warn!("Notifications of removed programs ended: subscribing anew");
            }
            Err(error) => warn!(%error, "Removed programs are not notified"),
        }
        tokio::select! {
            () = tokio::time::sleep(RESUBSCRIBE) => {}
            () = stopped(&mut stop) => return,
        }
    }
}
