//! Files of the history read by programs that we did not write. They come from PyPI into a folder outside the
//! repository: `cargo xtask setup --for test` says how.

use std::{env, io::Write as _, path::PathBuf, process::Command, sync::Arc, time::Duration};

use flows::{FlowRecord, fixture};
use history::{Folder, Limits, columns, folder::Batch};

/// Python with duckdb and polars, if it is set up.
fn python() -> Option<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| env::home_dir().map(|home| home.join(".cache")))?;
    Some(cache.join("bulkhead/readers/bin/python")).filter(|python| python.exists())
}

fn records() -> Vec<FlowRecord> {
    let events = [fixture::opened(), fixture::denied(), fixture::closed(), fixture::from_outside()];
    let numbered = events.iter().cycle().take(20_000).zip(1..);
    numbered
        .map(|(event, sequence)| {
            let mut record = fixture::record(event);
            record.sequence = sequence;
            record.destination.dns_names = match sequence % 3 {
                0 => None,
                1 => Some(Arc::new([]) as Arc<[String]>),
                _ => Some(["db.example".to_owned(), "b.example".to_owned()].into()),
            };
            record.node = Arc::new(flows::record::Node { epoch: u64::MAX, ..(*record.node).clone() });
            record
        })
        .collect()
}

#[test]
fn duckdb_and_polars_read_the_same_rows() {
    let Some(python) = python() else {
        let required = env::var("CI").is_ok_and(|value| value == "true");
        assert!(!required, "needs duckdb and polars, and must not be skipped here: cargo xtask setup --for test");
        let _ = writeln!(std::io::stderr(), "skipped: needs duckdb and polars: cargo xtask setup --for test");
        return;
    };
    let home = tempfile::tempdir().unwrap();
    let limits = Limits { max_bytes: 1 << 30, max_age: Duration::ZERO };
    let (mut folder, _) = Folder::open(home.path(), limits).unwrap();
    let records = records();
    let mut batch = Batch::default();
    records.iter().for_each(|record| batch.push(record));
    folder.append(&batch).unwrap();
    folder.close().unwrap();
    let work = folder.to_compact().unwrap();
    work.run().unwrap();

    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/readers/read.py");
    let output = Command::new(python).arg(script).arg(home.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found = String::from_utf8(output.stdout).unwrap();
    assert_eq!(found.lines().count(), records.len());
    let texts = |cell: &columns::Cell<'_>| cell.as_text().map(str::to_owned);
    for (line, record) in found.lines().zip(&records) {
        let labels = record.source.pod.as_ref().and_then(|pod| pod.labels.get("app").cloned());
        let row = columns::row(record);
        let at = |name: &str| &row[columns::all().iter().position(|column| column.name == name).unwrap()];
        let word = |text: Option<String>| text.map_or("null".to_owned(), |text| format!("\"{text}\""));
        let list = |names: Vec<String>| {
            format!("[{}]", names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", "))
        };
        let policies = match &record.ingress {
            flows::record::Ruling::Isolated(all) => Some(all.iter().map(|it| it.name.clone()).collect()),
            flows::record::Ruling::Allowed(rule) => rule.info.as_ref().map(|it| vec![it.policy.name.clone()]),
            _ => None,
        };
        let wanted = [
            record.sequence.to_string(),
            record.time_unix_ns.to_string(),
            word(texts(at("verdict"))),
            word(Some(record.source.ip.to_string())),
            record.source.port.to_string(),
            word(record.source.pod.as_ref().map(|pod| pod.name.clone())),
            word(labels),
            record.destination.dns_names.as_ref().map_or("null".to_owned(), |names| list(names.to_vec())),
            policies.map_or("null".to_owned(), list),
            u64::MAX.to_string(),
            record.reply.to_string(),
        ];
        assert_eq!(line, format!("[{}]", wanted.join(", ")));
    }
}
