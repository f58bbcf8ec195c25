//! `ListServices`: where Services stand, and who serves for them.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use policy::model::{PodKey, Service, ServiceType};
use proto::bulkhead::admin::v1 as pb;
use services::{BackendState, BackendView, PortState, PortView, ServiceView};
use tonic::Status;

use super::{AdminService, convert, unless_synced};
use crate::app::engine::State;

pub(super) async fn list(
    service: &AdminService,
    request: pb::ListServicesRequest,
) -> Result<pb::ListServicesResponse, Status> {
    let pb::ListServicesRequest { namespace, name } = request;
    let wanted = (
        convert::optional_name("namespace", &namespace)?.map(str::to_owned),
        convert::optional_name("name", &name)?.map(str::to_owned),
    );
    let missing = match &wanted {
        (None, Some(name)) => {
            return Err(Status::invalid_argument(format!("namespace is empty, and name is {name:?}: give both")));
        }
        (Some(namespace), Some(name)) => {
            Some(format!("there is no Service {namespace}/{name}: `bulkhead service list` shows those there are"))
        }
        _ => None,
    };
    let (synced, services) = service.ask(move |state| (state.synced, services(state, &wanted))).await?;
    unless_synced(synced)?;
    match missing.filter(|_| services.is_empty()) {
        Some(missing) => Err(Status::not_found(missing)),
        None => Ok(pb::ListServicesResponse { services }),
    }
}

/// Those of a namespace and a name, or all.
fn services(state: &State, (namespace, name): &(Option<String>, Option<String>)) -> Vec<pb::Service> {
    let views = state.services.index.services().filter(|view| {
        let key = &view.service.key;
        namespace.as_ref().is_none_or(|it| *it == key.namespace) && name.as_ref().is_none_or(|it| *it == key.name)
    });
    let views: Vec<ServiceView<'_>> = views.collect();
    let pods = Pods::of(state, &views);
    views.iter().map(|view| told(view, &pods)).collect()
}

/// Pods behind the addresses of backends.
struct Pods<'a> {
    by_ip: HashMap<IpAddr, &'a PodKey>,
    local: BTreeSet<&'a PodKey>,
}

impl<'a> Pods<'a> {
    fn of(state: &'a State, views: &[ServiceView<'_>]) -> Self {
        let wanted: BTreeSet<IpAddr> = views
            .iter()
            .flat_map(|view| &view.ports)
            .flat_map(|port| &port.backends)
            .map(|backend| backend.at.ip())
            .collect();
        let identities = state.planner.universe().iter();
        let pods = identities.flat_map(|(_, identity)| identity.pods());
        let by_ip = pods
            .flat_map(|(pod, address)| address.ips.iter().map(move |ip| (*ip, pod)))
            .filter(|(ip, _)| wanted.contains(ip))
            .collect();
        Self { by_ip, local: state.planner.endpoints().map(|endpoint| &endpoint.pod).collect() }
    }
}

fn told(view: &ServiceView<'_>, pods: &Pods<'_>) -> pb::Service {
    let service = view.service;
    let mut ports: Vec<&PortView> = view.ports.iter().collect();
    ports.sort_by_key(|port| (port.at, port.protocol.number()));
    pb::Service {
        namespace: service.key.namespace.clone(),
        name: service.key.name.clone(),
        r#type: service.service_type.as_str().to_owned(),
        nowhere: if ports.is_empty() { nowhere(service) } else { String::new() },
        ports: ports.into_iter().map(|port| told_port(port, pods)).collect(),
    }
}

/// Why a Service stands nowhere.
fn nowhere(service: &Service) -> String {
    match service {
        Service { proxy: Some(proxy), .. } => format!("its label service-proxy-name leaves it to {proxy}"),
        Service { service_type: ServiceType::ExternalName, .. } => "it is a name for another name".to_owned(),
        Service { headless: true, .. } => "it is headless: its name stands for the backends themselves".to_owned(),
        Service { cluster_ips, .. } if cluster_ips.is_empty() => "nobody has given it an address".to_owned(),
        _ => "it has no ports".to_owned(),
    }
}

fn told_port(port: &PortView, pods: &Pods<'_>) -> pb::ServicePort {
    let (state, taken_by) = match &port.state {
        PortState::InForce { count: 0, .. } => (pb::PortState::NoBackend, String::new()),
        PortState::InForce { .. } => (pb::PortState::InForce, String::new()),
        PortState::Taken(owner) => (pb::PortState::Taken, owner.to_string()),
        PortState::NoRoom => (pb::PortState::NoRoom, String::new()),
        PortState::Waiting => (pb::PortState::Waiting, String::new()),
    };
    pb::ServicePort {
        name: port.name.clone(),
        protocol: port.protocol.as_str().to_ascii_lowercase(),
        ip: port.at.ip().to_string(),
        port: u32::from(port.at.port()),
        state: state.into(),
        taken_by,
        backends: port.backends.iter().map(|backend| told_backend(backend, pods)).collect(),
    }
}

fn told_backend(backend: &BackendView, pods: &Pods<'_>) -> pb::ServiceBackend {
    let state = match backend.state {
        BackendState::Ready => pb::BackendState::Ready,
        BackendState::LastResort => pb::BackendState::LastResort,
        BackendState::NotReady => pb::BackendState::NotReady,
        BackendState::Terminating => pb::BackendState::Terminating,
        BackendState::NoRoom => pb::BackendState::NoRoom,
    };
    let pod = pods.by_ip.get(&backend.at.ip());
    pb::ServiceBackend {
        ip: backend.at.ip().to_string(),
        port: u32::from(backend.at.port()),
        state: state.into(),
        pod: pod.map(|pod| convert::pod_name(pod)),
        here: pod.is_some_and(|pod| pods.local.contains(pod)),
    }
}
