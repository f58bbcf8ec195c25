//! Where objects come from in this run, and what becomes of them: the engine is told, and who follows the
//! nodes. [`crate::source`] has the sources themselves.

use std::{fmt, sync::Arc, time::Duration};

use anyhow::Context as _;
use ipnetwork::IpNetwork;
use kube::config::{KubeConfigOptions, Kubeconfig};
use policy::model::{Object, ObjectKey, PodKey};
use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};

use super::{
    engine::{Engine, EngineError},
    neighbours::Nodes,
    run::stopped,
    sharing::{self, NoNumber},
};
use crate::{
    config::Objects,
    source::{
        SourceEvent, SourceStatus,
        directory::{Directory, Options},
        kubernetes::{AskError, Kubernetes},
    },
    state::{PodRef, StateDir},
};

/// Pause before the API server is asked again.
const PAUSE: Duration = Duration::from_secs(1);
/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A source that is watched.
#[derive(Debug)]
pub(super) enum Source {
    Directory(Directory),
    Kubernetes(Arc<Kubernetes>),
}

/// Batches of a source.
pub(super) type Batches = mpsc::Receiver<Vec<SourceEvent>>;

impl Source {
    /// Begins to watch.
    pub(super) async fn open(objects: &Objects) -> anyhow::Result<(Self, Batches)> {
        match objects {
            Objects::Directory(folder) => {
                let (directory, batches) = Directory::watch(folder, Options::default())?;
                Ok((Self::Directory(directory), batches))
            }
            Objects::Kubernetes { kubeconfig, server } => {
                let mut config = match kubeconfig {
                    None => kube::Config::incluster().context(
                        "--source kubernetes: not in a pod of a cluster; run the agent as one, or name a kubeconfig",
                    )?,
                    Some(path) => {
                        let read = Kubeconfig::read_from(path)
                            .with_context(|| format!("--source kubernetes:{}", path.display()))?;
                        kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
                            .await
                            .with_context(|| format!("--source kubernetes:{}", path.display()))?
                    }
                };
                if let Some(server) = server {
                    config.cluster_url = server.clone();
                }
                let client = kube::Client::try_from(config).context("--source kubernetes")?;
                let (kubernetes, batches) = Kubernetes::watch(client);
                Ok((Self::Kubernetes(Arc::new(kubernetes)), batches))
            }
        }
    }

    /// What is in force and what stands wrong.
    pub(super) fn status_receiver(&self) -> watch::Receiver<Arc<SourceStatus>> {
        match self {
            Self::Directory(directory) => directory.status_receiver(),
            Self::Kubernetes(kubernetes) => kubernetes.status_receiver(),
        }
    }

