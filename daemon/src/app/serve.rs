//! The servers of this node: who connects is served.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::Context as _;
use flows::{Observer, observer::Peers};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    service::interceptor::InterceptedService,
    transport::{Server, server::Router},
};
use tracing::{error, info};

use super::{neighbours::Nodes, run::until};
use crate::flow_api::{self, FlowApi, Manner, TlsFiles, name_caller};

/// The flow API's services, that know who asks.
pub(super) fn flow_services(observer: &Observer) -> Router {
    Server::builder()
        .add_service(InterceptedService::new(observer.observer_service(), name_caller))
        .add_service(observer.peer_service())
        .add_service(observer.health_service())
}

/// The flow API for other machines.
#[derive(Debug)]
pub(super) struct Remote {
    listener: TcpListener,
    tls: Option<TlsFiles>,
    port: u16,
}

impl Remote {
    /// Listens. Nobody is served yet.
    ///
    /// # Errors
    /// The address cannot be had.
    pub(super) async fn bind(api: FlowApi) -> anyhow::Result<Self> {
        let FlowApi { address, tls } = api;
        let listener = TcpListener::bind(address).await.with_context(|| format!("--flow-listen {address}"))?;
        let port = listener.local_addr()?.port();
        Ok(Self { listener, tls, port })
    }

    /// Keeps `peers` up to date with the nodes of the cluster; without one it is this node alone, at one of `own`.
    pub(super) fn tell_peers(
        &self,
        (node, cluster): (String, String),
        own: BTreeSet<IpAddr>,
        mut nodes: watch::Receiver<Option<Nodes>>,
        peers: watch::Sender<Peers>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (port, tls) = (self.port, self.tls.is_some());
        async move {
            let manner = Manner { cluster: &cluster, port, tls };
            let ip = own.into_iter().find(|ip| !ip.is_loopback());
            loop {
                let known = nodes.borrow_and_update().clone().unwrap_or_default();
                let mut all = flow_api::of_nodes(known.values(), manner);
                if let (true, Some(ip)) = (all.is_empty(), ip) {
                    all = flow_api::myself(&node, ip, manner);
                }
                peers.send_if_modified(|told| std::mem::replace(told, all.clone()) != all);
                if nodes.changed().await.is_err() {
                    return;
                }
            }
        }
    }

    /// Serves until `stop` says so. `trouble` has what is wrong with the certificates.
    pub(super) fn serve(
        self,
        router: Router,
        trouble: flow_api::Trouble,
        stop: watch::Receiver<bool>,
        tasks: &mut JoinSet<()>,
    ) {
        let Self { listener, tls, port } = self;
        info!(port, tls = tls.is_some(), "Flows are served to other machines");
        tasks.spawn(async move {
            let ended = match tls {
                Some(files) => {
                    let incoming = flow_api::incoming(listener, files, trouble);
                    router.serve_with_incoming_shutdown(incoming, until(stop)).await
                }
                None => router.serve_with_incoming_shutdown(TcpListenerStream::new(listener), until(stop)).await,
            };
            if let Err(error) = ended {
                error!(%error, "Flow API ended");
            }
        });
    }
}
