//! What answers mean, and receivers that do not answer.

use std::{collections::BTreeMap, time::Instant};

use flows::fixture::{node, opened, record};
use prost_types::Any;
use tokio::net::TcpListener;

use super::*;
use crate::{
    collector::{Answer, Authority, Collector, attribute},
    tls::Tls,
    wanted::Wanted,
};

fn target(address: std::net::SocketAddr, tls: Option<Tls>) -> OtlpTarget {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let headers = BTreeMap::from([("x-tenant".to_owned(), "shop".to_owned())]);
    OtlpTarget { endpoint: format!("{scheme}://{address}"), tls, deadline: Duration::from_secs(2), headers }
}

fn parcel() -> Parcel {
    let message = otlp::log_record(&record(&opened()), &Wanted::everything(), 7);
    Parcel { payload: message.encode_to_vec(), is_record: true }
}

const TAKEN: Outcome = Outcome::Taken { rejected: 0, why: String::new() };

fn with_delay(code: Code, seconds: i64) -> Status {
    let info = rpc::RetryInfo { retry_delay: Some(prost_types::Duration { seconds, nanos: 0 }) };
    let any = Any { type_url: format!("type.googleapis.com/{RETRY_INFO}"), value: info.encode_to_vec() };
    let details = rpc::Status { code: code as i32, message: String::new(), details: vec![any] }.encode_to_vec();
    Status::with_details(code, "later", details.into())
}

#[test]
fn answers_mean_what_the_protocol_says() {
    use Code::*;
    for code in [
        Cancelled,
        DeadlineExceeded,
        Aborted,
        OutOfRange,
        Unavailable,
        DataLoss,
        Unauthenticated,
        PermissionDenied,
        Unimplemented,
    ] {
        assert!(matches!(judge(&Status::new(code, ""), "x"), Outcome::Again { after: None, .. }), "{code:?}");
    }
    for code in [InvalidArgument, NotFound, AlreadyExists, FailedPrecondition, Internal, Unknown, ResourceExhausted] {
        assert!(matches!(judge(&Status::new(code, ""), "x"), Outcome::Refused { .. }), "{code:?}");
    }
    for code in [ResourceExhausted, Unavailable] {
        let Outcome::Again { after, .. } = judge(&with_delay(code, 7), "x") else { panic!("{code:?}") };
        assert_eq!(after, Some(Duration::from_secs(7)));
    }
    // Details that are none say nothing.
    let odd = Status::with_details(ResourceExhausted, "", vec![0xff; 9].into());
    assert!(matches!(judge(&odd, "x"), Outcome::Refused { .. }));
}

#[tokio::test]
async fn records_arrive_over_tls_from_a_client_that_is_known_and_new_files_are_used() {
    let (authority, other) = (Authority::new(), Authority::new());
    let collector = Collector::start("127.0.0.1:0", Some(&authority)).await;
    let home = tempfile::tempdir().unwrap();
    let [ca_file, certificate, key] = other.write_client(home.path());
    let tls = Tls { ca_file, own: Some((certificate, key)), server_name: Some("collector".to_owned()) };
    let mut receiver = ToOtlp::new(target(collector.address, Some(tls)), node());
    let Outcome::Again { why, .. } = receiver.send(&[parcel()]).await else { panic!("a stranger is believed") };
    assert!(why.contains("https://127.0.0.1"), "{why}");
    authority.write_client(home.path());
    assert_eq!(receiver.send(&[parcel(), parcel()]).await, TAKEN);
    let state = collector.state.lock().unwrap();
    assert_eq!((state.taken.len(), state.headers.clone()), (2, vec!["shop".to_owned()]));
    let uid = record(&opened()).uuid().to_string();
    assert_eq!(attribute(&state.taken[0], "log.record.uid"), Some(uid));
    assert_eq!(attribute(&state.taken[0], "source.k8s.pod.name").as_deref(), Some("web-0"));
}

#[tokio::test]
async fn files_that_are_not_there_are_named() {
    let tls = Tls { ca_file: "/none/ca.pem".into(), own: None, server_name: None };
    let mut receiver = ToOtlp::new(target("127.0.0.1:1".parse().unwrap(), Some(tls)), node());
    let Outcome::Again { why, .. } = receiver.send(&[parcel()]).await else { panic!() };
    assert!(why.starts_with("/none/ca.pem: "), "{why}");
}

#[tokio::test]
async fn partial_success_is_honoured_and_errors_are_judged() {
    let collector = Collector::start("127.0.0.1:0", None).await;
    let mut receiver = ToOtlp::new(target(collector.address, None), node());
    collector.answer(Answer::Partial(1));
    let outcome = receiver.send(&[parcel(), parcel()]).await;
    assert_eq!(outcome, Outcome::Taken { rejected: 1, why: "no room".to_owned() });
    collector.answer(Answer::Status(with_delay(Code::Unavailable, 3)));
    let outcome = receiver.send(&[parcel()]).await;
    assert!(matches!(outcome, Outcome::Again { after: Some(after), .. } if after.as_secs() == 3), "{outcome:?}");
    collector.answer(Answer::Status(Status::invalid_argument("no")));
    let outcome = receiver.send(&[parcel()]).await;
    assert!(matches!(&outcome, Outcome::Refused { why } if why.contains("no")), "{outcome:?}");
    assert_eq!(receiver.send(&[parcel()]).await, TAKEN);
}

#[tokio::test]
async fn a_receiver_that_hangs_costs_a_deadline_and_no_more() {
    // One that takes the connection and says nothing: in the middle of TLS, and of gRPC.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let home = tempfile::tempdir().unwrap();
    let [ca_file, ..] = Authority::new().write_client(home.path());
    let tls = Tls { ca_file, own: None, server_name: None };
    let late = Collector::start("127.0.0.1:0", None).await;
    late.answer(Answer::Late(Duration::from_secs(60)));
    for target in [target(silent.local_addr().unwrap(), Some(tls)), target(late.address, None)] {
        let mut receiver = ToOtlp::new(OtlpTarget { deadline: Duration::from_millis(300), ..target }, node());
        let start = Instant::now();
        let outcome = receiver.send(&[parcel()]).await;
        assert!(matches!(&outcome, Outcome::Again { why, .. } if why.contains("within 0.3s")), "{outcome:?}");
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    }
}
