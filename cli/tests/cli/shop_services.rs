//! Canned answers: Services in every state.

use proto::bulkhead::admin::v1::{
    BackendState, ListServicesResponse, PodName, PortState, Service, ServiceBackend, ServicePort,
};

fn backend(ip: &str, state: BackendState, pod: &str) -> ServiceBackend {
    ServiceBackend {
        ip: ip.into(),
        port: 5432,
        state: state.into(),
        pod: (!pod.is_empty()).then(|| PodName { namespace: "shop".into(), name: pod.into() }),
        here: pod == "db-0",
    }
}

fn port(name: &str, ip: &str, state: PortState, backends: Vec<ServiceBackend>) -> ServicePort {
    ServicePort {
        name: name.into(),
        protocol: "tcp".into(),
        ip: ip.into(),
        port: 5432,
        state: state.into(),
        taken_by: String::new(),
        backends,
    }
}

fn service(name: &str, service_type: &str, ports: Vec<ServicePort>) -> Service {
    Service { namespace: "shop".into(), name: name.into(), r#type: service_type.into(), nowhere: String::new(), ports }
}

pub(crate) fn services() -> ListServicesResponse {
    let v4 = vec![
        backend("10.88.0.2", BackendState::Ready, "db-0"),
        backend("10.88.1.7", BackendState::NotReady, "db-1"),
        backend("10.88.1.9", BackendState::Terminating, ""),
    ];
    let last = vec![backend("fd88::2", BackendState::LastResort, "db-0")];
    let full =
        vec![backend("10.88.0.2", BackendState::Ready, "db-0"), backend("10.88.1.7", BackendState::NoRoom, "db-1")];
    let taken = ServicePort { taken_by: "shop/db".into(), ..port("", "10.96.0.10", PortState::Taken, Vec::new()) };
    ListServicesResponse {
        services: vec![
            service(
                "db",
                "ClusterIP",
                vec![
                    port("pg", "10.96.0.10", PortState::InForce, v4),
                    port("pg", "fd96::10", PortState::InForce, last),
                ],
            ),
            service("db-new", "ClusterIP", vec![taken]),
            Service {
                nowhere: "it is headless: its name stands for the backends themselves".into(),
                ..service("db-pods", "ClusterIP", Vec::new())
            },
            service("full", "NodePort", vec![port("", "10.96.0.11", PortState::InForce, full)]),
            service("idle", "LoadBalancer", vec![port("", "10.96.0.12", PortState::NoBackend, Vec::new())]),
            service("late", "ClusterIP", vec![port("", "10.96.0.13", PortState::Waiting, Vec::new())]),
            service("many", "ClusterIP", vec![port("", "10.96.0.14", PortState::NoRoom, Vec::new())]),
        ],
    }
}
