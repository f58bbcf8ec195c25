//! `bulkhead-daemon run`.

use std::{future::Future, io};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing::info;

use crate::{app, args::RunArgs, config::Config, telemetry};

/// Runs the agent until SIGTERM or SIGINT.
pub fn run(args: &RunArgs) -> anyhow::Result<()> {
    let config = Config::try_from(args)?;
    telemetry::logging::init(config.log_format.into(), &config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build()?;
    let result = runtime.block_on(async {
        let (stopper, stop) = watch::channel(false);
        let told = told_to_stop()?;
        tokio::spawn(async move {
            told.await;
            info!("Told to stop");
            let _ = stopper.send(true);
        });
        app::run::run(config, stop).await
    });
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    result
}

/// SIGTERM or SIGINT, from now on.
pub(super) fn told_to_stop() -> io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