    /// The ranges that this node's pods get their addresses from, as its Node object says. Waits for it: a new node
    /// gets them a moment after it has registered. While the server is away those that it told last hold.
    pub(super) async fn ranges(&self, node: &str, state: &StateDir) -> anyhow::Result<Vec<IpNetwork>> {
        let Self::Kubernetes(kubernetes) = self else { return Ok(crate::config::default_ranges()) };
        let mut told = String::new();
        loop {
            let reason = match tokio::time::timeout(PATIENCE, kubernetes.node(node)).await {
                Ok(Ok(Some(found))) if !found.pod_ranges.is_empty() => {
                    let ranges: Vec<IpNetwork> = found.pod_ranges.into_iter().collect();
                    state.put_ranges(&ranges)?;
                    return Ok(ranges);
                }
                Ok(Ok(Some(_))) => format!(
                    "Node {node} has no spec.podCIDRs yet: the controller manager gives them with --allocate-node-cidrs; \
                     or name ranges with --pool"
                ),
                Ok(Ok(None)) => {
                    format!("there is no Node {node}: --node-name has to be the name of this node's object")
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the API server does not answer".to_owned(),
            };
            let known = state.ranges()?;
            if !known.is_empty() {
                warn!(%reason, ranges = ?known, "Ranges of this node as they were told last");
                return Ok(known);
            }
            if told != reason {
                warn!(%reason, "Waiting for the ranges of this node's pods");
                told = reason;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Knows the pods that ADD is called for.
#[derive(Clone, Debug)]
pub struct Register {
    engine: Engine,
    kubernetes: Option<Arc<Kubernetes>>,
}

/// A pod that cannot be served now.
#[derive(Debug, thiserror::Error)]
pub enum UnknownPod {
    /// It is not there, or no longer.
    #[error("Pod {pod} with UID {uid:?} is not known to the API server; it has {found}")]
    Absent {
        /// Which.
        pod: PodKey,
        /// As the runtime says.
        uid: String,
        /// What there is instead.
        found: String,
    },
    /// Nobody says what labels it has.
    #[error("what labels Pod {pod} has is not known yet: {reason}")]
    Unanswered {
        /// Which.
        pod: PodKey,
        /// Why.
        reason: String,
    },
    /// Its identity has no number that other nodes know.
    #[error("the identity of Pod {pod} has no number yet: {reason}")]
    Unnumbered {
        /// Which.
        pod: PodKey,
        /// Why.
        reason: String,
    },
    /// The daemon shuts down.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl Register {
    pub(super) fn new(engine: Engine, source: &Source) -> Self {
        let kubernetes = match source {
            Source::Directory(_) => None,
            Source::Kubernetes(kubernetes) => Some(kubernetes.clone()),
        };
        Self { engine, kubernetes }
    }

    /// Makes sure that a pod's labels are known before its rules are made: a watch may be late, and without
    /// labels the pod could be open that should be isolated. And that its identity has a number that other nodes know, so
    /// that they know it from its first packet.
    pub async fn introduce(&self, pod: &PodRef) -> Result<(), UnknownPod> {
        let Some(kubernetes) = &self.kubernetes else { return Ok(()) };
        self.describe(kubernetes, pod).await?;
        let pod = PodKey::new(pod.namespace.clone(), pod.name.clone());
        match sharing::introduce(kubernetes.registry(), &self.engine, &pod).await {
            Ok(()) => Ok(()),
            Err(NoNumber::Engine(stopped)) => Err(stopped.into()),
            Err(NoNumber::Share(error)) => Err(UnknownPod::Unnumbered { pod, reason: error.to_string() }),
        }
    }

    async fn describe(&self, kubernetes: &Kubernetes, pod: &PodRef) -> Result<(), UnknownPod> {
        let PodRef { namespace, name, uid } = pod.clone();
        if uid.is_empty() {
            // No pod of a kubelet's, which says the UID.
            return Ok(());
        }
        let key = PodKey::new(namespace, name);
        let (asked, wanted) = (key.clone(), uid.clone());
        let known = self.engine.ask(move |state| {
            state.planner.index().pod(&asked).is_some_and(|pod| pod.uid == wanted && !pod.host_network)
        });
        if known.await? {
            return Ok(());
        }
        let unanswered = |reason| UnknownPod::Unanswered { pod: key.clone(), reason };
        let answer = tokio::time::timeout(PATIENCE, kubernetes.pod(&key)).await;
        let found = match answer {
            Ok(found) => found.map_err(|error: AskError| unanswered(error.to_string()))?,
            Err(_) => return Err(unanswered("the API server does not answer".to_owned())),
        };
        match found {
            // The object that stands for a static pod has a UID of its own, and says which pod it means.
            Some(found) if found.pod.uid == uid || found.mirrors.as_deref() == Some(&uid) => {
                debug!(pod = %key, "Pod asked for: the watch has not told of it yet");
                Ok(self.engine.objects(vec![found.pod.into()], Vec::new())?)
            }
            other => {
                let found =
                    other.map_or_else(|| "none".to_owned(), |found| format!("one with UID {:?}", found.pod.uid));
                Err(UnknownPod::Absent { pod: key, uid, found })
            }
        }
    }
}

/// Tells the engine what a source tells, and of nodes who follows them.
pub(super) async fn follow(
    mut batches: Batches,
    engine: Engine,
    nodes: watch::Sender<Option<Nodes>>,
    mut stop: watch::Receiver<bool>,
) {
    let mut known = Nodes::new();
    loop {
        let batch = tokio::select! {
            batch = batches.recv() => batch,
            () = stopped(&mut stop) => return,
        };
        let Some(batch) = batch else { return };
        let (mut apply, mut delete, mut synced) = (Vec::new(), Vec::new(), false);
        let (mut numbers, mut shared) = (Vec::new(), false);
        let mut moved = false;
        for event in batch {
            match event {
                SourceEvent::Apply(object, origin) => {
                    taken(&object, &origin);
                    if let Object::Node(node) = &object {
                        known.insert(node.name.clone(), node.clone());
                        moved = true;
                    }
                    apply.push(object);
                }
                SourceEvent::Delete(key) => {
                    if let ObjectKey::Node(name) = &key {
                        moved |= known.remove(name).is_some();
                    }
                    debug!(object = %key, "Object gone");
                    delete.push(key);
                }
                SourceEvent::Error(problem) => warn!(error = %problem, "Object refused"),
                SourceEvent::Resolved(problem) => info!(error = %problem, "Resolved"),
                SourceEvent::Number(number, key) => numbers.push((number, key)),
                SourceEvent::NumbersShared => shared = true,
                SourceEvent::Synced => synced = true,
            }
        }
        // Before the objects: who has a number in the cluster gets no other first.
        let told = if numbers.is_empty() { Ok(()) } else { engine.numbers(numbers) };
        let told = told.and_then(|()| if shared { engine.numbers_shared() } else { Ok(()) });
        let told = told
            .and_then(|()| engine.objects(apply, delete))
            .and_then(|()| if synced { engine.synced() } else { Ok(()) });
        if told.is_err() {
            return;
        }
        // Not before all are known: those that have not been told of yet would lose their routes.
        if synced || moved && nodes.borrow().is_some() {
            nodes.send_replace(Some(known.clone()));
        }
    }
}

/// Pods come and go all the time; what people write is worth a line.
fn taken(object: &Object, origin: &impl fmt::Display) {
    match object {
        Object::Pod(_) => debug!(object = %object.key(), %origin, "Object taken"),
        _ => info!(object = %object.key(), %origin, "Object taken"),
    }
}
