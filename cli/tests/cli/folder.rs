//! `bulkhead flows --dir`: the same answers without a daemon.

use std::{path::Path, process::Output, time::Duration};

use flows::fixture;
use history::{Folder, Limits, folder::Batch, table};

use crate::fake::bulkhead;

/// Three hours: two as tables, the last as a log.
fn story() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let limits = Limits { max_bytes: 64 << 20, max_age: Duration::ZERO };
    let (mut folder, _) = Folder::open(home.path(), limits).unwrap();
    let mut batch = Batch::default();
    for hour in 0..3 {
        for (at, event) in [fixture::opened(), fixture::denied(), fixture::closed()].iter().enumerate() {
            let mut record = fixture::record(event);
            record.sequence = hour * 3 + at as u64 + 1;
            record.time_unix_ns += hour * 3_600_000_000_000 + record.sequence;
            batch.push(&record);
        }
    }
    folder.append(&batch).unwrap();
    while let Some(work) = folder.to_compact() {
        work.run().unwrap();
        folder.compacted(&work).unwrap();
    }
    home
}

fn run(folder: &Path, args: &[&str]) -> Output {
    let all = [&["flows", "--dir", folder.to_str().unwrap()], args].concat();
    bulkhead(Path::new("/nowhere"), &all).output().unwrap()
}

fn lines(folder: &Path, args: &[&str]) -> Vec<String> {
    let output = run(folder, args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_folder_answers_with_the_same_filters_and_outputs() {
    let home = story();
    assert_eq!(lines(home.path(), &["-o", "json"]).len(), 9);
    assert_eq!(lines(home.path(), &["-o", "jsonpb", "--verdict", "denied"]).len(), 3);
    assert_eq!(lines(home.path(), &["-o", "json", "--since", "2026-01-02T04:00:00Z"]).len(), 6);
    assert_eq!(lines(home.path(), &["-o", "json", "--until", "2026-01-02T04:00:00Z", "--pod", "shop/db"]).len(), 3);
    let last = lines(home.path(), &["--last", "2"]);
    assert!(last.len() == 3 && last[1].contains("DENIED") && last[2].contains("CLOSED"), "{last:#?}");
    let first = lines(home.path(), &["--first", "1"]);
    assert!(first.len() == 2 && first[1].contains("ALLOWED"), "{first:#?}");
}

#[test]
fn a_folder_is_added_up() {
    let home = story();
    let denied = lines(home.path(), &["--top", "denied"]);
    assert!(denied[1].contains("shop/db") && denied[1].contains(" 3  default deny "), "{denied:#?}");
    assert!(denied.last().unwrap().starts_with("9 flows from 2026-01-02T03:04:05Z to "), "{denied:#?}");
    let ports = lines(home.path(), &["--top", "ports", "--since", "2026-01-02T04:00:00Z", "-o", "json"]).join("\n");
    assert!(ports.contains("\"flows\": 6,"), "{ports}");
}

#[test]
fn columns_come_as_csv_and_as_parquet() {
    let home = story();
    let csv = lines(home.path(), &["-o", "csv", "--verdict", "denied"]);
    assert_eq!(csv.len(), 4);
    assert!(csv[0].starts_with("time,uid,"), "{csv:#?}");
    assert!(csv[1].contains(",dropped,ingress,default_deny,ingress,"), "{}", csv[1]);
    let output = run(home.path(), &["-o", "parquet", "--last", "4"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let path = home.path().join("copy");
    std::fs::write(&path, output.stdout).unwrap();
    assert_eq!(table::Reader::open(&path).unwrap().summary().rows, 4);
}

#[test]
fn what_cannot_be_is_refused_with_the_way_out() {
    let home = story();
    let text = |output: Output| (output.status.code(), String::from_utf8(output.stderr).unwrap());
    let (code, error) = text(bulkhead(Path::new("/nowhere"), &["status", "-o", "csv"]).output().unwrap());
    assert!(code == Some(64) && error.contains("`bulkhead flows`"), "{error}");
    let (code, error) = text(run(Path::new("/nowhere/at/all"), &[]));
    assert!(code == Some(1) && error.contains("/nowhere/at/all"), "{error}");
    // One file that is none: the others are printed, and it is named.
    std::fs::write(home.path().join("flows-20260102T03Z-0000000001.parquet"), "nothing").unwrap();
    let output = run(home.path(), &["-o", "json"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 6);
    let (code, error) = text(output);
    assert!(code == Some(1) && error.contains("0000000001.parquet") && error.contains("move it out"), "{error}");
}
