//! A daemon on a real unix socket, played with the generated server code.

use std::{path::Path, sync::mpsc, thread, time::Duration};

use proto::bulkhead::cni::v1::{
    AddReply, AddRequest, CheckReply, CheckRequest, CniResult, DelReply, DelRequest, GcReply, GcRequest, Interface, Ip,
    Route, StatusReply, StatusRequest, add_reply::Outcome, cni_server,
};
use tokio::{net::UnixListener, sync::oneshot};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

/// What it does with every request.
#[derive(Clone, Debug)]
pub(crate) enum Behaviour {
    Serve,
    /// Takes the request and does not answer.
    Hang,
    Fail(tonic::Code),
}

/// Stops when dropped.
pub(crate) struct Daemon {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
    /// The name of each call and the network and container it was about.
    pub(crate) heard: mpsc::Receiver<String>,
}

impl Daemon {
    pub(crate) fn start(socket: &Path, behaviour: Behaviour) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (tell, heard) = mpsc::channel();
        let (ready, is_ready) = mpsc::channel();
        let socket = socket.to_owned();
        let serve = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let stream = UnixListenerStream::new(UnixListener::bind(socket).unwrap());
                ready.send(()).unwrap();
                let service = cni_server::CniServer::new(Played { behaviour, tell });
                let serve = tonic::transport::Server::builder().add_service(service).serve_with_incoming(stream);
                // Not a graceful end: what hangs would hold it up.
                tokio::select! {
                    served = serve => served.unwrap(),
                    _ = stopped => {}
                }
            });
            runtime.shutdown_background();
        };
        let thread = thread::spawn(serve);
        is_ready.recv().unwrap();
        Self { stop: Some(stop), thread: Some(thread), heard }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

struct Played {
    behaviour: Behaviour,
    tell: mpsc::Sender<String>,
}

impl Played {
    async fn hear(&self, what: String) -> Result<(), Status> {
        self.tell.send(what).unwrap();
        match self.behaviour {
            Behaviour::Serve => Ok(()),
            Behaviour::Hang => {
                tokio::time::sleep(Duration::from_secs(3600)).await;
                Ok(())
            }
            Behaviour::Fail(code) => Err(Status::new(code, "played")),
        }
    }
}

#[tonic::async_trait]
impl cni_server::Cni for Played {
    async fn add(&self, request: Request<AddRequest>) -> Result<Response<AddReply>, Status> {
        let request = request.into_inner();
        let (id, netns) = (request.id.unwrap(), request.netns.unwrap());
        let pod = request.pod.unwrap();
        self.hear(format!("ADD {} {}/{} inode {}", id.ifname, pod.namespace, pod.name, netns.inode)).await?;
        let host = Interface { name: "bh0".into(), ..Interface::default() };
        let inside = Interface { name: id.ifname, sandbox: netns.path, ..Interface::default() };
        let result = CniResult {
            interfaces: vec![host, inside],
            ips: vec![Ip { address: "10.0.0.2/32".into(), gateway: String::new(), interface: Some(1) }],
            routes: vec![Route { dst: "0.0.0.0/0".into(), ..Route::default() }],
            dns: None,
        };
        Ok(Response::new(AddReply { outcome: Some(Outcome::Result(result)) }))
    }

    async fn del(&self, request: Request<DelRequest>) -> Result<Response<DelReply>, Status> {
        let request = request.into_inner();
        let ips = request.prev_result.map_or(0, |p| p.ips.len());
        self.hear(format!("DEL {} with {ips} addresses", request.id.unwrap().ifname)).await?;
        Ok(Response::new(DelReply { error: None }))
    }

    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckReply>, Status> {
        let request = request.into_inner();
        let ips = request.prev_result.map_or(0, |p| p.ips.len());
        self.hear(format!("CHECK {} with {ips} addresses", request.id.unwrap().ifname)).await?;
        Ok(Response::new(CheckReply { error: None }))
    }

    async fn gc(&self, request: Request<GcRequest>) -> Result<Response<GcReply>, Status> {
        let valid = request.into_inner().valid_attachments.map(|list| list.ids.len());
        self.hear(format!("GC {valid:?}")).await?;
        Ok(Response::new(GcReply { error: None, removed: 0 }))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        let network = request.into_inner().network.unwrap();
        self.hear(format!("STATUS {}", network.name)).await?;
        Ok(Response::new(StatusReply { error: None }))
    }
}
