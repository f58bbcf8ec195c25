//! What goes wrong on the way: a daemon that ends between any two writes, maps that hold something else than was
//! thought, maps that are too small. By random Services and slices that come, change and go.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use datapath_abi::addr::Addr;
use datapath_abi::service::{Backend, BackendKey, FrontendKey};
use policy::model::{
    AddressType, Endpoint, EndpointPort, EndpointSlice, Object, ObjectKey, Protocol, Service, ServiceKey, ServicePort,
    ServiceType,
};
use proptest::prelude::*;
use services::{Capacity, Found, Index, Write, address};

#[derive(Clone, Debug)]
enum Event {
    Apply(Object),
    Delete(ObjectKey),
    Plan,
    Restart,
    Sweep,
}

type Objects = BTreeMap<ObjectKey, Object>;
/// What the maps should say: backends by address, port and protocol.
type Meaning = BTreeMap<(SocketAddr, u8), BTreeSet<Backend>>;

fn ip(v6: bool, range: u16, number: u8) -> IpAddr {
    match v6 {
        true => Ipv6Addr::new(0xfd00, range, 0, 0, 0, 0, 0, number.into()).into(),
        false => Ipv4Addr::new(10, range as u8, 0, number).into(),
    }
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop::sample::select(Protocol::ALL.to_vec())
}

fn key(letter: char, number: u8) -> ServiceKey {
    ServiceKey::new("shop", format!("{letter}{number}"))
}

fn service() -> impl Strategy<Value = Service> {
    let ports = prop::collection::btree_map(prop::sample::select(vec!["a", "b"]), (protocol(), 80u16..82), 0..3);
    let ips = (prop::option::of(0u8..3), prop::option::of(0u8..3));
    let odd = (prop::bool::weighted(0.1), prop::bool::weighted(0.1), prop::bool::weighted(0.1));
    (0u8..3, prop::option::of(0i64..3), ips, ports, odd).prop_map(|(name, created, (v4, v6), ports, odd)| {
        let mut seen = BTreeSet::new();
        let ports = ports.into_iter().filter(|(_, at)| seen.insert(*at));
        let ports = ports.map(|(name, (protocol, port))| ServicePort { name: name.to_owned(), protocol, port });
        let (headless, external, elsewhere) = odd;
        Service {
            created,
            service_type: if external { ServiceType::ExternalName } else { ServiceType::ClusterIp },
            headless,
            cluster_ips: v4.map(|n| ip(false, 96, n)).into_iter().chain(v6.map(|n| ip(true, 96, n))).collect(),
            ports: ports.collect(),
            proxy: elsewhere.then(|| "mesh".to_owned()),
            ..Service::new(key('s', name))
        }
    })
}

fn slice() -> impl Strategy<Value = EndpointSlice> {
    let port = (prop::sample::select(vec!["a", "b"]), protocol(), 8080u16..8082);
    let endpoint = (0u8..12, prop::bool::weighted(0.6), any::<bool>(), any::<bool>());
    let ports = prop::collection::vec(port, 0..4);
    let endpoints = prop::collection::vec(endpoint, 0..9);
    let family = prop::sample::select(vec![AddressType::Ipv4, AddressType::Ipv6, AddressType::Fqdn]);
    (0u8..4, prop::option::of(0u8..3), family, ports, endpoints).prop_map(|(name, of, family, ports, endpoints)| {
        let v6 = family == AddressType::Ipv6;
        let mut names = BTreeSet::new();
        let ports = ports.into_iter().filter(|(name, ..)| names.insert(*name));
        let ports = ports.map(|(name, protocol, port)| EndpointPort { name: name.to_owned(), protocol, port });
        let endpoints = endpoints.into_iter().filter(|_| family != AddressType::Fqdn);
        let endpoints = endpoints.map(|(n, ready, serving, terminating)| Endpoint {
            ip: ip(v6, 0, n),
            ready,
            serving,
            terminating,
        });
        EndpointSlice {
            key: key('e', name),
            service: of.map(|of| key('s', of).name),
            address_type: family,
            ports: ports.collect(),
            endpoints: endpoints.collect(),
        }
    })
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => service().prop_map(|service| Event::Apply(service.into())),
        6 => slice().prop_map(|slice| Event::Apply(slice.into())),
        1 => (0u8..3).prop_map(|n| Event::Delete(ObjectKey::Service(key('s', n)))),
        1 => (0u8..4).prop_map(|n| Event::Delete(ObjectKey::EndpointSlice(key('e', n)))),
        6 => Just(Event::Plan),
        1 => Just(Event::Restart),
        1 => Just(Event::Sweep),
    ]
}

