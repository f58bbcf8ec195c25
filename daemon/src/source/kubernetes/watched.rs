//! One watch that never ends: lists, follows, and lists again when the server has forgotten where it was.

use std::{fmt::Debug, time::Duration};

use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use kube::{
    Api, Resource,
    runtime::{WatchStreamExt as _, watcher},
};
use serde::de::DeserializeOwned;

/// Pause before all is listed anew. The watcher's own pauses begin anew with it, and must not add up to none.
const PAUSE: Duration = Duration::from_secs(1);

/// What is told by a watch.
pub(super) type Watched<K> = BoxStream<'static, Result<watcher::Event<K>, watcher::Error>>;

/// Watches. Errors are followed by another try, after growing pauses.
pub(super) fn watched<K>(api: Api<K>, which: watcher::Config) -> Watched<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let begin = move || watcher(api.clone(), which.clone()).default_backoff().boxed();
    let first = begin();
    stream::unfold((begin, first, false), |(begin, mut watch, anew)| async move {
        if anew {
            tokio::time::sleep(PAUSE).await;
            watch = begin();
        }
        let next = watch.next().await?;
        let anew = next.as_ref().is_err_and(is_forgotten);
        Some((next, (begin, watch, anew)))
    })
    .boxed()
}

/// The server refuses to go on from where we were, by status. The watcher knows that only as an event in a watch (kube-runtime
/// 5.0.0, `step_trampolined`), and would ask for ever.
fn is_forgotten(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(kube::Error::Api(status)) if status.code == 410)
}
