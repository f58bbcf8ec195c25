//! Watches the API server: one watch for each kind of object. What it tells is decided by [`shelf`]; here
//! is the I/O around it.
//!
//! ```text
//!  Namespace, Pod, Node, Service, EndpointSlice, NetworkPolicy, ClusterNetworkPolicy
//!      | a watch each: list, then changes; listed again when the server has forgotten where we were
//!      v
//!  typed object --objects--> model --shelf (per kind)--> [SourceEvent] --channel--> policy index
//! ```
//!
//! Objects are turned into the model one by one as they come, and what policy does not need of them is dropped at
//! once: no second copy of the cluster is held here. While the server is away what was told last holds.
//!
//! Identity is the one kind that is written as well, by [`registry`], and known here by [`numbers`] (ADR 0020).

pub mod events;
pub mod lease;
mod numbers;
pub mod registry;
pub mod rights;
mod search;
mod shelf;
mod watched;

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::TryStreamExt as _;
use k8s_openapi::api::{
    core::v1::{Namespace, Node, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{ApiResource, DynamicObject, GroupVersionKind, TypeMeta},
    runtime::watcher,
};
use objects::{Kind, ObjectName, Outcome, Problem};
use policy::model::{self, Object, PodKey};
use serde::de::DeserializeOwned;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tracing::{debug, info};

use self::{
    numbers::Numbers,
    registry::Registry,
    shelf::{PLACE, Refused, Shelf, Told},
    watched::watched,
};
use super::{SourceError, SourceEvent, SourceProblem, SourceStatus};

/// Batches that wait for the consumer at most.
const BATCHES: usize = 16;
/// Things told by watches that wait at most, and are taken together at most.
const TOLD: usize = 1024;
/// EndpointSlices of headless Services bear this label (Kubernetes documentation, "Well-Known Labels, Annotations and
/// Taints"): nothing stands for them.
const WITHOUT_HEADLESS: &str = "!service.kubernetes.io/headless";
/// Pause before a kind that the server does not have is looked for again.
const NO_SUCH_KIND: Duration = Duration::from_secs(30);

/// What is wrong with an object, and what stands in for it.
#[derive(Debug)]
struct Unread {
    problems: Vec<Problem>,
    closed: Option<Box<Object>>,
}

impl From<Vec<Problem>> for Unread {
    fn from(problems: Vec<Problem>) -> Self {
        Self { problems, closed: None }
    }
}

/// Turns an object of the server into one of the model, or says what is wrong with it.
type Convert<K> = fn(&K) -> Result<Object, Unread>;

/// What a watch says of its kind.
#[derive(Debug)]
enum Report {
    Told(Told),
    /// The server does not answer, or refuses; with its reason.
    Trouble(String),
}

/// What watches say.
#[derive(Debug)]
enum Message {
    /// Of a kind that is read.
    Of(Kind, Report),
    /// Of Identities.
    Number(numbers::Told),
    /// The server does not tell of Identities; with its reason.
    NumbersUnheard(String),
}

/// The API server, watched. Watching ends when this is dropped.
pub struct Kubernetes {
    status: watch::Receiver<Arc<SourceStatus>>,
    client: Client,
    registry: Registry,
    _watches: JoinSet<()>,
}

impl Debug for Kubernetes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kubernetes").field("status", &*self.status.borrow()).finish_non_exhaustive()
    }
}

