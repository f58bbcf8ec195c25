//! The receiver of syslog messages over TLS (RFC 5425), or over TCP where that was asked for by name. The protocol has
//! no answers: what the kernel has taken of a message counts as taken, and what is on its way when a connection breaks
//! may be lost. A receiver that has hung up is noticed before anything is written.

use std::{fmt, sync::Arc, time::Duration};

use flows::record::Node;
use futures::FutureExt as _;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, ProtocolVersion, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    },
};

use crate::{
    config::SyslogTarget,
    notice::Notice,
    sender::{Outcome, Parcel, Receiver},
    syslog,
    tls::Files,
};

/// How long a receiver has to refuse our certificate.
const VERDICT: Duration = Duration::from_millis(500);

/// A connection.
trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

/// See the module.
pub(crate) struct ToSyslog {
    target: SyslogTarget,
    node: Arc<Node>,
    /// The connection, and the files that it was made with.
    connected: Option<(Box<dyn Stream>, Files)>,
}

impl fmt::Debug for ToSyslog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToSyslog").field("target", &self.target).finish_non_exhaustive()
    }
}

impl ToSyslog {
    pub(crate) fn new(target: SyslogTarget, node: Arc<Node>) -> Self {
        Self { target, node, connected: None }
    }

    /// A connection that is not known to be broken.
    async fn connect(&mut self) -> Result<&mut Box<dyn Stream>, String> {
        let files = match &self.target.tls {
            Some(tls) => Files::read(tls).await?,
            None => Files::default(),
        };
        let usable = match self.connected.take() {
            Some((mut stream, with)) => (with == files && is_open(&mut stream)).then_some((stream, with)),
            None => None,
        };
        let connection = match usable {
            Some(connection) => connection,
            None => (self.open(&files).await?, files),
        };
        Ok(&mut self.connected.insert(connection).0)
    }

    async fn open(&self, files: &Files) -> Result<Box<dyn Stream>, String> {
        let SyslogTarget { address, tls, .. } = &self.target;
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        let Some(tls) = tls else { return Ok(Box::new(stream)) };
        let config = client_config(files)?;
        let host = tls.server_name.as_deref().unwrap_or_else(|| host_of(address));
        let name = ServerName::try_from(host.to_owned()).map_err(|_| format!("{host:?} is no name of a server"))?;
        let connector = TlsConnector::from(Arc::new(config));
        let mut stream = connector.connect(name, stream).await.map_err(|error| format!("TLS: {error}"))?;
        if files.own.is_some() && stream.get_ref().1.protocol_version() == Some(ProtocolVersion::TLSv1_3) {
            // In this version a server looks at our certificate after we believe that all is well; what was written by
            // then would be lost. It has nothing else to say.
            let mut bytes = [0; 256];
            match timeout(VERDICT, stream.read(&mut bytes)).await {
                Err(_) | Ok(Ok(1..)) => {}
                Ok(Ok(0)) => return Err("TLS: the receiver has hung up on our certificate".to_owned()),
                Ok(Err(error)) => return Err(format!("TLS: {error}")),
            }
        }
        Ok(Box::new(stream))
    }

    async fn hand_over(&mut self, bytes: &[u8]) -> Result<(), String> {
        let stream = self.connect().await?;
        let written = async {
            stream.write_all(bytes).await?;
            stream.flush().await
        };
        written.await.map_err(|error| error.to_string())
    }
}

/// Whether the other side has not hung up. What it says is nobody's business.
fn is_open(stream: &mut Box<dyn Stream>) -> bool {
    let mut bytes = [0; 256];
    loop {
        match stream.read(&mut bytes).now_or_never() {
            None => return true,
            Some(Ok(1..)) => {}
            Some(Ok(0) | Err(_)) => return false,
        }
    }
}

/// `host` of `host:port`, without the brackets of an IPv6 address.
fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn client_config(files: &Files) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&files.ca) {
        let certificate = certificate.map_err(|error| format!("caFile: {error}"))?;
        roots.add(certificate).map_err(|error| format!("caFile: {error}"))?;
    }
    if roots.is_empty() {
        return Err("caFile: no certificate is in it".to_owned());
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    match &files.own {
        None => Ok(builder.with_no_client_auth()),
        Some((certificates, key)) => {
            let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificates).collect();
            let certificates = certificates.map_err(|error| format!("certFile: {error}"))?;
            let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("keyFile: {error}"))?;
            builder.with_client_auth_cert(certificates, key).map_err(|error| format!("certFile, keyFile: {error}"))
        }
    }
}

impl Receiver for ToSyslog {
    async fn send(&mut self, parcels: &[Parcel]) -> Outcome {
        let bytes: Vec<u8> = parcels.iter().flat_map(|it| it.payload.iter().copied()).collect();
        let deadline = self.target.deadline;
        let why = match timeout(deadline, self.hand_over(&bytes)).await {
            Ok(Ok(())) => return Outcome::Taken { rejected: 0, why: String::new() },
            Ok(Err(why)) => why,
            Err(_) => format!("not taken within {}s", deadline.as_secs_f32()),
        };
        // Half of a message may have gone: the next one needs a new connection.
        self.connected = None;
        Outcome::Again { after: None, why: format!("{}: {why}", self.target.address) }
    }

    fn notice(&self, notice: &Notice) -> Vec<u8> {
        syslog::loss(notice, &self.node, &self.target.style)
    }
}

#[cfg(test)]
mod rsyslog;
#[cfg(test)]
mod tests;
