//! Makes, marks and removes the numbers that the cluster shares, and finds the number of a key. What is known of them is
//! in [`numbers`](super::numbers), what to try next in [`search`](super::search).

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::TryStreamExt as _;
use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, Client, ResourceExt as _,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams, Preconditions},
    runtime::watcher,
};
use objects::{Problem, identity};
use policy::IdentityKey;
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};
use tracing::{debug, info};

use super::{
    Message, NO_SUCH_KIND,
    numbers::{Entry, Numbers, Told},
    search::{Answer, Search, Step},
    watched::watched,
    whole,
};

/// Requests under way at most.
const REQUESTS: usize = 32;

/// What has been done, since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RegistryFigures {
    /// Numbers that the cluster has.
    pub numbers: u64,
    /// Keys for which a number was made or found by asking.
    pub found: u64,
    /// How long that took the last time.
    pub last: Duration,
    /// Times that none was found.
    pub failures: u64,
    /// Numbers tried that were somebody's.
    pub conflicts: u64,
}

#[derive(Debug, Default)]
struct Counters {
    found: AtomicU64,
    last_us: AtomicU64,
    failures: AtomicU64,
    conflicts: AtomicU64,
}

/// Why a key has no number.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ShareError {
    /// The server does not answer, or refuses.
    #[error("asking the API server for an identity number: {0}")]
    Server(String),
    /// None is free.
    #[error("no identity number is free for {0}")]
    Exhausted(String),
}

/// See the module. Clones are one.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    api: Api<DynamicObject>,
    resource: ApiResource,
    numbers: Arc<Mutex<Numbers>>,
    requests: Semaphore,
    /// Keys that are looked for.
    turns: Mutex<HashMap<IdentityKey, Arc<tokio::sync::Mutex<()>>>>,
    counters: Counters,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("figures", &self.figures()).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A number that nobody uses, and for how long that has been marked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Marked {
    /// Which.
    pub number: u32,
    /// `None`: it is not marked.
    pub for_long: Option<Duration>,
}

impl Registry {
    pub(super) fn new(client: Client, numbers: Arc<Mutex<Numbers>>) -> Self {
        let kind = GroupVersionKind::gvk(identity::GROUP, identity::VERSION, identity::KIND);
        let resource = ApiResource::from_gvk_with_plural(&kind, identity::PLURAL);
        Self(Arc::new(Inner {
            api: Api::all_with(client, &resource),
            resource,
            numbers,
            requests: Semaphore::new(REQUESTS),
            turns: Mutex::default(),
            counters: Counters::default(),
        }))
    }

    /// Whether the cluster has such numbers.
    pub fn is_available(&self) -> bool {
        lock(&self.0.numbers).is_available()
    }

    /// What has been done.
    pub fn figures(&self) -> RegistryFigures {
        let Counters { found, last_us, failures, conflicts } = &self.0.counters;
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RegistryFigures {
            numbers: lock(&self.0.numbers).iter().count() as u64,
            found: of(found),
            last: Duration::from_micros(of(last_us)),
            failures: of(failures),
            conflicts: of(conflicts),
        }
    }

    /// The number of a key if it is known and nobody has marked it as unused.
    pub fn known(&self, key: &IdentityKey) -> Option<u32> {
        lock(&self.0.numbers).of(key).filter(|entry| entry.unused.is_none()).map(|entry| entry.number)
    }

    /// The number of a key: the one there is, whose mark is taken off, or a new one.
    ///
    /// # Errors
    /// The server does not answer, or there is none.
    pub async fn share(&self, key: &IdentityKey) -> Result<u32, ShareError> {
        let turn = lock(&self.0.turns).entry(key.clone()).or_default().clone();
        let result = {
            let _turn = turn.lock().await;
            match self.known(key) {
                Some(number) => Ok(number),
                None => self.find(key).await,
            }
        };
        let mut turns = lock(&self.0.turns);
        // One in the map, one here.
        if Arc::strong_count(&turn) <= 2 {
            turns.remove(key);
        }
        result
    }