impl Kubernetes {
    /// Starts to watch. The batch with which all is told that there was at the start ends with
    /// [`SourceEvent::Synced`].
    pub fn watch(client: Client) -> (Self, mpsc::Receiver<Vec<SourceEvent>>) {
        let (reports, desk) = mpsc::channel(TOLD);
        let (events, receiver) = mpsc::channel(BATCHES);
        let (status_sender, status) = watch::channel(Arc::default());
        let mut watches = JoinSet::new();
        let all = Api::<DynamicObject>::all_with;
        let policies = |kind: Kind| {
            let (group, version) = kind.api_version().split_once('/').unwrap_or(("", kind.api_version()));
            all(client.clone(), &ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind.as_str())))
        };
        let (network, cluster) = (policies(Kind::NetworkPolicy), policies(Kind::ClusterNetworkPolicy));
        let everything = watcher::Config::default;
        let slices = everything().labels(WITHOUT_HEADLESS);
        let to = || reports.clone();
        watches.spawn(follow(Kind::Namespace, Api::all(client.clone()), everything(), namespace, to()));
        watches.spawn(follow(Kind::Pod, Api::all(client.clone()), everything(), pod, to()));
        watches.spawn(follow(Kind::Node, Api::all(client.clone()), everything(), node, to()));
        watches.spawn(follow(Kind::Service, Api::all(client.clone()), everything(), service, to()));
        watches.spawn(follow(Kind::EndpointSlice, Api::all(client.clone()), slices, endpoint_slice, to()));
        watches.spawn(follow(Kind::NetworkPolicy, network, everything(), network_policy, to()));
        watches.spawn(follow(Kind::ClusterNetworkPolicy, cluster, everything(), cluster_policy, to()));
        let desk_of = Desk::default();
        let registry = Registry::new(client.clone(), desk_of.numbers.clone());
        watches.spawn(registry.clone().follow(reports));
        watches.spawn(desk_of.run(desk, events, status_sender));
        (Self { status, client, registry, _watches: watches }, receiver)
    }

    /// The numbers that the cluster shares.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// One who may look after what all nodes share.
    pub fn candidate(&self, namespace: &str, name: String) -> lease::Candidate {
        lease::Candidate::new(self.client.clone(), namespace, name)
    }

    /// What is in force and what stands wrong, for who wants to be told of changes. Of objects there are the
    /// policies only: pods are many, and where they were read is no question.
    pub fn status_receiver(&self) -> watch::Receiver<Arc<SourceStatus>> {
        self.status.clone()
    }

    /// The pod of this name as the server knows it now; `None` if there is none.
    ///
    /// # Errors
    /// The server does not answer, or the pod is none that we understand.
    pub async fn pod(&self, key: &PodKey) -> Result<Option<Found>, AskError> {
        let what = || format!("Pod {key}");
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let Some(found) = ask(api.get_opt(&key.name).await, what)? else { return Ok(None) };
        let mirrors = found.annotations().get(MIRROR).cloned();
        let pod = objects::pod::pod(&found).map_err(|problems| AskError::refused(what(), &problems))?;
        Ok(Some(Found { pod, mirrors }))
    }

    /// The node of this name as the server knows it now; `None` if there is none.
    ///
    /// # Errors
    /// The server does not answer, or the node is none that we understand.
    pub async fn node(&self, name: &str) -> Result<Option<model::Node>, AskError> {
        let what = || format!("Node {name}");
        let api: Api<Node> = Api::all(self.client.clone());
        let Some(found) = ask(api.get_opt(name).await, what)? else { return Ok(None) };
        objects::cluster_node::node(&found).map(Some).map_err(|problems| AskError::refused(what(), &problems))
    }
}

/// Annotation of the object that stands for a static pod, with the pod's own UID (Kubernetes documentation,
/// "Well-Known Labels, Annotations and Taints").
const MIRROR: &str = "kubernetes.io/config.mirror";

/// A pod that was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// The pod.
    pub pod: model::Pod,
    /// The UID of the static pod that it stands for.
    pub mirrors: Option<String>,
}

/// What the API server cannot tell.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// It does not answer, or refuses.
    #[error("asking the API server for {what}: {reason}")]
    NoAnswer {
        /// What was asked for.
        what: String,
        /// Why there is no answer.
        reason: String,
    },
    /// It has one that we do not understand.
    #[error("{what}: {reason}")]
    Refused {
        /// What was asked for.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl AskError {
    fn refused(what: String, problems: &[Problem]) -> Self {
        let reason = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        Self::Refused { what, reason }
    }
}

