//! What a change costs, in writes; that a whole cluster is no long work; what the operator is told.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use policy::model::{
    AddressType, Endpoint, EndpointPort, EndpointSlice, ObjectKey, Protocol, Service, ServiceKey, ServicePort,
};
use services::{BackendState, Capacity, Found, Index, PortState, Write};

fn service(number: u32) -> Service {
    Service {
        cluster_ips: vec![Ipv4Addr::from(0x0a60_0000 + number).into()],
        ports: vec![ServicePort { name: String::new(), protocol: Protocol::Tcp, port: 80 }],
        ..Service::new(ServiceKey::new("a", format!("s{number}")))
    }
}

fn endpoint(number: u32, ready: bool, serving: bool, terminating: bool) -> Endpoint {
    Endpoint { ip: Ipv4Addr::from(0x0a00_0000 + number).into(), ready, serving, terminating }
}

fn slice(number: u32, endpoints: impl Iterator<Item = u32>) -> EndpointSlice {
    EndpointSlice {
        key: ServiceKey::new("a", format!("s{number}-x")),
        service: Some(format!("s{number}")),
        address_type: AddressType::Ipv4,
        ports: vec![EndpointPort { name: String::new(), protocol: Protocol::Tcp, port: 8080 }],
        endpoints: endpoints.map(|n| endpoint(n, true, true, false)).collect(),
    }
}

fn with(endpoints: u32) -> Index {
    let mut index = Index::new(Found::default(), Capacity::default());
    index.apply(service(1).into());
    index.apply(slice(1, 0..endpoints).into());
    index.plan();
    index
}

#[test]
fn one_of_a_thousand_that_goes_or_comes_is_a_few_writes_and_another_order_none() {
    let mut index = with(1000);
    index.apply(slice(1, (0..1000).rev()).into());
    assert_eq!(index.plan().writes, []);
    index.apply(slice(1, (0..1000).filter(|n| *n != 500)).into());
    let goes = index.plan().writes;
    let [Write::PutGone(_), Write::PutBackend(hole, _), Write::PutFrontend(_, front), Write::DropBackend(last)] =
        goes[..]
    else {
        panic!("{goes:?}")
    };
    assert_eq!((front.count, last.place), (999, 999));
    assert!(hole.place < 999);
    index.apply(slice(1, 0..1000).into());
    // It is back before a sweep: it has not gone.
    let comes = index.plan().writes;
    assert!(matches!(comes[..], [Write::DropGone(_), Write::PutBackend(..), Write::PutFrontend(..)]), "{comes:?}");
    index.apply(slice(1, 1..1001).into());
    let another = index.plan().writes;
    assert!(matches!(another[..], [Write::PutGone(_), Write::PutBackend(..)]), "{another:?}");
}

#[test]
fn who_went_is_forgotten_after_a_sweep_that_began_later() {
    let mut index = with(3);
    index.apply(slice(1, 0..2).into());
    let first = index.plan();
    index.apply(slice(1, 0..1).into());
    let second = index.plan();
    assert_eq!(index.swept(first.round - 1), []);
    assert_eq!(index.swept(first.round).len(), 1);
    assert!(index.has_gone());
    assert_eq!(index.swept(second.round).len(), 1);
    assert!(!index.has_gone());
}

#[test]
fn ten_thousand_services_with_a_hundred_thousand_endpoints_are_loaded_and_taken_over_quickly() {
    let load = |found: Found| {
        let mut index = Index::new(found, Capacity::default());
        for number in 0..10_000 {
            index.apply(service(number).into());
            index.apply(slice(number, number * 10..number * 10 + 10).into());
        }
        let began = Instant::now();
        let writes = index.plan().writes;
        println!("planned in {:?}", began.elapsed());
        // Without optimisation, and generous to slow machines: what is quadratic takes minutes.
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        writes
    };
    let writes = load(Found::default());
    assert_eq!(writes.len(), 110_000);
    let mut kernel = Found::default();
    writes.iter().for_each(|write| kernel.apply(write));
    assert_eq!(load(kernel), []);
}

#[test]
fn the_older_service_has_the_address_and_the_other_is_told() {
    let claim = |name: &str, created| Service { key: ServiceKey::new("a", name), created, ..service(1) };
    let mut index = Index::new(Found::default(), Capacity::default());
    index.apply(claim("a-young", None).into());
    index.plan();
    index.apply(claim("m-old", Some(7)).into());
    let owners = index.plan().owners;
    assert_eq!(owners.into_iter().map(|(_, owner)| owner.unwrap().name).collect::<Vec<_>>(), ["m-old"]);
    let clashes: Vec<_> = index.clashes().collect();
    assert_eq!(clashes.len(), 1);
    assert_eq!((&*clashes[0].owner.name, &*clashes[0].others[0].name), ("m-old", "a-young"));
    let states: Vec<PortState> = index.services().flat_map(|view| view.ports).map(|port| port.state).collect();
    assert_eq!(states[0], PortState::Taken(ServiceKey::new("a", "m-old")));
    assert!(matches!(states[1], PortState::InForce { count: 0, .. }));
    index.delete(&ObjectKey::Service(ServiceKey::new("a", "m-old")));
    index.plan();
    assert_eq!(index.clashes().count(), 0);
    assert_eq!(index.at(Ipv4Addr::new(10, 96, 0, 1).into(), 80, 6).unwrap().name, "a-young");
}

#[test]
fn each_backend_says_why_it_is_out() {
    let mut index = with(1);
    let mut slice = slice(1, 0..0);
    slice.endpoints =
        vec![endpoint(1, true, true, false), endpoint(2, false, true, true), endpoint(3, false, false, false)];
    let states = |index: &Index| -> Vec<BackendState> {
        index.services().flat_map(|view| view.ports).flat_map(|port| port.backends).map(|it| it.state).collect()
    };
    index.apply(slice.clone().into());
    index.plan();
    assert_eq!(states(&index), [BackendState::Ready, BackendState::Terminating, BackendState::NotReady]);
    slice.endpoints.remove(0);
    index.apply(slice.into());
    index.plan();
    assert_eq!(states(&index), [BackendState::LastResort, BackendState::NotReady]);
}
