//! An upgrade over a change of the ABI: the programs of the agent before this one decide by its maps, while ours are filled beside
//! them; when all rules are in force there, its connections are handed over and each interface changes hands. No packet passes
//! that neither of them has decided about.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::watch;
use tracing::{error, info, warn};

use super::{
    attachments::Attachments,
    engine::{Engine, State},
    gate::GateState,
    run::stopped,
};
use crate::datapath::{maps::TableError, predecessor::Predecessor};

/// Pause between two looks whether rules are in force, and after what has failed.
const PAUSE: Duration = Duration::from_millis(100);

/// Who is relieved, and by whom.
pub(super) struct Relief {
    /// Agents of other ABI versions; none: nothing is to be done.
    pub(super) predecessors: Vec<Predecessor>,
    /// Where our own maps are pinned.
    pub(super) pin_dir: PathBuf,
    pub(super) engine: Engine,
    pub(super) attachments: Arc<Attachments>,
    /// Takes over what is at the uplinks, by itself; before that the pins must not go.
    pub(super) gate: watch::Receiver<GateState>,
}

impl Relief {
    /// Waits until all rules are in force in our maps, then takes over.
    pub(super) async fn relieve(mut self, mut stop: watch::Receiver<bool>) {
        if self.predecessors.is_empty() {
            return;
        }
        let folders: Vec<_> = self.predecessors.iter().map(Predecessor::folder).collect();
        info!(?folders, "An agent of another ABI version goes on deciding until all rules are known");
        while !self.in_force().await || !self.take_over().await {
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = stopped(&mut stop) => return,
            }
        }
        tokio::select! {
            // An error: nobody looks after uplinks.
            _ = self.gate.wait_for(|gate| gate.looked) => {}
            () = stopped(&mut stop) => return,
        }
        for predecessor in self.predecessors {
            let folder = predecessor.folder().to_owned();
            match predecessor.retire() {
                Ok(()) => warn!(folder = %folder.display(), "Pins of an agent of another ABI version removed"),
                // Its programs are not attached any more, or are asked besides ours, which is closed at worst.
                Err(error) => {
                    error!(folder = %folder.display(), %error, "Pins of another ABI version cannot be removed")
                }
            }
        }
    }

    /// Whether what the objects say is in the maps.
    async fn in_force(&self) -> bool {
        let carried_out = |state: &State| state.synced && state.plans > 0 && state.trouble.is_none();
        self.engine.ask(carried_out).await.unwrap_or(false)
    }

    /// Hands over connections and interfaces. False: to be tried again.
    async fn take_over(&self) -> bool {
        let before = self.hand_over().await;
        let attached = self.attachments.renew_programs().await;
        // What has begun in between.
        let after = self.hand_over().await;
        match (before, after) {
            (Ok(before), Ok(after)) => info!(connections = before + after, "Connections taken over"),
            // They are taken up from their middle, which is no reason to stay under the rules of yesterday.
            (Err(error), _) | (_, Err(error)) => error!(%error, "Connections could not be taken over"),
        }
        attached
    }

    async fn hand_over(&self) -> Result<usize, TableError> {
        let (predecessors, pin_dir) = (self.predecessors.clone(), self.pin_dir.clone());
        let counts = tokio::task::spawn_blocking(move || {
            predecessors.iter().map(|predecessor| predecessor.hand_over(&pin_dir)).sum::<Result<usize, _>>()
        });
        // A panic there is a defect, and told by the runtime.
        counts.await.unwrap_or(Ok(0))
    }
}
