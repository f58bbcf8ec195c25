//! Who asks: what the connection tells of its other end, for the line that is written of each reader.

use flows::observer::Caller;
use tonic::{
    Request, Status,
    transport::server::{TcpConnectInfo, TlsConnectInfo, UdsConnectInfo},
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

/// Notes in a request who has sent it.
///
/// # Errors
/// None: the type is that of tonic's interceptors.
pub fn name_caller(mut request: Request<()>) -> Result<Request<()>, Status> {
    let extensions = request.extensions();
    let caller = if let Some(tls) = extensions.get::<TlsConnectInfo<TcpConnectInfo>>() {
        let certificates = tls.peer_certs();
        let first = certificates.as_ref().and_then(|all| all.first());
        let subject = first.map_or_else(|| "without a certificate".to_owned(), |it| subject(it));
        format!("{subject} at {}", address(tls.get_ref()))
    } else if let Some(tcp) = extensions.get::<TcpConnectInfo>() {
        format!("anybody at {}", address(tcp))
    } else if let Some(credentials) = extensions.get::<UdsConnectInfo>().and_then(|it| it.peer_cred) {
        let pid = credentials.pid().map_or_else(String::new, |pid| format!(", process {pid}"));
        format!("user {}{pid}", credentials.uid())
    } else {
        "somebody on this node".to_owned()
    };
    request.extensions_mut().insert(Caller(caller));
    Ok(request)
}

fn address(tcp: &TcpConnectInfo) -> String {
    tcp.remote_addr().map_or_else(|| "an unknown address".to_owned(), |address| address.to_string())
}

/// The name in a certificate, as X.509 writes it: `O=ops, CN=alice`.
fn subject(certificate: &[u8]) -> String {
    match X509Certificate::from_der(certificate) {
        Ok((_, certificate)) => certificate.subject().to_string(),
        // Whom the verifier has let in has one that can be read.
        Err(_) => "a certificate without a name".to_owned(),
    }
}
