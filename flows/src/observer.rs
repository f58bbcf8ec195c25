//! The gRPC services that clients of the Hubble API speak: `observer.Observer`, `peer.Peer` and
//! `grpc.health.v1.Health`, all answering for this node alone. The daemon mounts them on whatever
//! it listens on; nothing here opens a socket.

use std::{fmt, pin::Pin, sync::Arc, time::Instant};

use futures::{Stream, StreamExt, stream};
use proto::{
    grpc::health::v1::health_server::HealthServer, observer::observer_server::ObserverServer,
    peer::peer_server::PeerServer,
};
use tokio::sync::{Semaphore, watch};
use tonic::Status;

use crate::{ledger::Ledger, past::Past, pipeline::Pipeline};

mod audit;
mod before;
pub mod convert;
mod health;
mod mask;
mod peer;
mod position;
mod reader;
mod request;
mod service;

pub use audit::TARGET as AUDIT_TARGET;
pub use health::SERVICES;
pub use mask::{Mask, MaskError};
pub use peer::{PeerNode, Peers};

/// Largest request that is read. A filter that fits the bounds of [`crate::filter`] is smaller.
pub const MAX_REQUEST_BYTES: usize = 4 << 20;

/// What the services tell about this node.
#[derive(Clone, Debug)]
pub struct ObserverConfig {
    /// Name and version of the server, for people: `bulkhead v1.2.3`.
    pub version: String,
    /// Where peers reach this server: `host:port` or `unix:///path`.
    pub address: String,
    /// Clients that may read flows at the same time; more are refused with RESOURCE_EXHAUSTED.
    pub max_readers: u64,
}

impl Default for ObserverConfig {
    fn default() -> Self {
        Self { version: "bulkhead".to_owned(), address: String::new(), max_readers: 64 }
    }
}

/// A stream of answers.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Who has sent a request, as its connection tells; whoever serves puts it into the request's extensions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller(pub String);

/// Answers for this node. Cheap to clone.
#[derive(Clone)]
pub struct Observer {
    config: Arc<ObserverConfig>,
    pipeline: Arc<Pipeline>,
    /// Keeps what is older than the ring.
    past: Option<Arc<dyn Past>>,
    /// Makes rows of records, for clients that want those.
    former: Option<convert::Former>,
    /// How many may read it at the same time.
    walks: Arc<Semaphore>,
    peers: watch::Receiver<Peers>,
    started: Instant,
    /// Turns true when the streams shall end.
    closed: Arc<watch::Sender<bool>>,
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observer").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Observer {
    /// Serves what `pipeline` records. Uptime counts from here.
    pub fn new(config: ObserverConfig, pipeline: Arc<Pipeline>) -> Self {
        let myself = PeerNode { address: config.address.clone(), server_name: None };
        let (_, peers) = watch::channel(Peers::from([(pipeline.node().name.clone(), myself)]));
        Self {
            peers,
            config: Arc::new(config),
            pipeline,
            past: None,
            former: None,
            walks: Arc::new(Semaphore::new(before::MOST_WALKS)),
            started: Instant::now(),
            closed: Arc::new(watch::Sender::new(false)),
        }
    }

    /// Answers from `past` what is older than the ring.
    pub fn with_past(self, past: Arc<dyn Past>) -> Self {
        Self { past: Some(past), ..self }
    }

    /// Answers those who want rows with what `former` makes.
    #[must_use]
    pub fn with_rows(self, former: convert::Former) -> Self {
        Self { former: Some(former), ..self }
    }

    /// Tells relays of these nodes, instead of this one alone.
    #[must_use]
    pub fn with_peers(self, peers: watch::Receiver<Peers>) -> Self {
        Self { peers, ..self }
    }

    /// Ends every stream, also those that follow, so that a server that waits for its clients can
    /// shut down. Later requests are answered with streams that end at once.
    pub fn close(&self) {
        self.closed.send_replace(true);
    }

    /// `observer.Observer`.
    pub fn observer_service(&self) -> ObserverServer<Observer> {
        ObserverServer::new(self.clone()).max_decoding_message_size(MAX_REQUEST_BYTES)
    }

    /// `peer.Peer`.
    pub fn peer_service(&self) -> PeerServer<Observer> {
        PeerServer::new(self.clone())
    }

    /// `grpc.health.v1.Health`. Everything is serving for as long as the process answers.
    pub fn health_service(&self) -> HealthServer<Observer> {
        HealthServer::new(self.clone())
    }

    /// What became of every event and record.
    pub fn ledger(&self) -> &Arc<Ledger> {
        self.pipeline.ledger()
    }

    /// Ends `answers` when the observer is closed.
    fn until_closed<T: Send + 'static>(
        &self,
        answers: impl Stream<Item = Result<T, Status>> + Send + 'static,
    ) -> Answers<T> {
        let mut closed = self.closed.subscribe();
        // An error means that the observer itself is gone: that ends the stream as well.
        Box::pin(answers.take_until(async move { closed.wait_for(|closed| *closed).await.map(|_| ()) }))
    }

    /// `answers`, then nothing until the client hangs up or the observer is closed.
    fn then_silence<T: Send + 'static>(
        &self,
        answers: impl Stream<Item = Result<T, Status>> + Send + 'static,
    ) -> Answers<T> {
        self.until_closed(answers.chain(stream::pending()))
    }

    fn uptime_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests;
