//! Receivers by TLS and by TCP, and those that hang up, hang, or are not who they say.

use flows::fixture::{denied, node, record};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig, rustls::server::WebPkiClientVerifier};

use super::*;
use crate::{collector::Authority, tls::Tls, wanted::Wanted};

fn target(address: &str, tls: Option<Tls>) -> SyslogTarget {
    let style = syslog::Style { facility: 16, app_name: "bulkhead".to_owned(), json: false };
    SyslogTarget { address: address.to_owned(), tls, deadline: Duration::from_secs(2), style }
}

fn parcel(target: &SyslogTarget) -> Parcel {
    let payload = syslog::message(&record(&denied()), &Wanted::everything(), &target.style, 7);
    Parcel { payload, is_record: true }
}

const TAKEN: Outcome = Outcome::Taken { rejected: 0, why: String::new() };

/// Takes one connection by TLS from a client of the authority, and returns what came until so many octets are there.
fn tls_receiver(listener: TcpListener, authority: &Authority, octets: usize) -> JoinHandle<Vec<u8>> {
    let (certificate, key) = authority.sign("logs.example");
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(ring::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build().unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut bytes = vec![0; octets];
            stream.read_exact(&mut bytes).await.unwrap();
            return bytes;
        }
    })
}

#[tokio::test]
async fn messages_arrive_over_tls_with_octets_counted() {
    let (authority, other) = (Authority::new(), Authority::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let home = tempfile::tempdir().unwrap();
    let [ca_file, certificate, key] = other.write_client(home.path());
    let tls = Tls { ca_file, own: Some((certificate, key)), server_name: Some("logs.example".to_owned()) };
    let target = target(&address, Some(tls));
    let parcels = [parcel(&target), parcel(&target)];
    let expected: Vec<u8> = parcels.iter().flat_map(|it| it.payload.clone()).collect();
    let receiver = tls_receiver(listener, &authority, expected.len());
    let mut sender = ToSyslog::new(target, node());
    let Outcome::Again { why, .. } = sender.send(&parcels).await else { panic!("a stranger is believed") };
    assert!(why.contains("TLS"), "{why}");
    // Believed by us, and we are not by it: nothing is written into the void.
    std::fs::write(home.path().join("ca.pem"), authority.pem()).unwrap();
    let Outcome::Again { why, .. } = sender.send(&parcels).await else { panic!("a refusal is not seen") };
    assert!(why.contains("TLS"), "{why}");
    // New files are used.
    authority.write_client(home.path());
    assert_eq!(sender.send(&parcels).await, TAKEN);
    assert_eq!(receiver.await.unwrap(), expected);
}

#[tokio::test]
async fn a_receiver_that_has_hung_up_is_noticed_before_anything_is_written() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = target(&listener.local_addr().unwrap().to_string(), None);
    let parcel = parcel(&target);
    let mut sender = ToSyslog::new(target, node());
    for _ in 0..3 {
        assert_eq!(sender.send(std::slice::from_ref(&parcel)).await, TAKEN);
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = vec![0; parcel.payload.len()];
        stream.read_exact(&mut bytes).await.unwrap();
        assert_eq!(bytes, parcel.payload);
        drop(stream);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_receiver_that_hangs_costs_a_deadline_and_no_more() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let home = tempfile::tempdir().unwrap();
    let [ca_file, ..] = Authority::new().write_client(home.path());
    let tls = Tls { ca_file, own: None, server_name: None };
    let with = SyslogTarget { deadline: Duration::from_millis(300), ..target(&address, Some(tls)) };
    let parcel = parcel(&with);
    let outcome = ToSyslog::new(with, node()).send(&[parcel]).await;
    assert!(matches!(&outcome, Outcome::Again { why, .. } if why.contains("not taken within 0.3s")), "{outcome:?}");
    // One that takes the connection and reads nothing.
    let full = SyslogTarget { deadline: Duration::from_millis(300), ..target(&address, None) };
    let large = Parcel { payload: vec![b'x'; 64 << 20], is_record: true };
    let outcome = ToSyslog::new(full, node()).send(&[large]).await;
    assert!(matches!(&outcome, Outcome::Again { why, .. } if why.contains("not taken within 0.3s")), "{outcome:?}");
}

#[test]
fn hosts_of_addresses() {
    for (address, host) in [("a.example:6514", "a.example"), ("[::1]:6514", "::1"), ("10.0.0.1:1", "10.0.0.1")] {
        assert_eq!(host_of(address), host);
    }
}
