//! `bulkhead-daemon run`.

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
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            info!("Told to stop");
            let _ = stopper.send(true);
        });
        app::run::run(config, stop).await
    });
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    result
}
