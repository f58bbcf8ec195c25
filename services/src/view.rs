//! What there is to look at: for the operator, and for metrics.

use std::net::{IpAddr, SocketAddr};

use datapath_abi::service::{Backend, FrontendKey};
use policy::model::{Protocol, Service, ServiceKey};

use crate::index::{Entry, Index};
use crate::ports::{Condition, PortId, address, claims, endpoints, serving};
use crate::tables::Refusal;

/// A Service and where it stands.
#[derive(Clone, Debug)]
pub struct ServiceView<'a> {
    /// The Service.
    pub service: &'a Service,
    /// Its ports at each of its addresses; none if it stands nowhere.
    pub ports: Vec<PortView>,
}

/// A port of a Service at one of its addresses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortView {
    /// Name of the port; may be empty.
    pub name: String,
    /// Address and port.
    pub at: SocketAddr,
    /// Protocol.
    pub protocol: Protocol,
    /// What became of it.
    pub state: PortState,
    /// All who may serve, by address and port.
    pub backends: Vec<BackendView>,
}

/// What became of a port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PortState {
    /// It is in force.
    InForce {
        /// Number of its set.
        set: u32,
        /// How many backends the set has.
        count: u32,
    },
    /// An older Service stands there.
    Taken(ServiceKey),
    /// FRONTENDS is full.
    NoRoom,
    /// It was told of and has not been planned yet.
    Waiting,
}

/// One who may serve.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BackendView {
    /// Address and port.
    pub at: SocketAddr,
    /// Whether it does.
    pub state: BackendState,
}

/// Whether one serves, and why not.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum BackendState {
    /// It serves.
    Ready,
    /// It is about to end, and serves because nobody is ready.
    LastResort,
    /// It is not ready.
    NotReady,
    /// It is about to end, and others are ready, or it does not serve any more.
    Terminating,
    /// It is ready, and BACKENDS is full.
    NoRoom,
}

/// Several Services that want one address and port.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Clash {
    /// Address and port.
    pub at: SocketAddr,
    /// IANA protocol number.
    pub protocol: u8,
    /// Who has it.
    pub owner: ServiceKey,
    /// Who would have it next.
    pub others: Vec<ServiceKey>,
}

impl Index {
    /// Every Service, by namespace and name.
    pub fn services(&self) -> impl Iterator<Item = ServiceView<'_>> {
        self.services.values().filter_map(|entry| self.service_view(entry))
    }

    /// One Service, if there is such a one.
    pub fn service(&self, key: &ServiceKey) -> Option<ServiceView<'_>> {
        self.services.get(key).and_then(|entry| self.service_view(entry))
    }

    fn service_view<'a>(&'a self, entry: &'a Entry) -> Option<ServiceView<'a>> {
        let service = entry.service.as_ref()?;
        let claims = claims(service);
        let ports = claims.into_iter().map(|(key, claim)| self.port_view(entry, &key, &claim.id));
        Some(ServiceView { service, ports: ports.collect() })
    }

    fn port_view(&self, entry: &Entry, key: &FrontendKey, id: &PortId) -> PortView {
        let state = match self.owners.get(key) {
            Some(owner) if owner != id => PortState::Taken(owner.service.clone()),
            None => PortState::Waiting,
            Some(_) => match self.tables.frontends.get(key) {
                Some(frontend) => PortState::InForce { set: frontend.set, count: frontend.count },
                None if self.refused.get(id) == Some(&Refusal::Frontend) => PortState::NoRoom,
                None => PortState::Waiting,
            },
        };
        let places = match state {
            PortState::InForce { set, .. } => self.tables.sets.get(&set),
            _ => None,
        };
        let all = endpoints(entry.slices.values(), id);
        let target = serving(&all);
        let full = matches!(self.refused.get(id), Some(Refusal::Backends(_)));
        let backends = all.iter().map(|(backend, condition)| {
            let no_room = || full && places.is_some_and(|places| !places.contains(backend));
            let state = match target.contains(backend) {
                true if no_room() => BackendState::NoRoom,
                is_target => state_of(*condition, is_target),
            };
            BackendView { at: backend_address(backend), state }
        });
        PortView { name: id.port.clone(), at: address(key), protocol: id.protocol, state, backends: backends.collect() }
    }

    /// Addresses and ports that several Services want.
    pub fn clashes(&self) -> impl Iterator<Item = Clash> {
        self.clashes.iter().filter_map(|key| {
            let mut claims = self.claims.get(key)?.iter().map(|claim| claim.id.service.clone());
            let owner = claims.next()?;
            Some(Clash { at: address(key), protocol: key.proto, owner, others: claims.collect() })
        })
    }

    /// What found no room.
    pub fn refusals(&self) -> impl Iterator<Item = (&PortId, Refusal)> {
        self.refused.iter().map(|(port, refusal)| (port, *refusal))
    }

    /// How many Services there are, headless ones among them.
    pub fn len(&self) -> usize {
        self.services.values().filter(|entry| entry.service.is_some()).count()
    }

    /// Whether there is no Service.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Entries of FRONTENDS, BACKENDS and GONE.
    pub fn sizes(&self) -> [usize; 3] {
        [self.tables.frontends.len(), self.tables.backends, self.tables.gone.len()]
    }

    /// How many backends have left a set without an entry in GONE, because it was full.
    pub fn gone_missed(&self) -> u64 {
        self.gone_missed
    }
}

fn state_of(condition: Condition, serves: bool) -> BackendState {
    match (serves, condition) {
        (true, Condition { ready: true, .. }) => BackendState::Ready,
        (true, _) => BackendState::LastResort,
        (false, Condition { terminating: true, .. }) => BackendState::Terminating,
        (false, _) => BackendState::NotReady,
    }
}

fn backend_address(backend: &Backend) -> SocketAddr {
    SocketAddr::new(IpAddr::from(backend.addr), backend.port)
}
