//! Certificates from files that change.

use std::{fs::Metadata, io, os::unix::fs::MetadataExt as _, path::Path, sync::Arc, time::SystemTime};

use tokio_rustls::rustls::{
    self, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};

use super::TlsFiles;

/// What gRPC speaks inside (RFC 7301, RFC 9113).
const ALPN: &[u8] = b"h2";

/// Tells a file from the one that was there before.
type Stamp = (u64, u64, SystemTime);

/// The files, and what they said when they were read last.
#[derive(Debug)]
pub(super) struct Certificates {
    files: TlsFiles,
    /// Of the files that were looked at last, be they good or not.
    stamps: Option<[Stamp; 3]>,
    good: Option<Arc<ServerConfig>>,
}

impl Certificates {
    pub(super) fn new(files: TlsFiles) -> Self {
        Self { files, stamps: None, good: None }
    }

    /// What to serve with now, if anything was good yet, and what is wrong with the files if they have changed since they
    /// were looked at last: `None`, nothing has changed; `Some(None)`, all is well.
    pub(super) fn look(&mut self) -> (Option<Arc<ServerConfig>>, Option<Option<String>>) {
        let news = match self.stamps() {
            Ok(stamps) if self.stamps == Some(stamps) => None,
            Ok(stamps) => {
                self.stamps = Some(stamps);
                Some(match read(&self.files) {
                    Ok(config) => {
                        self.good = Some(Arc::new(config));
                        None
                    }
                    Err(why) => Some(why),
                })
            }
            Err(why) => {
                self.stamps = None;
                Some(Some(why))
            }
        };
        (self.good.clone(), news)
    }

    fn stamps(&self) -> Result<[Stamp; 3], String> {
        let TlsFiles { certificate, key, client_ca } = &self.files;
        Ok([stamp(certificate)?, stamp(key)?, stamp(client_ca)?])
    }
}

fn said(path: &Path, error: &impl ToString) -> String {
    format!("{}: {}", path.display(), error.to_string())
}

fn stamp(path: &Path) -> Result<Stamp, String> {
    let of = |found: Metadata| io::Result::Ok((found.ino(), found.len(), found.modified()?));
    std::fs::metadata(path).and_then(of).map_err(|error| said(path, &error))
}

/// All certificates of a file.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(|error| said(path, &error))?.collect();
    match all {
        Ok(all) if all.is_empty() => Err(said(path, &"there is no certificate in it; want PEM")),
        Ok(all) => Ok(all),
        Err(error) => Err(said(path, &error)),
    }
}

fn read(files: &TlsFiles) -> Result<ServerConfig, String> {
    let TlsFiles { certificate, key, client_ca } = files;
    let mut roots = RootCertStore::empty();
    for ca in certificates(client_ca)? {
        roots.add(ca).map_err(|error| said(client_ca, &error))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| said(client_ca, &error))?;
    let chain = certificates(certificate)?;
    let own = PrivateKeyDer::from_pem_file(key).map_err(|error| said(key, &error))?;
    let builder = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let mut config = builder
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, own)
        .map_err(|error| format!("{} and {}: {error}", certificate.display(), key.display()))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}
