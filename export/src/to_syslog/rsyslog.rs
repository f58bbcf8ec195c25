//! A real rsyslog as receiver, by TLS with certificates on both sides: what it writes down is what was sent, also what
//! was made while it was away.

use std::{
    fs,
    net::TcpListener,
    num::NonZeroUsize,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use flows::{
    Pipeline,
    fixture::{clock, denied, node, world},
    ledger::ExporterBalance,
};
use serde_json::Value;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    collector::Authority,
    exporters::{Exporters, Options},
};

/// Killed when it is dropped.
struct Rsyslog(Child);

impl Rsyslog {
    fn start(home: &Path) -> Self {
        let program = ["/usr/sbin/rsyslogd", "/usr/bin/rsyslogd"].into_iter().find(|it| Path::new(it).exists());
        let program = program.expect("rsyslogd is not there: `cargo xtask setup --for test` installs it");
        // Some systems confine the program at its own path to folders of its own.
        let copy = home.join("rsyslogd");
        fs::copy(program, &copy).unwrap();
        let mut command = Command::new(copy);
        command.arg("-n").arg("-f").arg(home.join("rsyslog.conf")).arg("-i").arg(home.join("pid"));
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn configure(home: &Path, authority: &Authority, port: u16) {
    let (certificate, key) = authority.sign("logs.example");
    fs::write(home.join("server.pem"), certificate).unwrap();
    fs::write(home.join("server.key"), key).unwrap();
    authority.write_client(home);
    let home = home.display();
    let text = format!(
        "global(workDirectory=\"{home}\" maxMessageSize=\"64k\" defaultNetstreamDriverCAFile=\"{home}/ca.pem\"\n\
         \x20 defaultNetstreamDriverCertFile=\"{home}/server.pem\" defaultNetstreamDriverKeyFile=\"{home}/server.key\")\n\
         module(load=\"imtcp\" streamDriver.name=\"ossl\" streamDriver.mode=\"1\" streamDriver.authMode=\"x509/certvalid\")\n\
         input(type=\"imtcp\" address=\"127.0.0.1\" port=\"{port}\")\n\
         template(name=\"parts\" type=\"string\" string=\"%pri% %hostname% %app-name% %msgid%|%structured-data%|%msg%\\n\")\n\
         action(type=\"omfile\" file=\"{home}/out.log\" template=\"parts\")\n"
    );
    fs::write(format!("{home}/rsyslog.conf"), text).unwrap();
}

/// Sequences of the records that it has written down, and that they are what they should be.
fn written(home: &Path) -> Vec<u64> {
    let text = fs::read_to_string(home.join("out.log")).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let sequence = |line: &str| {
        let mut parts = line.splitn(3, '|');
        assert_eq!(parts.next(), Some("132 node-a bulkhead flow"), "{line}");
        let data = parts.next().unwrap();
        let event: Value = serde_json::from_str(parts.next().unwrap().trim_start()).unwrap();
        let sequence = event["metadata"]["sequence"].as_u64().unwrap();
        assert!(data.contains(&format!("[meta sequenceId=\"{sequence}\"]")), "{line}");
        sequence
    };
    whole.lines().map(sequence).collect()
}

#[tokio::test]
async fn a_real_rsyslog_writes_down_what_was_sent_also_what_was_made_while_it_was_away() {
    let home = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    configure(home.path(), &Authority::new(), port);
    let shown = home.path().display();
    let settings = format!(
        "exporters:\n- name: r\n  syslog:\n    address: 127.0.0.1:{port}\n    tls: {{caFile: {shown}/ca.pem, certFile: \
         {shown}/own.pem, keyFile: {shown}/own.key, serverName: logs.example}}\n"
    );
    fs::write(home.path().join("exporters.yaml"), settings).unwrap();
    let pipeline = Arc::new(Pipeline::new(node(), NonZeroUsize::new(256).unwrap()));
    let options = Options { settings: home.path().join("exporters.yaml"), state_dir: home.path().join("state") };
    let (stop, stops) = watch::channel(false);
    let task = tokio::spawn(Exporters::new(options, pipeline.clone()).run(stops));
    let until = async |what: &str, done: &dyn Fn(&[ExporterBalance]) -> bool| {
        let wait = async {
            while !done(&pipeline.ledger().exporters()) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = timeout(Duration::from_secs(60), wait).await;
        waited.unwrap_or_else(|_| panic!("not in time: {what}: {:?}", pipeline.ledger().exporters()));
    };
    until("the exporter runs", &|all| all.len() == 1).await;
    let push = |count: usize| {
        for _ in 0..count {
            pipeline.push(&denied(), clock(), &world()).unwrap();
        }
    };
    push(50);
    until("the receiver is missed", &|all| !all[0].trouble.is_empty() && all[0].spooled == 50).await;
    let rsyslog = Rsyslog::start(home.path());
    until("fifty are written", &|all| all[0].exported == 50 && written(home.path()).len() == 50).await;
    drop(rsyslog);
    push(50);
    until("it is missed again", &|all| !all[0].trouble.is_empty()).await;
    let _rsyslog = Rsyslog::start(home.path());
    until("all are written", &|_| written(home.path()).len() >= 100).await;
    let mut all = written(home.path());
    all.dedup();
    assert_eq!(all, (1..=100).collect::<Vec<u64>>());
    // It writes down what is on its way before the exporter knows that it has come.
    until("all are told as exported", &|all| all[0].exported == 100).await;
    let balances = pipeline.ledger().exporters();
    assert!(balances[0].is_even(), "{balances:?}");
    stop.send(true).unwrap();
    timeout(Duration::from_secs(30), task).await.unwrap().unwrap();
}
