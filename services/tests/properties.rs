//! Whatever happens to Services and slices, in whatever order: the maps come out right, and are right at every moment
//! between two writes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use datapath_abi::{
    addr::Addr,
    service::{Backend, BackendKey, FrontendKey},
};
use policy::model::{
    AddressType, Endpoint, EndpointPort, EndpointSlice, Object, ObjectKey, Protocol, Service, ServiceKey, ServicePort,
};
use proptest::prelude::*;
use services::{Capacity, Found, Index, Write};

/// What is told.
#[derive(Clone, Debug)]
enum Told {
    Service(Service),
    Slice(EndpointSlice),
    NoService(u8),
    NoSlice(u8),
    Plan,
    Restart,
    Swept,
}

fn service_key(number: u8) -> ServiceKey {
    ServiceKey::new("shop", format!("s{number}"))
}

fn slice_key(number: u8) -> ServiceKey {
    ServiceKey::new("shop", format!("e{number}"))
}

fn ip(number: u8) -> IpAddr {
    IpAddr::from([10, 96, 0, number])
}

fn told() -> impl Strategy<Value = Told> {
    // Few names and addresses, so that they meet; two ports, of which one is named by few slices.
    let service = (0u8..3, 0u8..3, prop::option::of(0i64..3), any::<bool>()).prop_map(|(name, at, created, both)| {
        let port = |name: &str, port: u16| ServicePort { name: name.to_owned(), protocol: Protocol::Tcp, port };
        let mut service = Service::new(service_key(name));
        service.created = created;
        service.cluster_ips = vec![ip(at)];
        service.ports = if both { vec![port("a", 80), port("b", 81)] } else { vec![port("a", 80)] };
        Told::Service(service)
    });
    let endpoint = (0u8..6, 0u8..4).prop_map(|(host, state)| Endpoint {
        ip: IpAddr::from([10, 1, 0, host]),
        ready: state < 2,
        serving: state < 3,
        terminating: state >= 2,
    });
    let slice = (0u8..4, 0u8..3, prop::collection::vec(endpoint, 0..5), any::<bool>()).prop_map(
        |(name, service, endpoints, both)| {
            let port = |name: &str, port: u16| EndpointPort { name: name.to_owned(), protocol: Protocol::Tcp, port };
            Told::Slice(EndpointSlice {
                key: slice_key(name),
                service: Some(format!("s{service}")),
                address_type: AddressType::Ipv4,
                ports: if both { vec![port("a", 8080), port("b", 8081)] } else { vec![port("a", 8080)] },
                endpoints,
            })
        },
    );
    prop_oneof![
        4 => service,
        6 => slice,
        1 => (0u8..3).prop_map(Told::NoService),
        2 => (0u8..4).prop_map(Told::NoSlice),
        4 => Just(Told::Plan),
        1 => Just(Told::Restart),
        1 => Just(Told::Swept),
    ]
}

/// Objects as they are, and what should stand in the maps because of them: written from the API's text.
#[derive(Clone, Default)]
struct World {
    services: BTreeMap<ServiceKey, Service>,
    slices: BTreeMap<ServiceKey, EndpointSlice>,
}

impl World {
    fn wanted(&self) -> BTreeMap<FrontendKey, BTreeSet<Backend>> {
        self.owners().into_iter().map(|(key, (service, port))| (key, self.serving(&service, &port))).collect()
    }

    /// Whose port stands where.
    fn owners(&self) -> BTreeMap<FrontendKey, (ServiceKey, String)> {
        let mut all: Vec<&Service> = self.services.values().collect();
        all.sort_by_key(|service| (service.created.is_none(), service.created.unwrap_or(0), service.key.clone()));
        let mut owners = BTreeMap::new();
        for service in all {
            for port in &service.ports {
                let addr = Addr::from(service.cluster_ips[0]);
                let key = FrontendKey { addr, port: port.port, proto: 6, ..FrontendKey::default() };
                owners.entry(key).or_insert_with(|| (service.key.clone(), port.name.clone()));
            }
        }
        owners
    }

    fn serving(&self, service: &ServiceKey, port: &str) -> BTreeSet<Backend> {
        let mut ready = BTreeSet::new();
        let mut last = BTreeSet::new();
        for slice in self.slices.values().filter(|slice| slice.service.as_deref() == Some(&service.name)) {
            for at in slice.ports.iter().filter(|at| at.name == port) {
                for endpoint in &slice.endpoints {
                    let backend = Backend { addr: Addr::from(endpoint.ip), port: at.port, ..Backend::default() };
                    if endpoint.ready {
                        ready.insert(backend);
                    } else if endpoint.serving && endpoint.terminating {
                        last.insert(backend);
                    }
                }
            }
        }
        if ready.is_empty() { last } else { ready }
    }
}

/// Who stands behind each frontend, as a packet would find it; an error if a place is empty.
fn reachable(found: &Found) -> Result<BTreeMap<FrontendKey, BTreeSet<Backend>>, String> {
    let mut all = BTreeMap::new();
    for (key, frontend) in &found.frontends {
        let mut backends = BTreeSet::new();
        for place in 0..frontend.count {
            let backend = found.backends.get(&BackendKey { set: frontend.set, place });
            backends.insert(*backend.ok_or_else(|| format!("{key:?}: place {place} of {frontend:?} is empty"))?);
        }
        all.insert(*key, backends);
    }
    Ok(all)
}

