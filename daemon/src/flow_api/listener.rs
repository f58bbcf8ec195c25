//! Takes connections in. A client that is slow to shake hands, or never does, keeps nobody else waiting.

use std::{io, sync::Arc, time::Duration};

use futures::Stream;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc, watch},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tracing::{debug, info, warn};

use super::{TlsFiles, tls::Certificates};

/// How long a handshake may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause between two looks at the files while nobody comes.
const LOOK: Duration = Duration::from_secs(5);
/// Handshakes under way at most; the next ones wait in the kernel.
const HANDSHAKES: usize = 32;
/// Pause after the kernel could not give us a connection: it may have no more files for us.
const PAUSE: Duration = Duration::from_millis(100);

/// What is wrong with the files; `None`: nothing.
pub type Trouble = watch::Sender<Option<String>>;

/// Connections whose client has a certificate that we believe. Ends when the stream is dropped. While the files are not
/// good, those of before are used; while there were none, nobody is served. `trouble` has what is wrong with them.
pub fn incoming(
    listener: TcpListener,
    files: TlsFiles,
    trouble: Trouble,
) -> impl Stream<Item = io::Result<TlsStream<TcpStream>>> {
    let (sender, receiver) = mpsc::channel(1);
    let certificates = Certificates::new(files);
    tokio::spawn(accept(listener, certificates, trouble, sender));
    ReceiverStream::new(receiver)
}

async fn accept(
    listener: TcpListener,
    mut certificates: Certificates,
    trouble: Trouble,
    sender: mpsc::Sender<io::Result<TlsStream<TcpStream>>>,
) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let Ok(turn) = handshakes.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // That they cannot be read is told before somebody comes.
            _ = look.tick() => {
                tell(certificates.look().1, &trouble);
                continue;
            }
            () = sender.closed() => return,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "Flow API: no connection to be had");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (config, news) = certificates.look();
        tell(news, &trouble);
        let Some(config) = config else { continue };
        let sender = sender.clone();
        tokio::spawn(async move {
            match tokio::time::timeout(PATIENCE, TlsAcceptor::from(config).accept(stream)).await {
                Ok(Ok(stream)) => drop(sender.send(Ok(stream)).await),
                Ok(Err(error)) => debug!(%from, %error, "Flow API: no handshake"),
                Err(_) => debug!(%from, "Flow API: no handshake in time"),
            }
            drop(turn);
        });
    }
}

fn tell(news: Option<Option<String>>, trouble: &Trouble) {
    let Some(now) = news else { return };
    let changed = trouble.send_if_modified(|told| std::mem::replace(told, now.clone()) != now);
    match (now, changed) {
        (Some(why), true) => {
            warn!(%why, "Flow API: certificates cannot be used; those of before are, if there were any")
        }
        (None, _) => info!("Flow API: certificates read"),
        (Some(_), false) => {}
    }
}