fn ask<T>(answer: kube::Result<T>, what: impl FnOnce() -> String) -> Result<T, AskError> {
    answer.map_err(|error| AskError::NoAnswer { what: what(), reason: whole(&error) })
}

/// Watches one kind for ever, and reports.
async fn follow<K>(kind: Kind, api: Api<K>, which: watcher::Config, convert: Convert<K>, reports: mpsc::Sender<Message>)
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut watched = watched(api, which);
    loop {
        let report = match watched.try_next().await {
            Ok(None) => return,
            Ok(Some(event)) => match told(kind, event, convert) {
                Some(told) => Report::Told(told),
                None => continue,
            },
            Err(error) if is_unknown_kind(&error) => {
                if reports.send(Message::Of(kind, Report::Told(Told::NoSuchKind))).await.is_err() {
                    return;
                }
                tokio::time::sleep(NO_SUCH_KIND).await;
                continue;
            }
            Err(error) => Report::Trouble(whole(&error)),
        };
        if reports.send(Message::Of(kind, report)).await.is_err() {
            return;
        }
    }
}

fn told<K: Resource>(kind: Kind, event: watcher::Event<K>, convert: Convert<K>) -> Option<Told> {
    Some(match event {
        watcher::Event::Init => Told::ListBegins,
        watcher::Event::InitDone => Told::ListEnds,
        watcher::Event::InitApply(object) | watcher::Event::Apply(object) => {
            Told::Present(Box::new(convert(&object).map_err(|Unread { problems, closed }| {
                let name = name(kind, &object);
                Refused { key: kind.key(&name), name, problems, closed }
            })))
        }
        watcher::Event::Delete(object) => Told::Gone(kind.key(&name(kind, &object))?),
    })
}

/// What an object calls itself.
fn name<K: Resource>(kind: Kind, object: &K) -> ObjectName {
    ObjectName { kind: kind.as_str().to_owned(), namespace: object.namespace(), name: object.meta().name.clone() }
}

fn namespace(object: &Namespace) -> Result<Object, Unread> {
    Ok(objects::namespace::namespace(object).map(Object::Namespace)?)
}

fn pod(object: &Pod) -> Result<Object, Unread> {
    Ok(objects::pod::pod(object).map(Object::from)?)
}

fn node(object: &Node) -> Result<Object, Unread> {
    Ok(objects::cluster_node::node(object).map(Object::Node)?)
}

fn service(object: &Service) -> Result<Object, Unread> {
    Ok(objects::service::service(object).map(Object::Service)?)
}

fn endpoint_slice(object: &EndpointSlice) -> Result<Object, Unread> {
    Ok(objects::endpoint_slice::endpoint_slice(object).map(Object::EndpointSlice)?)
}

fn network_policy(object: &DynamicObject) -> Result<Object, Unread> {
    policy(object, Kind::NetworkPolicy)
}

fn cluster_policy(object: &DynamicObject) -> Result<Object, Unread> {
    policy(object, Kind::ClusterNetworkPolicy)
}

/// Policies are read as a file with them would be: a field that we do not know would be passed over by a
/// type, and then the policy would mean something else than its author thinks.
fn policy(object: &DynamicObject, kind: Kind) -> Result<Object, Unread> {
    let mut object = object.clone();
    // Elements of a list do not say what they are; the list does.
    object.types = Some(TypeMeta { api_version: kind.api_version().to_owned(), kind: kind.as_str().to_owned() });
    let text = serde_json::to_vec(&object).unwrap_or_default();
    let mut read = objects::parse_documents(PLACE, &text);
    match read.pop().map(|document| (document.outcome, document.closed)) {
        Some((Outcome::Object(object), _)) => Ok(*object),
        Some((Outcome::Refused(error), closed)) => Err(Unread { problems: error.problems, closed }),
        Some((Outcome::Skipped { .. }, _)) | None => unreachable!("it says that it is of a kind that is read"),
    }
}

/// The server has no such kind: its definition is not installed.
fn is_unknown_kind(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 404,
        _ => false,
    }
}

/// An error with all its causes.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