/// The API's text as directly as code can say it.
fn meaning(objects: &Objects) -> Meaning {
    let services = objects.values().filter_map(|it| if let Object::Service(it) = it { Some(it) } else { None });
    let mut services: Vec<&Service> = services.collect();
    services.sort_by_key(|service| (service.created.unwrap_or(i64::MAX), service.key.clone()));
    let mut all = Meaning::new();
    for service in services {
        if service.headless || service.service_type == ServiceType::ExternalName || service.proxy.is_some() {
            continue;
        }
        for ip in &service.cluster_ips {
            for port in &service.ports {
                let at = (SocketAddr::new(*ip, port.port), port.protocol.number());
                all.entry(at).or_insert_with(|| backends(objects, service, port, ip.is_ipv6()));
            }
        }
    }
    all
}

fn backends(objects: &Objects, service: &Service, port: &ServicePort, v6: bool) -> BTreeSet<Backend> {
    let family = if v6 { AddressType::Ipv6 } else { AddressType::Ipv4 };
    let (mut ready, mut ending) = (BTreeSet::new(), BTreeSet::new());
    for object in objects.values() {
        let Object::EndpointSlice(slice) = object else { continue };
        if slice.service.as_ref() != Some(&service.key.name) || slice.address_type != family {
            continue;
        }
        for at in slice.ports.iter().filter(|at| at.name == port.name && at.protocol == port.protocol) {
            for endpoint in &slice.endpoints {
                let backend = Backend { addr: Addr::from(endpoint.ip), port: at.port, ..Backend::default() };
                if endpoint.ready {
                    ready.insert(backend);
                }
                if endpoint.serving && endpoint.terminating {
                    ending.insert(backend);
                }
            }
        }
    }
    if ready.is_empty() { ending } else { ready }
}

/// What a packet to a frontend may be sent to; an error where it finds nothing at a place that it is told of.
fn behind(found: &Found, key: &FrontendKey) -> Result<Vec<Backend>, String> {
    let frontend = &found.frontends[key];
    let place = |place| {
        let at = BackendKey { set: frontend.set, place };
        found.backends.get(&at).copied().ok_or(format!("nothing at {at:?} of {frontend:?}"))
    };
    (0..frontend.count).map(place).collect()
}

/// The maps as they mean something; an error where they hold what nobody means.
fn meaning_of(found: &Found) -> Result<Meaning, TestCaseError> {
    let (mut all, mut entries, mut sets) = (Meaning::new(), 0, BTreeSet::new());
    for (key, frontend) in &found.frontends {
        let places = behind(found, key).map_err(TestCaseError::fail)?;
        let set: BTreeSet<Backend> = places.iter().copied().collect();
        prop_assert_eq!(set.len(), places.len(), "a backend twice");
        prop_assert!(frontend.set != 0 && sets.insert(frontend.set), "a set of another's");
        entries += places.len();
        all.insert((address(key), key.proto), set);
    }
    prop_assert_eq!(entries, found.backends.len(), "entries that nobody means");
    Ok(all)
}

/// Carries out writes, and looks at the maps like a packet after each.
fn carry_out(kernel: &mut Found, writes: &[Write], before: &Meaning, after: &Meaning) -> Result<(), TestCaseError> {
    let was = kernel.clone();
    for write in writes {
        kernel.apply(write);
        let mut there = BTreeSet::new();
        for key in kernel.frontends.keys() {
            let at = (address(key), key.proto);
            there.insert(at);
            let said = [before.get(&at), after.get(&at)];
            let found = behind(kernel, key).map_err(TestCaseError::fail)?;
            // A port that moves takes its set along: what the set had is its own Service's, at the new address too.
            let set = kernel.frontends[key].set;
            for backend in &found {
                let had = was.backends.iter().any(|(place, it)| place.set == set && it == backend);
                prop_assert!(had || said.iter().flatten().any(|it| it.contains(backend)), "{:?} at {:?}", backend, at);
            }
            // Whoever had somebody and will have somebody is never without.
            let never_without = said.iter().all(|set| set.is_some_and(|set| !set.is_empty()));
            prop_assert!(!(never_without && found.is_empty()), "nobody is behind {:?} after {:?}", at, write);
        }
        for at in before.keys().filter(|at| after.contains_key(at)) {
            prop_assert!(there.contains(at), "{:?} is gone after {:?}", at, write);
        }
    }
    Ok(())
}

fn index_of(found: Found, objects: &Objects) -> Index {
    let mut index = Index::new(found, Capacity::default());
    objects.values().cloned().for_each(|object| index.apply(object));
    index
}

