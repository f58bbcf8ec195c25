//! `DumpMaps`: entries of the kernel's maps as text, for debugging. Raw entries are copied out of
//! the engine and turned into text one by one as the client reads.

mod names;
mod text;

use std::sync::Arc;

use datapath_abi::{
    conntrack::{CtKey, FragmentKey},
    maps,
};
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use proto::bulkhead::admin::v1 as pb;
use tonic::Status;

use self::names::Names;
use super::{AdminService, Table, convert, work_out};
use crate::{
    app::knowledge::monotonic_ns,
    datapath::connections::{Cut, Dumped, Found},
    reconcile::Mirror,
};

/// Entries of one table that the programs write which are told if nothing else is asked for.
const SOME_CONNECTIONS: usize = 10_000;

/// Entries on their way to a client.
pub(super) type Entries = BoxStream<'static, Result<pb::MapEntry, Status>>;

/// Texts of a key and a value, made when they are asked for.
type Lines = Box<dyn Iterator<Item = (String, String)> + Send>;

pub(super) async fn answer(service: &AdminService, request: pb::DumpMapsRequest) -> Result<Entries, Status> {
    let pb::DumpMapsRequest { maps: wanted, limit } = request;
    let limit = (limit > 0).then_some(limit as usize);
    let chosen = chosen(&wanted, service.parts.connections.is_some())?;
    let mirror = service.ask(|state| Arc::new(state.mirror.clone())).await?;
    let served = if chosen.iter().any(|name| OF_SERVICES.contains(name)) {
        service.ask(|state| state.services.index.found()).await?
    } else {
        services::Found::default()
    };
    let mut dumped: Vec<Box<dyn Iterator<Item = pb::MapEntry> + Send>> = Vec::new();
    for name in chosen {
        let entry = move |(key, value)| pb::MapEntry { map: name.to_owned(), key, value, note: String::new() };
        let (lines, note) = match table(name) {
            Some(table) => of_table(service, table, limit.unwrap_or(most(table))).await?,
            None if OF_SERVICES.contains(&name) => (text::of_services(name, &served), None),
            None => (lines(service, name, &mirror)?, None),
        };
        let told = Told { lines, left: limit.unwrap_or(usize::MAX), limit: limit.unwrap_or_default() };
        let note = note.map(|note| pb::MapEntry { map: name.to_owned(), note, ..pb::MapEntry::default() });
        let told = told.map(move |told| match told {
            Ok(line) => entry(line),
            Err(note) => pb::MapEntry { map: name.to_owned(), note, ..pb::MapEntry::default() },
        });
        dumped.push(Box::new(told.chain(note)));
    }
    Ok(stream::iter(dumped.into_iter().flatten().map(Ok)).boxed())
}

/// So many lines, then a note if there are more.
struct Told {
    lines: Lines,
    left: usize,
    limit: usize,
}

impl Iterator for Told {
    type Item = Result<(String, String), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left > 0 {
            self.left -= 1;
            return self.lines.next().map(Ok);
        }
        let more = self.lines.next().is_some();
        self.lines = Box::new(std::iter::empty());
        more.then(|| Err(beyond(self.limit)))
    }
}

/// What is said when there are more entries than were asked for.
fn beyond(limit: usize) -> String {
    format!("only {limit} entries are told and there are more: ask for more with --limit")
}

/// Maps that are not told. EVENTS and DNS have no entries; WAITING and BUDGET are accounts that the programs keep for
/// themselves: the first of PENDING, which can be dumped itself, the other of the current second.
pub(super) const NOT_DUMPED: [&str; 4] = [maps::EVENTS, maps::DNS, maps::WAITING, maps::BUDGET];

/// Maps of Services.
const OF_SERVICES: [&str; 3] = [maps::FRONTENDS, maps::BACKENDS, maps::GONE];

