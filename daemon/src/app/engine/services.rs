//! Services: from the objects to the maps. Apart from rules, which they have nothing to do with but the moment from which
//! anything may be written.

use services::{Index, Plan, Write};
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::{
    app::knowledge::Knowledge,
    datapath::{maps::TableError, services::ServiceTables},
};

/// What the maps of Services should hold, and what stands in the way.
#[derive(Debug)]
pub struct Services {
    /// Objects, and what follows from them.
    pub index: Index,
    /// The last write that the kernel refused, if nothing has succeeded since.
    pub trouble: Option<String>,
    /// So many ports found no room, as it was last told.
    told_refused: usize,
    /// See [`super::Engine::lost_backends`].
    lost_backends: watch::Sender<u64>,
}

impl Default for Services {
    fn default() -> Self {
        Self::new(Index::default())
    }
}

impl Services {
    /// Begins with what a predecessor has left.
    pub fn new(index: Index) -> Self {
        Self { index, trouble: None, told_refused: 0, lost_backends: watch::channel(0).0 }
    }

    /// See [`super::Engine::lost_backends`].
    pub(super) fn lost_backends(&self) -> watch::Receiver<u64> {
        self.lost_backends.subscribe()
    }

    /// Brings the maps up to date. False: it is to be tried again, see [`Services::trouble`].
    pub(super) fn bring_up_to_date(&mut self, tables: &mut ServiceTables, knowledge: &Knowledge) -> bool {
        if !self.index.is_dirty() {
            return true;
        }
        let Plan { writes, owners, round } = self.index.plan();
        // Also if a write fails: the next plan does not say it again.
        knowledge.services(&owners);
        if let Err(problem) = write(tables, &writes) {
            self.fail(tables, &problem);
            return false;
        }
        self.trouble = None;
        let refused = self.index.refusals().count();
        if refused > self.told_refused {
            warn!(refused, "Ports of Services found no room and are not translated, or not to all their backends");
        }
        self.told_refused = refused;
        if !writes.is_empty() {
            info!(writes = writes.len(), "Services brought up to date");
        }
        self.tell_lost_backends(round);
        true
    }

    /// A sweep is over that began after the writes of a round. False: see [`Self::bring_up_to_date`].
    pub(super) fn swept(&mut self, tables: &mut ServiceTables, round: u64) -> bool {
        let writes = self.index.swept(round);
        let done = write(tables, &writes);
        if let Err(problem) = &done {
            self.fail(tables, problem);
        }
        self.tell_lost_backends(0);
        done.is_ok()
    }

    /// Has a sweep asked for, if there is something for it; `round`: of a plan that was just carried out, or 0.
    fn tell_lost_backends(&self, round: u64) {
        let waits = self.index.has_gone();
        self.lost_backends.send_modify(|told| *told = if waits { round.max(*told) } else { 0 });
    }

    fn fail(&mut self, tables: &ServiceTables, problem: &TableError) {
        error!(error = %problem, "Services could not be brought up to date");
        self.trouble = Some(problem.to_string());
        match tables.read() {
            Ok(found) => self.index.reset(found),
            Err(again) => error!(error = %again, "Maps of Services could not be read back"),
        }
    }
}

fn write(tables: &mut ServiceTables, writes: &[Write]) -> Result<(), TableError> {
    writes.iter().try_for_each(|write| tables.apply(write))
}
