//! Services: where they stand, who serves.

use std::{fmt, net::IpAddr};

use proto::bulkhead::admin::v1 as pb;
use serde::Serialize;

use super::PodName;

/// A Service.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Service {
    pub(crate) namespace: String,
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) service_type: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) nowhere: String,
    pub(crate) ports: Vec<Port>,
}

/// A port at an address.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) protocol: String,
    pub(crate) ip: String,
    pub(crate) port: u32,
    pub(crate) state: PortState,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) taken_by: String,
    pub(crate) backends: Vec<Backend>,
}

/// One who may serve.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Backend {
    pub(crate) ip: String,
    pub(crate) port: u32,
    pub(crate) state: BackendState,
    pub(crate) pod: Option<PodName>,
    pub(crate) here: bool,
}

/// What became of a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PortState {
    InForce,
    NoBackend,
    Taken,
    NoRoom,
    Waiting,
    Unknown,
}

/// Whether one serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum BackendState {
    Ready,
    LastResort,
    NotReady,
    Terminating,
    NoRoom,
    Unknown,
}

impl PortState {
    /// Its word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::InForce => "in-force",
            Self::NoBackend => "no-backend",
            Self::Taken => "taken",
            Self::NoRoom => "no-room",
            Self::Waiting => "waiting",
            Self::Unknown => "unknown",
        }
    }

    fn from_wire(number: i32) -> Self {
        match pb::PortState::try_from(number) {
            Ok(pb::PortState::InForce) => Self::InForce,
            Ok(pb::PortState::NoBackend) => Self::NoBackend,
            Ok(pb::PortState::Taken) => Self::Taken,
            Ok(pb::PortState::NoRoom) => Self::NoRoom,
            Ok(pb::PortState::Waiting) => Self::Waiting,
            Ok(pb::PortState::Unspecified) | Err(_) => Self::Unknown,
        }
    }
}

impl BackendState {
    /// Its word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::LastResort => "last-resort",
            Self::NotReady => "not-ready",
            Self::Terminating => "terminating",
            Self::NoRoom => "no-room",
            Self::Unknown => "unknown",
        }
    }

    /// Whether packets go to it.
    pub(crate) fn serves(self) -> bool {
        matches!(self, Self::Ready | Self::LastResort)
    }

    fn from_wire(number: i32) -> Self {
        match pb::BackendState::try_from(number) {
            Ok(pb::BackendState::Ready) => Self::Ready,
            Ok(pb::BackendState::LastResort) => Self::LastResort,
            Ok(pb::BackendState::NotReady) => Self::NotReady,
            Ok(pb::BackendState::Terminating) => Self::Terminating,
            Ok(pb::BackendState::NoRoom) => Self::NoRoom,
            Ok(pb::BackendState::Unspecified) | Err(_) => Self::Unknown,
        }
    }
}

/// Address and port, as one writes them: `10.96.0.10:80`, `[fd00::1]:80`.
fn at(f: &mut fmt::Formatter<'_>, ip: &str, port: u32) -> fmt::Result {
    match ip.parse() {
        Ok(IpAddr::V6(_)) => write!(f, "[{ip}]:{port}"),
        _ => write!(f, "{ip}:{port}"),
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        at(f, &self.ip, self.port)
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        at(f, &self.ip, self.port)
    }
}

impl From<pb::Service> for Service {
    fn from(wire: pb::Service) -> Self {
        let pb::Service { namespace, name, r#type, nowhere, ports } = wire;
        Self { namespace, name, service_type: r#type, nowhere, ports: ports.into_iter().map(Port::from).collect() }
    }
}

impl From<pb::ServicePort> for Port {
    fn from(wire: pb::ServicePort) -> Self {
        let pb::ServicePort { name, protocol, ip, port, state, taken_by, backends } = wire;
        let backends = backends.into_iter().map(Backend::from).collect();
        Self { name, protocol, ip, port, state: PortState::from_wire(state), taken_by, backends }
    }
}

impl From<pb::ServiceBackend> for Backend {
    fn from(wire: pb::ServiceBackend) -> Self {
        let pb::ServiceBackend { ip, port, state, pod, here } = wire;
        Self { ip, port, state: BackendState::from_wire(state), pod: pod.map(PodName::from), here }
    }
}
