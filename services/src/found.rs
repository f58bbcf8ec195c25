//! What the maps hold, and writes to them.

use std::collections::{BTreeMap, BTreeSet};

use datapath_abi::service::{Backend, BackendKey, Frontend, FrontendKey, GoneKey};

/// One write to the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Write {
    /// Entry of BACKENDS, new or in the place of another.
    PutBackend(BackendKey, Backend),
    /// Entry of FRONTENDS, new or in the place of another.
    PutFrontend(FrontendKey, Frontend),
    /// Entry of GONE.
    PutGone(GoneKey),
    /// Removes an entry of GONE.
    DropGone(GoneKey),
    /// Removes an entry of FRONTENDS.
    DropFrontend(FrontendKey),
    /// Removes an entry of BACKENDS.
    DropBackend(BackendKey),
}

/// The three maps.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Found {
    /// FRONTENDS.
    pub frontends: BTreeMap<FrontendKey, Frontend>,
    /// BACKENDS.
    pub backends: BTreeMap<BackendKey, Backend>,
    /// GONE.
    pub gone: BTreeSet<GoneKey>,
}

impl Found {
    /// Does what a write does.
    pub fn apply(&mut self, write: &Write) {
        match *write {
            Write::PutBackend(key, backend) => drop(self.backends.insert(key, backend)),
            Write::PutFrontend(key, frontend) => drop(self.frontends.insert(key, frontend)),
            Write::PutGone(key) => drop(self.gone.insert(key)),
            Write::DropGone(key) => drop(self.gone.remove(&key)),
            Write::DropFrontend(key) => drop(self.frontends.remove(&key)),
            Write::DropBackend(key) => drop(self.backends.remove(&key)),
        }
    }
}
