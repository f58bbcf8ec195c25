//! The node's own addresses, now and whenever they change.
//!
//! A notification says only that something changed: the set is read anew each time, so notifications
//! that were lost cost nothing. A subscription that ends is made again, and the set read once more.

use std::{collections::BTreeSet, net::IpAddr, pin::Pin, time::Duration};

use futures::{FutureExt, Stream, StreamExt, future::BoxFuture};
use rtnetlink::MulticastGroup;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::{NetError, Node, host::own_addresses};

/// Pause before a subscription that has ended is tried again.
const PAUSE: Duration = Duration::from_millis(100);
/// It doubles up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// That something has changed; ends when the subscription does.
type Notifications = Pin<Box<dyn Stream<Item = ()> + Send>>;

type Addresses = BTreeSet<IpAddr>;

/// Where addresses come from.
trait Source: Send + Sync + 'static {
    /// Subscribes to changes.
    fn subscribe(&self) -> BoxFuture<'_, Result<Notifications, NetError>>;
    /// Reads all addresses.
    fn look(&self) -> BoxFuture<'_, Result<Addresses, NetError>>;
}

impl Source for Node {
    fn subscribe(&self) -> BoxFuture<'_, Result<Notifications, NetError>> {
        Box::pin(subscribe(self))
    }

    fn look(&self) -> BoxFuture<'_, Result<Addresses, NetError>> {
        Box::pin(own_addresses(self))
    }
}

/// The node's own addresses (see [`own_addresses`]) for as long as the receiver lives.
///
/// # Errors
/// The first subscription or the first look failed.
pub async fn watch_own_addresses(node: &Node) -> Result<watch::Receiver<Addresses>, NetError> {
    watch(node.clone()).await
}

async fn subscribe(node: &Node) -> Result<Notifications, NetError> {
    let groups = [MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
    let runtime = tokio::runtime::Handle::current();
    let subscribed = node
        .netns()
        .run(move || {
            let _context = runtime.enter();
            rtnetlink::new_multicast_connection(&groups)
        })
        .await?;
    let (connection, handle, notifications) = subscribed.map_err(|source| NetError::Refused {
        action: "subscribe to",
        object: "address changes".into(),
        said: String::new(),
        source,
    })?;
    tokio::spawn(connection);
    // The connection lives as long as its handle.
    Ok(Box::pin(notifications.map(move |_| {
        let _ = &handle;
    })))
}

async fn watch(source: impl Source) -> Result<watch::Receiver<Addresses>, NetError> {
    // Subscribed first, read after: what changes in between is notified.
    let mut notifications = source.subscribe().await?;
    let (known, receiver) = watch::channel(source.look().await?);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = known.closed() => return,
                notification = notifications.next() => if notification.is_none() {
                    warn!("Notifications of address changes ended: subscribing anew");
                    match again(&source, &known).await {
                        Some(anew) => notifications = anew,
                        None => return,
                    }
                },
            }
            // Many come at once; one reading serves them all.
            while let Some(Some(())) = notifications.next().now_or_never() {}
            match source.look().await {
                Ok(addresses) => {
                    let changed = known.send_if_modified(|now| {
                        let differs = *now != addresses;
                        *now = addresses;
                        differs
                    });
                    debug!(changed, "Addresses of the node");
                }
                Err(error) => warn!(%error, "Addresses of the node are not known anew"),
            }
        }
    });
    Ok(receiver)
}

/// Subscribes until that succeeds; `None` if nobody wants to know any more.
async fn again(source: &impl Source, known: &watch::Sender<Addresses>) -> Option<Notifications> {
    let mut pause = PAUSE;
    loop {
        tokio::select! {
            () = known.closed() => return None,
            () = tokio::time::sleep(pause) => {}
        }
        match source.subscribe().await {
            Ok(notifications) => {
                info!("Address changes are notified again");
                return Some(notifications);
            }
            Err(error) => warn!(%error, "Address changes are not notified"),
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::Ipv4Addr,
        sync::{
            Arc, Mutex,
            atomic::{AtomicU8, Ordering},
        },
    };

    use futures::{channel::mpsc, stream};

    use super::*;

    /// Each subscription takes the next script; looks say how many addresses there are.
    #[derive(Clone, Default)]
    struct Scripted {
        subscriptions: Arc<Mutex<Vec<Option<Told>>>>,
        addresses: Arc<AtomicU8>,
    }

    /// What a test sends.
    type Told = mpsc::UnboundedReceiver<()>;

    impl Source for Scripted {
        fn subscribe(&self) -> BoxFuture<'_, Result<Notifications, NetError>> {
            let next = self.subscriptions.lock().unwrap().pop();
            Box::pin(async move {
                match next {
                    Some(Some(receiver)) => Ok(Box::pin(receiver) as Notifications),
                    Some(None) => Err(NetError::Closed { action: "subscribe to", object: "changes".into() }),
                    None => Ok(Box::pin(stream::pending()) as Notifications),
                }
            })
        }

        fn look(&self) -> BoxFuture<'_, Result<Addresses, NetError>> {
            let count = self.addresses.load(Ordering::Relaxed);
            Box::pin(async move { Ok((0..count).map(|last| Ipv4Addr::new(192, 0, 2, last).into()).collect()) })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_subscription_that_ends_is_made_again_and_nothing_is_missed() {
        let source = Scripted::default();
        let (first, one) = mpsc::unbounded();
        let (second, two) = mpsc::unbounded();
        // Taken from the end: one that works, one that fails, one that works.
        *source.subscriptions.lock().unwrap() = vec![Some(two), None, Some(one)];
        source.addresses.store(1, Ordering::Relaxed);
        let mut known = watch(source.clone()).await.unwrap();
        assert_eq!(known.borrow_and_update().len(), 1);

        source.addresses.store(2, Ordering::Relaxed);
        first.unbounded_send(()).unwrap();
        known.changed().await.unwrap();
        assert_eq!(known.borrow_and_update().len(), 2);

        // What changes while nobody is told is found by the look afterwards.
        source.addresses.store(3, Ordering::Relaxed);
        drop(first);
        known.changed().await.unwrap();
        assert_eq!(known.borrow_and_update().len(), 3);
        assert!(source.subscriptions.lock().unwrap().is_empty());

        source.addresses.store(4, Ordering::Relaxed);
        second.unbounded_send(()).unwrap();
        known.changed().await.unwrap();
        assert_eq!(known.borrow_and_update().len(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_with_the_last_receiver() {
        let source = Scripted::default();
        let (first, one) = mpsc::unbounded();
        *source.subscriptions.lock().unwrap() = vec![Some(one)];
        drop(watch(source).await.unwrap());
        // The task drops what it has subscribed to.
        while !first.is_closed() {
            tokio::task::yield_now().await;
        }
    }
}
