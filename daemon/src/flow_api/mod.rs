//! The flow API for those who are not on this node: a TCP port with TLS on both sides. On the node itself the Unix socket
//! serves, to whom the file system lets in.
//!
//! ```text
//!   TcpListener --accept--> handshakes, side by side --> gRPC server
//!                               ^ certificates: read again whenever a file has changed
//! ```

mod caller;
mod listener;
mod peers;
mod tls;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

pub use caller::name_caller;
pub use listener::{Trouble, incoming};
pub use peers::{Manner, myself, of_nodes, server_name};

/// Where the API listens, and how it knows whom to trust.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FlowApi {
    /// Address and port.
    pub address: SocketAddr,
    /// `None`: whoever reaches it may read along, and so may everybody between.
    pub tls: Option<TlsFiles>,
}

/// What is wrong with the flags.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FlowApiError {
    /// A port for everybody that nobody has asked for.
    #[error(
        "--flow-listen {0}: give the folder with its certificates as --flow-tls, or say --flow-plaintext true if whoever \
         reaches it may read flows"
    )]
    WithoutTls(SocketAddr),
    /// Both at once.
    #[error("--flow-plaintext true together with --flow-tls: leave one of them out")]
    Both,
    /// Certificates for nothing.
    #[error("{0} without --flow-listen: say where to listen, for example [::]:4244")]
    Nowhere(&'static str),
}

impl FlowApi {
    /// As the flags say. `folder` has tls.crt, tls.key and ca.crt, as a Secret of a certificate manager does.
    ///
    /// # Errors
    /// They do not fit together.
    pub fn new(
        listen: Option<SocketAddr>,
        folder: Option<&Path>,
        plaintext: bool,
    ) -> Result<Option<Self>, FlowApiError> {
        let tls = match (listen, folder, plaintext) {
            (_, Some(_), true) => return Err(FlowApiError::Both),
            (None, Some(_), false) => return Err(FlowApiError::Nowhere("--flow-tls")),
            (None, None, true) => return Err(FlowApiError::Nowhere("--flow-plaintext")),
            (Some(address), None, false) => return Err(FlowApiError::WithoutTls(address)),
            (_, folder, _) => folder.map(TlsFiles::of),
        };
        Ok(listen.map(|address| Self { address, tls }))
    }
}

impl TlsFiles {
    fn of(folder: &Path) -> Self {
        Self { certificate: folder.join("tls.crt"), key: folder.join("tls.key"), client_ca: folder.join("ca.crt") }
    }
}

/// Files of the server, PEM. Each may change at any time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFiles {
    /// Its certificate, and those between it and its authority.
    pub certificate: PathBuf,
    /// The key to it.
    pub key: PathBuf,
    /// Authorities of clients: nobody else is served.
    pub client_ca: PathBuf,
}

#[cfg(test)]
mod tests;