fn lock(numbers: &Mutex<Numbers>) -> std::sync::MutexGuard<'_, Numbers> {
    numbers.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where the reports of all watches come together.
#[derive(Default)]
struct Desk {
    shelves: BTreeMap<Kind, Shelf>,
    numbers: Arc<Mutex<Numbers>>,
    /// What is wrong with watches, by kind; `None`: of Identities.
    troubles: BTreeMap<Option<Kind>, SourceError>,
    synced: bool,
}

impl Desk {
    async fn run(
        mut self,
        mut reports: mpsc::Receiver<Message>,
        events: mpsc::Sender<Vec<SourceEvent>>,
        status: watch::Sender<Arc<SourceStatus>>,
    ) {
        self.shelves = Kind::ALL.into_iter().map(|kind| (kind, Shelf::default())).collect();
        let mut waiting = Vec::new();
        while reports.recv_many(&mut waiting, TOLD).await > 0 {
            let mut batch = Vec::new();
            let mut news = false;
            for message in waiting.drain(..) {
                let (kind, report) = match message {
                    Message::Of(kind, report) => (kind, report),
                    Message::Number(told) => {
                        batch.extend(self.troubles.remove(&None).map(SourceEvent::Resolved));
                        lock(&self.numbers).take(told, &mut batch);
                        continue;
                    }
                    Message::NumbersUnheard(reason) => {
                        self.trouble(None, reason, &mut batch);
                        continue;
                    }
                };
                news |= kind >= Kind::NetworkPolicy;
                match report {
                    Report::Told(told) => {
                        batch.extend(self.troubles.remove(&Some(kind)).map(SourceEvent::Resolved));
                        if let Some(shelf) = self.shelves.get_mut(&kind) {
                            shelf.take(told, &mut batch);
                        }
                    }
                    Report::Trouble(reason) => self.trouble(Some(kind), reason, &mut batch),
                }
            }
            // Numbers too: without those that it has in the cluster each pod would get another for a moment.
            let all_read = self.shelves.values().all(Shelf::is_synced) && lock(&self.numbers).is_settled();
            if !self.synced && all_read {
                self.synced = true;
                info!("All objects have been read from the API server");
                batch.push(SourceEvent::Synced);
            }
            news |= batch
                .iter()
                .any(|event| matches!(event, SourceEvent::Error(_) | SourceEvent::Resolved(_) | SourceEvent::Synced));
            if news {
                status.send_replace(Arc::new(self.status()));
            }
            if batch.is_empty() {
                continue;
            }
            debug!(events = batch.len(), "The API server has told");
            if events.send(batch).await.is_err() {
                return;
            }
        }
    }

    fn trouble(&mut self, kind: Option<Kind>, reason: String, batch: &mut Vec<SourceEvent>) {
        let kept = match kind {
            Some(kind) => self.shelves.get(&kind).map_or(0, |shelf| shelf.keys().count()),
            None => lock(&self.numbers).iter().count(),
        };
        let error = SourceError {
            place: format!("{PLACE}, {}", kind.map_or(objects::identity::KIND, Kind::as_str)),
            key: None,
            problem: SourceProblem::Unreadable(reason),
            kept,
            closed: false,
        };
        if self.troubles.get(&kind) != Some(&error) {
            batch.extend(self.troubles.insert(kind, error.clone()).map(SourceEvent::Resolved));
            batch.push(SourceEvent::Error(error));
        }
    }

    fn status(&self) -> SourceStatus {
        let policies = [Kind::NetworkPolicy, Kind::ClusterNetworkPolicy];
        let keys = policies.iter().filter_map(|kind| self.shelves.get(kind)).flat_map(Shelf::keys);
        let numbers = lock(&self.numbers);
        let standing =
            self.shelves.values().flat_map(Shelf::errors).chain(numbers.errors()).chain(self.troubles.values());
        SourceStatus {
            synced: self.synced,
            objects: keys.map(|key| (key.clone(), shelf::origin())).collect(),
            errors: standing.cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests;