    async fn find(&self, key: &IdentityKey) -> Result<u32, ShareError> {
        let began = Instant::now();
        let counters = &self.0.counters;
        let result = self.search(key).await;
        match &result {
            Ok(number) => {
                debug!(number, %key, "Identity shared");
                counters.found.fetch_add(1, Ordering::Relaxed);
                counters.last_us.store(began.elapsed().as_micros() as u64, Ordering::Relaxed);
            }
            Err(_) => drop(counters.failures.fetch_add(1, Ordering::Relaxed)),
        }
        result
    }

    async fn search(&self, key: &IdentityKey) -> Result<u32, ShareError> {
        let marked = lock(&self.0.numbers).of(key).map(|entry| entry.number);
        if let Some(number) = marked
            && self.unmark(number).await?
        {
            return Ok(number);
        }
        let taken = |number: u32| lock(&self.0.numbers).is_taken(number, key);
        let (mut search, mut step) = Search::begin(key, taken);
        loop {
            let _request = self.0.requests.acquire().await.map_err(|error| ShareError::Server(error.to_string()))?;
            let answer = match step {
                Step::Create(number) => self.create(number, key).await?,
                Step::Read(number) => {
                    self.0.counters.conflicts.fetch_add(1, Ordering::Relaxed);
                    self.read(number).await?
                }
                Step::Done(number) => return Ok(number),
                Step::Exhausted => return Err(ShareError::Exhausted(key.to_string())),
            };
            step = search.next(answer, taken);
        }
    }

    async fn create(&self, number: u32, key: &IdentityKey) -> Result<Answer, ShareError> {
        let mut object = DynamicObject::new(&number.to_string(), &self.0.resource);
        object.data = json!({"spec": identity::object(number, key)["spec"]});
        match self.0.api.create(&PostParams::default(), &object).await {
            Ok(made) => {
                self.learn(&made);
                Ok(Answer::Created)
            }
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Answer::Exists),
            Err(error) => Err(ShareError::Server(whole(&error))),
        }
    }

    async fn read(&self, number: u32) -> Result<Answer, ShareError> {
        match self.0.api.get_opt(&number.to_string()).await {
            Ok(None) => Ok(Answer::Gone),
            Ok(Some(object)) => match entry(&object) {
                Err(_) => Ok(Answer::Unreadable),
                Ok(entry) => {
                    let answer = Answer::Is(IdentityKey::clone(&entry.key));
                    let marked = entry.unused.is_some();
                    self.learn(&object);
                    if marked && !self.unmark(number).await? { Ok(Answer::Gone) } else { Ok(answer) }
                }
            },
            Err(error) => Err(ShareError::Server(whole(&error))),
        }
    }

    /// What a request has told is known at once, whenever the watch tells of it.
    fn learn(&self, object: &DynamicObject) {
        if let Ok(entry) = entry(object) {
            lock(&self.0.numbers).learn(entry);
        }
    }

    /// Takes a mark off, so that nobody removes it. False if it is gone.
    async fn unmark(&self, number: u32) -> Result<bool, ShareError> {
        let patch = json!({"metadata": {"annotations": {(identity::UNUSED_SINCE): null}}});
        match self.0.api.patch(&number.to_string(), &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(object) => {
                self.learn(&object);
                Ok(true)
            }
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(false),
            Err(error) => Err(ShareError::Server(whole(&error))),
        }
    }

    /// Marks numbers that nobody uses, takes marks off those in use, and removes those that have been marked for as
    /// long as `grace`. Each only if it is as it was seen here.
    ///
    /// # Errors
    /// The server does not answer, or refuses.
    pub async fn tidy(&self, unused: &std::collections::BTreeSet<u32>, grace: Duration) -> Result<(), ShareError> {
        let now = Instant::now();
        let all: Vec<Entry> = lock(&self.0.numbers).iter().cloned().collect();
        for entry in all {
            let name = entry.number.to_string();
            let done = match (entry.unused, unused.contains(&entry.number)) {
                (None, true) => {
                    let since = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
                    let patch = json!({"metadata": {
                        "resourceVersion": entry.version,
                        "annotations": {(identity::UNUSED_SINCE): since},
                    }});
                    let patched = self.0.api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
                    patched.map(|object| self.learn(&object))
                }
                (Some(_), false) => {
                    self.unmark(entry.number).await?;
                    continue;
                }
                (Some(since), true) if now.saturating_duration_since(since) >= grace => {
                    let seen = Preconditions { uid: Some(entry.uid), resource_version: Some(entry.version) };
                    let how = DeleteParams { preconditions: Some(seen), ..DeleteParams::default() };
                    self.0
                        .api
                        .delete(&name, &how)
                        .await
                        .map(|_| info!(number = entry.number, "Identity removed: unused"))
                }
                (None, false) | (Some(_), true) => continue,
            };
            match done {
                Ok(()) => {}
                // Somebody was quicker.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                Err(error) => return Err(ShareError::Server(whole(&error))),
            }
        }
        Ok(())
    }

    /// Watches for ever, and reports.
    pub(super) async fn follow(self, reports: mpsc::Sender<Message>) {
        let mut watched = watched(self.0.api.clone(), watcher::Config::default());
        loop {
            let told = match watched.try_next().await {
                Ok(None) => return,
                Ok(Some(event)) => told(event),
                Err(error) => match without(&error) {
                    Some(reason) => {
                        if reports.send(Message::Number(Told::Without(reason))).await.is_err() {
                            return;
                        }
                        tokio::time::sleep(NO_SUCH_KIND).await;
                        continue;
                    }
                    None => {
                        if reports.send(Message::NumbersUnheard(whole(&error))).await.is_err() {
                            return;
                        }
                        continue;
                    }
                },
            };
            if reports.send(Message::Number(told)).await.is_err() {
                return;
            }
        }
    }
}

