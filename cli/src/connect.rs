//! The way to the daemon: a unix socket, a deadline for everything, and errors that say what to
//! do. No TCP: who may ask is decided by the socket's permissions.

use std::{
    fmt,
    future::Future,
    io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Arc, Mutex},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use proto::{bulkhead::admin::v1::admin_client::AdminClient, observer::observer_client::ObserverClient};
use tokio::{net::UnixStream, time::timeout};
use tonic::{
    Response, Status, Streaming,
    transport::{Channel, Endpoint, Uri},
};
use tower::service_fn;

use crate::failure::{Failure, LOG};

/// Where the daemon listens unless told otherwise.
pub(crate) const DEFAULT_SERVER: &str = "unix:///run/bulkhead/api.sock";

/// Longest path of a unix socket: `sun_path` is 108 bytes with its closing zero (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

/// Answers grow with the cluster: 100,000 identities take about 20 MiB, tonic's default is 4.
const MAX_ANSWER_BYTES: usize = 512 << 20;

/// Address of a daemon.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Server {
    path: PathBuf,
}

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = match text.split_once(':') {
            Some(("unix", rest)) => rest.strip_prefix("//").unwrap_or(rest),
            _ if text.starts_with('/') => text,
            Some((scheme, _)) => return Err(format!("{scheme}: is not supported; write unix:///PATH/TO/api.sock")),
            None => return Err("write unix:///PATH/TO/api.sock or /PATH/TO/api.sock".to_owned()),
        };
        if !path.starts_with('/') {
            return Err("the path has to be absolute, as in unix:///run/bulkhead/api.sock".to_owned());
        }
        if path.len() > MAX_SOCKET_PATH {
            return Err(format!("the path has {} bytes, a unix socket's has at most {MAX_SOCKET_PATH}", path.len()));
        }
        Ok(Self { path: path.into() })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

/// A connection to a daemon.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    channel: Channel,
    server: Server,
    deadline: Duration,
}

impl Connection {
    /// Connects. `deadline` holds for this and for every single answer later.
    pub(crate) async fn open(server: &Server, deadline: Duration) -> Result<Self, Failure> {
        let stream = match timeout(deadline, UnixStream::connect(&server.path)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(unreachable(&server.path, &error)),
            Err(_) => return Err(Failure::hung(server, "connect")),
        };
        // The channel gets the stream just made, so that its errors were seen above; it makes
        // its own only if that one breaks.
        let first = Arc::new(Mutex::new(Some(stream)));
        let path = server.path.clone();
        let connector = service_fn(move |_: Uri| {
            let (first, path) = (first.clone(), path.clone());
            async move {
                let made = first.lock().ok().and_then(|mut first| first.take());
                let stream = match made {
                    Some(stream) => stream,
                    None => UnixStream::connect(&path).await?,
                };
                Ok::<_, io::Error>(TokioIo::new(stream))
            }
        });
        // The address is not used: the connector knows the path. It becomes the authority.
        let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector);
        Ok(Self { channel, server: server.clone(), deadline })
    }

    /// Client of the service Admin.
    pub(crate) fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    /// Client of the service Observer.
    pub(crate) fn observer(&self) -> ObserverClient<Channel> {
        ObserverClient::new(self.channel.clone())
    }

    /// Waits for an answer, no longer than the deadline. `asked` names the request in errors.
    pub(crate) async fn answer<T>(
        &self,
        asked: &str,
        request: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        match timeout(self.deadline, request).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.failure(&status, asked)),
            Err(_) => Err(Failure::hung(&self.server, asked)),
        }
    }

    /// The next message of a stream that should not pause for longer than the deadline.
    pub(crate) async fn next<T>(&self, asked: &str, stream: &mut Streaming<T>) -> Result<Option<T>, Failure> {
        match timeout(self.deadline, stream.message()).await {
            Ok(message) => message.map_err(|status| self.failure(&status, asked)),
            Err(_) => Err(Failure::hung(&self.server, asked)),
        }
    }

    /// What a status means, for streams that break in the middle.
    pub(crate) fn failure(&self, status: &Status, asked: &str) -> Failure {
        Failure::from_status(status, &self.server, asked)
    }
}

/// Why nobody can be reached at `path`, and what to do.
fn unreachable(path: &Path, error: &io::Error) -> Failure {
    let shown = path.display();
    let start = "start it (systemctl start bulkhead-daemon), or name its socket with --server or BULKHEAD_SERVER";
    match error.kind() {
        io::ErrorKind::PermissionDenied => Failure::Denied {
            message: format!("the socket {shown} is not ours to use{}", owner(path)),
            fix: "run it with sudo, or as the socket's owner".to_owned(),
        },
        io::ErrorKind::NotFound => {
            Failure::unavailable(format_args!("no daemon is there: {shown} does not exist"), start)
        }
        io::ErrorKind::ConnectionRefused if !is_socket(path) => Failure::unavailable(
            format_args!("{shown} is not a socket"),
            "name the daemon's socket with --server or BULKHEAD_SERVER",
        ),
        io::ErrorKind::ConnectionRefused => Failure::unavailable(
            format_args!("no daemon is there: nobody listens on {shown}, an earlier one has left it behind"),
            start,
        ),
        // A full backlog: the kernel does not let a non-blocking connect wait (unix(7)).
        io::ErrorKind::WouldBlock => Failure::unavailable(
            format_args!("the daemon at {shown} takes no more connections"),
            format_args!("look why it hangs: {LOG}"),
        ),
        _ => Failure::unavailable(format_args!("cannot connect to {shown}: {error}"), start),
    }
}

/// Whether `path` is a socket, as far as we may know.
fn is_socket(path: &Path) -> bool {
    path.metadata().map_or(true, |meta| meta.file_type().is_socket())
}

/// Who may use the socket, in words, as far as we may know.
fn owner(path: &Path) -> String {
    let Ok(socket) = path.metadata() else {
        return ": its folder is closed to us".to_owned();
    };
    // procfs gives every process folder to the process's effective user (proc(5)).
    let us = Path::new("/proc/self").metadata().map(|us| format!(", we are user {}", us.uid())).unwrap_or_default();
    format!(": it belongs to user {} with mode {:04o}{us}", socket.uid(), socket.mode() & 0o7777)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_socket_path_with_or_without_scheme() {
        for text in ["unix:///run/x.sock", "unix:/run/x.sock", "/run/x.sock"] {
            assert_eq!(text.parse::<Server>().expect(text).path, Path::new("/run/x.sock"), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_the_form_that_is_right() {
        for (text, says) in [
            ("http://localhost:4245", "http: is not supported"),
            ("localhost:4245", "localhost: is not supported"),
            ("run/x.sock", "unix:///"),
            ("", "unix:///"),
            ("unix://run/x.sock", "absolute"),
            ("unix:", "absolute"),
            (&format!("/{}", "x".repeat(107)), "108 bytes"),
        ] {
            let error = text.parse::<Server>().expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