/// Carries writes out one by one, and looks as a packet would after each.
fn carry_out(found: &mut Found, writes: &[Write], before: &World, after: &World) -> Result<(), TestCaseError> {
    let (old, new, owners) = (before.wanted(), after.wanted(), after.owners());
    for write in writes {
        found.apply(write);
        for (key, backends) in reachable(found).map_err(TestCaseError::fail)? {
            let mut may: BTreeSet<Backend> =
                old.get(&key).into_iter().chain(new.get(&key)).flatten().copied().collect();
            // One that comes to stand there may lead to whom it led to elsewhere.
            if let Some((service, port)) = owners.get(&key) {
                may.extend(before.serving(service, port));
            }
            prop_assert!(backends.is_subset(&may), "after {:?}: {:?} leads to {:?}", write, key, backends);
        }
    }
    let got = reachable(found).map_err(TestCaseError::fail)?;
    prop_assert_eq!(got, new);
    let used: BTreeSet<u32> = found.frontends.values().map(|frontend| frontend.set).collect();
    let stray: Vec<_> = found.backends.keys().filter(|key| !used.contains(&key.set)).collect();
    prop_assert!(stray.is_empty(), "places of no set: {:?}", stray);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn the_maps_are_right_at_every_moment(all in prop::collection::vec(told(), 1..40)) {
        let mut world = World::default();
        let mut planned = world.clone();
        let mut found = Found::default();
        let mut index = Index::new(found.clone(), Capacity::default());
        for told in all.into_iter().chain([Told::Plan]) {
            match told {
                Told::Service(service) => {
                    world.services.insert(service.key.clone(), service.clone());
                    index.apply(Object::Service(service));
                }
                Told::Slice(slice) => {
                    world.slices.insert(slice.key.clone(), slice.clone());
                    index.apply(Object::EndpointSlice(slice));
                }
                Told::NoService(number) => {
                    world.services.remove(&service_key(number));
                    index.delete(&ObjectKey::Service(service_key(number)));
                }
                Told::NoSlice(number) => {
                    world.slices.remove(&slice_key(number));
                    index.delete(&ObjectKey::EndpointSlice(slice_key(number)));
                }
                Told::Plan => {
                    let plan = index.plan();
                    carry_out(&mut found, &plan.writes, &planned, &world)?;
                    prop_assert_eq!(&index.found(), &found);
                    prop_assert!(index.plan().writes.is_empty(), "a second plan has nothing to write");
                    planned = world.clone();
                }
                Told::Restart => {
                    // Another process: the maps, and the objects in another order.
                    index = Index::new(found.clone(), Capacity::default());
                    for slice in world.slices.values().rev() {
                        index.apply(Object::EndpointSlice(slice.clone()));
                    }
                    for service in world.services.values().rev() {
                        index.apply(Object::Service(service.clone()));
                    }
                    if planned.services == world.services && planned.slices == world.slices {
                        let plan = index.plan();
                        prop_assert!(plan.writes.is_empty(), "nothing has changed: {:?}", plan.writes);
                    }
                }
                Told::Swept => {
                    for write in index.swept(u64::MAX) {
                        found.apply(&write);
                    }
                    prop_assert!(found.gone.is_empty());
                }
            }
        }
        // Fresh, from nothing.
        let mut fresh = Index::new(Found::default(), Capacity::default());
        for service in world.services.values() {
            fresh.apply(Object::Service(service.clone()));
        }
        for slice in world.slices.values() {
            fresh.apply(Object::EndpointSlice(slice.clone()));
        }
        let mut anew = Found::default();
        for write in fresh.plan().writes {
            anew.apply(&write);
        }
        prop_assert_eq!(reachable(&anew), reachable(&found));
    }
}

/// A slice with so many endpoints.
fn big(count: u16, without: Option<u16>) -> EndpointSlice {
    let endpoint = |number: u16| {
        let [high, low] = number.to_be_bytes();
        Endpoint { ip: IpAddr::from([10, 1, high, low]), ready: true, serving: true, terminating: false }
    };
    EndpointSlice {
        key: slice_key(0),
        service: Some("s0".to_owned()),
        address_type: AddressType::Ipv4,
        ports: vec![EndpointPort { name: "a".to_owned(), protocol: Protocol::Tcp, port: 8080 }],
        endpoints: (0..count).filter(|number| Some(*number) != without).map(endpoint).collect(),
    }
}

fn one_service() -> Service {
    let mut service = Service::new(service_key(0));
    service.cluster_ips = vec![ip(1)];
    service.ports = vec![ServicePort { name: "a".to_owned(), protocol: Protocol::Tcp, port: 80 }];
    service
}

#[test]
fn one_endpoint_less_of_a_thousand_is_a_few_writes() {
    let mut index = Index::new(Found::default(), Capacity::default());
    index.apply(Object::Service(one_service()));
    index.apply(Object::EndpointSlice(big(1000, None)));
    assert_eq!(index.plan().writes.len(), 1001, "each backend and the frontend");
    index.apply(Object::EndpointSlice(big(1000, Some(500))));
    let writes = index.plan().writes;
    assert!(writes.len() <= 4, "{writes:?}");
    assert!(
        matches!(writes.iter().find(|write| matches!(write, Write::PutGone(_))), Some(Write::PutGone(key)) if key.port == 8080)
    );
}

#[test]
fn what_finds_no_room_is_refused_by_name_and_comes_when_there_is_some() {
    let room = Capacity { backends: 10, ..Capacity::default() };
    let mut index = Index::new(Found::default(), room);
    index.apply(Object::Service(one_service()));
    index.apply(Object::EndpointSlice(big(12, None)));
    index.plan();
    let refused: Vec<_> = index.refusals().map(|(port, refusal)| (port.service.to_string(), refusal)).collect();
    assert_eq!(refused, [("shop/s0".to_owned(), services::Refusal::Backends(2))]);
    index.apply(Object::EndpointSlice(big(9, None)));
    index.plan();
    assert_eq!(index.refusals().count(), 0);
}
