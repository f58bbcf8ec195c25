//! The files that a connection by TLS needs. Read before each use, so that what is replaced is used from then on.

use std::path::{Path, PathBuf};

/// Where the bundle of public authorities is on most systems.
pub const SYSTEM_CA: &str = "/etc/ssl/certs/ca-certificates.crt";

/// How to be safe with a receiver.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tls {
    /// Certificates of the authorities that are believed, PEM.
    pub ca_file: PathBuf,
    /// Our own certificates and key, PEM, for receivers that want to know who comes.
    pub own: Option<(PathBuf, PathBuf)>,
    /// Name in the receiver's certificate, if it is not the one of its address.
    pub server_name: Option<String>,
}

/// What is in the files.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Files {
    pub(crate) ca: Vec<u8>,
    pub(crate) own: Option<(Vec<u8>, Vec<u8>)>,
}

impl std::fmt::Debug for Files {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Files").field("ca", &self.ca.len()).finish_non_exhaustive()
    }
}

impl Files {
    /// Reads them; or says which one cannot be read.
    pub(crate) async fn read(tls: &Tls) -> Result<Self, String> {
        let read = async |path: &Path| {
            tokio::fs::read(path).await.map_err(|error| format!("{}: {error}; put the file there", path.display()))
        };
        let own = match &tls.own {
            Some((certificate, key)) => Some((read(certificate).await?, read(key).await?)),
            None => None,
        };
        Ok(Self { ca: read(&tls.ca_file).await?, own })
    }
}
