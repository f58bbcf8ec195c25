//! Services: from the objects to the maps. Apart from rules, which they have nothing to do with but the moment from which
//! anything may be written.

use services::{Index, Plan, Write};
use tracing::{error, info, warn};

use crate::{
    app::knowledge::Knowledge,
    datapath::{maps::TableError, services::ServiceTables},
};

/// What the maps of Services should hold, and what stands in the way.
#[derive(Debug, Default)]
pub struct Services {
    /// Objects, and what follows from them.
    pub index: Index,
    /// The last write that the kernel refused, if nothing has succeeded since.
    pub trouble: Option<String>,
    /// So many ports found no room, as it was last told.
    told_refused: usize,
}

impl Services {
    /// Begins with what a predecessor has left.
    pub fn new(index: Index) -> Self {
        Self { index, ..Self::default() }
    }

    /// Brings the maps up to date. Returns the round of the plan, if one was carried out; `None` with
    /// [`Services::trouble`]: to be tried again.
    pub(super) fn bring_up_to_date(&mut self, tables: &mut ServiceTables, knowledge: &Knowledge) -> Option<u64> {
        if !self.index.is_dirty() {
            return None;
        }
        let Plan { writes, owners, round } = self.index.plan();
        if let Err(problem) = write(tables, &writes) {
            self.fail(tables, &problem);
            return None;
        }
        self.trouble = None;
        knowledge.services(&owners);
        let refused = self.index.refusals().count();
        if refused > self.told_refused {
            warn!(refused, "Ports of Services found no room and are not translated, or not to all their backends");
        }
        self.told_refused = refused;
        if !writes.is_empty() {
            info!(writes = writes.len(), "Services brought up to date");
        }
        Some(round)
    }

    /// A sweep is over that began after the writes of a round.
    pub(super) fn swept(&mut self, tables: &mut ServiceTables, round: u64) {
        let writes = self.index.swept(round);
        if let Err(problem) = write(tables, &writes) {
            self.fail(tables, &problem);
        }
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
