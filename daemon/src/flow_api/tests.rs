//! Real handshakes on loopback.

use std::{fs, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use futures::StreamExt as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
    sync::watch,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring::default_provider,
        pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
    },
};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);
const NAME: &str = "n1.default.hubble-grpc.cilium.io";

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn certificate(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap(), key)
    }

    /// The folder of a server whose clients are those of `clients`.
    fn write(&self, folder: &Path, clients: &Self) {
        let (certificate, key) = self.certificate(NAME);
        fs::write(folder.join("ca.crt"), clients.0.pem()).unwrap();
        fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
        fs::write(folder.join("tls.crt"), certificate.pem()).unwrap();
    }

    /// Connects as `name`, whose authority this is, to a server of `server`. An error also if the server has hung up.
    async fn connect(&self, name: &str, server: &Self, to: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(server.0.der().to_vec())).unwrap();
        let (certificate, key) = self.certificate(name);
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )
            .unwrap();
        let stream = TcpStream::connect(to).await?;
        let server = ServerName::try_from(NAME).unwrap();
        let mut stream = TlsConnector::from(Arc::new(config)).connect(server, stream).await?;
        // Of a client's certificate the server says what it thinks after the client is done.
        match timeout(Duration::from_millis(200), stream.read(&mut [0])).await {
            Err(_) => Ok(stream),
            Ok(Ok(_)) => Err(std::io::Error::other("hung up")),
            Ok(Err(error)) => Err(error),
        }
    }
}

struct Bench {
    folder: TempDir,
    address: SocketAddr,
    trouble: watch::Receiver<Option<String>>,
}

impl Bench {
    /// Accepts for ever.
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, trouble) = watch::channel(None);
        let mut incoming = Box::pin(incoming(listener, TlsFiles::of(folder.path()), sender));
        tokio::spawn(async move {
            let mut all = Vec::new();
            while let Some(stream) = incoming.next().await {
                all.push(stream);
            }
        });
        Self { folder, address, trouble }
    }
}

#[tokio::test]
async fn who_has_a_certificate_is_served_and_nobody_else_is() {
    let (servers, clients, strangers) = (Authority::new("servers"), Authority::new("clients"), Authority::new("x"));
    let bench = Bench::new().await;
    servers.write(bench.folder.path(), &clients);
    clients.connect("alice", &servers, bench.address).await.expect("alice is let in");
    assert!(strangers.connect("mallory", &servers, bench.address).await.is_err());
    assert!(
        servers.connect("a server", &servers, bench.address).await.is_err(),
        "its authority is not that of clients"
    );
    // Plain text is no handshake.
    let mut plain = TcpStream::connect(bench.address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut plain, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, plain.read_to_end(&mut answer)).await.expect("it hangs up");
    assert!(answer.len() < 16, "an alert at most: {answer:?}");
}

#[tokio::test]
async fn who_never_shakes_hands_keeps_nobody_waiting() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let bench = Bench::new().await;
    servers.write(bench.folder.path(), &clients);
    let mut silent = Vec::new();
    for _ in 0..16 {
        silent.push(TcpStream::connect(bench.address).await.unwrap());
    }
    timeout(Duration::from_secs(5), clients.connect("alice", &servers, bench.address)).await.unwrap().expect("let in");
}

#[tokio::test]
async fn certificates_are_replaced_while_it_runs() {
    let (old, new, clients) = (Authority::new("old"), Authority::new("new"), Authority::new("clients"));
    let mut bench = Bench::new().await;
    // Nothing there yet: told, and nobody is served.
    timeout(PATIENCE, bench.trouble.wait_for(Option::is_some)).await.unwrap().unwrap();
    assert!(clients.connect("alice", &old, bench.address).await.is_err());
    old.write(bench.folder.path(), &clients);
    let kept = clients.connect("alice", &old, bench.address).await.expect("let in");
    assert_eq!(*bench.trouble.borrow(), None);
    // Half a file: what was good serves.
    fs::write(bench.folder.path().join("tls.crt"), "-----BEGIN CERTIFICATE-----\nAAAA\n").unwrap();
    clients.connect("alice", &old, bench.address).await.expect("let in");
    let why = bench.trouble.borrow().clone().expect("it is told");
    assert!(why.contains("tls.crt"), "{why}");
    // A key that is another one's.
    let (stray, _) = new.certificate(NAME);
    fs::write(bench.folder.path().join("tls.crt"), stray.pem()).unwrap();
    clients.connect("alice", &old, bench.address).await.expect("let in");
    assert!(bench.trouble.borrow().is_some());
    new.write(bench.folder.path(), &clients);
    clients.connect("alice", &new, bench.address).await.expect("let in by the new one");
    assert_eq!(*bench.trouble.borrow(), None);
    assert!(clients.connect("alice", &old, bench.address).await.is_err(), "the old one is not shown any more");
    drop(kept);
}