/// The maps that are asked for, each once, in the order of datapath-abi's list.
fn chosen(wanted: &[String], with_connections: bool) -> Result<Vec<&'static str>, Status> {
    let dumpable = || maps::ALL.iter().map(|info| info.name).filter(|name| !NOT_DUMPED.contains(name));
    for name in wanted {
        if name == maps::EVENTS || name == maps::DNS {
            let fix = "use `bulkhead flows`, or leave it out";
            return Err(Status::invalid_argument(format!("maps: {name} is a ring buffer without entries: {fix}")));
        }
        if !dumpable().any(|known| known == name) {
            let known = dumpable().collect::<Vec<_>>().join(", ");
            let name = convert::quoted(name);
            return Err(Status::invalid_argument(format!("maps: there is no map {name}: use some of {known}")));
        }
        if table(name).is_some() && !with_connections {
            return Err(Status::unimplemented(format!("this daemon cannot read {name}: leave it out")));
        }
    }
    let chosen = |name: &&str| match wanted.is_empty() {
        true => with_connections || table(name).is_none(),
        false => wanted.iter().any(|one| one == name),
    };
    Ok(dumpable().filter(chosen).collect())
}

/// Which table that is in no mirror a map is, if it is one.
pub(super) fn table(name: &str) -> Option<Table> {
    match name {
        maps::CONNTRACK => Some(Table::Conntrack),
        maps::PENDING => Some(Table::Pending),
        maps::FRAGMENTS => Some(Table::Fragments),
        maps::ORIGINS => Some(Table::Origins),
        maps::NUMBERS => Some(Table::Numbers),
        maps::CARRIED => Some(Table::Carried),
        maps::DENIED => Some(Table::Denied),
        _ => None,
    }
}

/// How many entries of it are told if nothing else is asked for. What the daemon writes is told whole.
fn most(table: Table) -> usize {
    match table {
        Table::Conntrack | Table::Pending | Table::Fragments | Table::Carried => SOME_CONNECTIONS,
        Table::Origins | Table::Numbers | Table::Denied => usize::MAX,
    }
}

/// The entries of one map that is read whole, sorted by key.
fn lines(service: &AdminService, name: &'static str, mirror: &Arc<Mirror>) -> Result<Lines, Status> {
    Ok(match name {
        maps::COUNTERS | maps::SCALARS => {
            let figures = service.datapath().map_err(|reason| Status::internal(format!("map {name}: {reason}")))?;
            if name == maps::COUNTERS { text::counters(figures) } else { text::scalars(figures) }
        }
        _ => text::of_mirror(name, mirror),
    })
}

/// A table sorted by key, and what there is to say of what is missing.
async fn of_table(service: &AdminService, table: Table, limit: usize) -> Result<(Lines, Option<String>), Status> {
    fn own<K: Send + 'static, V: Send + 'static, O: Ord>(
        found: Found<K, V>,
        order: impl Fn(&K) -> O,
        text: impl Fn(&K, &V) -> (String, String) + Send + 'static,
    ) -> (Lines, Option<Cut>) {
        let Found { mut entries, cut } = found;
        entries.sort_by_cached_key(|(key, _)| order(key));
        (Box::new(entries.into_iter().map(move |(key, value)| text(&key, &value))), cut)
    }
    let Some(read) = service.parts.connections.clone() else { return Ok((Box::new(std::iter::empty()), None)) };
    let unreadable = |reason: String| Status::internal(format!("map {}: {reason}", table.name()));
    let found = work_out(move || read(table, limit)).await?.map_err(unreadable)?;
    let (lines, cut) = match found {
        Dumped::Connections(found) => {
            let names = service.ask(Names::of).await?;
            let now_ns = monotonic_ns();
            let order = |key: &CtKey| (key.addr.map(|addr| addr.octets()), key.port, key.proto);
            own(found, order, move |key, entry| text::connection(key, entry, &names, now_ns))
        }
        Dumped::Fragments(found) => {
            let order = |key: &FragmentKey| (key.addr.map(|addr| addr.octets()), key.id, key.proto);
            own(found, order, text::fragment)
        }
        Dumped::Origins(found) => own(found, |range| *range, text::origin),
        Dumped::Numbers(found) => own(found, |number| *number, |number, _| text::number(*number)),
        Dumped::Carried(found) => own(found, |addr| addr.octets(), text::carried),
        Dumped::Denied(found) => own(found, |range| *range, text::denied),
    };
    let note = cut.map(|cut| match cut {
        Cut::Limit => beyond(limit),
        Cut::Restless => "the table changed faster than it could be read: entries may be missing, ask again".to_owned(),
    });
    Ok((lines, note))
}
