//! The HTTP server for metrics and probes. It tells, it changes nothing, and it has no
//! authentication: the address it listens on is loopback unless configured otherwise.
//!
//! `/metrics`: OpenMetrics text. `/healthz`, `/readyz`: 200 if pods may rely on the daemon, else
//! 503 and the reasons. `/livez`: 503 only if the engine does not answer, when a restart helps.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
    serve::Listener,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinHandle,
    time::{Instant, Sleep, sleep},
};
use tracing::{error, info};

use super::{CniMetrics, Health, Source, metrics};

/// Connections at the same time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 32;
/// A connection on which nothing moves for so long is cut: more than twice the common scrape
/// interval of a minute.
const IDLE: Duration = Duration::from_secs(150);
/// How long answers under way may take when the server stops.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why the server cannot run.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address} for metrics and health: {source}; choose another address")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A server that runs. Ends with [`Server::stop`], or with the process.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Server {
    /// Where it listens; tells the port if 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets answers under way go out, for a short while, and ends.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        if tokio::time::timeout(FAREWELL, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

#[derive(Clone)]
struct Told {
    source: Arc<dyn Source>,
    cni: CniMetrics,
}

/// Listens on `address` and serves until stopped.
///
/// # Errors
/// The address cannot be listened on.
pub async fn serve(address: SocketAddr, source: Arc<dyn Source>, cni: CniMetrics) -> Result<Server, HttpError> {
    let refused = |source| HttpError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    let routes = Router::new()
        .route("/metrics", get(tell_metrics))
        .route("/healthz", get(tell_ready))
        .route("/readyz", get(tell_ready))
        .route("/livez", get(tell_alive))
        .with_state(Told { source, cni });
    let (stop, mut stopped) = watch::channel(false);
    let listener = Bounded { listener, permits: Arc::new(Semaphore::new(MAX_CONNECTIONS)) };
    let task = tokio::spawn(async move {
        let told = async move {
            // An error means that the handle is gone: the server then runs as long as the process.
            if stopped.wait_for(|stop| *stop).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        if let Err(problem) = axum::serve(listener, routes).with_graceful_shutdown(told).await {
            error!(error = %problem, "Metrics and health are not served any more");
        }
    });
    info!(address = %bound, "Metrics and health served");
    Ok(Server { address: bound, stop, task })
}

async fn tell_metrics(State(told): State<Told>) -> Response {
    match metrics::encode(told.source.snapshot().await, &told.cni) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "a metric cannot be encoded\n").into_response(),
    }
}

async fn tell_ready(State(told): State<Told>) -> Response {
    let health = told.source.health().await;
    answer(health.is_ready(), &health)
}

async fn tell_alive(State(told): State<Told>) -> Response {
    let health = told.source.health().await;
    answer(health.alive, &health)
}

fn answer(good: bool, health: &Health) -> Response {
    if good {
        return (StatusCode::OK, "ok\n").into_response();
    }
    let mut words: String = health.problems.iter().map(|problem| format!("{problem}\n")).collect();
    if words.is_empty() {
        words.push_str("the engine does not answer\n");
    }
    (StatusCode::SERVICE_UNAVAILABLE, words).into_response()
}

/// A listener that accepts no more than so many connections at the same time.
struct Bounded {
    listener: TcpListener,
    permits: Arc<Semaphore>,
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let permit = self.permits.clone().acquire_owned().await.ok();
        let (stream, from) = Listener::accept(&mut self.listener).await;
        (Connection { stream, silence: Box::pin(sleep(IDLE)), _permit: permit }, from)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that is cut when nothing moves on it for too long.
struct Connection {
    stream: TcpStream,
    silence: Pin<Box<Sleep>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(result) = Pin::new(&mut self.stream).poll_read(cx, buffer) {
            self.silence.as_mut().reset(Instant::now() + IDLE);
            return Poll::Ready(result);
        }
        ready!(self.silence.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Poll::Ready(result) = Pin::new(&mut self.stream).poll_write(cx, bytes) {
            self.silence.as_mut().reset(Instant::now() + IDLE);
            return Poll::Ready(result);
        }
        ready!(self.silence.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
