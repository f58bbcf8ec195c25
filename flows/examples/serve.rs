//! Serves made-up flows over a unix socket, for trying clients of the Hubble API without a
//! cluster: `cargo run -p flows --features test-util --example serve -- /tmp/flows.sock`, then
//! `hubble observe --server unix:///tmp/flows.sock --follow`. Ends on Ctrl-C.

use std::{
    env,
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, SystemTime},
};

use flows::{Observer, ObserverConfig, Pipeline, enrich::WallClock, fixture};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = env::args().nth(1).ok_or("usage: serve SOCKET")?;
    let listener = UnixListener::bind(&path)?;
    let capacity = NonZeroUsize::new(1024).ok_or("not zero")?;
    let pipeline = Arc::new(Pipeline::new(fixture::node(), capacity));
    let config = ObserverConfig {
        version: concat!("bulkhead v", env!("CARGO_PKG_VERSION")).to_owned(),
        address: format!("unix://{path}"),
        ..ObserverConfig::default()
    };
    let observer = Observer::new(config, pipeline.clone());
    tokio::spawn(feed(pipeline));

    let closing = observer.clone();
    Server::builder()
        .add_service(observer.observer_service())
        .add_service(observer.peer_service())
        .add_service(observer.health_service())
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), async move {
            let _ = tokio::signal::ctrl_c().await;
            closing.close();
        })
        .await?;
    std::fs::remove_file(path)?;
    Ok(())
}

/// Six events every half second, and now and then a loss.
async fn feed(pipeline: Arc<Pipeline>) {
    let world = fixture::world();
    for round in 1u64.. {
        publish(&pipeline, &world, round);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn publish(pipeline: &Pipeline, world: &fixture::World, round: u64) {
    let events = [
        fixture::opened(),
        fixture::denied(),
        fixture::ping(),
        fixture::from_outside(),
        fixture::bad_packet(),
        fixture::closed(),
    ];
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
    // The last event is two seconds after the first.
    let clock = WallClock::new(fixture::START_NS + 2_000_000_000, now_ns);
    let mut batch = pipeline.batch(clock, world);
    for event in &events {
        if let Err(error) = batch.push(event) {
            eprintln!("{error}");
        }
    }
    drop(batch);
    if round.is_multiple_of(10) {
        pipeline.kernel_lost(round, Some(0), now_ns);
    }
}
