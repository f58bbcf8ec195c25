//! Compares what a mapping yields with a file in testdata/, which `UPDATE_GOLDEN=1` writes anew.

use std::{fs, num::NonZeroUsize, path::Path, time::Duration};

use flows::{
    FlowRecord,
    aggregate::{Aggregator, Limits},
    fixture::{self, record_in},
    record::{PodInfo, ServiceInfo},
};

/// One record of each kind that the fixture's world has, with all that is known about them.
pub(crate) fn records() -> Vec<FlowRecord> {
    let mut world = fixture::world();
    world.dns_names.insert("2001:db8::1".parse().unwrap(), ["www.example.com.".to_owned()].into());
    let service = ServiceInfo { namespace: "shop".to_owned(), name: "db".to_owned() };
    world.services.insert((fixture::address(fixture::DB), 5432), service.into());
    let cut =
        datapath_abi::event::FlowEvent { end: datapath_abi::event::EndReason::PolicyChange as u8, ..fixture::closed() };
    let active = datapath_abi::event::FlowEvent {
        kind: datapath_abi::event::EventKind::Active as u8,
        end: 0,
        ..fixture::closed()
    };
    let events = [
        fixture::opened(),
        fixture::denied(),
        fixture::bad_packet(),
        active,
        fixture::closed(),
        cut,
        fixture::from_outside(),
        fixture::ping(),
    ];
    let service = ServiceInfo { namespace: "infra".to_owned(), name: "dns".to_owned() };
    world.services.insert(("10.96.0.10".parse().unwrap(), 53), service.into());
    let of_connections = events.iter().map(|event| record_in(event, &world));
    of_connections.chain(fixture::lookups(&world)).chain(of_many(&world)).collect()
}

/// Two that stand for many: connections of one workload, and what is told by least.
fn of_many(world: &fixture::World) -> Vec<FlowRecord> {
    let groups = NonZeroUsize::new(1).unwrap();
    let mut folds = Aggregator::new(Limits { window: Duration::from_secs(60), groups });
    for (number, port) in [(1, 5432), (2, 5432), (3, 80), (4, 81)] {
        let mut record = record_in(&fixture::closed(), world);
        (record.sequence, record.destination.port) = (number, port);
        record.source.port += number as u16;
        record.time_unix_ns += number * 1_000_000_000;
        let pod = record.source.pod.as_deref().unwrap().clone();
        let name = format!("web-{number}");
        record.source.pod = Some(PodInfo { uid: format!("uid-{name}"), name, ..pod }.into());
        assert!(folds.fold(&record, 0));
    }
    folds.close();
    std::iter::from_fn(|| folds.next(0)).collect()
}

/// Compares.
pub(crate) fn assert_golden(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, actual).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        actual == expected,
        "{name} differs; if that is right, UPDATE_GOLDEN=1 writes it anew.\nis:\n{actual}\nexpected:\n{expected}"
    );
}
