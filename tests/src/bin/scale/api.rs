//! The cluster's API server, asked many things at a time. `kubectl` would be a process for each.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use ::tests::{cluster::control::Control, netns::Netns};
use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::{
    Client,
    config::{KubeConfigOptions, Kubeconfig},
    core::WatchEvent,
};
use serde_json::Value;
use tokio::{runtime::Runtime, sync::mpsc};

use crate::interrupt;

/// How many requests are under way at a time.
const AT_ONCE: usize = 16;
/// How many are made between two lines of progress.
const BATCH: usize = 1000;
/// Threads that talk, which leave processors for those that answer.
const THREADS: usize = 2;

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    method: &'static str,
    path: String,
    body: Option<Value>,
}

impl Call {
    /// Makes an object in a collection.
    pub(crate) fn create(collection: impl Into<String>, object: Value) -> Self {
        Self { method: "POST", path: collection.into(), body: Some(object) }
    }

    /// Changes fields of an object (RFC 7396).
    pub(crate) fn merge(path: impl Into<String>, fields: Value) -> Self {
        Self { method: "PATCH", path: path.into(), body: Some(fields) }
    }

    /// Removes objects.
    pub(crate) fn delete(path: impl Into<String>) -> Self {
        Self { method: "DELETE", path: path.into(), body: None }
    }

    /// Reads.
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self { method: "GET", path: path.into(), body: None }
    }
}

/// A client in the control plane's network.
pub(crate) struct Api {
    client: Client,
    runtime: Runtime,
}

impl Api {
    /// As an administrator.
    pub(crate) fn of(control: &Control) -> anyhow::Result<Self> {
        let netns = Netns::open(Path::new(&format!("/proc/{}/ns/net", control.room.holder())))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .on_thread_start(move || match netns.enter() {
                // These threads never do anything elsewhere.
                Ok(inside) => std::mem::forget(inside),
                Err(error) => eprintln!("a thread cannot reach the API server: {error:#}"),
            })
            .enable_all()
            .build()?;
        let read = Kubeconfig::read_from(control.admin_config()).context("the administrator's kubeconfig")?;
        let made = runtime.spawn(async move {
            let config = kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?;
            anyhow::Ok(Client::try_from(config)?)
        });
        let client = runtime.block_on(made)??;
        Ok(Self { client, runtime })
    }

    /// Makes one request; returns what was answered.
    ///
    /// # Errors
    /// The API server refuses it, in its words.
    pub(crate) fn ask(&self, call: Call) -> anyhow::Result<Value> {
        self.runtime.block_on(self.runtime.spawn(send(self.client.clone(), call)))?
    }

    /// Makes requests, several at a time, in no order.
    ///
    /// # Errors
    /// The first that is refused, or ctrl-c; then some have been made and some not.
    pub(crate) fn all(&self, what: &str, calls: Vec<Call>) -> anyhow::Result<()> {
        let (count, done) = (calls.len(), Arc::new(AtomicUsize::new(0)));
        let client = self.client.clone();
        let counted = Arc::clone(&done);
        let what = what.to_owned();
        let task = self.runtime.spawn(async move {
            let requests = calls.into_iter().map(|call| {
                let (client, done, what) = (client.clone(), Arc::clone(&counted), what.clone());
                async move {
                    interrupt::check()?;
                    send(client, call).await?;
                    let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                    if done.is_multiple_of(BATCH) && done < count {
                        crate::say(&format!("{what}: {done} of {count}"));
                    }
                    anyhow::Ok(())
                }
            });
            stream::iter(requests).buffer_unordered(AT_ONCE).try_for_each(|()| async { Ok(()) }).await
        });
        self.runtime.block_on(task)??;
        ensure!(done.load(Ordering::Relaxed) == count, "some requests were not made");
        Ok(())
    }

    /// Requests that all begin at the same time, each in a task of its own. Returns when each was answered, in their order.
    pub(crate) fn at_once(&self, calls: Vec<Call>) -> anyhow::Result<()> {
        let tasks: Vec<_> = calls.into_iter().map(|call| self.runtime.spawn(send(self.client.clone(), call))).collect();
        tasks.into_iter().try_for_each(|task| self.runtime.block_on(task)?.map(drop))
    }

    /// Objects of a collection as they change from now on. Ends when the receiver is dropped.
    pub(crate) fn watch(&self, path: &str, selector: &str) -> anyhow::Result<mpsc::UnboundedReceiver<Value>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let client = self.client.clone();
        let path = format!("{path}?watch=1&labelSelector={selector}");
        let (began, begun) = std::sync::mpsc::channel();
        self.runtime.spawn(async move {
            let request = http::Request::get(path).body(Vec::new())?;
            let mut events = std::pin::pin!(client.request_events::<Value>(request).await?);
            let _ = began.send(());
            while let Some(event) = events.try_next().await? {
                if let WatchEvent::Added(object) | WatchEvent::Modified(object) = event
                    && sender.send(object).is_err()
                {
                    break;
                }
            }
            anyhow::Ok(())
        });
        begun.recv().context("the API server refuses a watch")?;
        Ok(receiver)
    }

    /// Does something again and again until the program ends. What fails is tried again the next time.
    pub(crate) fn repeat(&self, every: std::time::Duration, calls: impl Fn() -> Vec<Call> + Send + 'static) {
        let client = self.client.clone();
        self.runtime.spawn(async move {
            let mut ticks = tokio::time::interval(every);
            loop {
                ticks.tick().await;
                let requests = calls().into_iter().map(|call| send(client.clone(), call));
                stream::iter(requests).buffer_unordered(2).for_each(|_| async {}).await;
            }
        });
    }
}

async fn send(client: Client, call: Call) -> anyhow::Result<Value> {
    let Call { method, path, body } = call;
    let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
    let request = http::Request::builder().method(method).uri(&path).header("content-type", kind).body(body)?;
    client.request::<Value>(request).await.with_context(|| format!("{method} {path}"))
}
