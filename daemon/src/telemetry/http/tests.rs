//! The server over a real socket, spoken to in plain HTTP.

use std::sync::{Mutex, PoisonError};

use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::telemetry::{CniVerb, Snapshot};

/// Answers what a test has put in.
#[derive(Default)]
struct Canned(Mutex<Health>);

impl Canned {
    fn set(&self, alive: bool, problems: &[&str]) {
        let problems = problems.iter().map(|&problem| problem.to_owned()).collect();
        *self.0.lock().unwrap() = Health { alive, problems };
    }
}

impl Source for Canned {
    fn snapshot(&self) -> BoxFuture<'_, Snapshot> {
        Box::pin(async { Snapshot { uptime: Duration::from_secs(42), ..Snapshot::default() } })
    }

    fn health(&self) -> BoxFuture<'_, Health> {
        let health = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Box::pin(async { health })
    }
}

async fn started() -> (Server, Arc<Canned>, CniMetrics) {
    let (source, cni) = (Arc::new(Canned::default()), CniMetrics::default());
    let server = serve(([127, 0, 0, 1], 0).into(), source.clone(), cni.clone()).await.unwrap();
    (server, source, cni)
}

/// Sends bytes, and returns everything that comes back.
async fn say(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

/// Status line and body.
async fn get_from(address: SocketAddr, path: &str) -> (String, String) {
    let answer = say(address, format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes()).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

#[tokio::test]
async fn metrics_are_made_anew_for_each_scrape() {
    let (server, _, cni) = started().await;
    let head = say(server.address(), b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains(metrics::CONTENT_TYPE), "{head}");
    assert!(head.contains("bulkhead_uptime_seconds 42"), "{head}");
    assert!(head.contains("bulkhead_cni_requests_total{verb=\"DEL\",code=\"0\"} 0\n"), "{head}");
    cni.observe(CniVerb::Del, 0, Duration::from_millis(1));
    let (_, body) = get_from(server.address(), "/metrics").await;
    assert!(body.contains("bulkhead_cni_requests_total{verb=\"DEL\",code=\"0\"} 1\n"), "{body}");
    server.stop().await;
}

#[tokio::test]
async fn probes_tell_why() {
    let (server, source, _) = started().await;
    let at = server.address();
    let ok = ("HTTP/1.1 200 OK".to_owned(), "ok\n".to_owned());
    let bad = |words: &str| ("HTTP/1.1 503 Service Unavailable".to_owned(), words.to_owned());
    source.set(true, &[]);
    for path in ["/healthz", "/readyz", "/livez"] {
        assert_eq!(get_from(at, path).await, ok, "{path}");
    }
    source.set(true, &["the source is not read", "the kernel refused"]);
    for path in ["/healthz", "/readyz"] {
        assert_eq!(get_from(at, path).await, bad("the source is not read\nthe kernel refused\n"), "{path}");
    }
    assert_eq!(get_from(at, "/livez").await, ok);
    source.set(false, &[]);
    for path in ["/healthz", "/readyz", "/livez"] {
        assert_eq!(get_from(at, path).await, bad("the engine does not answer\n"), "{path}");
    }
    server.stop().await;
}

#[tokio::test]
async fn nonsense_does_not_disturb_it() {
    let (server, source, _) = started().await;
    source.set(true, &[]);
    let at = server.address();
    assert!(get_from(at, "/").await.0.contains("404"));
    assert!(say(at, b"POST /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.contains("405"));
    assert!(say(at, b"\x16\x03\x01\x00\xa5 not http\r\n\r\n").await.contains("400"));
    let endless = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let mut stream = TcpStream::connect(at).await.unwrap();
    // The server may cut the connection before it has read everything.
    let _ = stream.write_all(endless.as_bytes()).await;
    drop(stream);
    assert_eq!(get_from(at, "/livez").await.1, "ok\n");
    server.stop().await;
}

#[tokio::test]
async fn too_many_connections_wait_and_do_not_fail() {
    let (server, source, _) = started().await;
    source.set(true, &[]);
    let at = server.address();
    let mut idle = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        let mut stream = TcpStream::connect(at).await.unwrap();
        // Answered: so it has a place.
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let mut first = [0; 15];
        stream.read_exact(&mut first).await.unwrap();
        idle.push(stream);
    }
    let waiting = tokio::spawn(async move { get_from(at, "/livez").await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiting.is_finished(), "more than {MAX_CONNECTIONS} connections are served");
    idle.pop();
    assert_eq!(tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap().1, "ok\n");
    drop(idle);
    server.stop().await;
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let (server, source, cni) = started().await;
    let error = serve(server.address(), source, cni).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot listen on {} for metrics and health: ", server.address())), "{error}");
    server.stop().await;
}

#[tokio::test]
async fn it_stops_in_spite_of_idle_clients() {
    let (server, _, _) = started().await;
    let at = server.address();
    let _idle = TcpStream::connect(at).await.unwrap();
    let began = std::time::Instant::now();
    server.stop().await;
    assert!(began.elapsed() < FAREWELL * 3);
    assert!(TcpStream::connect(at).await.is_err());
}
