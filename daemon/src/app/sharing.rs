//! Sees to it that identities have numbers that all nodes share: those of a pod before it starts, those of pods whose
//! labels have changed when that is noticed. And that numbers which nobody uses go, which one node does for all.
//!
//! A pod whose identity has no such number yet has one of this node's own, by which rules hold just as well. What it lacks
//! is that other nodes know it by its packets alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use policy::{IdentityKey, model::PodKey};
use tokio::sync::watch;
use tracing::{debug, warn};

use super::{
    engine::{Engine, EngineError},
    run::stopped,
};
use crate::{
    reconcile::Unshared,
    source::kubernetes::{
        lease::Candidate,
        registry::{Registry, ShareError},
    },
};

/// How long the pods of other nodes may be without a number before this node makes one: theirs does so at once, if it
/// is there and of this version.
const NOT_OURS: Duration = Duration::from_secs(5);
/// How long the API server may take for a pod that starts.
const ADD_PATIENCE: Duration = Duration::from_secs(5);
/// How long the API server may take for all that are looked for at a time.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause before it is asked again.
const PAUSE: Duration = Duration::from_secs(1);
/// Pauses between two looks for numbers that nobody uses: a quarter of the grace, within these.
const LEAST_PAUSE: Duration = Duration::from_secs(1);
const MOST_PAUSE: Duration = Duration::from_secs(20);
/// Pause between two looks at whether all has been read, for a pod that starts.
const LOOK: Duration = Duration::from_millis(20);
/// How long a namespace may be unknown whose pod starts.
const NAMESPACE: Duration = Duration::from_millis(500);

/// Why a pod has no number.
#[derive(Debug, thiserror::Error)]
pub enum NoNumber {
    /// There is none to be had now.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// The daemon shuts down.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Finds the number of a key, and tells the engine of it.
async fn share(registry: &Registry, engine: &Engine, key: &IdentityKey) -> Result<(), NoNumber> {
    let number = registry.share(key).await?;
    Ok(engine.numbers(vec![(number, Some(Arc::new(key.clone())))])?)
}

/// Sees to it that a pod that is about to start has a number, if the cluster has any.
///
/// # Errors
/// It has none, and cannot get one now.
pub(super) async fn introduce(registry: &Registry, engine: &Engine, pod: &PodKey) -> Result<(), NoNumber> {
    let began = Instant::now();
    let (key, number) = loop {
        let asked = pod.clone();
        let (read, known, standing) = engine
            .ask(move |state| {
                let known = state.planner.index().namespace(&asked.namespace).is_some();
                (state.synced, known, state.planner.standing(&asked))
            })
            .await?;
        // What is read later may change what the pod is; nothing starts before that.
        if read && (known || began.elapsed() > NAMESPACE) {
            break standing;
        }
        tokio::time::sleep(LOOK).await;
    };
    if !registry.is_available() || number.is_some() && number == registry.known(&key) {
        return Ok(());
    }
    let patience = tokio::time::timeout(ADD_PATIENCE, share(registry, engine, &key)).await;
    patience.unwrap_or_else(|_| Err(ShareError::Server("it does not answer".to_owned()).into()))
}

/// Finds numbers for those that have none, as the engine tells of them.
pub(super) async fn keep(registry: Registry, engine: Engine, mut stop: watch::Receiver<bool>) {
    let mut unshared = engine.unshared();
    let mut since: BTreeMap<IdentityKey, Instant> = BTreeMap::new();
    let mut told = String::new();
    loop {
        let wanted = unshared.borrow_and_update().clone();
        let keys: BTreeSet<&IdentityKey> = wanted.iter().map(|it| &it.key).collect();
        since.retain(|key, _| keys.contains(key));
        let now = Instant::now();
        let due = due(&wanted, &mut since, now);
        let all = due.iter().map(|key| share(&registry, &engine, key));
        let work = tokio::time::timeout(PATIENCE, futures::future::join_all(all));
        let done = tokio::select! {
            done = work => done,
            () = stopped(&mut stop) => return,
        };
        let problem = match done {
            Ok(all) => all.into_iter().find_map(Result::err).map(|error| error.to_string()),
            Err(_) => Some("the API server does not answer".to_owned()),
        };
        match problem {
            Some(problem) if problem != told => {
                warn!(error = %problem, "Identities without a number of the cluster: it is tried again");
                told = problem;
            }
            Some(_) => {}
            None => told.clear(),
        }
        let quiet = wanted.is_empty();
        tokio::select! {
            changed = unshared.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(PAUSE), if !quiet => {}
            () = stopped(&mut stop) => return,
        }
    }
}

/// Those whose turn it is: of this node at once, of others after a while.
fn due(wanted: &BTreeSet<Unshared>, since: &mut BTreeMap<IdentityKey, Instant>, now: Instant) -> Vec<IdentityKey> {
    let due = wanted.iter().filter(|it| {
        let since = *since.entry(it.key.clone()).or_insert(now);
        it.local || now.saturating_duration_since(since) >= NOT_OURS
    });
    due.map(|it| it.key.clone()).collect()
}

/// Looks after numbers that nobody uses, if it is this node's turn.
pub(super) async fn tidy(
    registry: Registry,
    mut candidate: Candidate,
    engine: Engine,
    grace: Duration,
    mut stop: watch::Receiver<bool>,
) {
    let mut clock = tokio::time::interval((grace / 4).clamp(LEAST_PAUSE, MOST_PAUSE));
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = clock.tick() => {}
            () = stopped(&mut stop) => return,
        }
        if !registry.is_available() {
            continue;
        }
        // Before the source has told of them, everybody's pods are missing.
        let Ok(unused) = engine.ask(|state| state.synced.then(|| state.planner.unused())).await else { return };
        let Some(unused) = unused else { continue };
        let work = async {
            if !candidate.leads().await? {
                return Ok(());
            }
            registry.tidy(&unused, grace).await.map_err(|error| error.to_string())
        };
        let done: Result<Result<(), String>, _> = tokio::select! {
            done = tokio::time::timeout(PATIENCE, work) => done,
            () = stopped(&mut stop) => return,
        };
        if let Ok(Err(problem)) = done {
            debug!(error = %problem, "Numbers that nobody uses are not looked after now");
        }
    }
}

#[cfg(test)]
mod tests {
    use policy::model::Labels;

    use super::*;

    #[test]
    fn a_node_looks_for_its_own_at_once_and_for_others_when_nobody_else_does() {
        let unshared = |namespace: &str, local| Unshared {
            key: IdentityKey {
                namespace: namespace.to_owned(),
                namespace_labels: Labels::default(),
                labels: Labels::default(),
                service_account: "default".to_owned(),
            },
            local,
        };
        let wanted: BTreeSet<Unshared> = [unshared("here", true), unshared("there", false)].into();
        let mut since = BTreeMap::new();
        let begin = Instant::now();
        let mut at = |after: u64| -> Vec<String> {
            let due = due(&wanted, &mut since, begin + Duration::from_secs(after));
            due.into_iter().map(|key| key.namespace).collect()
        };
        assert_eq!((at(0), at(4)), (vec!["here".to_owned()], vec!["here".to_owned()]));
        assert_eq!(at(5), ["here", "there"]);
    }
}
