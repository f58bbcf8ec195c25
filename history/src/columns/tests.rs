//! Every field of a record survives being a row, a frame of a log, a row of a Parquet file.

use std::sync::Arc;

use datapath_abi::reason::DropReason;
use flows::{
    FlowRecord, fixture,
    record::{Node, PolicyInfo, RuleInfo, RuleRef, Ruling, ServiceInfo},
};

use super::*;
use crate::{codec, log, table};

/// One of each kind of record, with every field filled in one or another.
pub(crate) fn records() -> Vec<FlowRecord> {
    let events = [
        fixture::opened(),
        fixture::denied(),
        fixture::bad_packet(),
        fixture::closed(),
        fixture::from_outside(),
        fixture::ping(),
    ];
    let mut records: Vec<FlowRecord> = events.iter().map(fixture::record).collect();
    let mut full = fixture::record(&fixture::closed());
    let policy = |name: &str| {
        Arc::new(PolicyInfo {
            kind: "NetworkPolicy".into(),
            name: name.into(),
            revision: u64::MAX,
            ..PolicyInfo::default()
        })
    };
    let rule = RuleInfo { policy: policy("a"), direction: Direction::Egress, index: 7, scope: RuleScope::All };
    full.kind = EventKind::Active;
    full.end_reason = Some(EndReason::Replaced);
    full.reply = true;
    full.hook = Hook::FromUplink;
    full.addressed = Some("10.96.0.1:443".parse().unwrap());
    full.source.service = Some(Arc::new(ServiceInfo { namespace: "shop".into(), name: "web".into() }));
    full.source.dns_names = Some([].into());
    full.destination.dns_names = Some(["a.example".to_owned(), "b.example".to_owned()].into());
    full.egress = Ruling::Denied(RuleRef { cookie: 5, info: None });
    full.ingress = Ruling::Isolated([policy("a"), policy("b")].into());
    full.staged_egress = Some(Ruling::Allowed(RuleRef { cookie: u32::MAX, info: Some(Arc::new(rule)) }));
    full.staged_ingress = Some(Ruling::Exempt);
    full.forward.bytes = u64::MAX;
    full.node = Arc::new(Node { epoch: u64::MAX, ..(*full.node).clone() });
    records.push(full);
    for (at, reason) in DropReason::ALL.iter().enumerate() {
        let mut record = fixture::record(&fixture::denied());
        (record.drop_reason, record.denied_in) = (Some(*reason), [None, Some(Direction::Egress)][at % 2]);
        record.ingress = Ruling::Isolated([].into());
        records.push(record);
    }
    records.extend(fixture::lookups(&fixture::world()));
    for (at, record) in records.iter_mut().enumerate() {
        record.sequence = at as u64 + 1;
        record.time_unix_ns += at as u64 * 1_000_000_000;
    }
    records
}

#[test]
fn a_record_is_the_same_after_being_a_row() {
    let mut pools = Pools::default();
    for wanted in records() {
        let cells = row(&wanted);
        assert_eq!(cells.len(), all().len());
        assert_eq!(record(&cells, &mut pools).as_ref(), Ok(&wanted));
        let mut bytes = Vec::new();
        codec::encode(&cells, &mut bytes);
        assert_eq!(codec::decode(&bytes), Ok(cells));
    }
}

#[test]
fn every_name_of_an_enumeration_leads_back() {
    for number in 0..=u8::MAX {
        if let Ok(kind) = EventKind::try_from(number) {
            assert_ne!(name(KINDS, &kind), Cell::Null);
        }
        if let Ok(end) = EndReason::try_from(number) {
            assert_ne!(name(ENDS, &end), Cell::Null);
        }
    }
}

#[test]
fn a_record_is_the_same_after_a_log_and_a_parquet_file() {
    let home = tempfile::tempdir().unwrap();
    let (log_path, table_path) = (home.path().join("log"), home.path().join("table"));
    let wanted = records();
    let mut frames = Vec::new();
    for record in &wanted {
        assert!(log::encode(record, &mut frames));
    }
    log::Writer::open(&log_path, 0).unwrap().append(&frames).unwrap();

    let mut table = table::Writer::new(std::fs::File::create(&table_path).unwrap()).unwrap();
    let mut log = log::Reader::open(&log_path).unwrap();
    while log.next(|cells| table.push(cells).unwrap()).unwrap().is_some() {}
    table.finish().unwrap();

    let mut pools = Pools::default();
    let mut log = log::Reader::open(&log_path).unwrap();
    let mut table = table::Reader::open(&table_path).unwrap();
    let times = (wanted[0].time_unix_ns, wanted.iter().map(|it| it.time_unix_ns).max().unwrap());
    assert_eq!(table.summary(), table::Summary { rows: wanted.len() as u64, times: Some(times) });
    for wanted in &wanted {
        assert_eq!(log.record(&mut pools).unwrap().as_ref(), Some(wanted));
        assert_eq!(table.record(0, u64::MAX, &mut pools).unwrap().as_ref(), Some(wanted));
    }
    assert!(log.record(&mut pools).unwrap().is_none());
    assert!(table.record(0, u64::MAX, &mut pools).unwrap().is_none());
}
