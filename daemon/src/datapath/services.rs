//! The maps of Services: read once, then written change by change.

use aya::{
    Ebpf,
    maps::{HashMap, MapData},
};
use datapath_abi::{
    maps,
    service::{Backend, BackendKey, Frontend, FrontendKey, GoneKey},
};
use services::{Found, Write};

use super::maps::{TableError, failed, gone, take};

/// FRONTENDS, BACKENDS and GONE.
#[derive(Debug)]
pub struct ServiceTables {
    frontends: HashMap<MapData, FrontendKey, Frontend>,
    backends: HashMap<MapData, BackendKey, Backend>,
    gone: HashMap<MapData, GoneKey, u32>,
}

impl ServiceTables {
    /// Takes the maps out of a loaded object.
    pub fn new(ebpf: &mut Ebpf) -> Result<Self, TableError> {
        Ok(Self {
            frontends: take(ebpf, maps::FRONTENDS)?,
            backends: take(ebpf, maps::BACKENDS)?,
            gone: take(ebpf, maps::GONE)?,
        })
    }

    /// Reads everything.
    pub fn read(&self) -> Result<Found, TableError> {
        let frontends = self.frontends.iter().collect::<Result<_, _>>();
        let backends = self.backends.iter().collect::<Result<_, _>>();
        let gone = self.gone.keys().collect::<Result<_, _>>();
        Ok(Found {
            frontends: frontends.map_err(failed(maps::FRONTENDS, "read"))?,
            backends: backends.map_err(failed(maps::BACKENDS, "read"))?,
            gone: gone.map_err(failed(maps::GONE, "read"))?,
        })
    }

    /// Carries a write out.
    pub fn apply(&mut self, write: &Write) -> Result<(), TableError> {
        match write {
            Write::PutBackend(key, backend) => {
                self.backends.insert(key, backend, 0).map_err(failed(maps::BACKENDS, "insert"))
            }
            Write::PutFrontend(key, frontend) => {
                self.frontends.insert(key, frontend, 0).map_err(failed(maps::FRONTENDS, "insert"))
            }
            Write::PutGone(key) => self.gone.insert(key, 0, 0).map_err(failed(maps::GONE, "insert")),
            Write::DropGone(key) => gone(self.gone.remove(key), maps::GONE),
            Write::DropFrontend(key) => gone(self.frontends.remove(key), maps::FRONTENDS),
            Write::DropBackend(key) => gone(self.backends.remove(key), maps::BACKENDS),
        }
    }
}
