//! The keeper beside a pipeline: what it has kept, what the API answers from it, and that every sum holds.

use std::num::NonZeroUsize;

use flows::{
    FlowRecord,
    fixture::{self, clock, node, world},
    past::{Past as _, Wanted},
};

use super::*;
use crate::History;

fn settings(folder: &std::path::Path) -> Settings {
    let limits = Limits { max_bytes: 64 << 20, max_age: Duration::ZERO };
    Settings { folder: folder.to_owned(), limits, sync_every: Duration::from_millis(20) }
}

fn kept(folder: &std::path::Path) -> Vec<FlowRecord> {
    let wanted = Wanted { since: 0, until: u64::MAX, filters: FilterSet::default(), last: None };
    let mut walk = History::new(folder.to_owned()).walk(wanted).unwrap();
    let mut all = Vec::new();
    loop {
        let batch = walk.next();
        all.extend(batch.records);
        if batch.done {
            return all;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_is_kept_over_two_lives_and_counted() {
    let home = tempfile::tempdir().unwrap();
    for life in 1..=2u64 {
        let pipeline = Arc::new(Pipeline::new(node(), NonZeroUsize::new(4096).unwrap()));
        let (stop, stops) = watch::channel(false);
        let task = tokio::spawn(Keeper::new(settings(home.path()), pipeline.clone()).run(stops));
        for _ in 0..700 {
            pipeline.push(&fixture::opened(), clock(), &world()).unwrap();
        }
        for _ in 0..500 {
            if kept(home.path()).len() as u64 == life * 700 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // The fixture's hour is long over: the log becomes a table.
        for _ in 0..500 {
            if std::fs::read_dir(home.path()).unwrap().all(|it| it.unwrap().path().extension().unwrap() == "parquet") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        stop.send_replace(true);
        task.await.unwrap();
        let balance = &pipeline.ledger().exporters()[0];
        assert!(balance.is_even(), "{balance:?}");
        assert_eq!((balance.carried, balance.observed, balance.spooled), ((life - 1) * 700, 700, life * 700));
        assert_eq!(kept(home.path()).len() as u64, life * 700);
        assert!(std::fs::read_dir(home.path()).unwrap().all(|it| it.unwrap().path().extension().unwrap() == "parquet"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_cannot_be_made_is_told_and_tried_again() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("file").join("history");
    std::fs::write(home.path().join("file"), "").unwrap();
    let pipeline = Arc::new(Pipeline::new(node(), NonZeroUsize::new(64).unwrap()));
    let (stop, stops) = watch::channel(false);
    let task = tokio::spawn(Keeper::new(settings(&folder), pipeline.clone()).run(stops));
    pipeline.push(&fixture::opened(), clock(), &world()).unwrap();
    let trouble = || pipeline.ledger().exporters()[0].trouble.clone();
    while trouble().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(trouble().contains("history"), "{}", trouble());
    std::fs::remove_file(home.path().join("file")).unwrap();
    while pipeline.ledger().exporters()[0].spooled == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.send_replace(true);
    task.await.unwrap();
    assert_eq!(kept(&folder).len(), 1);
}