/// Tells an index of an object, and notes it. False: it was something else.
fn tell(event: &Event, objects: &mut Objects, index: &mut Index) -> bool {
    match event {
        Event::Apply(object) => {
            objects.insert(object.key(), object.clone());
            index.apply(object.clone());
        }
        Event::Delete(key) => {
            objects.remove(key);
            index.delete(key);
        }
        Event::Plan | Event::Restart | Event::Sweep => return false,
    }
    true
}

/// Whoever was in a set is in it, or in GONE.
fn nobody_is_forgotten(before: &Found, after: &Found) -> Result<(), TestCaseError> {
    for (at, backend) in &before.backends {
        let stays = after.backends.iter().any(|(place, it)| (place.set, it) == (at.set, backend));
        let is_gone =
            |it: &&datapath_abi::service::GoneKey| (it.set, it.addr, it.port) == (at.set, backend.addr, backend.port);
        prop_assert_ne!(stays, after.gone.iter().any(|it| is_gone(&it)), "{:?} of set {}", backend, at.set);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_maps_say_at_every_moment_what_the_api_says(
        events in prop::collection::vec(event(), 1..60),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut objects = Objects::new();
        let mut kernel = Found::default();
        let mut index = Index::new(Found::default(), Capacity::default());
        let mut before = Meaning::new();
        for event in events.into_iter().chain([Event::Plan]) {
            if tell(&event, &mut objects, &mut index) {
                continue;
            }
            match event {
                Event::Restart => index = index_of(kernel.clone(), &objects),
                Event::Sweep => {
                    index.swept(u64::MAX).iter().for_each(|write| kernel.apply(write));
                    prop_assert!(kernel.gone.is_empty());
                }
                _ => {
                    let plan = index.plan();
                    let wanted = meaning(&objects);
                    // A daemon that ends anywhere on the way: the next one makes it right.
                    let was = kernel.clone();
                    let mut cut_off = kernel.clone();
                    plan.writes[..cut.index(plan.writes.len() + 1)].iter().for_each(|write| cut_off.apply(write));
                    let mut next = index_of(cut_off.clone(), &objects);
                    next.plan().writes.iter().for_each(|write| cut_off.apply(write));
                    prop_assert_eq!(meaning_of(&cut_off)?, wanted.clone());
                    prop_assert_eq!(next.found(), cut_off.clone());
                    nobody_is_forgotten(&was, &cut_off)?;
                    // And one that has told its index something else.
                    let mut anew = index.clone();
                    anew.reset(was.clone());
                    let mut again = was.clone();
                    anew.plan().writes.iter().for_each(|write| again.apply(write));
                    prop_assert_eq!(meaning_of(&again)?, wanted.clone());

                    carry_out(&mut kernel, &plan.writes, &before, &wanted)?;
                    prop_assert_eq!(meaning_of(&kernel)?, wanted.clone());
                    prop_assert_eq!(index.found(), kernel.clone());
                    nobody_is_forgotten(&was, &kernel)?;
                    prop_assert_eq!(index.plan().writes, vec![], "nothing was told");
                    prop_assert_eq!(index_of(kernel.clone(), &objects).plan().writes, vec![], "a restart");
                    for (at, protocol) in wanted.keys() {
                        prop_assert!(index.at(at.ip(), at.port(), *protocol).is_some());
                    }
                    before = wanted;
                }
            }
        }
    }

    #[test]
    fn maps_that_are_too_small_are_never_overrun_and_fill_up_again(events in prop::collection::vec(event(), 1..60)) {
        let capacity = Capacity { frontends: 3, backends: 8, gone: 5 };
        let mut objects = Objects::new();
        let mut kernel = Found::default();
        let mut index = Index::new(Found::default(), capacity);
        for event in events.into_iter().chain([Event::Plan]) {
            if tell(&event, &mut objects, &mut index) {
                continue;
            }
            let writes = if matches!(event, Event::Sweep) { index.swept(u64::MAX) } else { index.plan().writes };
            for write in writes {
                kernel.apply(&write);
                prop_assert!(kernel.frontends.len() <= capacity.frontends);
                prop_assert!(kernel.backends.len() <= capacity.backends);
                prop_assert!(kernel.gone.len() <= capacity.gone);
            }
            prop_assert_eq!(index.found(), kernel.clone());
            if matches!(event, Event::Plan) {
                let (wanted, is) = (meaning(&objects), meaning_of(&kernel)?);
                for (at, set) in &is {
                    prop_assert!(set.is_subset(&wanted[at]));
                }
                prop_assert_eq!(is == wanted, index.refusals().next().is_none());
            }
        }
    }
}