fn told(event: watcher::Event<DynamicObject>) -> Told {
    match event {
        watcher::Event::Init => Told::ListBegins,
        watcher::Event::InitDone => Told::ListEnds,
        watcher::Event::InitApply(object) | watcher::Event::Apply(object) => match entry(&object) {
            Ok(entry) => Told::Present(Box::new(entry)),
            Err(problems) => Told::Refused { name: object.name_any(), problems },
        },
        watcher::Event::Delete(object) => Told::Gone(object.name_any()),
    }
}

/// What an object says.
fn entry(object: &DynamicObject) -> Result<Entry, Vec<Problem>> {
    let (number, key) = identity::identity(&object.metadata, &object.data["spec"])?;
    Ok(Entry {
        number,
        key: Arc::new(key),
        uid: object.uid().unwrap_or_default(),
        version: object.resource_version().unwrap_or_default(),
        unused: object.annotations().contains_key(identity::UNUSED_SINCE).then(Instant::now),
    })
}

/// Why there can be no such numbers here, if that is so. That we may not read them is no reason: a server that has just started
/// says so until it knows its own rules, and a node that numbered identities by itself meanwhile would mean others than all nodes
/// around it.
fn without(error: &watcher::Error) -> Option<String> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
            if status.code == 404 =>
        {
            let why = "its definition is not installed";
            Some(format!("{why}: each node numbers identities by itself; apply the manifest of this version"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn only_a_definition_that_is_missing_lets_a_node_number_by_itself() {
        let answered = |code| {
            let status = Status::failure("no", "No").with_code(code);
            without(&watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status)))).is_some()
        };
        assert_eq!([404, 403, 401, 500, 503].map(answered), [true, false, false, false, false]);
    }
}
