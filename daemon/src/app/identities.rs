//! Numbers of identities over time: written down before the kernel is told of them, given back when nobody has had
//! them for long. Which are free as far as objects and rules go is decided by the planner; connections are asked here.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use policy::IdentityKey;
use tokio::sync::watch;
use tracing::warn;

use super::{
    admin::Connections,
    engine::{Engine, KeepIdentities},
    run::stopped,
};
use crate::{
    datapath::connections::{Dumped, Table},
    state::{IdentityBook, IdentityRecord, StateDir},
};

/// Pauses between two looks for identities that nobody has any more: a quarter of the grace, within these.
const LEAST_IDENTITY_PAUSE: Duration = Duration::from_millis(250);
const MOST_IDENTITY_PAUSE: Duration = Duration::from_secs(60);

/// What a record stands for.
pub(super) fn identity_of(record: &IdentityRecord) -> (u32, IdentityKey) {
    let IdentityRecord { number, namespace, namespace_labels, labels, service_account } = record.clone();
    let labels_of = |labels: BTreeMap<String, String>| labels.into_iter().collect();
    let key = IdentityKey {
        namespace,
        namespace_labels: labels_of(namespace_labels),
        labels: labels_of(labels),
        service_account,
    };
    (number, key)
}

fn record_of(number: u32, key: &IdentityKey) -> IdentityRecord {
    let text =
        |labels: &policy::model::Labels| labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    IdentityRecord {
        number,
        namespace: key.namespace.clone(),
        namespace_labels: text(&key.namespace_labels),
        labels: text(&key.labels),
        service_account: key.service_account.clone(),
    }
}

/// Writes down what has changed, after what was found with this edition.
pub(super) fn keeper(dir: Arc<StateDir>, edition: u64) -> KeepIdentities {
    let mut book = IdentityBook::new(dir, edition);
    Box::new(move |identities| {
        let changed = identities.unkept().iter().map(|&number| {
            let key = identities.key(number);
            (number, key.map(|key| record_of(number, key)))
        });
        let all = || identities.iter().map(|(number, key)| record_of(number, key)).collect();
        book.keep(changed.collect(), identities.next(), all).map_err(|error| error.to_string())
    })
}

/// Gives back numbers of identities that nobody has had for long: no pod, no entry of a map, no connection.
pub(super) async fn release(
    engine: Engine,
    connections: Arc<Connections>,
    grace: Duration,
    mut stop: watch::Receiver<bool>,
) {
    let pause = (grace / 4).clamp(LEAST_IDENTITY_PAUSE, MOST_IDENTITY_PAUSE);
    let mut clock = tokio::time::interval(pause);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let began = std::time::Instant::now();
    loop {
        tokio::select! {
            _ = clock.tick() => {}
            () = stopped(&mut stop) => return,
        }
        let Ok(idle) = engine.idle_identities(began.elapsed(), grace).await else { return };
        if idle.is_empty() {
            continue;
        }
        let connections = connections.clone();
        // The tables may be large: not on a thread that serves others.
        let unconnected = tokio::task::spawn_blocking(move || unconnected(idle, &*connections));
        let free = match unconnected.await.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(free) => free,
            Err(error) => {
                warn!(%error, "Connections could not be read: no identity is given back");
                continue;
            }
        };
        if !free.is_empty() && engine.release_identities(free, began.elapsed(), grace).is_err() {
            return;
        }
    }
}

/// Those of the numbers that no connection has at either end: an entry of conntrack that is left says who its ends
/// were, and would say it of whoever has the number next.
fn unconnected(mut idle: BTreeSet<u32>, connections: &Connections) -> Result<BTreeSet<u32>, String> {
    for table in [Table::Conntrack, Table::Pending] {
        let Dumped::Connections(found) = connections(table, usize::MAX)? else {
            return Err("another table was read".to_owned());
        };
        if found.cut.is_some() {
            // It changes faster than it can be read, and may hold more: another time.
            return Ok(BTreeSet::new());
        }
        let ends = found.entries.iter().flat_map(|(_, entry)| entry.ends.identity);
        let connected: BTreeSet<u32> = ends.collect();
        idle.retain(|number| !connected.contains(number));
    }
    Ok(idle)
}

#[cfg(test)]
mod tests {
    use datapath_abi::conntrack::{CtEntry, CtKey};

    use super::*;
    use crate::datapath::connections::{Cut, Found};

    fn between(initiator: u32, responder: u32) -> (CtKey, CtEntry) {
        let mut entry = CtEntry::default();
        entry.ends.identity = [initiator, responder];
        (CtKey::default(), entry)
    }

    #[test]
    fn a_number_that_a_connection_has_at_either_end_in_either_table_is_not_free() {
        let idle: BTreeSet<u32> = [256, 257, 258, 259, 260].into();
        let connections = |table: Table, limit: usize| {
            assert_eq!(limit, usize::MAX);
            let entries = match table {
                Table::Conntrack => vec![between(256, 300), between(2, 258)],
                Table::Pending => vec![between(259, 259), between(300, 1)],
                other => panic!("{} says nothing of connections", other.name()),
            };
            Ok(Dumped::Connections(Found { entries, cut: None }))
        };
        assert_eq!(unconnected(idle, &connections), Ok([257, 260].into()));
    }

    #[test]
    fn none_is_free_while_connections_may_have_been_missed() {
        let restless = |table: Table, _: usize| {
            let cut = (table == Table::Pending).then_some(Cut::Restless);
            Ok(Dumped::Connections(Found { entries: Vec::new(), cut }))
        };
        assert_eq!(unconnected([256].into(), &restless), Ok(BTreeSet::new()));
        let unreadable = |_: Table, _: usize| Err("gone".to_owned());
        assert_eq!(unconnected([256].into(), &unreadable), Err("gone".to_owned()));
    }
}
