//! Exporters at work: settings that change, files that cannot be written.

use std::{fs, num::NonZeroUsize, path::Path};

use flows::{
    fixture::{self, clock, node, world},
    ledger::{ExportLoss, ExporterBalance},
};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use super::*;
use crate::collector::{Collector, attribute};

struct Stage {
    home: TempDir,
    pipeline: Arc<Pipeline>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Stage {
    fn new(settings: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let pipeline = Arc::new(Pipeline::new(node(), NonZeroUsize::new(64).unwrap()));
        let options = Options { settings: home.path().join("exporters.yaml"), state_dir: home.path().join("state") };
        fs::write(&options.settings, settings.replace("HOME", home.path().to_str().unwrap())).unwrap();
        let (stop, stops) = watch::channel(false);
        let task = tokio::spawn(Exporters::new(options, pipeline.clone()).run(stops));
        Self { home, pipeline, stop, task }
    }

    fn settings(&self, settings: &str) {
        let text = settings.replace("HOME", self.home.path().to_str().unwrap());
        // As a ConfigMap does it: at once.
        fs::write(self.home.path().join("new.yaml"), text).unwrap();
        fs::rename(self.home.path().join("new.yaml"), self.home.path().join("exporters.yaml")).unwrap();
    }

    fn push(&self, count: usize) {
        for _ in 0..count {
            self.pipeline.push(&fixture::denied(), clock(), &world()).unwrap();
        }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.home.path().join(name)
    }

    async fn until(&self, what: &str, done: impl Fn(&[ExporterBalance]) -> bool) -> Vec<ExporterBalance> {
        let wait = async {
            loop {
                let balances = self.pipeline.ledger().exporters();
                assert!(balances.iter().all(ExporterBalance::is_even), "{balances:?}");
                if done(&balances) {
                    return balances;
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        let result = timeout(Duration::from_secs(30), wait).await;
        result.unwrap_or_else(|_| panic!("not in time: {what}: {:?}", self.pipeline.ledger().exporters()))
    }

    async fn end(self) -> TempDir {
        self.stop.send(true).unwrap();
        timeout(Duration::from_secs(30), self.task).await.unwrap().unwrap();
        self.home
    }
}

/// Sequences of the records in a file.
fn sequences(path: &Path) -> Vec<u64> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let events = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    events.filter_map(|event| event["metadata"]["sequence"].as_u64()).collect()
}

const ONE: &str = "exporters:\n- name: a\n  file: {path: HOME/a.ndjson}\n";

#[tokio::test]
async fn settings_change_without_a_record_lost_or_written_twice() {
    let stage = Stage::new(ONE);
    stage.until("a runs", |all| all.len() == 1).await;
    stage.push(10);
    stage.until("ten are written", |all| all[0].exported == 10).await;
    stage.settings(&ONE.replace("a.ndjson", "b.ndjson"));
    // While it changes records come.
    for _ in 0..100 {
        stage.push(1);
        sleep(Duration::from_millis(30)).await;
    }
    stage.until("all are written", |all| all[0].exported == 110).await;
    let mut all = sequences(&stage.path("a.ndjson"));
    let second = sequences(&stage.path("b.ndjson"));
    assert!(!second.is_empty());
    all.extend(second);
    assert_eq!(all, (1..=110).collect::<Vec<u64>>());
    stage.end().await;
}

#[tokio::test]
async fn wrong_settings_cost_what_runs_nothing() {
    let stage = Stage::new(ONE);
    stage.until("a runs", |all| all.len() == 1).await;
    let problems = || stage.pipeline.ledger().export_problems();
    for (settings, running) in [
        // Refused in itself, as a whole, and with another one added.
        (ONE.replace("path", "paht"), 1),
        ("exporters: [".to_owned(), 1),
        (format!("{ONE}  compress: yes\n- name: b\n  file: {{path: HOME/b.ndjson}}\n"), 2),
    ] {
        stage.settings(&settings);
        stage.until("the problem is told", |all| !problems().is_empty() && all.len() == running).await;
        stage.push(1);
        stage.settings(ONE);
        stage.until("none is left", |all| problems().is_empty() && all.len() == 1).await;
    }
    let balances = stage.until("all are written", |all| all[0].exported == 3).await;
    assert_eq!(balances[0].name, "a");
    let home = stage.end().await;
    assert_eq!(sequences(&home.path().join("a.ndjson")), [1, 2, 3]);
}

#[tokio::test]
async fn a_file_that_cannot_be_written_costs_the_others_nothing_and_losses_are_told_in_it() {
    let two = format!("{ONE}- name: b\n  file: {{path: HOME/none/b.ndjson}}\n");
    let stage = Stage::new(&two);
    stage.until("both run", |all| all.len() == 2).await;
    for _ in 0..20 {
        stage.push(10);
        let exported = stage.pipeline.recorded();
        stage.until("a has them", |all| all[0].exported == exported).await;
    }
    let balances = stage.until("b is in trouble", |all| !all[1].trouble.is_empty()).await;
    assert!(balances[1].trouble.contains("none/b.ndjson") && balances[1].exported == 0, "{balances:?}");
    fs::create_dir(stage.path("none")).unwrap();
    let balances = stage.until("b has what was left", |all| all[1].observed == 200 && all[1].spooled == 0).await;
    let b = &balances[1];
    let lost = b.lost(ExportLoss::RingOverrun);
    assert!(lost >= 100 && b.exported == 200 - lost && b.trouble.is_empty(), "{b:?}");
    let home = stage.end().await;
    let text = fs::read_to_string(home.path().join("none/b.ndjson")).unwrap();
    assert!(text.contains("\"status_code\":\"ring_overrun\"") && text.contains(&format!("\"count\":{lost}")));
    assert_eq!(sequences(&home.path().join("none/b.ndjson")).len() as u64, b.exported);
}

const OTLP: &str =
    "exporters:\n- name: otel\n  otlp: {endpoint: http://ADDRESS, timeoutSeconds: 2}\n  spool: {batchRecords: 8}\n";

#[tokio::test]
async fn records_wait_on_disk_while_the_receiver_is_away_and_across_a_kill() {
    let address = {
        // A port that nobody listens on for now.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let settings = OTLP.replace("ADDRESS", &address);
    let stage = Stage::new(&settings);
    stage.until("it runs", |all| all.len() == 1).await;
    for _ in 0..10 {
        stage.push(30);
        let recorded = stage.pipeline.recorded();
        stage.until("all are kept", |all| all[0].spooled == recorded).await;
    }
    stage.until("the trouble is told", |all| all[0].trouble.contains(&address) && all[0].spool_bytes > 0).await;
    // As by kill -9: nothing is finished.
    stage.task.abort();
    let folder = stage.home.path().join("state/otel.otlp");
    assert!(folder.join("00000000000000000001.seg").exists());
    let (home, first_node) = (stage.home, stage.pipeline.node().clone());
    let pipeline = Arc::new(Pipeline::new(
        Arc::new(flows::record::Node { epoch: 2, ..(*first_node).clone() }),
        NonZeroUsize::new(64).unwrap(),
    ));
    // What the kernel has kept meanwhile is read before the exporter runs.
    for _ in 0..5 {
        pipeline.push(&fixture::denied(), clock(), &world()).unwrap();
    }
    // The aborted tasks hold the spool no more when their runtime has dropped them; ours is the same one.
    let options = Options { settings: home.path().join("exporters.yaml"), state_dir: home.path().join("state") };
    let (stop, stops) = watch::channel(false);
    let task = tokio::spawn(Exporters::new(options, pipeline.clone()).run(stops));
    let stage = Stage { home, pipeline, stop, task };
    stage.until("what waited is carried over", |all| all.len() == 1 && all[0].carried == 300).await;
    stage.push(5);
    let collector = Collector::start(&address, None).await;
    let all = stage.until("everything has arrived", |all| all[0].exported == 310).await;
    assert_eq!((all[0].spooled, all[0].trouble.as_str()), (0, ""));
    let expected: Vec<u64> = (1..=300).chain(1..=10).collect();
    assert_eq!(collector.sequences(), expected);
    stage.end().await;
}

#[tokio::test]
async fn a_small_spool_drops_the_oldest_and_tells_how_many() {
    let settings = OTLP.replace("ADDRESS", "127.0.0.1:1").replace("{batchRecords: 8}", "{maxMebibytes: 1}");
    let stage = Stage::new(&settings);
    stage.until("it runs", |all| all.len() == 1).await;
    for _ in 0..60 {
        stage.push(30);
        let recorded = stage.pipeline.recorded();
        stage.until("all are taken in", |all| all[0].observed == recorded).await;
    }
    let all = stage.until("some were dropped", |all| all[0].lost(ExportLoss::SpoolFull) > 0).await;
    assert!(all[0].spool_bytes <= 1 << 20);
    let collector = Collector::start("127.0.0.1:0", None).await;
    stage.settings(&settings.replace("127.0.0.1:1", &collector.address.to_string()));
    let all = stage.until("the rest has arrived", |all| all[0].spooled == 0).await;
    let lost = all[0].lost(ExportLoss::SpoolFull);
    assert_eq!(all[0].exported + lost, 1800);
    let taken = std::mem::take(&mut collector.state.lock().unwrap().taken);
    let found = taken.iter().find(|it| it.event_name == crate::otlp::LOST);
    let notice = found.unwrap_or_else(|| panic!("no notice: {:?} {:?}", all, (taken.len(), taken.first())));
    assert_eq!(attribute(notice, "bulkhead.lost.count"), Some(lost.to_string()));
    assert_eq!(attribute(notice, "bulkhead.reason").as_deref(), Some("spool_full"));
    assert_eq!(attribute(taken.last().unwrap(), "bulkhead.sequence").as_deref(), Some("1800"));
    stage.end().await;
}
