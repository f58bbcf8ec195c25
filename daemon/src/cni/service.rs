//! The service: every call is timed, counted, and answered with a result or a CNI error, never
//! with a gRPC status, which would mean that there is no daemon.

use std::{future::Future, sync::Arc, time::Instant};

use proto::bulkhead::cni::v1::{self as wire, cni_server};
use tonic::{Request, Response, Status};
use tracing::{Instrument, debug, info_span, warn};

/// What the plugin can ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verb {
    /// ADD.
    Add,
    /// DEL.
    Del,
    /// CHECK.
    Check,
    /// GC.
    Gc,
    /// STATUS.
    Status,
}

impl Verb {
    /// As in CNI_COMMAND.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
        }
    }
}

/// Does what the plugin asks for.
pub trait Handler: Send + Sync + 'static {
    /// ADD.
    fn add(&self, request: wire::AddRequest) -> impl Future<Output = Result<wire::CniResult, wire::CniError>> + Send;
    /// DEL.
    fn del(&self, request: wire::DelRequest) -> impl Future<Output = Result<(), wire::CniError>> + Send;
    /// CHECK.
    fn check(&self, request: wire::CheckRequest) -> impl Future<Output = Result<(), wire::CniError>> + Send;
    /// GC: how many were removed, and what could not be.
    fn gc(&self, request: wire::GcRequest) -> impl Future<Output = (u32, Option<wire::CniError>)> + Send;
    /// STATUS.
    fn status(&self, request: wire::StatusRequest) -> impl Future<Output = Result<(), wire::CniError>> + Send;
    /// A call is over.
    fn observe(&self, verb: Verb, code: u32, took: std::time::Duration);
}

/// Serves a [`Handler`].
#[derive(Debug)]
pub struct Service<H>(Arc<H>);

impl<H: Handler> Service<H> {
    /// Around a handler.
    pub fn new(handler: Arc<H>) -> Self {
        Self(handler)
    }

    /// Runs one call to its end, also when the plugin hangs up: half an ADD is worse than one that
    /// nobody waits for, and the runtime calls DEL for it.
    async fn run<T: Send + 'static>(
        &self,
        verb: Verb,
        id: Option<&wire::AttachmentId>,
        call: impl Future<Output = (T, Option<wire::CniError>)> + Send + 'static,
    ) -> Result<(T, Option<wire::CniError>), Status> {
        let began = Instant::now();
        let (container_id, ifname) = id.map_or(("", ""), |id| (&*id.container_id, &*id.ifname));
        let span = info_span!("cni", verb = verb.name(), container_id, ifname);
        let task = tokio::spawn(call.instrument(span.clone()));
        let (reply, error) = task
            .await
            .map_err(|error| Status::internal(format!("{} did not come to its end: {error}", verb.name())))?;
        let code = error.as_ref().map_or(0, |error| error.code);
        let took = began.elapsed();
        self.0.observe(verb, code, took);
        // Each one's own time, which the histogram does not keep.
        debug!(parent: &span, code, took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX), "CNI call answered");
        if let Some(error) = &error {
            let _entered = span.enter();
            warn!(code, error = %error.msg, "CNI call failed");
        }
        Ok((reply, error))
    }
}

fn split<T: Default>(result: Result<T, wire::CniError>) -> (T, Option<wire::CniError>) {
    match result {
        Ok(value) => (value, None),
        Err(error) => (T::default(), Some(error)),
    }
}

#[tonic::async_trait]
impl<H: Handler> cni_server::Cni for Service<H> {
    async fn add(&self, request: Request<wire::AddRequest>) -> Result<Response<wire::AddReply>, Status> {
        let (request, handler) = (request.into_inner(), self.0.clone());
        let id = request.id.clone();
        let (result, error) =
            self.run(Verb::Add, id.as_ref(), async move { split(handler.add(request).await) }).await?;
        let outcome = match error {
            None => wire::add_reply::Outcome::Result(result),
            Some(error) => wire::add_reply::Outcome::Error(error),
        };
        Ok(Response::new(wire::AddReply { outcome: Some(outcome) }))
    }

    async fn del(&self, request: Request<wire::DelRequest>) -> Result<Response<wire::DelReply>, Status> {
        let (request, handler) = (request.into_inner(), self.0.clone());
        let id = request.id.clone();
        let ((), error) = self.run(Verb::Del, id.as_ref(), async move { split(handler.del(request).await) }).await?;
        Ok(Response::new(wire::DelReply { error }))
    }

    async fn check(&self, request: Request<wire::CheckRequest>) -> Result<Response<wire::CheckReply>, Status> {
        let (request, handler) = (request.into_inner(), self.0.clone());
        let id = request.id.clone();
        let ((), error) =
            self.run(Verb::Check, id.as_ref(), async move { split(handler.check(request).await) }).await?;
        Ok(Response::new(wire::CheckReply { error }))
    }

    async fn gc(&self, request: Request<wire::GcRequest>) -> Result<Response<wire::GcReply>, Status> {
        let (request, handler) = (request.into_inner(), self.0.clone());
        let (removed, error) = self.run(Verb::Gc, None, async move { handler.gc(request).await }).await?;
        Ok(Response::new(wire::GcReply { error, removed }))
    }

    async fn status(&self, request: Request<wire::StatusRequest>) -> Result<Response<wire::StatusReply>, Status> {
        let (request, handler) = (request.into_inner(), self.0.clone());
        let ((), error) = self.run(Verb::Status, None, async move { split(handler.status(request).await) }).await?;
        Ok(Response::new(wire::StatusReply { error }))
    }
}
